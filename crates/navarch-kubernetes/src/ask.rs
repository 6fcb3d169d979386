//! Questions that an API server answers and keeps nothing of: whose token that is, and who may read Secrets.

use std::sync::Arc;

use bytes::Bytes;
use kube::Client;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::request::{self, Change, Failure, chain};

/// Questions under way at once. More callers wait: whoever connects can make us ask.
const AT_ONCE: usize = 32;

/// Bytes of a token that is asked about.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nothing that an API server could have signed.
    #[error("it is not a token of a service account")]
    NotAToken,
    #[error("{reason}")]
    Failed {
        /// With its causes.
        reason: String,
    },
}

impl From<Failure> for AskError {
    fn from(failure: Failure) -> Self {
        AskError::Failed { reason: chain(&failure) }
    }
}

/// The answer to a SubjectAccessReview.
#[derive(Debug, Deserialize)]
struct Review {
    status: Allowed,
}

#[derive(Debug, Deserialize)]
struct Allowed {
    allowed: bool,
}

/// Who asks the API server of a cluster. Clones are the same.
#[derive(Clone)]
pub struct Questions {
    client: Client,
    at_once: Arc<Semaphore>,
}

impl std::fmt::Debug for Questions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Questions")
    }
}

impl Questions {
    pub(crate) fn new(client: Client) -> Self {
        Questions { client, at_once: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Whose token that is, if it is for one of these audiences: the answer as it comes.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn token_review(&self, token: &str, audiences: &[String]) -> Result<Bytes, AskError> {
        // Three parts (RFC 7519). Everything else is refused here, and costs the API server nothing.
        let is_token = token.len() <= TOKEN_BYTES_MAX && token.split('.').count() == 3;
        if !is_token || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(AskError::NotAToken);
        }
        let question = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": audiences},
        });
        self.ask("/apis/authentication.k8s.io/v1/tokenreviews", &question).await
    }

    /// Whether a service account may list the Secrets of its namespace, which is to read all of them.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn may_list_secrets(&self, namespace: &str, account: &str) -> Result<bool, AskError> {
        let question = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": format!("system:serviceaccount:{namespace}:{account}"),
                // What it authenticates as, so that a binding to all accounts counts.
                "groups": [
                    "system:serviceaccounts",
                    format!("system:serviceaccounts:{namespace}"),
                    "system:authenticated",
                ],
                "resourceAttributes": {"namespace": namespace, "verb": "list", "resource": "secrets"},
            },
        });
        let answer = self.ask("/apis/authorization.k8s.io/v1/subjectaccessreviews", &question).await?;
        let answer: Review =
            serde_json::from_slice(&answer).map_err(|error| Failure::Nonsense(error.to_string()))?;
        Ok(answer.status.allowed)
    }

    async fn ask(&self, path: &str, question: &serde_json::Value) -> Result<Bytes, AskError> {
        let _place = self.at_once.acquire().await;
        Ok(request::change(&self.client, Change::Create, path, question).await?)
    }
}

#[cfg(test)]
mod tests {
    use kube::Config;
    use navarch_testkit::cluster::Cluster;

    use super::*;
    use crate::access::client;

    #[tokio::test]
    async fn only_what_may_be_a_token_is_asked_about() -> anyhow::Result<()> {
        let cluster = Cluster::start(["/api/v1/pods"]).await?;
        cluster.review(
            "/apis/authentication.k8s.io/v1/tokenreviews",
            |asked| json!({"kind": "TokenReview", "status": {"audiences": asked["spec"]["audiences"]}}),
        );
        let questions =
            Questions::new(client(Config::new(format!("http://{}", cluster.address()).parse()?))?);
        let audiences = ["istio-ca".to_owned()];
        let answer = questions.token_review("a.b.c", &audiences).await?;
        let answer: serde_json::Value = serde_json::from_slice(&answer)?;
        assert_eq!(answer["status"]["audiences"], json!(audiences));
        let large = format!("a.b.{}", "c".repeat(TOKEN_BYTES_MAX));
        for token in ["", "abc", "a.b", "a.b.c.d", "a.b.c\n", large.as_str()] {
            let answer = questions.token_review(token, &audiences).await;
            assert!(matches!(answer, Err(AskError::NotAToken)), "{token}");
        }
        cluster.review("/apis/authorization.k8s.io/v1/subjectaccessreviews", |asked| {
            let user = asked["spec"]["user"].as_str();
            let allowed = user == Some("system:serviceaccount:shop:gateway")
                && asked["spec"]["resourceAttributes"]["namespace"] == "shop";
            json!({"kind": "SubjectAccessReview", "status": {"allowed": allowed}})
        });
        assert!(questions.may_list_secrets("shop", "gateway").await?);
        assert!(!questions.may_list_secrets("edge", "gateway").await?);
        drop(cluster);
        assert!(matches!(questions.may_list_secrets("shop", "gateway").await, Err(AskError::Failed { .. })));
        let answer = questions.token_review("a.b.c", &audiences).await;
        assert!(matches!(answer, Err(AskError::Failed { .. })));
        Ok(())
    }
}
