//! VirtualService.

use std::collections::{BTreeMap, BTreeSet};

use super::checks::{self, ExportTo, duration, is_header_name, labels, missing, port};
use super::hosts::{Patterns, is_ip, is_ip_or_range, is_label, wildcard_domain_problem};
use super::regex::regex;
use super::{Report, Validate, unreachable};
use crate::finding::Code;
use crate::networking::{
    CorsPolicy, Destination, FaultAbortKind, FaultDelayKind, GRPC_STATUSES, Headers, HttpBody,
    HttpFaultInjection, HttpMatchRequest, HttpRetry, HttpRoute, HttpRouteDestination, L4MatchAttributes,
    RedirectPort, RouteDestination, StringMatch, TcpRoute, TlsMatchAttributes, TlsRoute, VirtualService,
};
use crate::route::MESH_GATEWAY;

/// The longest body of a direct response, which is Envoy's limit too.
const LONGEST_BODY: usize = 1 << 20;
const LARGE_BODY: usize = 100 << 10;

impl Validate for VirtualService {
    fn validate(&self, report: &mut Report<'_>) {
        let delegate = self.hosts.is_empty();
        if delegate {
            for (field, set) in [
                ("gateways", !self.gateways.is_empty()),
                ("tls", !self.tls.is_empty()),
                ("tcp", !self.tcp.is_empty()),
            ] {
                if set {
                    report.within(field, |report| {
                        let message =
                            "a VirtualService without hosts is a delegate, which has only http routes";
                        report.error(Code::InvalidCombination, message, "add hosts, or remove this field");
                    });
                }
            }
        }
        gateway_names(report, &self.gateways);
        let in_mesh = self.gateways.is_empty() || self.gateways.iter().any(|gateway| gateway == MESH_GATEWAY);
        self.validate_hosts(report, in_mesh);
        if self.http.is_empty() && self.tls.is_empty() && self.tcp.is_empty() {
            let message = "there is no http, tls or tcp route";
            report.error(Code::MissingField, message, "add at least one route");
        }
        report.each("http", &self.http, |report, route| {
            http_route(report, route, delegate);
            if in_mesh {
                no_claims(report, route);
            }
        });
        let hosts = Patterns::new(&self.hosts);
        report.each("tls", &self.tls, |report, route| tls_route(report, route, &hosts));
        report.each("tcp", &self.tcp, tcp_route);
        checks::export_to(report, &ExportTo { values: &self.export_to, allow_none: false, private: false });
        unreachable::http(report, &self.http);
        unreachable::by_match(report, "tls", self.tls.iter().map(|route| route.match_.as_slice()));
        unreachable::by_match(report, "tcp", self.tcp.iter().map(|route| route.match_.as_slice()));
    }
}

impl VirtualService {
    fn validate_hosts(&self, report: &mut Report<'_>, in_mesh: bool) {
        // East-west gateways route by server names of the form outbound_.80_._.host.
        let by_sni =
            !in_mesh && self.tls.iter().any(|route| route.match_.iter().any(|m| !m.sni_hosts.is_empty()));
        let patterns = Patterns::new(&self.hosts);
        let mut seen = BTreeSet::new();
        for (index, host) in self.hosts.iter().enumerate() {
            report.within(&format!("hosts[{index}]"), |report| {
                if host == "*" && in_mesh {
                    let message = "the host `*` is only possible at gateways";
                    report.error(
                        Code::InvalidHost,
                        message,
                        "name the hosts, or remove `mesh` from gateways",
                    );
                } else if let Some(problem) = wildcard_domain_problem(host)
                    && !is_ip(host)
                    && !(by_sni && host.starts_with("outbound_"))
                {
                    report.error(Code::InvalidHost, format!("{host:?} is not a valid host: {problem}"), "");
                } else if !seen.insert(host) {
                    report.error(
                        Code::DuplicateItem,
                        format!("{host:?} is there twice"),
                        "remove one of the two",
                    );
                } else if let Some(wider) = patterns.wider(host) {
                    let message = format!("{host:?} is already under {wider:?}");
                    report.error(Code::DuplicateItem, message, "remove one of the two");
                }
            });
        }
    }
}

