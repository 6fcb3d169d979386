//! What filters do, in the terms of rules.

use std::collections::BTreeMap;
use std::time::Duration;

use navarch_model::gateway_api::{
    HttpCorsFilter, HttpHeader, HttpHeaderFilter, HttpPathModifierType, HttpRequestMirrorFilter,
    HttpRequestRedirectFilter, HttpUrlRewriteFilter,
};
use navarch_model::networking::{
    CorsPolicy, HeaderOperations, HttpRedirect, RedirectPort, RedirectPortSelection, RegexRewrite,
    UnmatchedPreflights,
};
use navarch_model::route::{PathRewrite, Rewrite, Share};
use navarch_model::values::{Percent, StringMatch};

/// The status of a redirect that states none. (HTTPRequestRedirectFilter, statusCode.)
const FOUND: u32 = 302;
/// How long, in seconds, browsers may remember what they may do. (HTTPCORSFilter, maxAge.)
const MAX_AGE: i32 = 5;
/// An origin of any scheme and host. (RFC 6454.)
const ANY_ORIGIN: &str = r"^[a-zA-Z][a-zA-Z0-9+.-]*://[^/\s?#]+$";

pub(super) fn headers(filter: &HttpHeaderFilter) -> HeaderOperations {
    let HttpHeaderFilter { set, add, remove } = filter;
    HeaderOperations { set: by_name(set), add: by_name(add), remove: remove.clone() }
}

/// Names are compared without case; of several entries with a name the first counts. (HTTPHeaderFilter.)
fn by_name(headers: &[HttpHeader]) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    for HttpHeader { name, value } in headers {
        map.entry(name.to_ascii_lowercase()).or_insert_with(|| value.clone());
    }
    map
}

