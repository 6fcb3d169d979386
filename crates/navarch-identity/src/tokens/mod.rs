//! Tokens: proof for those who have no certificate yet.
//!
//! | Kind | Who signs it | Module |
//! |---|---|---|
//! | join token | this authority | [`join`] |
//! | OIDC | an issuer whose keys are known (`JWT_RULE`) | [`jwt`] |
//! | admin token | nobody; it is a secret of this machine | [`admin`] |
//! | Kubernetes service account | an API server, which is asked (TokenReview) | [`review`] |

pub mod admin;
pub mod join;
pub mod jwt;
pub mod review;

use navarch_model::identity::{SpiffeId, SpiffeIdError};

/// What Kubernetes calls a service account, and Istio asks of any issuer (`sub`).
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Why a subject is not a service account.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    #[error("the subject {0:?} is not system:serviceaccount:<namespace>:<service account>")]
    Form(String),
    #[error(transparent)]
    Id(#[from] SpiffeIdError),
}

/// The identity of `system:serviceaccount:<namespace>:<service account>`.
///
/// # Errors
/// If the subject does not have that form.
pub fn identity_of(subject: &str, trust_domain: &str) -> Result<SpiffeId, SubjectError> {
    let parts = subject.strip_prefix(SERVICE_ACCOUNT).and_then(|rest| rest.split_once(':'));
    let (namespace, account) = parts.ok_or_else(|| SubjectError::Form(subject.to_owned()))?;
    Ok(SpiffeId::new(trust_domain, namespace, account)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_service_accounts_or_nobody() {
        let check = |subject: &str, expected: Option<&str>| {
            let id = identity_of(subject, "td").ok().map(|id| id.to_string());
            assert_eq!(id.as_deref(), expected, "{subject}");
        };
        check("system:serviceaccount:shop:web", Some("spiffe://td/ns/shop/sa/web"));
        check("system:serviceaccount:shop:web:more", None);
        check("system:serviceaccount:shop/sa/admin:web", None);
        check("system:serviceaccount:shop:", None);
        check("system:serviceaccount::web", None);
        check("system:serviceaccount:shop", None);
        check("system:node:shop:web", None);
        check("web", None);
        check("", None);
    }
}
