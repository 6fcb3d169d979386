//! Filters of rules and of backends.

use std::collections::BTreeSet;

use super::at_most;
use super::references::{backend, local_object};
use super::text::{METHODS, header_name, hostname, is_header_value, is_path};
use crate::finding::Code;
use crate::gateway_api::{
    CookieLifetime, ExternalAuthProtocol, GrpcFilterType, GrpcRouteFilter, HttpCorsFilter,
    HttpExternalAuthFilter, HttpFilterType, HttpHeaderFilter, HttpPathModifier, HttpPathModifierType,
    HttpRequestMirrorFilter, HttpRequestRedirectFilter, HttpRouteFilter, HttpUrlRewriteFilter,
    SessionPersistence, SessionPersistenceType,
};
use crate::validation::Report;
use crate::validation::checks::{is_header_name, missing, port};

const MOST_FILTERS: usize = 16;
const MOST_HEADERS: usize = 16;
const LONGEST_VALUE: usize = 4096;
const LONGEST_PATH: usize = 1024;

/// Filters of a kind of requests.
pub(super) trait Filter {
    type Type: Copy + Ord + 'static;

    fn ty(&self) -> Option<Self::Type>;

    /// The field that each type is about, and whether it is set.
    fn fields(&self) -> Vec<(Self::Type, &'static str, bool)>;

    /// Types that a list may have once.
    const ONCE: &'static [Self::Type];

    fn name(ty: Self::Type) -> &'static str;

    fn content(&self, report: &mut Report<'_>);
}

impl Filter for HttpRouteFilter {
    type Type = HttpFilterType;

    const ONCE: &'static [HttpFilterType] = &[
        HttpFilterType::RequestHeaderModifier,
        HttpFilterType::ResponseHeaderModifier,
        HttpFilterType::RequestRedirect,
        HttpFilterType::UrlRewrite,
        HttpFilterType::Cors,
    ];

    fn ty(&self) -> Option<HttpFilterType> {
        self.type_
    }

    fn fields(&self) -> Vec<(HttpFilterType, &'static str, bool)> {
        use HttpFilterType::*;
        vec![
            (RequestHeaderModifier, "requestHeaderModifier", self.request_header_modifier.is_some()),
            (ResponseHeaderModifier, "responseHeaderModifier", self.response_header_modifier.is_some()),
            (RequestMirror, "requestMirror", self.request_mirror.is_some()),
            (RequestRedirect, "requestRedirect", self.request_redirect.is_some()),
            (UrlRewrite, "urlRewrite", self.url_rewrite.is_some()),
            (Cors, "cors", self.cors.is_some()),
            (ExternalAuth, "externalAuth", self.external_auth.is_some()),
            (ExtensionRef, "extensionRef", self.extension_ref.is_some()),
        ]
    }

    fn name(ty: HttpFilterType) -> &'static str {
        ty.as_str()
    }

    fn content(&self, report: &mut Report<'_>) {
        let HttpRouteFilter {
            type_: _,
            request_header_modifier,
            response_header_modifier,
            request_mirror,
            request_redirect,
            url_rewrite,
            cors,
            external_auth,
            extension_ref,
        } = self;
        report.each_set("requestHeaderModifier", request_header_modifier.as_ref(), headers);
        report.each_set("responseHeaderModifier", response_header_modifier.as_ref(), headers);
        report.each_set("requestMirror", request_mirror.as_ref(), mirror);
        report.each_set("requestRedirect", request_redirect.as_ref(), redirect);
        report.each_set("urlRewrite", url_rewrite.as_ref(), rewrite);
        report.each_set("cors", cors.as_ref(), self::cors);
        report.each_set("externalAuth", external_auth.as_ref(), self::external_auth);
        report.each_set("extensionRef", extension_ref.as_ref(), local_object);
    }
}

impl Filter for GrpcRouteFilter {
    type Type = GrpcFilterType;

    const ONCE: &'static [GrpcFilterType] =
        &[GrpcFilterType::RequestHeaderModifier, GrpcFilterType::ResponseHeaderModifier];

    fn ty(&self) -> Option<GrpcFilterType> {
        self.type_
    }

