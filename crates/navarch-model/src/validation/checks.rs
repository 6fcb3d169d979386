//! Checks that several kinds share.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::time::Duration;

use super::Report;
use super::hosts::is_label;
use crate::finding::Code;
use crate::service::Protocol;
use crate::types::{PolicyTargetReference, WorkloadSelector};

/// Checks that a port number is between 1 and 65535.
pub(crate) fn port(report: &mut Report<'_>, field: &str, number: u32) {
    if !(1..=65_535).contains(&number) {
        report.within(field, |report| {
            report.error(Code::OutOfRange, format!("{number} is not a port"), "ports are 1 to 65535");
        });
    }
}

/// Checks a duration that must be at least a millisecond, Istio's finest unit.
pub(crate) fn duration(report: &mut Report<'_>, field: &str, value: Option<Duration>) {
    let Some(value) = value else { return };
    report.within(field, |report| {
        if value < Duration::from_millis(1) {
            report.error(Code::OutOfRange, format!("{value:?} is too short"), "the shortest duration is 1ms");
        } else if value.subsec_nanos() % 1_000_000 != 0 {
            let message = format!("{value:?} is finer than a millisecond");
            report.error(Code::OutOfRange, message, "write it in whole milliseconds");
        }
    });
}

pub(crate) fn not_negative(report: &mut Report<'_>, field: &str, value: i32) {
    if value < 0 {
        report.within(field, |report| {
            report.error(Code::OutOfRange, format!("{value} is negative"), "use 0 or more");
        });
    }
}

pub(crate) fn at_most_hundred(report: &mut Report<'_>, field: &str, value: i32) {
    if !(0..=100).contains(&value) {
        report.within(field, |report| {
            report.error(Code::OutOfRange, format!("{value} is not a percentage"), "use 0 to 100");
        });
    }
}

/// Reports `field` as missing.
pub(crate) fn missing(report: &mut Report<'_>, field: &str, hint: &str) {
    report.within(field, |report| report.error(Code::MissingField, "is required", hint));
}

/// Checks the keys and values of labels.
pub(crate) fn labels(report: &mut Report<'_>, field: &str, labels: &BTreeMap<String, String>) {
    for (key, value) in labels {
        report.within_key(field, key, |report| {
            if !is_label_key(key) {
                let message = format!("{key:?} is not a valid label key");
                report.error(
                    Code::InvalidLabel,
                    message,
                    "use letters, digits, `-`, `_`, `.`, after an optional domain and `/`",
                );
            }
            if !is_label_value(value) {
                let message = format!("{value:?} is not a valid label value");
                report.error(
                    Code::InvalidLabel,
                    message,
                    "use letters, digits, `-`, `_` and `.`, at most 63",
                );
            }
        });
    }
}

fn is_label_key(key: &str) -> bool {
    let name = match key.split_once('/') {
        Some((prefix, name)) => {
            if prefix.len() > 253 || !prefix.split('.').all(is_label) {
                return false;
            }
            name
        }
        None => key,
    };
    !name.is_empty() && is_label_value(name)
}

