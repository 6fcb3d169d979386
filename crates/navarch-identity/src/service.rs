//! `istio.v1.auth.IstioCertificateService/CreateCertificate`: the bytes of a request in, those of a response
//! out.
//!
//! The server around it knows how to get calls from a socket; this knows what to answer, and in which order
//! to be suspicious: how much, how often, who, for whom, with which key, for how long, and whether a token is
//! used up by it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use navarch_model::identity::SpiffeId;
use prost::Message;
use prost_types::value::Kind;

use crate::authenticate::{Caller, KubernetesFacts, UNAUTHENTICATED, Unauthenticated};
use crate::authority::{Authority, IssueError};
use crate::limit::{Allowance, RateLimit, TooMany};
use crate::request;
use crate::time::Timestamp;

/// The path of the method.
pub const CREATE_CERTIFICATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// Bytes of a message. The certificate request in it is the largest part.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// What is said if a node may not act for a workload, word for word as istiod says it.
pub const IMPERSONATION: &str = "request impersonation authentication failure";

/// What one identity may ask for: a deployment of a thousand replicas that starts at once shares one.
const ALLOWANCE: Allowance = Allowance { burst: 1000, every: Duration::from_millis(10) };

/// `istio.v1.auth.IstioCertificateRequest`. The number 2 is not in use.
#[derive(Clone, PartialEq, Message)]
pub struct CertificateRequest {
    /// PKCS #10, PEM.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// Seconds.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<prost_types::Struct>,
}

/// `istio.v1.auth.IstioCertificateResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct CertificateResponse {
    /// PEM: the leaf, the intermediates, and last the roots.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

/// How a call that is refused ends. The numbers are those of gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    InvalidArgument = 3,
    ResourceExhausted = 8,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// A call that is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code:?}: {reason}")]
pub struct Refused {
    pub code: Code,
    /// What the caller hears.
    pub message: String,
    /// What the log says.
    pub reason: String,
}

impl Refused {
    /// The caller hears the reason.
    fn open(code: Code, reason: &dyn fmt::Display) -> Self {
        let reason = reason.to_string();
        Refused { code, message: reason.clone(), reason }
    }

    /// The caller hears no more than that.
    fn closed(code: Code, message: &str, reason: &dyn fmt::Display) -> Self {
        Refused { code, message: message.to_owned(), reason: reason.to_string() }
    }
}

impl From<Unauthenticated> for Refused {
    fn from(error: Unauthenticated) -> Self {
        Refused::closed(Code::Unauthenticated, UNAUTHENTICATED, &error)
    }
}

impl From<TooMany> for Refused {
    fn from(error: TooMany) -> Self {
        Refused::open(Code::ResourceExhausted, &error)
    }
}

impl From<IssueError> for Refused {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::LifeTooLong { .. } | IssueError::Name { .. } => {
                Refused::open(Code::InvalidArgument, &error)
            }
            // Another try may find another signer.
            IssueError::Horizon(_) => {
                Refused::closed(Code::Unavailable, "the certificate cannot be signed now", &error)
            }
            IssueError::Expired { .. } | IssueError::Sign { .. } => {
                Refused::closed(Code::Internal, "the certificate cannot be signed", &error)
            }
        }
    }
}

/// Knows which workloads run on which nodes.
pub trait Workloads: Send + Sync {
    /// Whether a pod with that identity runs on the node of the pod that is described.
    fn share_a_node(&self, node_proxy: &KubernetesFacts, workload: &SpiffeId) -> bool;
}

/// Who may ask for certificates of others: proxies that serve all workloads of their node.
#[derive(Clone, Default)]
pub struct Impersonation {
    /// `CA_TRUSTED_NODE_ACCOUNTS`: namespace and service account.
    trusted: Vec<(String, String)>,
    /// Without it nobody may.
    workloads: Option<Arc<dyn Workloads>>,
}

impl fmt::Debug for Impersonation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Impersonation").field("trusted", &self.trusted).finish_non_exhaustive()
    }
}

/// Not a list of trusted node accounts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not <namespace>/<service account>, in a list with commas between")]
pub struct TrustedError(String);

impl Impersonation {
    /// Reads the value of `CA_TRUSTED_NODE_ACCOUNTS`.
    ///
    /// # Errors
    /// If it is not a list of accounts.
    pub fn parse(accounts: &str, workloads: Option<Arc<dyn Workloads>>) -> Result<Self, TrustedError> {
        let mut trusted = Vec::new();
        for account in accounts.split(',').map(str::trim).filter(|account| !account.is_empty()) {
            match account.split('/').collect::<Vec<_>>()[..] {
                [namespace, name] if !namespace.is_empty() && !name.is_empty() => {
                    trusted.push((namespace.to_owned(), name.to_owned()));
                }
                _ => return Err(TrustedError(account.to_owned())),
            }
        }
        Ok(Impersonation { trusted, workloads })
    }