    fn fields(&self) -> Vec<(GrpcFilterType, &'static str, bool)> {
        use GrpcFilterType::*;
        vec![
            (RequestHeaderModifier, "requestHeaderModifier", self.request_header_modifier.is_some()),
            (ResponseHeaderModifier, "responseHeaderModifier", self.response_header_modifier.is_some()),
            (RequestMirror, "requestMirror", self.request_mirror.is_some()),
            (ExtensionRef, "extensionRef", self.extension_ref.is_some()),
        ]
    }

    fn name(ty: GrpcFilterType) -> &'static str {
        ty.as_str()
    }

    fn content(&self, report: &mut Report<'_>) {
        let GrpcRouteFilter {
            type_: _,
            request_header_modifier,
            response_header_modifier,
            request_mirror,
            extension_ref,
        } = self;
        report.each_set("requestHeaderModifier", request_header_modifier.as_ref(), headers);
        report.each_set("responseHeaderModifier", response_header_modifier.as_ref(), headers);
        report.each_set("requestMirror", request_mirror.as_ref(), mirror);
        report.each_set("extensionRef", extension_ref.as_ref(), local_object);
    }
}

/// Checks the filters at the current place.
pub(super) fn filters<F: Filter>(report: &mut Report<'_>, filters: &[F]) {
    at_most(report, "filters", filters.len(), MOST_FILTERS);
    let mut seen = BTreeSet::new();
    report.each("filters", filters, |report, filter| {
        let Some(ty) = filter.ty() else {
            missing(report, "type", "say which filter it is");
            return;
        };
        if !seen.insert(ty) && F::ONCE.contains(&ty) {
            let message = format!("{} is there twice", F::name(ty));
            report.error(Code::DuplicateItem, message, "put what both do into one");
        }
        for (of, field, is_set) in filter.fields() {
            match (of == ty, is_set) {
                (true, false) => {
                    missing(report, field, &format!("a filter of type {} needs it", F::name(ty)));
                }
                (false, true) => report.within(field, |report| {
                    let message = format!("a filter of type {} does not have it", F::name(ty));
                    report.error(Code::ExclusiveFields, message, "remove it, or make it a filter of its own");
                }),
                _ => {}
            }
        }
        filter.content(report);
    });
}

fn headers(report: &mut Report<'_>, filter: &HttpHeaderFilter) {
    let HttpHeaderFilter { set, add, remove } = filter;
    for (field, entries) in [("set", set), ("add", add)] {
        at_most(report, field, entries.len(), MOST_HEADERS);
        let mut seen = BTreeSet::new();
        report.each(field, entries, |report, header| {
            header_name(report, &header.name);
            if !is_header_value(&header.value) || header.value.len() > LONGEST_VALUE {
                report.within("value", |report| {
                    let message = format!("{:?} is not the value of a header", header.value);
                    let hint = "use visible ASCII characters with single spaces between them";
                    report.error(Code::InvalidValue, message, hint);
                });
            }
            if !seen.insert(header.name.as_str()) {
                let message = format!("the header {} is there twice", header.name);
                report.error(Code::DuplicateItem, message, "separate several values by commas");
            }
        });
    }
    at_most(report, "remove", remove.len(), MOST_HEADERS);
    crate::validation::checks::unique(report, "remove", remove, "the header");
}

fn mirror(report: &mut Report<'_>, filter: &HttpRequestMirrorFilter) {
    let HttpRequestMirrorFilter { backend_ref, percent, fraction } = filter;
    report.within("backendRef", |report| backend(report, backend_ref));
    if percent.is_some() && fraction.is_some() {
        let message = "only one of percent and fraction may be set";
        report.error(Code::ExclusiveFields, message, "keep the one that is meant");
    }
    if let Some(percent) = percent {
        crate::validation::checks::at_most_hundred(report, "percent", *percent);
    }
    report.each_set("fraction", fraction.as_ref(), |report, fraction| {
        let denominator = fraction.denominator.unwrap_or(100);
        if denominator < 1 {
            report.within("denominator", |report| {
                report.error(Code::OutOfRange, format!("{denominator} is not positive"), "use 1 or more");
            });
        } else if !(0..=denominator).contains(&fraction.numerator) {
            report.within("numerator", |report| {
                let message = format!("{} of {denominator} is not a share", fraction.numerator);
                report.error(Code::OutOfRange, message, "use 0 to the denominator");
            });
        }
    });
}

