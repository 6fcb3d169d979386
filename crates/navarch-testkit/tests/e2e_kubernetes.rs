//! `navarch serve --kubernetes` and a stock Envoy.

mod common;

use anyhow::{Context, Result, ensure};
use common::{Fixture, routes, settled, workload};
use navarch_model::values::Json;
use navarch_testkit::{cluster::Cluster, navarch::Server, ports, wait, workspace};
use std::net::SocketAddr;

/// Serves a cluster, and a directory in which there is nothing.
async fn serve(name: &str, cluster: &Cluster) -> Result<Server> {
    let directory = workspace::scratch(name)?;
    let config = directory.join("config");
    std::fs::create_dir_all(&config)?;
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let kubeconfig = Cluster::kubeconfig(&directory, cluster.address())?;
    let args = ["--kubernetes", "--kubeconfig", kubeconfig.to_str().context("a path")?];
    Server::start_on(name, &config, local(ports::free_port()?), local(ports::free_port()?), &args).await
}

/// Puts the objects of a text in YAML into a cluster.
fn apply(cluster: &Cluster, text: &str) -> Result<()> {
    for object in text.split("\n---\n") {
        let object = Json::parse(object).map_err(anyhow::Error::msg)?.to_serde();
        let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
        let plural = text("kind").to_lowercase().replace("entry", "entrie") + "s";
        cluster.put(&format!("/apis/{}/{plural}", text("apiVersion")), &object);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_applied_to_a_cluster_reaches_envoy_and_stays_when_the_api_server_goes() -> Result<()> {
    let fixture = Fixture::new("kubernetes").await?;
    // It has no other kinds yet.
    let mut cluster = Cluster::start(["/api/v1/namespaces"]).await?;
    for file in ["service.yaml", "workload-v1.yaml", "workload-v2.yaml", "routes.yaml"] {
        apply(&cluster, &std::fs::read_to_string(fixture.config.join(file))?)?;
    }
    let server = serve("kubernetes-server", &cluster).await?;
    let envoy = fixture.sidecar("kubernetes-envoy", server.xds()).await?;
    fixture.wait_for("v1").await?;
    ensure!(!server.command(&["proxy-status"])?.contains("Not heard"), "the API server is there");

    apply(&cluster, &routes("v2"))?;
    fixture.wait_for("v2").await?;
    let objects = server.admin_get("/debug/configz").await?.text();
    ensure!(objects.contains("Kubernetes/VirtualService/default/echo"), "{objects}");

    // Nobody answers: that is said, and nothing else happens.
    let before = settled(&envoy).await?;
    cluster.stop();
    wait::until("the silence to be said", wait::STEP, || async {
        let said = server.command(&["proxy-status"])?;
        ensure!(said.contains("Not heard for") && said.contains("of cluster Kubernetes"), "{said}");
        ensure!(server.metric("navarch_source_unheard").await? > 0.0, "no metric says so");
        Ok(())
    })
    .await?;
    let after = settled(&envoy).await?;
    ensure!(after.nothing_since(&before), "{before:?} {after:?}");
    ensure!(fixture.version().await? == "v2", "another answer");

    cluster.start_again().await?;
    apply(&cluster, &routes("v1"))?;
    apply(&cluster, &workload("v1", fixture.v1.address()))?;
    fixture.wait_for("v1").await?;
    wait::until("all kinds to be heard", wait::STEP, || async {
        let said = server.command(&["proxy-status"])?;
        ensure!(!said.contains("Not heard"), "{said}");
        Ok(())
    })
    .await?;

    // A broken object takes nothing away, and says whose it is.
    apply(&cluster, &routes("v1").replace("hosts:", "hots:"))?;
    wait::until("the finding", wait::STEP, || async {
        let found = server.admin_get("/debug/findings").await?.text();
        ensure!(found.contains("Kubernetes/VirtualService/default/echo"), "{found}");
        Ok(())
    })
    .await?;
    ensure!(fixture.version().await? == "v1", "the last good version is not in use");
    assert_eq!(envoy.rejections().await?, Default::default());
    Ok(())
}
