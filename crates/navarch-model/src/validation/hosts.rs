//! Host names, wildcards, addresses.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::Report;
use crate::finding::Code;

/// What keeps `text` from being a fully qualified domain name. A trailing dot is allowed.
pub(crate) fn fqdn_problem(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some("it is empty".to_owned());
    }
    if text.len() > 255 {
        return Some("it is longer than 255 characters".to_owned());
    }
    labels_problem(text)
}

/// As [`fqdn_problem`], where the first label may be `*` or start with `*`.
pub(crate) fn wildcard_domain_problem(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some("it is empty".to_owned());
    }
    if text.len() > 255 {
        return Some("it is longer than 255 characters".to_owned());
    }
    let (first, rest) = match text.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (text, None),
    };
    let plain = first.strip_prefix("*-").or_else(|| first.strip_prefix('*')).unwrap_or(first);
    if !(first == "*" || is_label(plain)) {
        return Some(label_message(first));
    }
    rest.and_then(labels_problem)
}

fn label_message(label: &str) -> String {
    match label {
        "" => "a part between dots is empty".to_owned(),
        label if label.contains('*') => "a wildcard is only allowed at the start".to_owned(),
        label => format!("the part {label:?} is not valid"),
    }
}

fn labels_problem(text: &str) -> Option<String> {
    let last = text.rsplit('.').next().unwrap_or_default();
    if !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()) {
        return Some(format!("the last part, {last:?}, is a number"));
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    text.split('.').find(|label| !is_label(label)).map(label_message)
}

/// Whether `text` is a DNS label (RFC 1123): letters, digits and inner hyphens, at most 63 of them.
pub(crate) fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

pub(crate) fn is_ip(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// Whether `text` is an IP address or a CIDR range.
pub(crate) fn is_ip_or_range(text: &str) -> bool {
    if text.contains('/') { text.parse::<ipnet::IpNet>().is_ok() } else { is_ip(text) }
}

/// What keeps the part after `unix://` from being the path of a socket; `@` starts an abstract name.
pub(crate) fn unix_problem(path: &str) -> Option<&'static str> {
    if path.is_empty() {
        return Some("the path is empty");
    }
    if path.starts_with('@') {
        return None;
    }
    (!path.starts_with('/') || path.ends_with('/')).then_some("it must be an absolute path of a file")
}

/// A set of hosts and wildcards that can be asked what covers a host. Lists of hosts are as long as their
/// authors like, so looking something up takes time by the length of its name, not of the list.
pub(crate) struct Patterns<'p> {
    exact: HashSet<&'p str>,
    /// What follows the `*`, with the whole pattern.
    wildcards: HashMap<&'p str, &'p str>,
}

impl<'p> Patterns<'p> {
    pub(crate) fn new(patterns: &'p [String]) -> Self {
        let exact = patterns.iter().map(String::as_str).collect();
        let wildcards = patterns
            .iter()
            .filter_map(|pattern| Some((pattern.strip_prefix('*')?, pattern.as_str())))
            .collect();
        Self { exact, wildcards }
    }

    /// Whether every host under `host` is under some pattern.
    pub(crate) fn covers(&self, host: &str) -> bool {
        self.exact.contains(host) || self.wider(host).is_some()
    }

    /// A wildcard, other than `host` itself, that everything under `host` is under.
    pub(crate) fn wider(&self, host: &str) -> Option<&'p str> {
        let (body, first) = match host.strip_prefix('*') {
            Some(body) => (body, 1),
            None => (host, 0),
        };
        // No valid pattern is longer.
        let first = first.max(body.len().saturating_sub(255));
        (first..=body.len()).find_map(|start| self.wildcards.get(body.get(start..)?).copied())
    }
}