fn redirect(report: &mut Report<'_>, filter: &HttpRequestRedirectFilter) {
    let HttpRequestRedirectFilter { scheme, hostname: host, path, port: number, status_code } = filter;
    if let Some(scheme) = scheme
        && !matches!(scheme.as_str(), "http" | "https")
    {
        report.within("scheme", |report| {
            report.error(Code::InvalidValue, format!("{scheme:?} is not allowed"), "use http or https");
        });
    }
    precise_hostname(report, host.as_deref());
    report.each_set("path", path.as_ref(), path_modifier);
    if let Some(number) = number {
        port(report, "port", *number);
    }
    if let Some(code) = status_code
        && !matches!(code, 301 | 302 | 303 | 307 | 308)
    {
        report.within("statusCode", |report| {
            let message = format!("{code} does not redirect");
            report.error(Code::InvalidValue, message, "use 301, 302, 303, 307 or 308");
        });
    }
}

fn rewrite(report: &mut Report<'_>, filter: &HttpUrlRewriteFilter) {
    let HttpUrlRewriteFilter { hostname, path } = filter;
    precise_hostname(report, hostname.as_deref());
    report.each_set("path", path.as_ref(), path_modifier);
}

/// A host without wildcard.
fn precise_hostname(report: &mut Report<'_>, host: Option<&str>) {
    let Some(host) = host else { return };
    report.within("hostname", |report| match host.starts_with('*') {
        true => report.error(Code::InvalidHost, format!("{host:?} is a wildcard"), "write out the host"),
        false => hostname(report, host),
    });
}

fn path_modifier(report: &mut Report<'_>, modifier: &HttpPathModifier) {
    let HttpPathModifier { type_, replace_full_path, replace_prefix_match } = modifier;
    let Some(ty) = type_ else {
        missing(report, "type", "use ReplaceFullPath or ReplacePrefixMatch");
        return;
    };
    let fields = [
        (HttpPathModifierType::ReplaceFullPath, "replaceFullPath", replace_full_path),
        (HttpPathModifierType::ReplacePrefixMatch, "replacePrefixMatch", replace_prefix_match),
    ];
    for (of, field, value) in fields {
        match value {
            None if of == *ty => missing(report, field, &format!("type {} needs it", ty.as_str())),
            Some(_) if of != *ty => report.within(field, |report| {
                let message = format!("type {} does not have it", ty.as_str());
                report.error(Code::ExclusiveFields, message, "remove it, or correct the type");
            }),
            Some(value) if value.len() > LONGEST_PATH => report.within(field, |report| {
                let message = format!("the path has {} characters", value.len());
                report.error(Code::OutOfRange, message, format!("the limit is {LONGEST_PATH}"));
            }),
            _ => {}
        }
    }
}

fn cors(report: &mut Report<'_>, filter: &HttpCorsFilter) {
    let HttpCorsFilter {
        allow_origins,
        allow_credentials: _,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
    } = filter;
    let lists = [
        ("allowOrigins", allow_origins, 64, true),
        ("allowMethods", allow_methods, 9, true),
        ("allowHeaders", allow_headers, 64, true),
        ("exposeHeaders", expose_headers, 64, false),
    ];
    for (field, items, most, all_excludes) in lists {
        at_most(report, field, items.len(), most);
        if all_excludes && items.len() > 1 && items.iter().any(|item| item == "*") {
            report.within(field, |report| {
                report.error(Code::ExclusiveFields, "`*` already includes all others", "keep only `*`");
            });
        }
    }
    report.each("allowOrigins", allow_origins, |report, origin| {
        if !is_origin(origin) {
            let message = format!("{origin:?} is not an origin");
            report.error(Code::InvalidUrl, message, "write <scheme>://<host>[:<port>], or `*` for all");
        }
    });
    report.each("allowMethods", allow_methods, |report, method| {
        if method != "*" && !METHODS.contains(&method.as_str()) {
            let message = format!("{method:?} is not a method");
            report.error(Code::InvalidValue, message, "use a method in upper case, or `*` for all");
        }
    });
    for (field, headers) in [("allowHeaders", allow_headers), ("exposeHeaders", expose_headers)] {
        report.each(field, headers, |report, header| {
            if !is_header_name(header) || header.len() > 256 {
                let message = format!("{header:?} is not the name of a header");
                report.error(Code::InvalidName, message, "use letters, digits and hyphens");
            }
        });
    }
    if let Some(age) = max_age
        && *age < 1
    {
        report.within("maxAge", |report| {
            report.error(Code::OutOfRange, format!("{age} is not a time"), "use 1 or more seconds");
        });
    }
}

