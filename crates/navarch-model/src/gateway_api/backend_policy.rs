//! Policies of backends: how connections to a Service are made, whoever makes them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::service::Name;
use crate::values::Json;
use crate::yaml::{closed_enum, message};

message! {
    /// TLS with a backend. Gateway API: `BackendTLSPolicySpec`.
    pub struct BackendTlsPolicy {
        target_refs: Vec<PolicyTarget>,
        validation: BackendTlsValidation,
        options: BTreeMap<String, String>,
    }
}

message! {
    /// A Service, or one port of it. Gateway API: `LocalPolicyTargetReferenceWithSectionName`.
    pub struct PolicyTarget {
        group: String,
        kind: String,
        name: Name,
        /// The name of the port.
        section_name: Option<Name>,
    }
}

message! {
    /// How the certificate of a backend is verified. Gateway API: `BackendTLSPolicyValidation`.
    pub struct BackendTlsValidation {
        ca_certificate_refs: Vec<LocalObjectReference>,
        well_known_ca_certificates as "wellKnownCACertificates": Option<String>,
        /// What is stated in the handshake (SNI), and what the certificate is for.
        hostname: String,
        subject_alt_names: Vec<SubjectAltName>,
    }
}

message! {
    /// An object of the same namespace.
    pub struct LocalObjectReference {
        group: String,
        kind: String,
        name: Name,
    }
}

message! {
    /// A name that the certificate may have instead of the hostname.
    pub struct SubjectAltName {
        type_: SubjectAltNameType,
        hostname: String,
        uri: String,
    }
}

closed_enum! {
    /// What kind of name it is.
    pub enum SubjectAltNameType {
        Hostname = 0 "Hostname",
        Uri = 1 "URI",
    }
}

message! {
    /// How a backend is used. Experimental. Gateway API: `BackendTrafficPolicySpec`.
    pub struct BackendTrafficPolicy {
        target_refs: Vec<PolicyTarget>,
        retry_constraint: Option<RetryConstraint>,
        session_persistence: Option<Json>,
    }
}

message! {
    /// How many requests may be tried again. Gateway API: `RetryConstraint`.
    pub struct RetryConstraint {
        budget: Option<BudgetDetails>,
        min_retry_rate: Option<RequestRate>,
    }
}

message! {
    /// The share of requests that may be tried again.
    pub struct BudgetDetails {
        percent: Option<u32>,
        interval: Option<Duration>,
    }
}

message! {
    /// Requests in a time.
    pub struct RequestRate {
        count: Option<u32>,
        interval: Option<Duration>,
    }
}

impl PolicyTarget {
    /// Whether it is a Service of Kubernetes.
    pub fn is_service(&self) -> bool {
        (self.group.as_str(), self.kind.as_str()) == ("", "Service")
    }

    /// The port that is meant, if only one is.
    pub fn section(&self) -> Option<&Name> {
        self.section_name.as_ref().filter(|name| !name.is_empty())
    }
}

impl SubjectAltName {
    /// The name.
    pub fn value(&self) -> &str {
        match self.type_ {
            SubjectAltNameType::Hostname => &self.hostname,
            SubjectAltNameType::Uri => &self.uri,
        }
    }
}
