//! The patterns of texts.

use crate::finding::Code;
use crate::validation::Report;
use crate::validation::checks::is_header_name;

pub(super) const SUBDOMAIN_HINT: &str =
    "use lower-case letters, digits and inner hyphens, in parts separated by dots, at most 253 characters";

pub(super) const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// `^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`, at most 63 characters.
pub(super) fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_lower_label(text)
}

fn is_lower_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && !text.starts_with('-') && !text.ends_with('-') && text.bytes().all(inner)
}

/// `^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`, at most 253 characters.
pub(super) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_lower_label)
}

/// `^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$`, at most 63 characters.
pub(super) fn is_kind(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && !text.ends_with('-')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// `^[!-~]+([\t ]?[!-~]+)*$`: visible characters with single spaces or tabs between them.
pub(super) fn is_header_value(text: &str) -> bool {
    let space = |byte: u8| byte == b'\t' || byte == b' ';
    let mut before = b' ';
    for byte in text.bytes() {
        if !(space(byte) || byte.is_ascii_graphic()) || (space(byte) && space(before)) {
            return false;
        }
        before = byte;
    }
    !space(before)
}

/// `^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$`
pub(super) fn is_path(text: &str) -> bool {
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = match (first, tail) {
            (b'%', [a, b, tail @ ..]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => tail,
            (b'%', _) => return false,
            (byte, tail) if byte.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(byte) => tail,
            _ => return false,
        };
    }
    !text.is_empty()
}

/// `^(?i)\.?[a-z_][a-z_0-9]*(\.[a-z_][a-z_0-9]*)*$`
pub(super) fn is_grpc_service(text: &str) -> bool {
    text.strip_prefix('.').unwrap_or(text).split('.').all(is_grpc_method)
}

/// `^[A-Za-z_][A-Za-z_0-9]*$`
pub(super) fn is_grpc_method(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Checks a host of a route: a name, maybe with `*` in place of its first part.
pub(super) fn hostname(report: &mut Report<'_>, host: &str) {
    let name = host.strip_prefix("*.").unwrap_or(host);
    if host.parse::<std::net::IpAddr>().is_ok() {
        let message = format!("{host} is an address");
        report.error(Code::InvalidHost, message, "use a name: addresses are not allowed");
    } else if !is_subdomain(name) {
        let message = format!("{host:?} is not a host name");
        report.error(Code::InvalidHost, message, SUBDOMAIN_HINT);
    }
}

/// Checks the name of a header at the current place.
pub(super) fn header_name(report: &mut Report<'_>, name: &str) {
    if !is_header_name(name) || name.len() > 256 {
        report.within("name", |report| {
            let message = format!("{name:?} is not the name of a header");
            report.error(Code::InvalidName, message, "use letters, digits and hyphens");
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(is: fn(&str) -> bool, yes: &[&str], no: &[&str]) {
        for text in yes {
            assert!(is(text), "{text:?}");
        }
        for text in no {
            assert!(!is(text), "{text:?}");
        }
    }

    #[test]
    fn texts_are_as_the_patterns_say() {
        check(is_label, &["a", "a-1"], &["", "-a", "a-", "A", "a.b"]);
        check(is_subdomain, &["a", "a.b-c.1"], &["", "a.", ".a", "a..b", "A.b"]);
        check(is_kind, &["Service", "a-B1"], &["", "1a", "a-", "a_b"]);
        check(is_header_value, &["a", "a b", "a\tb", "%START_TIME%"], &["", " a", "a ", "a  b", "ä"]);
        check(is_path, &["/", "/a%2Cb", "/a;b=c"], &["", "/a b", "/a%2", "/a#b", "/ä"]);
        check(is_grpc_service, &["a.B_1", ".a.b", "_"], &["", "a.", "1a", "a/b"]);
        check(is_grpc_method, &["Get", "_x1"], &["", "1", "a.b", "Get*"]);
    }
}
