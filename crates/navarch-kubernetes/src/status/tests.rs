//! Replicas, and an API server in memory.

use anyhow::{Context, Result, ensure};
use navarch_model::status::{Condition, ConditionType, ParentStatus, Status};
use navarch_sources::Source;
use navarch_testkit::cluster::Cluster;
use navarch_testkit::wait;

use super::*;
use crate::lease::Timing;
use crate::{Access, Candidate, Kubernetes, Options};

const ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/httproutes";
const ROUTE: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/cart";

/// As fast as a Lease can say.
const TIMING: Timing = Timing {
    duration: Duration::from_secs(1),
    holds: Duration::from_millis(600),
    retry: Duration::from_millis(50),
};

async fn replica(cluster: &Cluster, name: &str) -> Result<Kubernetes> {
    let directory = tempfile::tempdir()?;
    let kubeconfig = Cluster::kubeconfig(directory.path(), cluster.address())?;
    let options = Options {
        access: Access { kubeconfig: Some(kubeconfig), context: None },
        cluster: "c".into(),
        revision: Arc::default(),
        namespaces: Default::default(),
        kept: None,
        candidate: Some(Candidate {
            namespace: "istio-system".to_owned(),
            lease: "navarch-default".to_owned(),
            name: name.to_owned(),
        }),
    };
    Ok(Kubernetes::follow_at(&options, TIMING).await?)
}

/// An API server with a route that somebody else has said something of.
async fn cluster() -> Result<Cluster> {
    let cluster = Cluster::start([ROUTES, "/apis/coordination.k8s.io/v1/leases"]).await?;
    cluster.put(ROUTES, &route("cart"));
    Ok(cluster)
}

fn route(name: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": "shop", "generation": 1},
        "spec": {"parentRefs": [{"name": "web"}]},
        "status": {"parents": [{"controllerName": "example.com/other", "parentRef": {"name": "other"}}]},
    })
}

fn wanted(name: &str, generation: i64) -> Written {
    let parent = ObjectKey::new(Kind::KubernetesGateway, "shop", "web");
    let conditions = vec![Condition::new(ConditionType::Accepted, true, "Accepted", "")];
    let parents = vec![ParentStatus { parent, section: None, port: None, conditions }];
    Written {
        object: ObjectKey::new(Kind::HttpRoute, "shop", name),
        resource_version: "".into(),
        status: Status { generation, parents, ..Status::default() },
        controllers: vec!["navarch/gateway-controller"],
    }
}

fn tell(replica: &mut Kubernetes, written: &Written) -> Result<()> {
    replica.status_writer().context("a writer")?.write(std::slice::from_ref(written));
    Ok(())
}

/// Waits until the route's status is about a generation.
async fn until_written(cluster: &Cluster, generation: i64) -> Result<()> {
    wait::until("the status", wait::STEP, || async {
        let route = cluster.object(ROUTE).context("the route")?;
        let parents = route["status"]["parents"].as_array().context("parents")?;
        ensure!(parents.len() == 2 && parents[0]["controllerName"] == "example.com/other", "{parents:?}");
        let said = &parents[1]["conditions"][0];
        ensure!(said["observedGeneration"] == generation, "{said}");
        ensure!(parents[1]["parentRef"]["name"] == "web", "{parents:?}");
        Ok(())
    })
    .await
}

/// Statuses of routes that have been written since the last call.
fn writes(cluster: &Cluster) -> usize {
    cluster.take_writes().iter().filter(|write| write.path.ends_with("/status")).count()
}

fn leads(replica: &Kubernetes) -> bool {
    replica.writer().is_some_and(|writer| writer.leadership().is_held())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_replicas_writes_each_change_once_and_the_other_goes_on_when_it_is_gone() -> Result<()> {
    let cluster = cluster().await?;
    let mut replicas = vec![replica(&cluster, "a").await?, replica(&cluster, "b").await?];
    for replica in &mut replicas {
        tell(replica, &wanted("cart", 1))?;
    }
    until_written(&cluster, 1).await?;
    ensure!(writes(&cluster) == 1, "one of them, once");
    ensure!(replicas.iter().filter(|replica| leads(replica)).count() == 1, "one leads");
    // Without a goodbye.
    replicas.retain(|replica| !leads(replica));
    let [survivor] = replicas.as_mut_slice() else { anyhow::bail!("one is left") };
    tell(survivor, &wanted("cart", 2))?;
    until_written(&cluster, 2).await?;
    ensure!(leads(survivor) && writes(&cluster) == 1, "what was right already is not written again");
    // With one: the next is not kept waiting.
    survivor.writer().context("a writer")?.leadership().resign().await;
    let lease = cluster.object("/apis/coordination.k8s.io/v1/namespaces/istio-system/leases/navarch-default");
    ensure!(lease.context("a lease")?["spec"]["holderIdentity"] == "", "it is left to others");
    ensure!(!leads(survivor), "it writes no more");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_is_tried_again_and_keeps_nothing_else_from_it() -> Result<()> {
    let cluster = cluster().await?;
    cluster.put(ROUTES, &route("other"));
    cluster.refuse("PATCH", "/other/status", 500);
    let mut one = replica(&cluster, "a").await?;
    tell(&mut one, &wanted("other", 1))?;
    tell(&mut one, &wanted("cart", 1))?;
    until_written(&cluster, 1).await?;
    let report = || one.writer().map(|writer| writer.statuses()).unwrap_or_default();
    wait::until("a failure", wait::STEP, || async {
        ensure!(report().failed > 0 && report().pending == 1, "{:?}", report());
        Ok(())
    })
    .await?;
    cluster.refuse_nothing();
    wait::until("everything to be written", wait::STEP, || async {
        ensure!(report().pending == 0 && report().written == 2, "{:?}", report());
        Ok(())
    })
    .await?;
    // What somebody else overwrites is written again.
    cluster.put(ROUTES, &route("cart"));
    until_written(&cluster, 1).await
}