    /// The identity that `caller` gets a certificate for.
    fn identity(&self, caller: &Caller, wanted: &str) -> Result<SpiffeId, String> {
        let Caller { identity, kubernetes, .. } = caller;
        let is_caller = |(namespace, account): &(String, String)| {
            **namespace == **identity.namespace() && **account == **identity.account()
        };
        if !self.trusted.iter().any(is_caller) {
            return Err(format!("{identity} is not a trusted node account (CA_TRUSTED_NODE_ACCOUNTS)"));
        }
        let wanted: SpiffeId = wanted.parse().map_err(|error| format!("{error}"))?;
        if wanted.trust_domain() != identity.trust_domain() {
            return Err(format!("{wanted} is of another trust domain than {identity}"));
        }
        let workloads =
            self.workloads.as_ref().ok_or("nothing is known of pods and nodes without Kubernetes")?;
        let facts = kubernetes.as_ref().filter(|facts| facts.pod.is_some() && facts.cluster.is_some());
        let facts = facts
            .ok_or_else(|| format!("the token of {identity} is not bound to a pod of a known cluster"))?;
        if !workloads.share_a_node(facts, &wanted) {
            return Err(format!("no pod with the identity {wanted} runs on the node of {identity}"));
        }
        Ok(wanted)
    }
}

/// Answers requests for certificates.
pub struct CertificateService {
    impersonation: Impersonation,
    limit: Mutex<RateLimit<SpiffeId>>,
}

impl fmt::Debug for CertificateService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateService")
            .field("impersonation", &self.impersonation)
            .finish_non_exhaustive()
    }
}

impl CertificateService {
    /// A service with the usual limits.
    #[must_use]
    pub fn new(impersonation: Impersonation) -> Self {
        Self::with_allowance(impersonation, ALLOWANCE)
    }

    /// A service in which one identity may ask for so much.
    #[must_use]
    pub fn with_allowance(impersonation: Impersonation, allowance: Allowance) -> Self {
        CertificateService { impersonation, limit: Mutex::new(RateLimit::new(allowance)) }
    }

    /// Answers a request of a caller.
    ///
    /// # Errors
    /// If the caller gets no certificate.
    pub fn create_certificate(
        &self,
        authority: &Authority,
        caller: &Caller,
        request: &[u8],
        now: Timestamp,
    ) -> Result<Vec<u8>, Refused> {
        if request.len() > MESSAGE_BYTES_MAX {
            let reason =
                format!("{} bytes are more than the {MESSAGE_BYTES_MAX} of a request", request.len());
            return Err(Refused::open(Code::ResourceExhausted, &reason));
        }
        let invalid = |error: &dyn fmt::Display| Refused::open(Code::InvalidArgument, error);
        self.take(caller, now)?;
        let request = CertificateRequest::decode(request).map_err(|error| invalid(&error))?;
        let identity = match impersonated(&request) {
            Some(wanted) => self
                .impersonation
                .identity(caller, wanted)
                .map_err(|reason| Refused::closed(Code::Unauthenticated, IMPERSONATION, &reason))?,
            None => caller.identity.clone(),
        };
        let life = Duration::from_secs(u64::try_from(request.validity_duration).unwrap_or(0));
        let max = authority.life().max;
        // Before a token is used up.
        if life > max {
            return Err(IssueError::LifeTooLong { asked: life, max }.into());
        }
        let key = request::parse(request.csr.as_bytes()).map_err(|error| invalid(&error))?;
        caller.spend(now).map_err(|error| Refused::closed(Code::Unauthenticated, UNAUTHENTICATED, &error))?;
        let issued = authority.issue(&identity, &key, life, now)?;
        tracing::debug!(
            identity = %identity, method = %caller.method, serial = issued.serial, not_after = %issued.not_after,
            "certificate issued"
        );
        Ok(CertificateResponse { cert_chain: issued.chain }.encode_to_vec())
    }

    fn take(&self, caller: &Caller, now: Timestamp) -> Result<(), TooMany> {
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        limit.take(caller.identity.clone(), Duration::from_secs(now.0))
    }
}

/// Whose certificate is asked for, if not the caller's own. An empty name is none, as in Istio.
fn impersonated(request: &CertificateRequest) -> Option<&str> {
    let value = request.metadata.as_ref()?.fields.get("ImpersonatedIdentity")?;
    match &value.kind {
        Some(Kind::StringValue(identity)) => Some(identity.as_str()).filter(|identity| !identity.is_empty()),
        // Something else than a name is not the caller's own either: it names nobody, and is refused.
        Some(Kind::NullValue(_)) | None => None,
        Some(_) => Some("(not a string)"),
    }
}

#[cfg(test)]
mod tests;