/// Checks names of gateways: `mesh`, `name` or `namespace/name`.
fn gateway_names(report: &mut Report<'_>, gateways: &[String]) {
    for (index, gateway) in gateways.iter().enumerate() {
        report.within(&format!("gateways[{index}]"), |report| match gateway.split_once('/') {
            None => {
                if let Some(problem) = super::hosts::fqdn_problem(gateway) {
                    let message = format!("{gateway:?} is not the name of a gateway: {problem}");
                    report.error(Code::InvalidReference, message, "write `name` or `namespace/name`");
                } else if let Some((name, rest)) = gateway.split_once('.') {
                    let namespace = rest.split('.').next().unwrap_or_default();
                    let message = format!("{gateway:?} is an old form");
                    report.warning(Code::Deprecated, message, format!("write {namespace}/{name}"));
                }
            }
            Some((namespace, name)) => {
                if !is_label(namespace) || !is_label(name) {
                    let message = format!("{gateway:?} is not the name of a gateway");
                    report.error(Code::InvalidReference, message, "write `namespace/name`");
                }
            }
        });
    }
}

/// Reports matches on JWT claims, which only gateways can evaluate.
fn no_claims(report: &mut Report<'_>, route: &HttpRoute) {
    report.each("match", &route.match_, |report, rule| {
        for (field, headers) in [("headers", &rule.headers), ("withoutHeaders", &rule.without_headers)] {
            for name in headers.keys().filter(|name| is_claim(name)) {
                report.within_key(field, name, |report| {
                    let message = "routing by a token's claim works only at gateways";
                    report.error(Code::InvalidCombination, message, "set gateways, without `mesh`");
                });
            }
        }
    });
}

/// Whether a header name stands for a claim of a token: `@request.auth.claims.sub` or
/// `@request.auth.claims[sub]`.
fn is_claim(name: &str) -> bool {
    name.strip_prefix("@request.auth.claims").is_some_and(|rest| rest.starts_with(['.', '[']))
}

fn http_route(report: &mut Report<'_>, route: &HttpRoute, delegate: bool) {
    actions(report, route, delegate);
    report.each("match", &route.match_, http_match);
    report.each_set("headers", route.headers.as_ref(), headers);
    report.each_set("corsPolicy", route.cors_policy.as_ref(), cors);
    report.each_set("fault", route.fault.as_ref(), fault);
    mirrors(report, route);
    redirect(report, route);
    if let Some(response) = &route.direct_response {
        report.within("directResponse", |report| {
            http_status(report, "status", i64::from(response.status));
            let size = match &response.body {
                Some(HttpBody::String(text)) => text.len(),
                Some(HttpBody::Bytes(bytes)) => bytes.0.len(),
                None => 0,
            };
            if size > LONGEST_BODY {
                let message = format!("the body has {size} bytes");
                report.within("body", |report| report.error(Code::OutOfRange, message, "the limit is 1 MiB"));
            } else if size > LARGE_BODY {
                let message = format!("the body has {size} bytes, which every proxy will hold");
                report.within("body", |report| {
                    report.warning(Code::Risky, message, "serve large bodies from a service")
                });
            }
        });
    }
    report.each_set("retries", route.retries.as_ref(), retries);
    rewrite(report, route);
    destinations(report, &route.route);
    duration(report, "timeout", route.timeout);
}

