//! Tokens of Kubernetes service accounts: the seam. An API server is asked what it thinks of a token
//! (TokenReview), and this file decides what its answer proves. Who asks, and over what connection, is not
//! known here.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use navarch_model::identity::SpiffeId;
use serde::Deserialize;
use serde_json::Value;

use super::{SubjectError, identity_of};
use crate::authenticate::{Answer, Authenticator, Caller, KubernetesFacts, Method, Presented, Refusal};
use crate::secret::Secret;
use crate::time::Timestamp;
use crate::tokens::join;

/// Bytes of an answer of the API server.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The `status` of a TokenReview.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Review {
    pub authenticated: bool,
    pub username: String,
    /// Those of the audiences asked for that the token is good for.
    pub audiences: Vec<String>,
    pub pod: Option<String>,
    pub node: Option<String>,
    /// Why the token was not believed.
    pub error: String,
}

/// What is asked of an API server.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub token: &'a Secret,
    pub audiences: &'a [String],
    /// Which cluster's API server, if the caller says (`clusterid`). The answer to a cluster that is not
    /// known is an error.
    pub cluster: Option<&'a str>,
}

/// The answer, when it comes. In a box, so that those who ask can be exchanged.
pub type Reviewing<'a> = Pin<Box<dyn Future<Output = Result<Review, ReviewError>> + Send + 'a>>;

/// Somebody who asks an API server.
pub trait Reviewer: Send + Sync {
    /// What the API server thinks of a token.
    fn review<'a>(&'a self, question: Question<'a>) -> Reviewing<'a>;
}

/// Why there is no answer, or the answer proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    #[error("no cluster is called {0:?}")]
    UnknownCluster(String),
    #[error("the API server cannot be asked: {0}")]
    Unreachable(String),
    #[error("the API server's answer is not a TokenReview: {0}")]
    Form(String),
    #[error("the API server does not believe the token: {0}")]
    NotAuthenticated(String),
    #[error("the token is for {0:?}")]
    Audience(Vec<String>),
    #[error(transparent)]
    Subject(#[from] SubjectError),
}

impl Review {
    /// Reads a TokenReview, as the API server answers it.
    ///
    /// # Errors
    /// If it is not one.
    pub fn parse(text: &[u8]) -> Result<Self, ReviewError> {
        #[derive(Deserialize)]
        struct Document {
            kind: String,
            #[serde(default)]
            status: Status,
        }
        #[derive(Default, Deserialize)]
        struct Status {
            #[serde(default)]
            authenticated: bool,
            #[serde(default)]
            user: User,
            #[serde(default)]
            audiences: Vec<String>,
            #[serde(default)]
            error: String,
        }
        #[derive(Default, Deserialize)]
        struct User {
            #[serde(default)]
            username: String,
            #[serde(default)]
            extra: Value,
        }
        if text.len() > ANSWER_BYTES_MAX {
            return Err(ReviewError::Form(format!("it has {} bytes", text.len())));
        }
        let document: Document =
            serde_json::from_slice(text).map_err(|error| ReviewError::Form(error.to_string()))?;
        if document.kind != "TokenReview" {
            return Err(ReviewError::Form(format!("it is a {}", document.kind)));
        }
        let Status { authenticated, user: User { username, extra }, audiences, error } = document.status;
        let fact = |name: &str| {
            let values = extra.get(format!("authentication.kubernetes.io/{name}"))?.as_array()?;
            values.first()?.as_str().map(str::to_owned)
        };
        let (pod, node) = (fact("pod-name"), fact("node-name"));
        Ok(Review { authenticated, username, audiences, pod, node, error })
    }

    /// Who the answer proves the bearer to be. An API server that does not say what the token is for proves
    /// nothing.
    ///
    /// # Errors
    /// The reason why it proves nothing.
    pub fn identity(&self, audiences: &[String], trust_domain: &str) -> Result<SpiffeId, ReviewError> {
        if !self.authenticated {
            return Err(ReviewError::NotAuthenticated(self.error.clone()));
        }
        if !self.audiences.iter().any(|audience| audiences.contains(audience)) {
            return Err(ReviewError::Audience(self.audiences.clone()));
        }
        Ok(identity_of(&self.username, trust_domain)?)
    }
}

/// Kubernetes tokens as a way to prove who one is.
pub struct ReviewAuthenticator {
    pub reviewer: Arc<dyn Reviewer>,
    /// `TOKEN_AUDIENCES`.
    pub audiences: Vec<String>,
}

impl fmt::Debug for ReviewAuthenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReviewAuthenticator").field("audiences", &self.audiences).finish_non_exhaustive()
    }
}

impl ReviewAuthenticator {
    async fn caller(&self, token: &Secret, presented: &Presented) -> Result<Caller, ReviewError> {
        let cluster = presented.cluster.as_deref();
        let review = self.reviewer.review(Question { token, audiences: &self.audiences, cluster }).await?;
        let identity = review.identity(&self.audiences, presented.trust_domain())?;
        let kubernetes = KubernetesFacts {
            cluster: presented.cluster.clone(),
            pod: review.pod.map(|pod| (identity.namespace().to_string(), pod)),
            node: review.node,
        };
        Ok(Caller { kubernetes: Some(kubernetes), ..Caller::new(identity, Method::KubernetesToken) })
    }
}

impl Authenticator for ReviewAuthenticator {
    fn method(&self) -> Method {
        Method::KubernetesToken
    }

    fn authenticate<'a>(&'a self, presented: &'a Presented, _now: Timestamp) -> Answer<'a> {
        Box::pin(async move {
            // A join token is nobody else's business: an API server would be told a secret of this one.
            let token = presented.bearer.as_ref();
            let token = token.filter(|token| !token.expose().starts_with(join::PREFIX.as_bytes()));
            let Some(token) = token else { return Ok(None) };
            self.caller(token, presented).await.map(Some).map_err(|error| Refusal::new(&error))
        })
    }
}

#[cfg(test)]
mod tests;
