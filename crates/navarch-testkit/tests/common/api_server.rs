//! A walk through what `navarch serve --kubernetes` owes an Envoy, with any API server.

use super::{Fixture, routes, settled, workload};
use anyhow::{Context, Result, ensure};
use navarch_model::values::Json;
use navarch_testkit::{navarch::Server, ports, wait, workspace};
use serde_json::Value;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// An API server that can go away and come back with what it had.
pub trait ApiServer {
    /// A file for who is to reach it; `directory` is where to write one.
    fn kubeconfig(&self, directory: &Path) -> Result<PathBuf>;

    /// Makes an object be as it is given. `plural` is that of its kind.
    async fn apply(&self, plural: &str, object: &Value) -> Result<()>;

    /// Without a goodbye.
    fn stop(&mut self);

    async fn start_again(&mut self) -> Result<()>;
}

/// Serves a cluster, and a directory in which there is nothing.
async fn serve(name: &str, cluster: &impl ApiServer) -> Result<Server> {
    let directory = workspace::scratch(name)?;
    let config = directory.join("config");
    std::fs::create_dir_all(&config)?;
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let kubeconfig = cluster.kubeconfig(&directory)?;
    let args = ["--kubernetes", "--kubeconfig", kubeconfig.to_str().context("a path")?];
    Server::start_on(name, &config, local(ports::free_port()?), local(ports::free_port()?), &args).await
}

/// Applies the objects of a text in YAML.
async fn apply(cluster: &impl ApiServer, text: &str) -> Result<()> {
    for object in text.split("\n---\n") {
        let object = Json::parse(object).map_err(anyhow::Error::msg)?.to_serde();
        let kind = object["kind"].as_str().unwrap_or_default();
        cluster.apply(&(kind.to_lowercase().replace("entry", "entrie") + "s"), &object).await?;
    }
    Ok(())
}

/// What is applied to a cluster reaches Envoy, and stays when the API server goes. Names of what is
/// started begin with `name`.
pub async fn walk(name: &str, cluster: &mut impl ApiServer) -> Result<()> {
    let fixture = Fixture::new(name).await?;
    for file in ["service.yaml", "workload-v1.yaml", "workload-v2.yaml", "routes.yaml"] {
        apply(cluster, &std::fs::read_to_string(fixture.config.join(file))?).await?;
    }
    let server = serve(&format!("{name}-server"), cluster).await?;
    let envoy = fixture.sidecar(&format!("{name}-envoy"), server.xds()).await?;
    fixture.wait_for("v1").await?;
    ensure!(!server.command(&["proxy-status"])?.contains("Not heard"), "the API server is there");

    apply(cluster, &routes("v2")).await?;
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
    apply(cluster, &routes("v1")).await?;
    apply(cluster, &workload("v1", fixture.v1.address())).await?;
    fixture.wait_for("v1").await?;
    wait::until("all kinds to be heard", wait::STEP, || async {
        let said = server.command(&["proxy-status"])?;
        ensure!(!said.contains("Not heard"), "{said}");
        Ok(())
    })
    .await?;

    // A broken object takes nothing away, and says whose it is.
    apply(cluster, &format!("{}      timeout: soon\n", routes("v2"))).await?;
    wait::until("the finding", wait::STEP, || async {
        let found = server.admin_get("/debug/findings").await?.text();
        ensure!(found.contains("Kubernetes/VirtualService/default/echo"), "{found}");
        Ok(())
    })
    .await?;
    settled(&envoy).await?;
    let version = fixture.version().await?;
    ensure!(version == "v1", "{version} answers, and not the last good version");
    assert_eq!(envoy.rejections().await?, Default::default());
    Ok(())
}
