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

    /// An object of a kind's plural in the namespace `default`, `version` being `group/version`.
    async fn get(&self, version: &str, plural: &str, name: &str) -> Result<Value>;

    /// Without a goodbye.
    fn stop(&mut self);

    async fn start_again(&mut self) -> Result<()>;
}

/// Serves a cluster, and a directory in which there is nothing. What is ours in the cluster is in the
/// namespace `default`, which is always there.
async fn serve(name: &str, cluster: &impl ApiServer) -> Result<Server> {
    let kubeconfig = cluster.kubeconfig(&workspace::scratch(name)?)?;
    serve_as(name, &kubeconfig, "default").await
}

/// The same, as whom a kubeconfig says, with what is ours in another namespace.
pub async fn serve_as(name: &str, kubeconfig: &Path, namespace: &str) -> Result<Server> {
    let config = workspace::scratch(name)?.join("config");
    std::fs::create_dir_all(&config)?;
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let kubeconfig = kubeconfig.to_str().context("a path")?;
    let args = ["--kubernetes", "--kubeconfig", kubeconfig, "--system-namespace", namespace];
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

/// A gateway and a route that is attached to one of its listeners.
fn attached(listener: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge, namespace: default}}\n\
         spec:\n  gatewayClassName: navarch\n  listeners: [{{name: http, port: 8080, protocol: HTTP}}]\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: shop, namespace: default}}\n\
         spec:\n  parentRefs: [{{name: edge, sectionName: {listener}}}]\n  hostnames: [shop.example]\n"
    )
}

/// Whether a condition of an object's status holds, and what about; `at` leads to what has conditions.
async fn condition(cluster: &impl ApiServer, plural: &str, name: &str, at: &str, ty: &str) -> Result<String> {
    let object = cluster.get("gateway.networking.k8s.io/v1", plural, name).await?;
    let conditions = object["status"].pointer(&format!("{at}/conditions")).and_then(Value::as_array);
    let found = conditions.into_iter().flatten().find(|condition| condition["type"] == ty);
    let condition = found.with_context(|| format!("no condition {ty}: {}", object["status"]))?;
    let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
    ensure!(condition["observedGeneration"] == generation, "{object}");
    Ok(format!("{} {}", text("status"), text("reason")))
}

async fn until_condition(
    cluster: &impl ApiServer,
    (plural, name, at): (&str, &str, &str),
    expected: &str,
) -> Result<()> {
    wait::until(expected, wait::STEP, || async {
        let found = condition(cluster, plural, name, at, "Accepted").await?;
        ensure!(found == expected, "{found}");
        Ok(())
    })
    .await
}

async fn until_leads(server: &Server) -> Result<()> {
    wait::until("a server to write", wait::STEP, || async {
        ensure!(
            server.metric("navarch_writer").await? == 1.0,
            "{}",
            server.admin_get("/debug/writer").await?.text()
        );
        Ok(())
    })
    .await
}

/// What becomes of objects is in their status, whichever of two servers is there to write it. Names of what
/// is started begin with `name`.
pub async fn statuses(name: &str, cluster: &impl ApiServer) -> Result<()> {
    apply(cluster, &attached("http")).await?;
    let mut one = serve(&format!("{name}-one"), cluster).await?;
    until_leads(&one).await?;
    let other = serve(&format!("{name}-other"), cluster).await?;
    let route = ("httproutes", "shop", "/parents/0");
    until_condition(cluster, ("gateways", "edge", ""), "True Accepted").await?;
    until_condition(cluster, ("gateways", "edge", "/listeners/0"), "True Accepted").await?;
    until_condition(cluster, route, "True Accepted").await?;
    let object = cluster.get("gateway.networking.k8s.io/v1", "httproutes", "shop").await?;
    let parent = &object["status"]["parents"][0];
    ensure!(parent["controllerName"] == "navarch/gateway-controller", "{parent}");
    ensure!(parent["parentRef"]["sectionName"] == "http", "{parent}");
    ensure!(other.metric("navarch_writer").await? == 0.0, "one of them writes");
    // Whoever looks at what is right writes nothing.
    let written =
        async |server: &Server| server.metric_with("navarch_status_writes_total", "result=\"written\"").await;
    let before = written(&one).await?;
    apply(cluster, &format!("{}---\n{}", attached("http"), super::routes("v1"))).await?;
    wait::until("another object to be in force", wait::STEP, || async {
        let objects = one.admin_get("/debug/configz").await?.text();
        ensure!(objects.contains("Kubernetes/VirtualService/default/echo"), "{objects}");
        Ok(())
    })
    .await?;
    ensure!(written(&one).await? == before, "something is written twice");

    one.kill();
    apply(cluster, &attached("https")).await?;
    until_leads(&other).await?;
    until_condition(cluster, route, "False NoMatchingParent").await?;
    until_condition(cluster, ("gateways", "edge", ""), "True Accepted").await
}
