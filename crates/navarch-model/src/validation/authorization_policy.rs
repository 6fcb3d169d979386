//! AuthorizationPolicy.

use super::checks::{self, missing};
use super::hosts::is_ip_or_range;
use super::{Report, Validate};
use crate::finding::Code;
use crate::security::{
    ActionDetail, AuthorizationAction, AuthorizationPolicy, Condition, Operation, Rule, Source,
};

/// The annotation that makes a policy only log what it would do.
const DRY_RUN: &str = "istio.io/dry-run";
/// Service accounts that one rule may name.
const MOST_SERVICE_ACCOUNTS: usize = 16;

impl Validate for AuthorizationPolicy {
    fn validate(&self, report: &mut Report<'_>) {
        checks::policy_targets(report, self.selector.as_ref(), self.target_ref.as_ref(), &self.target_refs);
        self.validate_action(report);
        report.each("rules", &self.rules, |report, rule| {
            self::rule(report, rule);
            if self.action == AuthorizationAction::Custom {
                custom_rule(report, rule);
            }
            if self.action == AuthorizationAction::Deny && denies_all_tcp(rule) {
                let message =
                    "on TCP ports the rule denies everything, because its HTTP conditions are left out there";
                report.warning(Code::Risky, message, "name the ports in to.operation.ports");
            }
        });
    }
}

impl AuthorizationPolicy {
    fn validate_action(&self, report: &mut Report<'_>) {
        let provider =
            self.action_detail.as_ref().map(|ActionDetail::Provider(provider)| provider.name.as_str());
        let never = matches!(self.action, AuthorizationAction::Custom | AuthorizationAction::Deny);
        if never && self.rules.is_empty() {
            let message = format!("{} without rules never takes effect", self.action.as_str());
            report.error(Code::Unreachable, message, "add rules; `- {}` is a rule for every request");
        }
        match self.action {
            AuthorizationAction::Custom => {
                if provider.is_none_or(str::is_empty) {
                    missing(
                        report,
                        "provider.name",
                        "CUSTOM asks an extension provider of the mesh settings",
                    );
                }
            }
            action => {
                if provider.is_some() {
                    report.within("provider", |report| {
                        let message = format!("has no meaning with action {}", action.as_str());
                        report.error(
                            Code::InvalidCombination,
                            message,
                            "use action CUSTOM, or remove provider",
                        );
                    });
                }
            }
        }
        if let Some(value) = report.metadata.annotations.get(DRY_RUN).cloned() {
            report_dry_run(report, &value, self.action);
        }
    }
}

fn report_dry_run(report: &mut Report<'_>, value: &str, action: AuthorizationAction) {
    // The annotation is metadata, not part of the specification.
    report.at_root(&format!("metadata.annotations[{DRY_RUN:?}]"), |report| {
        if !matches!(action, AuthorizationAction::Allow | AuthorizationAction::Deny) {
            let message = format!("action {} cannot be tried out", action.as_str());
            report.error(Code::InvalidCombination, message, "dry runs are for ALLOW and DENY");
        } else if !matches!(
            value,
            "1" | "t" | "T" | "true" | "TRUE" | "True" | "0" | "f" | "F" | "false" | "FALSE" | "False"
        ) {
            report.error(
                Code::InvalidValue,
                format!("{value:?} is not a boolean"),
                "use \"true\" or \"false\"",
            );
        }
    });
}

fn rule(report: &mut Report<'_>, rule: &Rule) {
    report.each("from", &rule.from, |report, from| match &from.source {
        Some(source) => report.within("source", |report| self::source(report, source)),
        None => missing(report, "source", "say where requests come from"),
    });
    report.each("to", &rule.to, |report, to| match &to.operation {
        Some(operation) => report.within("operation", |report| self::operation(report, operation)),
        None => missing(report, "operation", "say what requests do"),
    });
    report.each("when", &rule.when, condition);
}

fn source(report: &mut Report<'_>, source: &Source) {
    if *source == Source::default() {
        report.error(
            Code::MissingField,
            "the source is empty",
            "set a condition; remove `from` to allow any source",
        );
    }
    let accounts = !source.service_accounts.is_empty() || !source.not_service_accounts.is_empty();
    let wider = [&source.principals, &source.not_principals, &source.namespaces, &source.not_namespaces];
    if accounts && wider.iter().any(|values| !values.is_empty()) {
        let message = "serviceAccounts excludes namespaces and principals";
        report.error(Code::ExclusiveFields, message, "use separate items of `from`");
    }
    for (field, values) in [
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
        ("namespaces", &source.namespaces),
        ("notNamespaces", &source.not_namespaces),
    ] {
        not_empty(report, field, values);
    }
    for (field, values) in [
        ("ipBlocks", &source.ip_blocks),
        ("notIpBlocks", &source.not_ip_blocks),
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
    ] {
        report.each(field, values, |report, value| ip_block(report, value));
    }
    for (field, values) in
        [("serviceAccounts", &source.service_accounts), ("notServiceAccounts", &source.not_service_accounts)]
    {
        service_accounts(report, field, values);
    }
    for (field, values) in
        [("trustDomains", &source.trust_domains), ("notTrustDomains", &source.not_trust_domains)]
    {
        report.each(field, values, |report, value| {
            wildcard(report, value);
            if value.contains('/') {
                let message = format!("{value:?} is not a trust domain");
                report.error(Code::InvalidValue, message, "remove the path; use principals for identities");
            }
        });
    }
}

