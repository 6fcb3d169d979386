//! What a real API server serves means what it means in files.

mod common;

use anyhow::{Context, Result, ensure};
use common::cluster::{differences, objects, options};
use navarch_kubernetes::Kubernetes;
use navarch_model::{Kind, definition::definition};
use navarch_sources::{Batch, Settled, Source, SourceError};
use navarch_testkit::{
    golden::{self, Case},
    kubernetes::ApiServer,
};
use serde_json::Value;
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
