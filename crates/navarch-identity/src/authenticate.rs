//! Who is calling: every way to prove it is tried in order, and the first that succeeds counts.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, RwLock};

use navarch_model::identity::{SpiffeId, TrustDomains};

use crate::secret::Secret;
use crate::time::Timestamp;
use crate::tokens::join::{Claims, JoinTokens, PREFIX, TokenError};
use crate::tokens::jwt::{self, JwtRule, KeySet};

/// What everybody hears who has proven nothing, word for word as istiod says it. The reason is for the log:
/// it would tell an attacker what to try next.
pub const UNAUTHENTICATED: &str = "request authenticate failure";

/// How somebody has proven who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    ClientCertificate,
    JoinToken,
    Oidc,
    KubernetesToken,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::ClientCertificate => "client certificate",
            Method::JoinToken => "join token",
            Method::Oidc => "OIDC token",
            Method::KubernetesToken => "Kubernetes token",
        })
    }
}

/// What somebody wants to prove who they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A certificate. A token for one use is used up by it.
    Certificate,
    /// Configuration, status, or anything else that can be asked for again.
    Stream,
}

/// What comes with a call.
#[derive(Clone, Debug)]
pub struct Presented {
    /// What the transport has verified of a client certificate; empty without one.
    pub identities: Vec<SpiffeId>,
    /// `authorization: Bearer`.
    pub bearer: Option<Secret>,
    /// The header `clusterid`.
    pub cluster: Option<String>,
    /// Those of the mesh at this moment.
    pub trust_domains: TrustDomains,
    pub purpose: Purpose,
}

impl Presented {
    /// The trust domain that identities of tokens are in.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        self.trust_domains.iter().next().map_or("", |domain| domain)
    }
}

/// The token of an `authorization` header, if it is a bearer token (RFC 6750, 2.1; the scheme in any case).
#[must_use]
pub fn bearer(header: &[u8]) -> Option<Secret> {
    let (scheme, token) = header.split_at_checked("Bearer ".len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then(|| Secret::new(token.to_vec()))
}

/// Who is calling, proven.
#[derive(Clone, Debug)]
pub struct Caller {
    pub identity: SpiffeId,
    pub method: Method,
    /// What an API server says about the caller's pod.
    pub kubernetes: Option<KubernetesFacts>,
    pub(crate) single_use: Option<SingleUse>,
}

impl Caller {
    /// A caller with nothing but an identity.
    #[must_use]
    pub fn new(identity: SpiffeId, method: Method) -> Self {
        Caller { identity, method, kubernetes: None, single_use: None }
    }

    /// Uses up what may be used once, and writes down the use. To be called when nothing but an answer is
    /// left to do.
    ///
    /// # Errors
    /// If it has been used meanwhile, or that cannot be written down.
    pub fn spend(&self, now: Timestamp) -> Result<(), TokenError> {
        self.single_use.as_ref().map_or(Ok(()), |single_use| single_use.tokens.spend(&single_use.claims, now))
    }
}

/// What Kubernetes says of the pod that a token is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubernetesFacts {
    pub cluster: Option<String>,
    /// Namespace and name.
    pub pod: Option<(String, String)>,
    pub node: Option<String>,
}

/// A token that its use has to be written down for.
#[derive(Clone, Debug)]
pub(crate) struct SingleUse {
    tokens: Arc<JoinTokens>,
    claims: Claims,
}

impl SingleUse {
    pub(crate) fn new(tokens: Arc<JoinTokens>, claims: Claims) -> Self {
        SingleUse { tokens, claims }
    }
}

/// Why something that was presented proves nothing. For the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    reason: String,
}

impl Refusal {
    #[must_use]
    pub fn new(reason: &dyn fmt::Display) -> Self {
        Refusal { reason: reason.to_string() }
    }
}

/// What an authenticator answers, when it does: `None` if nothing was presented that it could judge.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Option<Caller>, Refusal>> + Send + 'a>>;

/// One way to prove who one is.
pub trait Authenticator: Send + Sync {
    fn method(&self) -> Method;

    /// Who presents this.
    fn authenticate<'a>(&'a self, presented: &'a Presented, now: Timestamp) -> Answer<'a>;
}