fn operation(report: &mut Report<'_>, operation: &Operation) {
    if *operation == Operation::default() {
        let message = "the operation is empty";
        report.error(Code::MissingField, message, "set a condition; remove `to` to allow any operation");
    }
    for (field, values) in [
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
        ("paths", &operation.paths),
        ("notPaths", &operation.not_paths),
    ] {
        not_empty(report, field, values);
    }
    for (field, values) in [("ports", &operation.ports), ("notPorts", &operation.not_ports)] {
        report.each(field, values, |report, value| port(report, value));
    }
    for (field, values) in [("paths", &operation.paths), ("notPaths", &operation.not_paths)] {
        report.each(field, values, |report, value| path_template(report, value));
    }
}

fn not_empty(report: &mut Report<'_>, field: &str, values: &[String]) {
    report.each(field, values, |report, value| {
        if value.is_empty() {
            report.error(Code::MissingField, "the value is empty", "remove it, or use `*` for any value");
        }
    });
}

fn ip_block(report: &mut Report<'_>, value: &str) {
    if !is_ip_or_range(value) {
        let message = format!("{value:?} is not an address or range");
        report.error(Code::InvalidAddress, message, "write 10.0.0.0/8 or 10.1.2.3");
    }
}

fn port(report: &mut Report<'_>, value: &str) {
    if value.parse::<u16>().is_err() {
        report.error(Code::OutOfRange, format!("{value:?} is not a port"), "write the port's number");
    }
}

/// Checks a value that may have one `*`, at its start or end.
fn wildcard(report: &mut Report<'_>, value: &str) {
    let inner = value.strip_prefix('*').or_else(|| value.strip_suffix('*')).unwrap_or(value);
    if value.is_empty() {
        report.error(Code::MissingField, "the value is empty", "remove it, or use `*` for any value");
    } else if inner.contains('*') {
        let message = format!("{value:?} has a wildcard in a place where none is possible");
        report.error(Code::InvalidValue, message, "use one `*`, at the start or the end");
    }
}

fn service_accounts(report: &mut Report<'_>, field: &str, values: &[String]) {
    if values.len() > MOST_SERVICE_ACCOUNTS {
        report.within(field, |report| {
            let message = format!("{} service accounts", values.len());
            report.error(Code::OutOfRange, message, format!("the limit is {MOST_SERVICE_ACCOUNTS}"));
        });
    }
    report.each(field, values, |report, value| {
        let parts: Vec<&str> = value.split('/').collect();
        if value.contains('*')
            || parts.len() > 2
            || parts.iter().any(|part| part.is_empty())
            || value.len() > 320
        {
            let message = format!("{value:?} is not a service account");
            report.error(Code::InvalidValue, message, "write `name` or `namespace/name`, without wildcards");
        }
    });
}

/// Checks a path that may use `{*}` for one segment and, as its last operator, `{**}` for any number.
fn path_template(report: &mut Report<'_>, path: &str) {
    if !path.contains(['{', '}']) {
        return;
    }
    let literal = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&b))
    };
    let mut any_seen = false;
    let mut problem = None;
    for part in path.trim_matches('/').split('/') {
        match part {
            "{*}" | "{**}" if any_seen => problem = Some("{**} must be the last operator"),
            "{**}" => any_seen = true,
            "{*}" => {}
            part if part.contains(['{', '}']) => {
                problem = Some("an operator must be a whole segment: {*} or {**}")
            }
            part if !literal(part) => {
                problem = Some("a segment holds a character that templates do not allow")
            }
            _ => {}
        }
    }
    if let Some(problem) = problem {
        report.error(Code::InvalidValue, format!("{path:?} is not a path template: {problem}"), "");
    }
}

