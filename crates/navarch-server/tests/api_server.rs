//! What a real API server serves means what it means in files.

mod common;

use anyhow::{Context, Result, ensure};
use common::cluster::{differences, objects, options};
use navarch_identity::tokens::review::Review;
use navarch_kubernetes::Kubernetes;
use navarch_model::{Kind, definition::definition};
use navarch_sources::{Batch, Settled, Source, SourceError};
use navarch_testkit::{
    golden::{self, Case},
    kubernetes::ApiServer,
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, future::Future, path::Path, pin::Pin};

#[tokio::test(flavor = "multi_thread")]
async fn golden_cases_mean_the_same_in_an_api_server() -> Result<()> {
    let definitions: Vec<_> = Kind::ALL.iter().filter_map(|kind| definition(*kind)).collect();
    let server = ApiServer::start("api-server-golden", &definitions).await?;
    let mut report = String::new();
    for case in golden::cases(common::root())? {
        serve(&server, &case).await.with_context(|| case.name.clone())?;
        let source = OfUsers(Kubernetes::follow(&options(server.kubeconfig())).await?);
        report += &differences(&case, Box::new(source)).await?;
    }
    ensure!(report.is_empty(), "{report}");
    Ok(())
}

/// A token of a service account proves what the API server says of it, to whom it is for.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_service_account_is_believed_for_its_audience() -> Result<()> {
    let server = ApiServer::start("api-server-tokens", &[]).await?;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web"}});
    server.create(accounts, &account).await?;
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": ["istio-ca"], "expirationSeconds": 600},
    });
    let made: Value = server.create(&format!("{accounts}/web/token"), &request).await?.json()?;
    let token = made["status"]["token"].as_str().context("a token")?;
    let questions = Kubernetes::follow(&options(server.kubeconfig())).await?.questions();
    let identity = async |token: &str, audience: &str| -> Result<String> {
        let audiences = [audience.to_owned()];
        let review = Review::parse(&questions.token_review(token, &audiences).await?)?;
        Ok(review.identity(&audiences, "cluster.local")?.to_string())
    };
    ensure!(identity(token, "istio-ca").await? == "spiffe://cluster.local/ns/default/sa/web");
    ensure!(identity(token, "other").await.is_err(), "it is for somebody else");
    let (signed, _) = token.rsplit_once('.').context("three parts")?;
    ensure!(identity(&format!("{signed}.AAAA"), "istio-ca").await.is_err(), "nobody has signed it");
    Ok(())
}

/// Has the API server serve what is in the case's files, and nothing else but what it makes itself.
async fn serve(server: &ApiServer, case: &Case) -> Result<()> {
    let mut of_kind: BTreeMap<Kind, Vec<Value>> = BTreeMap::new();
    for (kind, object) in objects(case)? {
        of_kind.entry(kind).or_default().push(object);
    }
    for kind in Kind::ALL {
        server.clear(kind.group(), kind.plural()).await?;
        if let Some(objects) = of_kind.get(kind) {
            server.put(kind.group(), kind.plural(), objects).await?;
        }
    }
    Ok(())
}

/// A cluster without what the API server makes itself, which no file has.
struct OfUsers(Kubernetes);

impl OfUsers {
    /// The service by which pods find the API server, and the namespaces and ConfigMaps that are
    /// always there.
    fn is_made_by_the_server(place: &Path) -> bool {
        let place = place.to_string_lossy();
        place == "Service/default/kubernetes" || place.contains("/kube-")
    }
}

impl Source for OfUsers {
    fn name(&self) -> String {
        self.0.name()
    }

    fn changed(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.0.changed()
    }

    fn settled(&self) -> Settled {
        self.0.settled()
    }

    fn read(&mut self) -> Result<Batch, SourceError> {
        let mut batch = self.0.read()?;
        batch.places.retain(|(place, _)| !OfUsers::is_made_by_the_server(place));
        Ok(batch)
    }
}
