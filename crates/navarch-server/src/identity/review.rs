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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use navarch_identity::Secret;
    use navarch_kubernetes::remote::{self, RemoteClusters};
    use navarch_kubernetes::{Access, Kubernetes, Options};
    use navarch_testkit::{cluster::Cluster, wait};
    use serde_json::json;

    use super::*;

    /// A cluster that believes everything, of a service account that is called as the cluster.
    async fn cluster(name: &'static str) -> anyhow::Result<Cluster> {
        let cluster = Cluster::start(["/api/v1/pods"]).await?;
        cluster.review("/apis/authentication.k8s.io/v1/tokenreviews", move |asked| {
            let username = format!("system:serviceaccount:shop:{name}");
            let status = json!({
                "authenticated": true, "user": {"username": username}, "audiences": asked["spec"]["audiences"],
            });
            json!({"kind": "TokenReview", "status": status})
        });
        Ok(cluster)
    }

    #[tokio::test]
    async fn each_cluster_is_asked_about_its_own_tokens() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let (main, west) = (cluster("main").await?, cluster("west").await?);
        let kubeconfig = |cluster: &Cluster| Cluster::kubeconfig(directory.path(), cluster.address());
        let options = Options {
            access: Access { kubeconfig: Some(kubeconfig(&main)?), context: None },
            cluster: "main".into(),
            revision: Default::default(),
            namespaces: Default::default(),
            kept: None,
            candidate: None,
        };
        let remotes = RemoteClusters::follow(remote::Options {
            local: "main".into(),
            secrets: None,
            files: BTreeMap::from([("west".to_owned(), kubeconfig(&west)?)]),
            namespaces: Default::default(),
            kept: None,
            patience: Duration::from_secs(15),
        })
        .await?;
        let reviewer = ClusterReviewer {
            cluster: "main".to_owned(),
            questions: Kubernetes::follow(&options).await?.questions(),
            remotes: Some(remotes.remotes()),
        };
        wait::until_true("the other cluster", wait::STEP, || {
            let known = remotes.remotes().questions("west").is_some();
            async move { Ok(known) }
        })
        .await?;
        let (token, audiences) = (Secret::new(b"a.b.c".to_vec()), [AUDIENCE.to_owned()]);
        for (asked, expected) in [
            (None, Ok("system:serviceaccount:shop:main")),
            (Some("main"), Ok("system:serviceaccount:shop:main")),
            (Some("west"), Ok("system:serviceaccount:shop:west")),
            (Some("east"), Err(ReviewError::UnknownCluster("east".to_owned()))),
        ] {
            let answer =
                reviewer.review(Question { token: &token, audiences: &audiences, cluster: asked }).await;
            assert_eq!(answer.map(|review| review.username), expected.map(str::to_owned), "{asked:?}");
        }
        Ok(())
    }
}