/// Checks that a route does one thing.
fn actions(report: &mut Report<'_>, route: &HttpRoute, delegate: bool) {
    if route.delegate.is_some() {
        for (field, set) in [("redirect", route.redirect.is_some()), ("route", !route.route.is_empty())] {
            if set {
                report.within(field, |report| {
                    let message = "a route that delegates cannot do anything else";
                    report.error(Code::ExclusiveFields, message, "remove `delegate` or this field");
                });
            }
        }
        if delegate {
            report.within("delegate", |report| {
                let message = "a delegate cannot delegate";
                report.error(Code::InvalidCombination, message, "delegation has one level");
            });
        }
        return;
    }
    let (action, others) = if route.redirect.is_some() {
        ("redirect", Some(route.direct_response.is_some()))
    } else if route.direct_response.is_some() {
        ("directResponse", None)
    } else {
        if route.route.is_empty() {
            let message = "the route has no destination";
            report.error(Code::MissingField, message, "add one of route, redirect, directResponse, delegate");
        }
        return;
    };
    let fields = [
        ("route", !route.route.is_empty()),
        ("fault", route.fault.is_some()),
        ("rewrite", route.rewrite.is_some()),
        ("directResponse", others.unwrap_or(false)),
    ];
    for (field, _) in fields.into_iter().filter(|(_, set)| *set) {
        report.within(field, |report| {
            report.error(
                Code::ExclusiveFields,
                format!("cannot be set together with {action}"),
                format!("remove {action} or {field}"),
            );
        });
    }
}

fn http_match(report: &mut Report<'_>, rule: &HttpMatchRequest) {
    // Unlike the others, the path may have an empty prefix.
    if let Some(StringMatch::Regex(pattern)) = &rule.uri {
        report.within("uri.regex", |report| regex(report, pattern));
    }
    for (field, pattern) in
        [("scheme", &rule.scheme), ("method", &rule.method), ("authority", &rule.authority)]
    {
        report.each_set(field, pattern.as_ref(), string_match);
    }
    for (name, pattern) in &rule.headers {
        report.within_key("headers", name, |report| {
            matched_header_name(report, name);
            string_match(report, pattern);
        });
    }
    for (name, pattern) in &rule.without_headers {
        report.within_key("withoutHeaders", name, |report| {
            matched_header_name(report, name);
            // `*` is not a pattern but stands for the header's presence.
            if *pattern != StringMatch::Regex("*".to_owned()) {
                string_match(report, pattern);
            }
        });
    }
    for (name, pattern) in &rule.query_params {
        report.within_key("queryParams", name, |report| string_match(report, pattern));
    }
    if rule.port != 0 {
        port(report, "port", rule.port);
    }
    labels(report, "sourceLabels", &rule.source_labels);
    gateway_names(report, &rule.gateways);
    source_namespace(report, &rule.source_namespace);
}

fn source_namespace(report: &mut Report<'_>, namespace: &str) {
    if !namespace.is_empty() && !is_label(namespace) {
        report.within("sourceNamespace", |report| {
            report.error(Code::InvalidReference, format!("{namespace:?} is not a namespace"), "");
        });
    }
}

fn matched_header_name(report: &mut Report<'_>, name: &str) {
    let pseudo = matches!(name, ":method" | ":scheme" | ":authority" | ":path" | ":status");
    if !(pseudo || is_claim(name) || is_header_name(name)) {
        report.error(Code::InvalidValue, format!("{name:?} is not a header name"), "");
    }
}

fn string_match(report: &mut Report<'_>, pattern: &StringMatch) {
    match pattern {
        StringMatch::Prefix(prefix) if prefix.is_empty() => {
            report.within("prefix", |report| {
                let message = "the prefix is empty";
                report.error(Code::InvalidValue, message, "remove the condition, or use a regex");
            });
        }
        StringMatch::Regex(pattern) => report.within("regex", |report| regex(report, pattern)),
        _ => {}
    }
}

fn headers(report: &mut Report<'_>, headers: &Headers) {
    for (field, operations, request) in
        [("request", &headers.request, true), ("response", &headers.response, false)]
    {
        report.each_set(field, operations.as_ref(), |report, operations| {
            for (field, values) in [("set", &operations.set), ("add", &operations.add)] {
                header_values(report, field, values, request);
            }
            for (index, name) in operations.remove.iter().enumerate() {
                report.within(&format!("remove[{index}]"), |report| changed_header_name(report, name, false));
            }
        });
    }
}

