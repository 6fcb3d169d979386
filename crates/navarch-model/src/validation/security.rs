//! PeerAuthentication, RequestAuthentication.

use super::checks::{self, duration, is_header_name, missing};
use super::{Report, Validate};
use crate::finding::Code;
use crate::security::{JwtRule, PeerAuthentication, RequestAuthentication};

impl Validate for PeerAuthentication {
    fn validate(&self, report: &mut Report<'_>) {
        checks::policy_targets(report, self.selector.as_ref(), None, &[]);
        let selects = self.selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty());
        if !self.port_level_mtls.is_empty() && !selects {
            report.within("portLevelMtls", |report| {
                let message = "settings per port need a selector";
                report.error(Code::InvalidCombination, message, "select workloads with selector.matchLabels");
            });
        }
        for port in self.port_level_mtls.keys().filter(|port| !(1..=65_535).contains(*port)) {
            report.within_key("portLevelMtls", &port.to_string(), |report| {
                report.error(Code::OutOfRange, format!("{port} is not a port"), "ports are 1 to 65535");
            });
        }
    }
}

impl Validate for RequestAuthentication {
    fn validate(&self, report: &mut Report<'_>) {
        checks::policy_targets(report, self.selector.as_ref(), self.target_ref.as_ref(), &self.target_refs);
        report.each("jwtRules", &self.jwt_rules, jwt_rule);
    }
}

fn jwt_rule(report: &mut Report<'_>, rule: &JwtRule) {
    if rule.issuer.is_empty() && rule.jwks_uri.is_empty() {
        missing(report, "issuer", "set issuer, jwksUri or both");
    }
    for (field, values) in [
        ("audiences", &rule.audiences),
        ("fromParams", &rule.from_params),
        ("fromCookies", &rule.from_cookies),
        ("spaceDelimitedClaims", &rule.space_delimited_claims),
    ] {
        report.each(field, values, |report, value| {
            if value.is_empty() {
                report.error(Code::MissingField, "the value is empty", "remove it");
            }
        });
    }
    if !rule.jwks_uri.is_empty() {
        report.within("jwksUri", |report| {
            if let Some(problem) = http_url_problem(&rule.jwks_uri) {
                let message = format!("{:?} is not a URL to fetch keys from: {problem}", rule.jwks_uri);
                report.error(Code::InvalidUrl, message, "write https://host/path");
            }
        });
    }
    if !rule.jwks.is_empty() {
        report.within("jwks", |report| jwks(report, &rule.jwks));
        if !rule.jwks_uri.is_empty() {
            report.within("jwksUri", |report| {
                report.warning(Code::NoEffect, "jwks is set too and is used instead", "keep one of the two");
            });
        }
    }
    report.each("fromHeaders", &rule.from_headers, |report, header| {
        if header.name.is_empty() {
            missing(report, "name", "name the header");
        }
    });
    report.each("outputClaimToHeaders", &rule.output_claim_to_headers, |report, output| {
        if output.claim.is_empty() || output.header.is_empty() {
            report.error(Code::MissingField, "header and claim are both required", "");
        } else if !output.header.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            || !is_header_name(&output.header)
        {
            report.within("header", |report| {
                let message = format!("{:?} is not a header name", output.header);
                report.error(Code::InvalidValue, message, "use letters, digits, `-` and `_`");
            });
        }
    });
    duration(report, "timeout", rule.timeout);
}

/// Checks a set of keys (RFC 7517).
fn jwks(report: &mut Report<'_>, text: &str) {
    let keys = match serde_json::from_str::<serde_json::Value>(text) {
        Ok(value) => value.get("keys").and_then(serde_json::Value::as_array).cloned(),
        Err(error) => {
            report.error(Code::InvalidValue, format!("is not JSON: {error}"), "write a JSON Web Key Set");
            return;
        }
    };
    let Some(keys) = keys else {
        report.error(Code::InvalidValue, "has no list `keys`", "write a JSON Web Key Set");
        return;
    };
    for (index, key) in keys.iter().enumerate() {
        let kind = key.get("kty").and_then(serde_json::Value::as_str);
        if kind.is_none() {
            report.error(Code::InvalidValue, format!("key {index} has no `kty`"), "write a JSON Web Key Set");
        } else if kind == Some("oct") || key.get("d").is_some() {
            let message = format!("key {index} is a private key, which every proxy will receive");
            report.warning(Code::Risky, message, "publish only public keys, and replace this one");
        }
    }
}

/// What keeps `url` from being an absolute http or https URL.
pub(crate) fn http_url_problem(url: &str) -> Option<&'static str> {
    let Some(rest) = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")) else {
        return Some("the scheme must be http or https");
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host_and_port = authority.rsplit('@').next().unwrap_or_default();
    if host_and_port.is_empty() || url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Some("the host is missing");
    }
    match host_and_port.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') && port.parse::<u16>().is_err() => {
            Some("the port is not a number")
        }
        _ => None,
    }
}
