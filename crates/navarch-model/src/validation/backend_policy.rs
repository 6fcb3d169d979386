//! Policies of backends of the Gateway API.

use std::collections::BTreeSet;

use super::checks::missing;
use super::gateway_api::{at_most, hostname};
use super::{Report, Validate};
use crate::finding::Code;
use crate::gateway_api::{
    BackendTlsPolicy, BackendTlsValidation, BackendTrafficPolicy, PolicyTarget, RetryConstraint,
    SubjectAltName, SubjectAltNameType,
};

const TARGETS_MAX: usize = 16;
const CERTIFICATES_MAX: usize = 8;
const NAMES_MAX: usize = 5;

impl Validate for BackendTlsPolicy {
    fn validate(&self, report: &mut Report<'_>) {
        let BackendTlsPolicy { target_refs, validation, options } = self;
        targets(report, target_refs);
        at_most(report, "options", options.len(), 16);
        report.within("validation", |report| self::validation(report, validation));
    }
}

impl Validate for BackendTrafficPolicy {
    fn validate(&self, report: &mut Report<'_>) {
        let BackendTrafficPolicy { target_refs, retry_constraint, session_persistence } = self;
        targets(report, target_refs);
        report.each_set("retryConstraint", retry_constraint.as_ref(), |report, constraint| {
            let RetryConstraint { budget, min_retry_rate } = constraint;
            let percent = budget.as_ref().and_then(|budget| budget.percent);
            if percent.is_some_and(|percent| percent > 100) {
                report.within("budget.percent", |report| {
                    report.error(Code::OutOfRange, "a share is at most 100 percent", "write 0 to 100");
                });
            }
            let count = min_retry_rate.as_ref().and_then(|rate| rate.count);
            if count.is_some_and(|count| count == 0 || count > 1_000_000) {
                report.within("minRetryRate.count", |report| {
                    let message = "the count is out of range";
                    report.error(Code::OutOfRange, message, "write 1 to 1000000");
                });
            }
        });
        if session_persistence.is_some() {
            report.within("sessionPersistence", |report| {
                let message = "sessions are not kept because of a policy of the backend";
                report.warning(Code::NoEffect, message, "state it in the rule of the route");
            });
        }
    }
}

fn targets(report: &mut Report<'_>, targets: &[PolicyTarget]) {
    if targets.is_empty() {
        missing(report, "targetRefs", "name the Service that the policy is for");
    }
    at_most(report, "targetRefs", targets.len(), TARGETS_MAX);
    let mut known = BTreeSet::new();
    let mut whole = BTreeSet::new();
    let mut parts = BTreeSet::new();
    report.each("targetRefs", targets, |report, target| {
        for (field, value) in [("kind", target.kind.as_str()), ("name", &target.name)] {
            if value.is_empty() {
                missing(report, field, "name the Service that the policy is for");
            }
        }
        let object = (&target.group, &target.kind, &target.name);
        let clashes = match target.section() {
            None => !whole.insert(object) || parts.contains(&object),
            Some(_) => {
                parts.insert(object);
                whole.contains(&object)
            }
        };
        if !known.insert((object, target.section())) || clashes {
            let message = format!("{} {} is named more than once", target.kind, target.name);
            report.error(Code::DuplicateItem, message, "name it once, or ports of it by sectionName");
        }
    });
}

fn validation(report: &mut Report<'_>, validation: &BackendTlsValidation) {
    let BackendTlsValidation {
        ca_certificate_refs,
        well_known_ca_certificates,
        hostname: name,
        subject_alt_names,
    } = validation;
    let well_known = well_known_ca_certificates.as_deref().filter(|name| !name.is_empty());
    match (ca_certificate_refs.is_empty(), well_known) {
        (true, None) => missing(report, "caCertificateRefs", "say whose certificates are trusted"),
        (false, Some(_)) => {
            let message = "certificates are trusted because of an authority or of a well-known set, not both";
            report.error(Code::ExclusiveFields, message, "remove one of the two");
        }
        (true, Some(_)) | (false, None) => {}
    }
    at_most(report, "caCertificateRefs", ca_certificate_refs.len(), CERTIFICATES_MAX);
    if name.is_empty() {
        missing(report, "hostname", "say what the certificate is for");
    } else if name.starts_with('*') {
        report.within("hostname", |report| {
            report.error(Code::InvalidHost, "the hostname cannot be a wildcard", "state one name");
        });
    } else {
        hostname(report, "hostname", name);
    }
    at_most(report, "subjectAltNames", subject_alt_names.len(), NAMES_MAX);
    report.each("subjectAltNames", subject_alt_names, |report, name| {
        let SubjectAltName { type_, hostname: host, uri } = name;
        let (own, other) = match type_ {
            SubjectAltNameType::Hostname => (("hostname", host), ("uri", uri)),
            SubjectAltNameType::Uri => (("uri", uri), ("hostname", host)),
        };
        if own.1.is_empty() {
            missing(report, own.0, "state the name");
        }
        if !other.1.is_empty() {
            report.within(other.0, |report| {
                let message = format!("the name is of type {}", type_.as_str());
                report.error(Code::ExclusiveFields, message, "remove the field, or change the type");
            });
        }
    });
}