fn header_values(report: &mut Report<'_>, field: &str, values: &BTreeMap<String, String>, request: bool) {
    for (name, value) in values {
        report.within_key(field, name, |report| {
            changed_header_name(report, name, request);
            if let Some(problem) = super::header_value::problem(value) {
                let message = format!("{value:?} is not a valid header value: {problem}");
                report.error(Code::InvalidValue, message, "write %% for a percent sign");
            }
        });
    }
}

/// Checks the name of a header that is to be changed. Requests may have their authority set by it.
fn changed_header_name(report: &mut Report<'_>, name: &str, authority: bool) {
    let is_authority = is_authority(name);
    if name.is_empty() {
        report.error(Code::MissingField, "the header has no name", "");
    } else if (name.starts_with(':') || is_authority) && !(authority && is_authority) {
        let message = format!("the header {name:?} cannot be changed here");
        report.error(Code::InvalidValue, message, "use rewrite for the authority and the path");
    }
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

fn cors(report: &mut Report<'_>, policy: &CorsPolicy) {
    const METHODS: [&str; 10] =
        ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"];
    if !policy.allow_origin.is_empty() {
        report.within("allowOrigin", |report| {
            report.warning(Code::Deprecated, "allowOrigin is deprecated", "use allowOrigins");
        });
    }
    report.each("allowOrigins", &policy.allow_origins, |report, origin| match origin {
        StringMatch::Regex(pattern) => report.within("regex", |report| regex(report, pattern)),
        StringMatch::Exact(text) | StringMatch::Prefix(text) if !text.is_empty() => {}
        _ => report.error(Code::MissingField, "the origin is empty", "set one of exact, prefix, regex"),
    });
    report.each("allowMethods", &policy.allow_methods, |report, method| {
        if !METHODS.contains(&method.as_str()) {
            let message = format!("{method:?} is not an HTTP method");
            report.error(Code::InvalidValue, message, "methods are in upper case; `*` allows all");
        }
    });
    for (field, names) in [("allowHeaders", &policy.allow_headers), ("exposeHeaders", &policy.expose_headers)]
    {
        report.each(field, names, |report, name| {
            if name != "*" && !is_header_name(name) {
                report.error(Code::InvalidValue, format!("{name:?} is not a header name"), "");
            }
        });
    }
    duration(report, "maxAge", policy.max_age);
    if policy.max_age.is_some_and(|age| age.subsec_nanos() > 0) {
        report.within("maxAge", |report| {
            report.error(Code::OutOfRange, "maxAge counts in whole seconds", "");
        });
    }
}

fn fault(report: &mut Report<'_>, fault: &HttpFaultInjection) {
    if fault.delay.is_none() && fault.abort.is_none() {
        report.error(Code::MissingField, "the fault does nothing", "set delay, abort or both");
    }
    report.each_set("abort", fault.abort.as_ref(), |report, abort| match &abort.error_type {
        Some(FaultAbortKind::HttpStatus(status)) => http_status(report, "httpStatus", i64::from(*status)),
        Some(FaultAbortKind::GrpcStatus(status)) => {
            if !GRPC_STATUSES.contains(&status.as_str()) {
                report.within("grpcStatus", |report| {
                    let message = format!("{status:?} is not a gRPC status");
                    report.error(Code::InvalidValue, message, "write its name, such as UNAVAILABLE");
                });
            }
        }
        Some(FaultAbortKind::Http2Error(_)) => report.within("http2Error", |report| {
            report.error(
                Code::InvalidValue,
                "HTTP/2 errors cannot be injected",
                "use httpStatus or grpcStatus",
            );
        }),
        None => report.warning(Code::NoEffect, "the abort has no status", "set httpStatus or grpcStatus"),
    });
    report.each_set("delay", fault.delay.as_ref(), |report, delay| match &delay.http_delay_type {
        Some(FaultDelayKind::FixedDelay(delay)) => duration(report, "fixedDelay", Some(*delay)),
        Some(FaultDelayKind::ExponentialDelay(_)) => report.within("exponentialDelay", |report| {
            report.error(Code::InvalidValue, "exponential delays are not supported", "use fixedDelay");
        }),
        None => {}
    });
}

fn http_status(report: &mut Report<'_>, field: &str, status: i64) {
    if !(200..=599).contains(&status) {
        report.within(field, |report| {
            report.error(Code::OutOfRange, format!("{status} is not an HTTP status"), "use 200 to 599");
        });
    }
}

fn mirrors(report: &mut Report<'_>, route: &HttpRoute) {
    if let Some(percent) = route.mirror_percent {
        report.within("mirrorPercent", |report| {
            report.warning(Code::Deprecated, "mirrorPercent is deprecated", "use mirrorPercentage.value");
            if percent > 100 {
                report.error(Code::OutOfRange, format!("{percent} is not a percentage"), "use 0 to 100");
            }
        });
    }
    if route.mirror.is_some() && !route.mirrors.is_empty() && route.delegate.is_none() {
        report.within("mirror", |report| {
            report.error(
                Code::ExclusiveFields,
                "mirror and mirrors exclude each other",
                "move it into mirrors",
            );
        });
    }
    report.each_set("mirror", route.mirror.as_ref(), destination);
    report.each("mirrors", &route.mirrors, |report, mirror| match &mirror.destination {
        Some(target) => report.within("destination", |report| destination(report, target)),
        None => missing(report, "destination", "say where to mirror to"),
    });
}

fn redirect(report: &mut Report<'_>, route: &HttpRoute) {
    let Some(redirect) = &route.redirect else { return };
    report.within("redirect", |report| {
        if !redirect.uri.is_empty() && !redirect.prefix_rewrite.is_empty() {
            let message = "uri and prefixRewrite exclude each other";
            report.error(Code::ExclusiveFields, message, "keep one of the two");
        }
        let prefixes =
            route.match_.iter().all(|rule| matches!(rule.uri, None | Some(StringMatch::Prefix(_))));
        if !redirect.prefix_rewrite.is_empty() && !prefixes {
            let message = "prefixRewrite needs every uri match to be a prefix";
            report.error(Code::InvalidCombination, message, "match by prefix, or use uri");
        }
        let empty = redirect.uri.is_empty()
            && redirect.prefix_rewrite.is_empty()
            && redirect.authority.is_empty()
            && redirect.scheme.is_empty()
            && redirect.redirect_port.is_none();
        if empty {
            let message = "the redirect changes nothing";
            report.error(Code::MissingField, message, "set uri, prefixRewrite, authority, scheme or port");
        }
        if redirect.redirect_code != 0 && !(300..=399).contains(&redirect.redirect_code) {
            report.within("redirectCode", |report| {
                let message = format!("{} is not a redirect status", redirect.redirect_code);
                report.error(Code::OutOfRange, message, "use 301, 302, 303, 307 or 308");
            });
        }
        if !matches!(redirect.scheme.as_str(), "" | "http" | "https") {
            report.within("scheme", |report| {
                let message = format!("{:?} is not a scheme to redirect to", redirect.scheme);
                report.error(Code::InvalidValue, message, "use http or https");
            });
        }
        if let Some(RedirectPort::Port(number)) = redirect.redirect_port
            && number != 0
        {
            port(report, "port", number);
        }
    });
}

/// Checks retries; MeshConfig's defaults have the same rules.
pub(crate) fn retries(report: &mut Report<'_>, retries: &HttpRetry) {
    checks::not_negative(report, "attempts", retries.attempts);
    let configured = retries.per_try_timeout.is_some()
        || !retries.retry_on.is_empty()
        || retries.retry_remote_localities.is_some();
    if retries.attempts == 0 && configured {
        let message = "with 0 attempts there are no retries to configure";
        report.error(Code::InvalidCombination, message, "set attempts, or remove the other fields");
    }
    duration(report, "perTryTimeout", retries.per_try_timeout);
    duration(report, "backoff", retries.backoff);
    for condition in retries.retry_on.split(',').filter(|_| !retries.retry_on.is_empty()) {
        let status = condition.parse::<u16>().is_ok_and(|status| (100..=599).contains(&status));
        if !status && !RETRY_CONDITIONS.contains(&condition) {
            report.within("retryOn", |report| {
                let message = format!("{condition:?} is not a retry condition");
                report.error(
                    Code::InvalidValue,
                    message,
                    "use Envoy's names without spaces, or HTTP status codes",
                );
            });
        }
    }
}

/// Envoy's `x-envoy-retry-on` and `x-envoy-retry-grpc-on` values.
const RETRY_CONDITIONS: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "envoy-ratelimited",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

fn rewrite(report: &mut Report<'_>, route: &HttpRoute) {
    let authority = route.rewrite.as_ref().map_or("", |rewrite| rewrite.authority.as_str());
    let request = route.headers.as_ref().and_then(|headers| headers.request.as_ref());
    let by_header = request.map_or(0, |request| {
        request.set.keys().chain(request.add.keys()).filter(|name| is_authority(name)).count()
    });
    if by_header + usize::from(!authority.is_empty()) > 1 {
        let message = "the authority is set more than once";
        report.error(Code::ExclusiveFields, message, "keep either rewrite.authority or one header operation");
    }
    let Some(rewrite) = &route.rewrite else { return };
    report.within("rewrite", |report| {
        if !rewrite.uri.is_empty() && rewrite.uri_regex_rewrite.is_some() {
            let message = "uri and uriRegexRewrite exclude each other";
            report.error(Code::ExclusiveFields, message, "keep one of the two");
        }
        if rewrite.uri.is_empty() && rewrite.uri_regex_rewrite.is_none() && rewrite.authority.is_empty() {
            let message = "the rewrite changes nothing";
            report.error(Code::MissingField, message, "set uri, uriRegexRewrite or authority");
        }
        report.each_set("uriRegexRewrite", rewrite.uri_regex_rewrite.as_ref(), |report, by_regex| {
            if by_regex.match_.is_empty() || by_regex.rewrite.is_empty() {
                report.error(Code::MissingField, "match and rewrite are both required", "");
            } else {
                report.within("match", |report| regex(report, &by_regex.match_));
            }
        });
    });
}

fn destinations(report: &mut Report<'_>, route: &[HttpRouteDestination]) {
    report.each("route", route, |report, target| {
        weighted(report, target.destination.as_ref(), target.weight);
        report.each_set("headers", target.headers.as_ref(), headers);
    });
    total_weight(report, route.iter().map(|target| target.weight));
}

fn l4_destinations(report: &mut Report<'_>, route: &[RouteDestination]) {
    if route.is_empty() {
        missing(report, "route", "add a destination");
    }
    report
        .each("route", route, |report, target| weighted(report, target.destination.as_ref(), target.weight));
    total_weight(report, route.iter().map(|target| target.weight));
}

fn weighted(report: &mut Report<'_>, target: Option<&Destination>, weight: i32) {
    match target {
        Some(target) => report.within("destination", |report| destination(report, target)),
        None => missing(report, "destination", "say where the traffic goes"),
    }
    if weight < 0 {
        report.within("weight", |report| {
            report.error(Code::InvalidWeight, format!("the weight {weight} is negative"), "use 0 or more");
        });
    }
}

fn total_weight(report: &mut Report<'_>, weights: impl ExactSizeIterator<Item = i32>) {
    let count = weights.len();
    let total: i64 = weights.map(i64::from).sum();
    if count > 1 && total == 0 {
        report.within("route", |report| {
            let message = "the weights add up to 0, so that no destination gets traffic";
            report.error(Code::InvalidWeight, message, "give each destination a weight");
        });
    } else if total > i64::from(u32::MAX) {
        report.within("route", |report| {
            report.error(
                Code::InvalidWeight,
                format!("the weights add up to {total}"),
                "use smaller weights",
            );
        });
    }
}

/// Checks a destination.
pub(crate) fn destination(report: &mut Report<'_>, target: &Destination) {
    if target.host == "*" {
        report.within("host", |report| {
            report.error(Code::InvalidHost, "`*` is not a destination", "name the host");
        });
    } else if let Some(problem) = wildcard_domain_problem(&target.host) {
        report.within("host", |report| {
            report.error(Code::InvalidHost, format!("{:?} is not a valid host: {problem}", target.host), "");
        });
    }
    if !target.subset.is_empty() && !is_label(&target.subset) {
        report.within("subset", |report| {
            let message = format!("{:?} is not a valid subset name", target.subset);
            report.error(Code::InvalidName, message, "use letters, digits and inner hyphens, at most 63");
        });
    }
    if let Some(selector) = &target.port {
        port(report, "port.number", selector.number);
    }
}

fn tls_route(report: &mut Report<'_>, route: &TlsRoute, hosts: &Patterns<'_>) {
    if route.match_.is_empty() {
        missing(report, "match", "say which server names the route is for");
    }
    report.each("match", &route.match_, |report, rule| tls_match(report, rule, hosts));
    l4_destinations(report, &route.route);
}

fn tls_match(report: &mut Report<'_>, rule: &TlsMatchAttributes, hosts: &Patterns<'_>) {
    if rule.sni_hosts.is_empty() {
        missing(report, "sniHosts", "list the server names");
    }
    report.each("sniHosts", &rule.sni_hosts, |report, sni| {
        if is_ip(sni) {
            let message = format!("{sni:?} is an address, and clients send no server name for addresses");
            report.warning(Code::NoEffect, message, "use a host name");
        } else if let Some(problem) = wildcard_domain_problem(sni)
            && !sni.starts_with("outbound_")
        {
            report.error(Code::InvalidHost, format!("{sni:?} is not a valid host: {problem}"), "");
        } else if !hosts.covers(sni) {
            let message = format!("{sni:?} is under none of the hosts");
            report.error(Code::InvalidHost, message, "add it to spec.hosts");
        }
    });
    subnets(report, &rule.destination_subnets);
    if rule.port != 0 {
        port(report, "port", rule.port);
    }
    labels(report, "sourceLabels", &rule.source_labels);
    gateway_names(report, &rule.gateways);
}

fn tcp_route(report: &mut Report<'_>, route: &TcpRoute) {
    report.each("match", &route.match_, |report, rule: &L4MatchAttributes| {
        if !rule.source_subnet.is_empty() {
            report.within("sourceSubnet", |report| {
                let message = "sourceSubnet is not looked at, as by istiod";
                report.warning(Code::NoEffect, message, "match sourceLabels or sourceNamespace");
            });
        }
        subnets(report, &rule.destination_subnets);
        if rule.port != 0 {
            port(report, "port", rule.port);
        }
        labels(report, "sourceLabels", &rule.source_labels);
        gateway_names(report, &rule.gateways);
    });
    l4_destinations(report, &route.route);
}

fn subnets(report: &mut Report<'_>, subnets: &[String]) {
    for (index, subnet) in subnets.iter().enumerate().filter(|(_, subnet)| !is_ip_or_range(subnet)) {
        report.within(&format!("destinationSubnets[{index}]"), |report| {
            let message = format!("{subnet:?} is not an address or range");
            report.error(Code::InvalidAddress, message, "write 10.0.0.0/8 or 10.1.2.3");
        });
    }
}