/// Checks `namespace/host`, as Sidecar egress and Gateway servers have it.
pub(crate) fn namespace_host(report: &mut Report<'_>, text: &str, gateway: bool) {
    let host = match text.split_once('/') {
        None if gateway => text,
        None => {
            let hint = "write `./host` for the own namespace, `*/host` for all, or `namespace/host`";
            report.error(Code::InvalidHost, format!("{text:?} has no namespace"), hint);
            return;
        }
        Some(("", _) | (_, "")) => {
            let message = format!("{text:?}: namespace and host must not be empty");
            report.error(Code::InvalidHost, message, "write `namespace/host`");
            return;
        }
        Some((namespace, host)) => {
            // In a Sidecar, `~` in front of a namespace excludes it.
            let name = if gateway { namespace } else { namespace.strip_prefix('~').unwrap_or(namespace) };
            if !(matches!(name, "*" | "." | "") || is_label(name)) {
                let message = format!("{text:?}: {namespace:?} is not a valid namespace");
                report.error(Code::InvalidHost, message, "use `*`, `.` or the name of a namespace");
            }
            host
        }
    };
    if host == "*" || (gateway && is_ip(host)) {
        return;
    }
    if !host.contains('.') {
        let message = format!("{text:?}: {host:?} is a short name");
        report.error(
            Code::InvalidHost,
            message,
            "write the full host name, such as name.namespace.svc.cluster.local",
        );
    } else if let Some(problem) = wildcard_domain_problem(host) {
        report.error(Code::InvalidHost, format!("{text:?} is not a valid host: {problem}"), "");
    } else {
        partial_wildcard(report, host, true);
    }
}

/// Reports `*foo.example.com`, which Envoy cannot match.
pub(crate) fn partial_wildcard(report: &mut Report<'_>, host: &str, error: bool) {
    if host.starts_with('*') && host != "*" && !host.starts_with("*.") {
        let message = format!("{host:?}: a wildcard must stand for a whole part");
        let hint = "write `*.` and the rest of the name";
        match error {
            true => report.error(Code::InvalidHost, message, hint),
            false => report.warning(Code::InvalidHost, message, hint),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names() {
        for host in ["a", "a.b.c", "a.b.", "A-1.b", "1.a"] {
            assert_eq!(fqdn_problem(host), None, "{host:?}");
            assert_eq!(wildcard_domain_problem(host), None, "{host:?}");
        }
        for host in ["*", "*.a.b", "*a.b", "*-a.b"] {
            assert!(fqdn_problem(host).is_some(), "{host:?}");
            assert_eq!(wildcard_domain_problem(host), None, "{host:?}");
        }
        for host in ["", ".", "*.", "a..b", "-a", "a-", "a.*.b", "a*", "a_b", "a.1", "1.2.3.4", "a b"] {
            assert!(fqdn_problem(host).is_some(), "{host:?}");
            assert!(wildcard_domain_problem(host).is_some(), "{host:?}");
        }
        assert!(fqdn_problem(&"a.".repeat(128)).is_some());
        assert!(fqdn_problem(&"a".repeat(64)).is_some());
    }

    #[test]
    fn wildcards_cover_hosts() {
        for (host, pattern, covered) in [
            ("a.com", "a.com", true),
            ("a.com", "b.com", false),
            ("x.a.com", "*.a.com", true),
            ("*.a.com", "x.a.com", false),
            ("*.x.a.com", "*.a.com", true),
            ("*.a.com", "*.x.a.com", false),
            ("*.a.com", "*", true),
            ("*.a.com", "*.a.com", true),
            ("*.a.com", "*.b.com", false),
            ("a.com", "*.a.com", false),
            ("xa.com", "*a.com", true),
        ] {
            let patterns = [pattern.to_owned()];
            let patterns = Patterns::new(&patterns);
            assert_eq!(patterns.covers(host), covered, "{host} under {pattern}");
            assert_eq!(patterns.wider(host).is_some(), covered && host != pattern, "{host} under {pattern}");
        }
    }

    #[test]
    fn addresses() {
        for text in ["10.0.0.1", "::1", "10.0.0.0/8", "2001:db8::/32", "10.1.2.3/8"] {
            assert!(is_ip_or_range(text), "{text}");
        }
        for text in ["", "10.0.0", "10.0.0.0/33", "a/8", "10.0.0.1/", "10.0.0.1/8/8"] {
            assert!(!is_ip_or_range(text), "{text}");
        }
        for (path, valid) in [("/a", true), ("@name", true), ("", false), ("a", false), ("/a/", false)] {
            assert_eq!(unix_problem(path).is_none(), valid, "{path:?}");
        }
    }
}
