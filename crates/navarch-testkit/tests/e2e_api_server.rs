//! `navarch serve --kubernetes` with a real API server, and a stock Envoy.

mod common;

use anyhow::{Context, Result, bail, ensure};
use common::api_server::{ApiServer, statuses, walk};
use common::registered::{GROUP, mesh};
use navarch_testkit::envoy::Envoy;
use navarch_testkit::navarch::{self, Server};
use navarch_testkit::{kubernetes, ports, wait, workspace};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

impl ApiServer for kubernetes::ApiServer {
    fn kubeconfig(&self, _: &Path) -> Result<PathBuf> {
        Ok(kubernetes::ApiServer::kubeconfig(self))
    }

    async fn apply(&self, plural: &str, object: &Value) -> Result<()> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (version, metadata) = (text(&object["apiVersion"]), &object["metadata"]);
        let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
        let path = format!("/apis/{version}/namespaces/{namespace}/{plural}/{name}");
        kubernetes::ApiServer::apply(self, &path, object).await?;
        Ok(())
    }

    async fn get(&self, version: &str, plural: &str, name: &str) -> Result<Value> {
        kubernetes::ApiServer::get(self, &format!("/apis/{version}/namespaces/default/{plural}/{name}")).await
    }

    fn stop(&mut self) {
        kubernetes::ApiServer::stop(self);
    }

    async fn start_again(&mut self) -> Result<()> {
        kubernetes::ApiServer::start_again(self).await
    }
}

/// An API server that has been given what `navarch crds` prints.
async fn api_server(name: &str) -> Result<kubernetes::ApiServer> {
    let printed: Value = serde_json::from_str(&navarch::stdout(["crds", "--gateway-api"])?)?;
    kubernetes::ApiServer::start(name, printed["items"].as_array().context("a list")?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_applied_to_a_cluster_reaches_envoy_and_stays_when_the_api_server_goes() -> Result<()> {
    walk("api-server", &mut api_server("api-server-cluster").await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_objects_is_in_their_status() -> Result<()> {
    statuses("api-server-statuses", &api_server("api-server-statuses-cluster").await?).await
}

/// Where the entries of workloads are.
const ENTRIES: &str = "/apis/networking.istio.io/v1/namespaces/shop/workloadentries";

/// The replicas that the entries of workloads name, each with whether its workload is well.
async fn entries(cluster: &kubernetes::ApiServer) -> Result<Vec<(String, bool)>> {
    let listed = cluster.get(ENTRIES).await?;
    let items = listed["items"].as_array().context("a list")?;
    let entries = items.iter().map(|entry| {
        let annotations = &entry["metadata"]["annotations"];
        let replica = annotations["istio.io/workloadController"].as_str().unwrap_or_default();
        (replica.to_owned(), annotations["navarch/health"].is_null())
    });
    Ok(entries.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_that_registers_at_one_replica_is_known_to_all() -> Result<()> {
    let cluster = api_server("api-server-registrations").await?;
    for name in ["istio-system", "shop"] {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        cluster.create("/api/v1/namespaces", &namespace).await?;
    }
    let kubeconfig = cluster.kubeconfig().display().to_string();
    let arguments = ["--kubernetes", "--kubeconfig", &kubeconfig];
    let marker = workspace::scratch("registrations-marker")?.join("unhealthy");
    let mut mesh = mesh("registrations", &marker, &arguments).await?;
    let inbound = mesh.inbound.port();
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let (xds, admin) = (local(ports::free_port()?), local(ports::free_port()?));
    let other = Server::start_on("registrations-other", mesh.server.config(), xds, admin, &arguments).await?;
    let metadata = [("NAMESPACE", "shop"), ("INTERCEPTION_MODE", "NONE"), ("LABELS", r#"{"app": "caller"}"#)];
    let node = "sidecar~127.0.0.9~caller.shop~shop.svc.cluster.local";
    let mut caller =
        Envoy::start("registrations-caller", navarch::bootstrap(node, &metadata, other.xds(), &[])?).await?;
    caller.wait_live().await?;
    let sends_to = async |expected: Option<&str>| {
        wait::until(&format!("an endpoint that is {expected:?}"), wait::STEP, || async {
            let clusters = caller.admin_get("/clusters").await?.ok()?.text();
            let own = format!("greeter.shop::127.0.0.1:{inbound}::health_flags::");
            let flags = clusters.lines().find_map(|line| line.split_once(&own)).map(|(_, flags)| flags);
            ensure!(flags == expected, "{flags:?}");
            Ok(())
        })
        .await
    };

    let mut greeter = mesh.greeter(&GROUP)?;
    sends_to(Some("healthy")).await?;
    let [(replica, true)] = &entries(&cluster).await?[..] else {
        bail!("no entry of a workload that is well")
    };
    ensure!(replica.starts_with("navarch-"), "{replica}");
    let lease = format!("/apis/coordination.k8s.io/v1/namespaces/istio-system/leases/{replica}");
    ensure!(cluster.get(&lease).await?["spec"]["holderIdentity"] == **replica, "no Lease of the replica");

    // How it is they are told, too.
    std::fs::write(&marker, "")?;
    sends_to(Some("/failed_eds_health")).await?;
    ensure!(matches!(&entries(&cluster).await?[..], [(_, false)]));
    std::fs::remove_file(&marker)?;
    sends_to(Some("healthy")).await?;

    // A replica that is started again has another name, and the workload is back there.
    mesh.server.kill();
    mesh.server.restart().await?;
    wait::until("the replica that was started again to be named", wait::STEP, || async {
        let found = entries(&cluster).await?;
        ensure!(matches!(&found[..], [(again, true)] if again != replica), "{found:?}");
        Ok(())
    })
    .await?;
    // Nobody is told that one object is said twice.
    let findings = other.admin_get("/debug/findings").await?.ok()?.text();
    ensure!(!findings.contains("WorkloadEntry"), "{findings}");

    greeter.terminate().await?;
    sends_to(None).await?;
    ensure!(entries(&cluster).await?.is_empty());
    Ok(())
}