/// Nobody was proven to be anybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unauthenticated {
    /// Why each that judged something refused it. Empty if nothing was presented.
    pub reasons: Vec<(Method, Refusal)>,
}

/// For the log; the caller hears [`UNAUTHENTICATED`].
impl fmt::Display for Unauthenticated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reasons.is_empty() {
            return f.write_str("neither a certificate nor a token that is known here was presented");
        }
        for (index, (method, reason)) in self.reasons.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{method}: {reason}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Unauthenticated {}

/// All ways to prove who one is, in the order in which they are tried.
#[derive(Clone, Default)]
pub struct Authenticators {
    all: Vec<Arc<dyn Authenticator>>,
}

impl fmt::Debug for Authenticators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all.iter().map(|one| one.method())).finish()
    }
}

impl Authenticators {
    /// These, in this order.
    #[must_use]
    pub fn new(all: Vec<Arc<dyn Authenticator>>) -> Self {
        Authenticators { all }
    }

    /// Who is calling.
    ///
    /// # Errors
    /// If nothing that was presented proves it.
    pub async fn authenticate(
        &self,
        presented: &Presented,
        now: Timestamp,
    ) -> Result<Caller, Unauthenticated> {
        let mut reasons = Vec::new();
        for one in &self.all {
            match one.authenticate(presented, now).await {
                Ok(Some(caller)) => return Ok(caller),
                Ok(None) => {}
                Err(refusal) => reasons.push((one.method(), refusal)),
            }
        }
        Err(Unauthenticated { reasons })
    }
}

/// A certificate that the transport has verified.
#[derive(Clone, Copy, Debug)]
pub struct CertificateAuthenticator;

impl CertificateAuthenticator {
    fn caller(presented: &Presented) -> Result<Option<Caller>, Refusal> {
        match presented.identities.as_slice() {
            [] => Ok(None),
            // A root that several meshes share signs others too.
            [id] if presented.trust_domains.contains(id) => {
                Ok(Some(Caller::new(id.clone(), Method::ClientCertificate)))
            }
            [id] => Err(Refusal::new(&format_args!("{id} is not of a trust domain of this mesh"))),
            ids => Err(Refusal::new(&format_args!("it names {} identities", ids.len()))),
        }
    }
}

impl Authenticator for CertificateAuthenticator {
    fn method(&self) -> Method {
        Method::ClientCertificate
    }

    fn authenticate<'a>(&'a self, presented: &'a Presented, _now: Timestamp) -> Answer<'a> {
        Box::pin(std::future::ready(Self::caller(presented)))
    }
}

/// Tokens of an OIDC issuer. Without keys every token is refused.
#[derive(Debug)]
pub struct OidcAuthenticator {
    rule: JwtRule,
    keys: RwLock<Option<Arc<KeySet>>>,
}

impl OidcAuthenticator {
    /// Believes what `rule` says, once there are keys.
    #[must_use]
    pub fn new(rule: JwtRule) -> Self {
        OidcAuthenticator { rule, keys: RwLock::default() }
    }

    /// These are the issuer's keys from now on.
    pub fn set_keys(&self, keys: KeySet) {
        *self.keys.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(Arc::new(keys));
    }

    fn caller(&self, token: &Secret, presented: &Presented, now: Timestamp) -> Result<Caller, Refusal> {
        let keys = self.keys.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let keys = keys.ok_or_else(|| Refusal::new(&"the keys of the issuer are not known yet"))?;
        let identity = jwt::verify(token, &self.rule, &keys, presented.trust_domain(), now);
        let identity = identity.map_err(|error| Refusal::new(&error))?;
        Ok(Caller::new(identity, Method::Oidc))
    }
}

impl Authenticator for OidcAuthenticator {
    fn method(&self) -> Method {
        Method::Oidc
    }

    fn authenticate<'a>(&'a self, presented: &'a Presented, now: Timestamp) -> Answer<'a> {
        let token = presented.bearer.as_ref();
        let token = token.filter(|token| !token.expose().starts_with(PREFIX.as_bytes()));
        let answer = token.map(|token| self.caller(token, presented, now)).transpose();
        Box::pin(std::future::ready(answer))
    }
}

#[cfg(test)]
mod tests;