/// `*`, or a scheme, `://`, a host that may be or start with a wildcard, and maybe a port.
fn is_origin(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) else {
        return false;
    };
    let (host, port) = match rest.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (rest, None),
    };
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let plain = host.strip_prefix("*.").unwrap_or(host);
    let number = |port: &str| (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= 253 && (host == "*" || plain.split('.').all(label)) && port.is_none_or(number)
}

fn external_auth(report: &mut Report<'_>, filter: &HttpExternalAuthFilter) {
    let HttpExternalAuthFilter { protocol, backend_ref, grpc, http, forward_body: _ } = filter;
    report.within("backendRef", |report| backend(report, backend_ref));
    let Some(protocol) = protocol else {
        missing(report, "protocol", "use HTTP or GRPC");
        return;
    };
    let fields = [
        (ExternalAuthProtocol::Http, "http", http.is_some()),
        (ExternalAuthProtocol::Grpc, "grpc", grpc.is_some()),
    ];
    for (of, field, is_set) in fields {
        match (of == *protocol, is_set) {
            (true, false) => missing(report, field, &format!("protocol {} needs it", protocol.as_str())),
            (false, true) => report.within(field, |report| {
                let message = format!("protocol {} does not have it", protocol.as_str());
                report.error(Code::ExclusiveFields, message, "remove it, or correct the protocol");
            }),
            _ => {}
        }
    }
    if let Some(http) = http
        && !http.path.is_empty()
        && !is_path(&http.path)
    {
        report.within("http.path", |report| {
            report.error(Code::InvalidValue, format!("{:?} is not a path", http.path), "start it with `/`");
        });
    }
}

/// Checks how sessions are kept.
pub(super) fn session(report: &mut Report<'_>, session: &SessionPersistence) {
    let SessionPersistence {
        session_name,
        type_,
        absolute_timeout,
        idle_timeout,
        cookie_config,
        cookie,
        header,
    } = session;
    let lifetimes = [
        ("cookieConfig", cookie_config.as_ref().map(|cookie| cookie.lifetime_type)),
        ("cookie", cookie.as_ref().map(|cookie| cookie.lifetime_type)),
    ];
    for (field, lifetime) in lifetimes {
        if lifetime.is_some() && *type_ != SessionPersistenceType::Cookie {
            report.within(field, |report| {
                let message = "sessions that are held by a header have no cookie";
                report.error(Code::ExclusiveFields, message, "remove it, or set type Cookie");
            });
        }
        if lifetime == Some(CookieLifetime::Permanent) && absolute_timeout.is_none() {
            missing(report, "absoluteTimeout", "say how long the permanent cookie lives");
        }
    }
    if header.is_some() && *type_ != SessionPersistenceType::Header {
        report.within("header", |report| {
            let message = "sessions that are held by a cookie have no header";
            report.error(Code::ExclusiveFields, message, "remove it, or set type Header");
        });
    }
    if let Some(header) = header {
        report.within("header", |report| header_name(report, &header.name));
    }
    // Names of cookies are made of the same characters as those of headers. (RFC 6265, 4.1.1.)
    let of_cookie = cookie.as_ref().and_then(|cookie| cookie.name.as_deref());
    for (field, name) in [("sessionName", session_name.as_deref()), ("cookie.name", of_cookie)] {
        if let Some(name) = name.filter(|name| !name.is_empty() && !is_header_name(name)) {
            report.within(field, |report| {
                let message = format!("{name:?} cannot be the name of a cookie or a header");
                report.error(Code::InvalidName, message, "use letters, digits and `-`");
            });
        }
    }
    let permanent = lifetimes.iter().any(|(_, lifetime)| *lifetime == Some(CookieLifetime::Permanent));
    for (field, stated) in [
        ("idleTimeout", idle_timeout.is_some()),
        ("absoluteTimeout", absolute_timeout.is_some() && !permanent),
    ] {
        if stated {
            report.within(field, |report| {
                let message = "Envoy ends no session: it lasts as long as clients send its cookie or header";
                report.warning(
                    Code::NoEffect,
                    message,
                    "use a permanent cookie, whose absoluteTimeout browsers keep",
                );
            });
        }
    }
}
