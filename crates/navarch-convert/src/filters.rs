//! What is done with requests on their way.

use std::time::Duration;

use navarch_model::Origin;
use navarch_model::networking::{
    CorsPolicy, HeaderOperations, Headers, HttpRedirect, HttpRetry, RedirectPort, RedirectPortSelection,
    UnmatchedPreflights,
};
use navarch_model::route::{Mirror as ModelMirror, PathMatch, PathRewrite, Rewrite, Share};
use navarch_model::values::{Percent, StringMatch};

use crate::manifest::{
    BackendRef, Cors, Filter, Fraction, Header, HeaderModifier, Mirror, PathModifier, Redirect, Retry,
    UrlRewrite,
};
use crate::report::{Report, below};

/// The words of Envoy that retries of the Gateway API stand for.
const RETRY_ON: [&str; 4] = ["connect-failure", "refused-stream", "unavailable", "cancelled"];
/// The codes of redirects.
const REDIRECT_CODES: [u32; 5] = [301, 302, 303, 307, 308];
/// Header operations, rewrites and the like that a filter may have.
const ITEMS_MAX: usize = 16;
const HEADER_LENGTH_MAX: usize = 4096;

fn filter(ty: &'static str) -> Filter {
    Filter { r#type: ty, ..Filter::default() }
}

/// Changes to headers; nothing if they have no counterpart.
pub fn headers(stated: Option<&Headers>, origin: &Origin, report: &mut Report<'_>) -> Option<Vec<Filter>> {
    let Some(Headers { request, response }) = stated else { return Some(Vec::new()) };
    let mut filters = Vec::new();
    if let Some(operations) = request {
        let modifier = modifier(operations, origin, report)?;
        let request_header_modifier = Some(modifier);
        filters.push(Filter { request_header_modifier, ..filter("RequestHeaderModifier") });
    }
    if let Some(operations) = response {
        let modifier = modifier(operations, origin, report)?;
        let response_header_modifier = Some(modifier);
        filters.push(Filter { response_header_modifier, ..filter("ResponseHeaderModifier") });
    }
    Some(filters)
}

fn modifier(
    operations: &HeaderOperations,
    origin: &Origin,
    report: &mut Report<'_>,
) -> Option<HeaderModifier> {
    let HeaderOperations { set, add, remove } = operations;
    let names = set.keys().chain(add.keys()).chain(remove);
    let special = |name: &&String| name.starts_with(':') || name.eq_ignore_ascii_case("host");
    if let Some(name) = names.clone().find(special) {
        let message = format!("{name} cannot be changed by header operations; the rule is left out");
        report.lost(origin, message, "use rewrite.authority");
        return None;
    }
    let values = set.values().chain(add.values());
    let odd = |value: &&String| value.is_empty() || value.len() > HEADER_LENGTH_MAX || value.contains('%');
    if values.clone().any(|value| odd(&value))
        || [set.len(), add.len(), remove.len()].iter().any(|n| *n > ITEMS_MAX)
    {
        let message = "more than 16 headers, and values that are empty or are made by Envoy, have no counterpart; \
                       the rule is left out";
        report.lost(origin, message, "state plain values");
        return None;
    }
    let header = |(name, value): (&String, &String)| Header { name: name.clone(), value: value.clone() };
    Some(HeaderModifier {
        set: set.iter().map(header).collect(),
        add: add.iter().map(header).collect(),
        remove: remove.clone(),
    })
}

/// A redirect of requests that meet one of some conditions. `plain_ports`: all listeners have the default
/// port of their protocol.
pub fn redirect(
    stated: &HttpRedirect,
    matched: &[PathMatch],
    plain_ports: bool,
    origin: &Origin,
    report: &mut Report<'_>,
) -> Option<Filter> {
    let origin = below(origin, "redirect");
    let HttpRedirect { uri, authority, scheme, redirect_code, prefix_rewrite, redirect_port } = stated;
    let status_code = if *redirect_code == 0 { 301 } else { *redirect_code };
    if !REDIRECT_CODES.contains(&status_code)
        || authority.contains(':')
        || !matches!(scheme.as_str(), "" | "http" | "https")
    {
        let message = "the redirect has no counterpart; the rule is left out";
        report.lost(
            &origin,
            message,
            "use codes 301, 302, 303, 307 or 308, a host without port, http or https",
        );
        return None;
    }
    let port = match redirect_port {
        Some(RedirectPort::Port(port)) => Some(*port),
        Some(RedirectPort::DerivePort(RedirectPortSelection::FromRequestPort)) if scheme.is_empty() => None,
        Some(RedirectPort::DerivePort(RedirectPortSelection::FromProtocolDefault)) if !scheme.is_empty() => {
            None
        }
        // The Gateway API states the port of the listener or of the scheme; here the one of the request
        // stays.
        _ if plain_ports => None,
        _ => {
            let message =
                "the port in the location is the one of the request, and will be that of the listener";
            report.differs(&origin, message, "state the port");
            None
        }
    };
    let path = match (uri.as_str(), prefix_rewrite.as_str()) {
        ("", "") => None,
        (_, "") if is_path(uri) => Some(full(uri)),
        ("", prefix) => Some(self::prefix(prefix, matched, &origin, report)?),
        _ => {
            report.lost(&origin, "the path has no counterpart; the rule is left out", "state a path");
            return None;
        }
    };
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    let redirect = Redirect { scheme: text(scheme), hostname: text(authority), path, port, status_code };
    Some(Filter { request_redirect: Some(redirect), ..filter("RequestRedirect") })
}

fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.len() <= 1024 && !path.contains('?')
}