fn is_label_value(value: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    value.is_empty()
        || (value.len() <= 63
            && value.starts_with(edge)
            && value.ends_with(edge)
            && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')))
}

/// Checks the labels that select workloads. Whether none is worth a warning depends on the kind, so the
/// caller says what it means.
pub(crate) fn selector_labels(
    report: &mut Report<'_>,
    field: &str,
    labels: &BTreeMap<String, String>,
    empty_means: &str,
) {
    for (key, value) in labels {
        report.within_key(field, key, |report| {
            if key.is_empty() {
                report.error(Code::InvalidLabel, "a selector needs a label key", "");
            }
            if key.contains('*') || value.contains('*') {
                let message = format!("{key}={value}: selectors do not take wildcards");
                report.error(Code::InvalidLabel, message, "write out the label's value");
            }
        });
    }
    if labels.is_empty() {
        let message = format!("the selector has no labels and so selects {empty_means}");
        report.warning(Code::NoEffect, message, "add labels, or remove the selector");
    }
}

/// Checks the ways in which a policy says what it applies to: a selector or target references, not both.
pub(crate) fn policy_targets(
    report: &mut Report<'_>,
    selector: Option<&WorkloadSelector>,
    target: Option<&PolicyTargetReference>,
    targets: &[PolicyTargetReference],
) {
    if usize::from(selector.is_some()) + usize::from(target.is_some()) + usize::from(!targets.is_empty()) > 1
    {
        let message = "only one of selector, targetRef and targetRefs may be set";
        report.error(Code::ExclusiveFields, message, "keep the one that is meant");
    }
    report.each_set("selector", selector, |report, selector| {
        selector_labels(report, "matchLabels", &selector.match_labels, "every workload in the namespace");
    });
    report.each_set("targetRef", target, target_reference);
    report.each("targetRefs", targets, target_reference);
}

fn target_reference(report: &mut Report<'_>, target: &PolicyTargetReference) {
    if target.name.is_empty() {
        missing(report, "name", "name the object that the policy applies to");
    }
    if !target.namespace.is_empty() {
        report.within("namespace", |report| {
            let message = "a policy applies only to objects of its own namespace";
            report.error(
                Code::InvalidReference,
                message,
                "remove the namespace and put the policy next to its target",
            );
        });
    }
    let known = matches!(
        (target.group.as_str(), target.kind.as_str()),
        ("" | "core", "Service")
            | ("networking.istio.io", "ServiceEntry")
            | ("gateway.networking.k8s.io", "Gateway" | "GatewayClass")
    );
    if !known {
        let message = format!("a policy cannot apply to kind {:?} of group {:?}", target.kind, target.group);
        let hint = "use Service, ServiceEntry (networking.istio.io), Gateway or GatewayClass (gateway.networking.k8s.io)";
        report.error(Code::InvalidReference, message, hint);
    }
}

/// Who may see an object: `exportTo`.
pub(crate) struct ExportTo<'a> {
    pub values: &'a [String],
    /// `~` is allowed: nobody.
    pub allow_none: bool,
    /// The object applies only to some workloads of its own namespace.
    pub private: bool,
}

pub(crate) fn export_to(report: &mut Report<'_>, export: &ExportTo<'_>) {
    let namespace = report.metadata.namespace.to_string();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for (index, value) in export.values.iter().enumerate() {
        let key = if value == "." { namespace.as_str() } else { value.as_str() };
        report.within(&format!("exportTo[{index}]"), |report| {
            let valid = matches!(key, "*") || (key == "~" && export.allow_none) || is_label(key);
            if !valid {
                let message = format!("{value:?} is not a namespace");
                report.error(Code::InvalidReference, message, "use `.`, `*` or the name of a namespace");
            } else if !seen.insert(key) {
                report.error(
                    Code::DuplicateItem,
                    format!("{value:?} is there twice"),
                    "remove one of the two",
                );
            }
        });
    }
    let many = export.values.len() > 1;
    report.within("exportTo", |report| {
        if many && seen.contains("*") {
            report.error(
                Code::ExclusiveFields,
                "`*` already includes every other namespace",
                "keep only `*`",
            );
        }
        if many && seen.contains("~") {
            report.error(Code::ExclusiveFields, "`~` excludes everybody", "keep only `~`, or remove it");
        }
        if export.private && seen.iter().any(|key| *key != namespace) {
            let message = "with a workloadSelector the rule applies to its own namespace only";
            report.error(Code::ExclusiveFields, message, "set exportTo to `.` or remove it");
        }
    });
}

const PROTOCOLS: &str =
    "use HTTP, HTTP2, HTTPS, HTTP_PROXY, GRPC, GRPC-WEB, TLS, TCP, UDP, MONGO, REDIS or MYSQL";

/// Checks that a stated protocol is one that a mesh knows. Unset means that it is detected.
pub(crate) fn protocol(report: &mut Report<'_>, text: &str, required: bool) {
    if (required || !text.is_empty()) && Protocol::known(text).is_none() {
        report.within("protocol", |report| {
            report.error(Code::InvalidValue, format!("{text:?} is not a known protocol"), PROTOCOLS);
        });
    }
}

pub(crate) fn port_name(report: &mut Report<'_>, name: &str) {
    if !is_label(name) {
        report.within("name", |report| {
            let message = format!("{name:?} is not a valid port name");
            report.error(Code::InvalidName, message, "use letters, digits and inner hyphens, at most 63");
        });
    }
}

/// Reports items of a list that are there twice.
pub(crate) fn unique<'i, T: Ord + Display + ?Sized + 'i>(
    report: &mut Report<'_>,
    field: &str,
    items: impl IntoIterator<Item = &'i T>,
    what: &str,
) {
    let mut seen = BTreeSet::new();
    for (index, item) in items.into_iter().enumerate() {
        if !seen.insert(item) {
            report.within(&format!("{field}[{index}]"), |report| {
                let message = format!("{what} {item} is there twice");
                report.error(Code::DuplicateItem, message, "remove or rename one of the two");
            });
        }
    }
}

/// Whether `name` is a token of RFC 9110, the form of header names.
pub(crate) fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