pub(super) fn redirect(filter: &HttpRequestRedirectFilter) -> HttpRedirect {
    let HttpRequestRedirectFilter { scheme, hostname, path, port, status_code } = filter;
    // Without a port it is the well-known one of a stated scheme, else that of the request.
    let port = match (port, scheme) {
        (Some(port), _) => RedirectPort::Port(*port),
        (None, Some(_)) => RedirectPort::DerivePort(RedirectPortSelection::FromProtocolDefault),
        (None, None) => RedirectPort::DerivePort(RedirectPortSelection::FromRequestPort),
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    HttpRedirect {
        uri: path.as_ref().map(|path| text(&path.replace_full_path)).unwrap_or_default(),
        authority: text(hostname),
        scheme: text(scheme),
        redirect_code: status_code.unwrap_or(FOUND),
        prefix_rewrite: path.as_ref().map(|path| text(&path.replace_prefix_match)).map_or_else(
            String::new,
            // What follows starts with a slash of its own.
            |prefix| match prefix.strip_suffix('/') {
                Some(trimmed) if !trimmed.is_empty() => trimmed.to_owned(),
                _ => prefix,
            },
        ),
        redirect_port: Some(port),
    }
}

/// Nothing if the filter changes nothing.
pub(super) fn rewrite(filter: &HttpUrlRewriteFilter) -> Option<Rewrite> {
    let HttpUrlRewriteFilter { hostname, path } = filter;
    let path = path.as_ref().and_then(|path| match path.type_? {
        HttpPathModifierType::ReplaceFullPath => Some(PathRewrite::Regex(RegexRewrite {
            match_: "/.*".to_owned(),
            rewrite: path.replace_full_path.clone()?,
        })),
        HttpPathModifierType::ReplacePrefixMatch => {
            let stated = path.replace_prefix_match.as_ref()?;
            let prefix = stated.strip_suffix('/').unwrap_or(stated);
            Some(match prefix {
                "" => PathRewrite::RemovePrefix,
                prefix => PathRewrite::Prefix(prefix.to_owned()),
            })
        }
    });
    let authority = hostname.clone().unwrap_or_default();
    (path.is_some() || !authority.is_empty()).then_some(Rewrite { authority, path })
}

/// The share of requests that is mirrored.
pub(super) fn share(filter: &HttpRequestMirrorFilter) -> Share {
    match (&filter.fraction, filter.percent) {
        (Some(fraction), _) => {
            let numerator = u64::try_from(fraction.numerator).unwrap_or(0);
            let denominator = u64::try_from(fraction.denominator.unwrap_or(100)).unwrap_or(0);
            Share::Fine(portion(numerator, denominator))
        }
        (None, Some(percent)) => Share::Fine(Percent::from_whole(u32::try_from(percent).unwrap_or(0))),
        (None, None) => Share::Percent(100),
    }
}

/// So many of so many, at most all of them.
pub(super) fn portion(numerator: u64, denominator: u64) -> Percent {
    let whole = u64::from(Percent::HUNDRED.millionths);
    let millionths = (numerator * whole / denominator.max(1)).min(whole);
    Percent { millionths: u32::try_from(millionths).unwrap_or(u32::MAX) }
}

pub(super) fn cors(filter: &HttpCorsFilter) -> CorsPolicy {
    let HttpCorsFilter {
        allow_origins,
        allow_credentials,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
    } = filter;
    let max_age = u64::try_from(max_age.unwrap_or(MAX_AGE)).unwrap_or(0);
    CorsPolicy {
        allow_origin: Vec::new(),
        allow_origins: allow_origins.iter().map(|origin| self::origin(origin)).collect(),
        allow_methods: allow_methods.clone(),
        allow_headers: allow_headers.clone(),
        expose_headers: expose_headers.clone(),
        max_age: Some(Duration::from_secs(max_age)),
        allow_credentials: allow_credentials.filter(|allow| *allow),
        unmatched_preflights: UnmatchedPreflights::Ignore,
    }
}

/// An origin, in which `*` stands for any text.
fn origin(origin: &str) -> StringMatch {
    match origin.strip_suffix('*') {
        _ if origin == "*" => StringMatch::Regex(ANY_ORIGIN.to_owned()),
        Some(prefix) if !prefix.contains('*') => StringMatch::Prefix(prefix.to_owned()),
        _ if !origin.contains('*') => StringMatch::Exact(origin.to_owned()),
        _ => {
            let mut pattern = String::from("^");
            for c in origin.chars() {
                match c {
                    '*' => pattern.push_str(".*"),
                    c if r"\.+?()|[]{}^$".contains(c) => pattern.extend(['\\', c]),
                    c => pattern.push(c),
                }
            }
            pattern.push('$');
            StringMatch::Regex(pattern)
        }
    }
}

#[cfg(test)]
mod tests {
    use navarch_model::gateway_api::Fraction;

    use super::*;

    #[test]
    fn origins_may_have_wildcards() {
        let check = |text: &str, expected: StringMatch| assert_eq!(origin(text), expected, "{text}");
        check("https://a.example", StringMatch::Exact("https://a.example".into()));
        check("https://*", StringMatch::Prefix("https://".into()));
        check("https://*.b.example", StringMatch::Regex(r"^https://.*\.b\.example$".into()));
        check("*", StringMatch::Regex(ANY_ORIGIN.into()));
    }

    #[test]
    fn of_headers_with_one_name_the_first_counts() {
        let header = |name: &str, value: &str| HttpHeader { name: name.into(), value: value.into() };
        let filter = HttpHeaderFilter {
            set: vec![header("X-A", "1"), header("x-a", "2"), header("x-b", "3")],
            ..HttpHeaderFilter::default()
        };
        let expected = [("x-a", "1"), ("x-b", "3")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(headers(&filter).set, BTreeMap::from(expected));
    }

    #[test]
    fn shares_are_fractions_or_percent_or_all() {
        let check = |percent: Option<i32>, fraction: Option<(i32, Option<i32>)>, expected: Share| {
            let fraction = fraction.map(|(numerator, denominator)| Fraction { numerator, denominator });
            let filter = HttpRequestMirrorFilter { percent, fraction, ..HttpRequestMirrorFilter::default() };
            assert_eq!(share(&filter), expected);
        };
        check(None, None, Share::Percent(100));
        check(Some(42), None, Share::Fine(Percent { millionths: 420_000 }));
        check(None, Some((1, Some(8))), Share::Fine(Percent { millionths: 125_000 }));
        check(None, Some((1, Some(3))), Share::Fine(Percent { millionths: 333_333 }));
        check(None, Some((7, None)), Share::Fine(Percent { millionths: 70_000 }));
    }
}