fn full(path: &str) -> PathModifier {
    let replace_full_path = Some(path.to_owned());
    PathModifier { r#type: "ReplaceFullPath", replace_full_path, replace_prefix_match: None }
}

/// Replaces the prefix that matched: there has to be one condition, on a prefix.
fn prefix(
    replacement: &str,
    matched: &[PathMatch],
    origin: &Origin,
    report: &mut Report<'_>,
) -> Option<PathModifier> {
    let [PathMatch::PathPrefix(prefix)] = matched else {
        let message = "a prefix is replaced where there is one condition, on a prefix; the rule is left out";
        report.lost(origin, message, "make a rule of each condition");
        return None;
    };
    // What follows the prefix starts with a slash, so that a slash at the end counts for nothing.
    let is_root = prefix == "/";
    let same = match replacement {
        "/" => is_root,
        _ => replacement.ends_with('/') == is_root,
    };
    if !same {
        let message = format!("{prefix} is replaced by {replacement} as text, and will be by whole segments");
        report.differs(origin, message, "nothing, if that is what is meant");
    }
    let replace_prefix_match = Some(replacement.to_owned());
    Some(PathModifier { r#type: "ReplacePrefixMatch", replace_full_path: None, replace_prefix_match })
}

/// A rewrite of requests that meet one of some conditions.
pub fn rewrite(
    stated: &Rewrite,
    matched: &[PathMatch],
    origin: &Origin,
    report: &mut Report<'_>,
) -> Option<Filter> {
    let origin = below(origin, "rewrite");
    let Rewrite { authority, path } = stated;
    if authority.contains([':', '%', '*']) {
        report.lost(
            &origin,
            "the host has no counterpart; the rule is left out",
            "state a host without port",
        );
        return None;
    }
    let exact = |path: &PathMatch| matches!(path, PathMatch::Exact(_));
    let path = match path {
        None => None,
        Some(PathRewrite::Matched(path)) if !is_path(path) => {
            report.lost(&origin, "the path has no counterpart; the rule is left out", "state a path");
            return None;
        }
        Some(PathRewrite::Matched(path)) if matched.iter().all(exact) => Some(full(path)),
        Some(PathRewrite::Matched(path)) => Some(prefix(path, matched, &origin, report)?),
        Some(PathRewrite::Prefix(path)) => Some(prefix(path, matched, &origin, report)?),
        Some(PathRewrite::RemovePrefix) => Some(prefix("/", matched, &origin, report)?),
        Some(PathRewrite::Regex(_)) => {
            let message = "a rewrite by a regular expression has no counterpart; the rule is left out";
            report.lost(&origin, message, "replace a prefix or the whole path");
            return None;
        }
    };
    let hostname = (!authority.is_empty()).then(|| authority.clone());
    Some(Filter { url_rewrite: Some(UrlRewrite { hostname, path }), ..filter("URLRewrite") })
}

/// A share of the requests that is copied.
pub fn mirror(mirror: &ModelMirror, backend_ref: BackendRef) -> Filter {
    let millionths = match mirror.share {
        Share::Percent(percent) => Percent::from_whole(percent).millionths,
        Share::Fine(share) => share.millionths,
    };
    let whole = Percent::HUNDRED.millionths;
    let fraction = (millionths != whole).then_some(Fraction { numerator: millionths, denominator: whole });
    Filter { request_mirror: Some(Mirror { backend_ref, fraction }), ..filter("RequestMirror") }
}

/// What browsers of other origins may do.
pub fn cors(stated: &CorsPolicy, origin: &Origin, report: &mut Report<'_>) -> Option<Filter> {
    let origin = below(origin, "corsPolicy");
    let CorsPolicy {
        allow_origin,
        allow_origins,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        unmatched_preflights,
    } = stated;
    let mut origins: Vec<String> = match allow_origins.is_empty() {
        true => allow_origin.clone(),
        false => Vec::new(),
    };
    for pattern in allow_origins {
        match pattern {
            StringMatch::Exact(text) => origins.push(text.clone()),
            StringMatch::Prefix(text) if text.ends_with("://") => origins.push(format!("{text}*")),
            StringMatch::Prefix(_) | StringMatch::Regex(_) | StringMatch::Any => {
                let message = "origins by pattern have no counterpart; the rule is left out";
                report.lost(&origin, message, "state the origins, or a wildcard for a subdomain");
                return None;
            }
        }
    }
    if *unmatched_preflights != UnmatchedPreflights::Ignore {
        let message = "preflights of other origins are passed on, and will be answered";
        report.differs(&origin, message, "nothing, or set unmatchedPreflights to IGNORE before");
    }
    let seconds = max_age.filter(|age| age.subsec_nanos() == 0).map(|age| age.as_secs());
    if seconds.is_none_or(|seconds| seconds == 0) {
        let message = "browsers are not told how long to remember, and will be: for 5 seconds";
        report.differs(&origin, message, "state maxAge in whole seconds");
    }
    let cors = Cors {
        allow_origins: origins,
        allow_methods: allow_methods.clone(),
        allow_headers: allow_headers.clone(),
        expose_headers: expose_headers.clone(),
        allow_credentials: allow_credentials.unwrap_or(false),
        max_age: seconds.filter(|seconds| *seconds > 0),
    };
    Some(Filter { cors: Some(cors), ..filter("CORS") })
}

/// How often is tried, and how long each try may take.
pub fn retries(stated: &HttpRetry, origin: &Origin, report: &mut Report<'_>) -> (Retry, Option<Duration>) {
    let origin = below(origin, "retries");
    let HttpRetry {
        attempts,
        per_try_timeout,
        retry_on,
        retry_remote_localities,
        retry_ignore_previous_hosts,
        backoff,
    } = stated;
    let words: Vec<&str> = retry_on.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    let (codes, words): (Vec<_>, Vec<_>) = words.into_iter().partition(|word| word.parse::<u32>().is_ok());
    let mut expected: Vec<&str> = RETRY_ON.to_vec();
    expected.extend(per_try_timeout.map(|_| "reset"));
    let known = |word: &&&str| **word != "retriable-status-codes";
    let mut stated: Vec<&str> = words.iter().filter(known).copied().collect();
    if retry_on.is_empty() {
        stated = RETRY_ON.to_vec();
    }
    stated.sort_unstable();
    expected.sort_unstable();
    if *attempts > 0 && stated != expected {
        let message =
            format!("what is tried again will be {}, and is {}", expected.join(","), stated.join(","));
        report.differs(&origin, message, "nothing, if that is what is meant");
    }
    if retry_remote_localities.is_some() || retry_ignore_previous_hosts.is_some() {
        let message = "which endpoints are tried has no counterpart";
        report.differs(&origin, message, "nothing, or leave the fields out before");
    }
    let retry = Retry {
        codes: codes.iter().filter_map(|code| code.parse().ok()).collect(),
        attempts: (*attempts).max(0),
        backoff: backoff.and_then(|backoff| duration(backoff, &origin, report)),
    };
    (retry, *per_try_timeout)
}

/// A duration as the Gateway API writes it: whole milliseconds.
pub fn duration(duration: Duration, origin: &Origin, report: &mut Report<'_>) -> Option<String> {
    let millis = duration.as_millis();
    if !duration.subsec_nanos().is_multiple_of(1_000_000) {
        report.differs(origin, "times are in whole milliseconds", "nothing, if that is enough");
    }
    let (seconds, rest) = (millis / 1000, millis % 1000);
    // A number has at most five digits.
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let parts = [(hours, "h"), (minutes, "m"), (seconds, "s"), (rest, "ms")];
    let text: String = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    Some(if text.is_empty() { "0s".to_owned() } else { text })
}
