//! Tokens of Kubernetes service accounts: asks the API server of the cluster that is followed.

use navarch_identity::tokens::review::{Question, Review, ReviewError, Reviewer, Reviewing};
use navarch_kubernetes::Questions;

/// Whom a token of this audience may be shown to: those that agents of Istio present.
pub const AUDIENCE: &str = "istio-ca";

/// The API server of one cluster.
#[derive(Debug)]
pub struct ClusterReviewer {
    /// What callers call the cluster.
    pub cluster: String,
    pub questions: Questions,
}

impl Reviewer for ClusterReviewer {
    fn review<'a>(&'a self, question: Question<'a>) -> Reviewing<'a> {
        Box::pin(async move {
            let Question { token, audiences, cluster } = question;
            if let Some(other) = cluster.filter(|cluster| *cluster != self.cluster) {
                return Err(ReviewError::UnknownCluster(other.to_owned()));
            }
            let unreachable = |reason: String| ReviewError::Unreachable(reason);
            let token = token.expose_text().ok_or_else(|| unreachable("the token is not text".to_owned()))?;
            let answer = self.questions.token_review(token, audiences).await;
            Review::parse(&answer.map_err(|error| unreachable(error.to_string()))?)
        })
    }
}