fn condition(report: &mut Report<'_>, condition: &Condition) {
    if condition.key.is_empty() {
        missing(report, "key", "name the attribute");
        return;
    }
    if condition.values.is_empty() && condition.not_values.is_empty() {
        missing(report, "values", "set values, notValues or both");
    }
    let key = condition.key.as_str();
    if let Some((problem, hint)) = key_problem(key) {
        report.within("key", |report| report.error(Code::InvalidValue, problem, hint));
        return;
    }
    for (field, values) in [("values", &condition.values), ("notValues", &condition.not_values)] {
        not_empty(report, field, values);
        match key {
            "source.ip" | "remote.ip" | "destination.ip" => {
                report.each(field, values, |report, v| ip_block(report, v))
            }
            "destination.port" => report.each(field, values, |report, value| port(report, value)),
            "source.serviceAccount" => service_accounts(report, field, values),
            "source.trustDomain" => report.each(field, values, |report, value| wildcard(report, value)),
            _ => {}
        }
    }
}

/// What is wrong with an attribute's name, and what to do.
fn key_problem(key: &str) -> Option<(String, &'static str)> {
    const SIMPLE: [&str; 12] = [
        "source.ip",
        "remote.ip",
        "source.namespace",
        "source.serviceAccount",
        "source.principal",
        "source.trustDomain",
        "request.auth.principal",
        "request.auth.audiences",
        "request.auth.presenter",
        "destination.ip",
        "destination.port",
        "connection.sni",
    ];
    if SIMPLE.contains(&key) {
        return None;
    }
    let keyed = ["request.headers", "request.auth.claims", "experimental.envoy.filters."];
    if keyed.iter().any(|prefix| key.starts_with(prefix)) {
        let inner = key.strip_suffix(']').and_then(|key| key.split_once('[')).map(|(_, inner)| inner);
        return match inner {
            Some(inner) if !inner.is_empty() => None,
            _ => {
                Some((format!("{key:?} does not say which entry"), "write it like request.headers[x-token]"))
            }
        };
    }
    let gone = match key {
        "destination.namespace" => "put the policy into that namespace",
        "destination.name" | "destination.user" => "select workloads with the policy's selector",
        key if key.starts_with("destination.labels") => "select workloads with the policy's selector",
        _ => return Some((format!("{key:?} is not an attribute"), "see Istio's list of policy conditions")),
    };
    Some((format!("{key:?} is not an attribute any more"), gone))
}

/// Reports what an external authoriser cannot be asked for conditionally.
fn custom_rule(report: &mut Report<'_>, rule: &Rule) {
    const MESSAGE: &str = "identities are not known yet when CUSTOM is decided";
    const HINT: &str = "use a second policy with ALLOW or DENY";
    for (index, from) in rule.from.iter().enumerate() {
        let Some(source) = &from.source else { continue };
        for (field, values) in [
            ("principals", &source.principals),
            ("notPrincipals", &source.not_principals),
            ("requestPrincipals", &source.request_principals),
            ("notRequestPrincipals", &source.not_request_principals),
            ("namespaces", &source.namespaces),
            ("notNamespaces", &source.not_namespaces),
            ("serviceAccounts", &source.service_accounts),
            ("notServiceAccounts", &source.not_service_accounts),
            ("trustDomains", &source.trust_domains),
            ("notTrustDomains", &source.not_trust_domains),
        ] {
            if !values.is_empty() {
                report.within(&format!("from[{index}].source.{field}"), |report| {
                    report.error(Code::InvalidCombination, MESSAGE, HINT);
                });
            }
        }
    }
    report.each("when", &rule.when, |report, condition| {
        let identity = matches!(
            condition.key.as_str(),
            "source.namespace" | "source.serviceAccount" | "source.trustDomain" | "source.principal"
        );
        if identity || condition.key.starts_with("request.auth.") {
            report.within("key", |report| report.error(Code::InvalidCombination, MESSAGE, HINT));
        }
    });
}

/// Whether nothing of a DENY rule is left on a TCP port, where it then denies everything.
fn denies_all_tcp(rule: &Rule) -> bool {
    let tcp_source = |source: &Source| {
        let http_only = Source {
            request_principals: source.request_principals.clone(),
            not_request_principals: source.not_request_principals.clone(),
            trust_domains: source.trust_domains.clone(),
            not_trust_domains: source.not_trust_domains.clone(),
            ..Source::default()
        };
        *source != http_only
    };
    let tcp_from = rule.from.iter().filter_map(|from| from.source.as_ref()).any(tcp_source);
    let tcp_to = rule
        .to
        .iter()
        .filter_map(|to| to.operation.as_ref())
        .any(|operation| !operation.ports.is_empty() || !operation.not_ports.is_empty());
    (!rule.from.is_empty() && rule.to.is_empty() && !tcp_from) || (!rule.to.is_empty() && !tcp_to)
}
