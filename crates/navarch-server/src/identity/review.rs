//! Tokens of Kubernetes service accounts: asks the API server of the cluster that the caller says to be in,
//! of those that are followed.

use navarch_identity::tokens::review::{Question, Review, ReviewError, Reviewer, Reviewing};
use navarch_kubernetes::Questions;
use navarch_kubernetes::remote::Remotes;

/// Whom a token of this audience may be shown to: those that agents of Istio present.
pub const AUDIENCE: &str = "istio-ca";

/// The API servers that are followed.
#[derive(Debug)]
pub struct ClusterReviewer {
    /// What callers call the cluster whose configuration counts.
    pub cluster: String,
    pub questions: Questions,
    /// The others.
    pub remotes: Option<Remotes>,
}

impl ClusterReviewer {
    /// Whom to ask about callers who say which cluster they are in, or do not.
    fn questions(&self, cluster: Option<&str>) -> Option<Questions> {
        match cluster {
            None => Some(self.questions.clone()),
            Some(cluster) if cluster == self.cluster => Some(self.questions.clone()),
            Some(other) => self.remotes.as_ref()?.questions(other),
        }
    }
}

impl Reviewer for ClusterReviewer {
    fn review<'a>(&'a self, question: Question<'a>) -> Reviewing<'a> {
        Box::pin(async move {
            let Question { token, audiences, cluster } = question;
            let Some(questions) = self.questions(cluster) else {
                return Err(ReviewError::UnknownCluster(cluster.unwrap_or_default().to_owned()));
            };
            let unreachable = |reason: String| ReviewError::Unreachable(reason);
            let token = token.expose_text().ok_or_else(|| unreachable("the token is not text".to_owned()))?;
            let answer = questions.token_review(token, audiences).await;
            Review::parse(&answer.map_err(|error| unreachable(error.to_string()))?)
        })
    }
}
