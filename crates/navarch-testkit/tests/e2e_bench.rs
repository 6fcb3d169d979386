//! `navarch bench --kubernetes` with a real API server: what is measured is small, and times are not looked
//! at.

use anyhow::{Context, Result, ensure};
use navarch_testkit::{kubernetes::ApiServer, navarch, navarch::Server, ports, workspace};
use serde_json::Value;
use std::net::SocketAddr;

/// Runs it, and gives the one run of its report.
fn bench(kubeconfig: &str, more: &[&str]) -> Result<Value> {
    let usual = ["bench", "--kubernetes", "--kubeconfig", kubeconfig, "-o", "json", "--repeat", "2"];
    let shape = ["--endpoints", "12", "--proxies", "4", "--classes", "2", "--namespaces", "2"];
    let text = navarch::stdout([&usual[..], &shape, &["--scope", "namespace"], more].concat())?;
    let report: Value = serde_json::from_str(&text)?;
    Ok(report["runs"][0].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_in_an_api_server_is_measured() -> Result<()> {
    let printed: Value = serde_json::from_str(&navarch::stdout(["crds"])?)?;
    let cluster = ApiServer::start("bench-cluster", printed["items"].as_array().context("a list")?).await?;
    let kubeconfig = cluster.kubeconfig().display().to_string();
    let run = bench(&kubeconfig, &["--services", "6"])?;
    let pods = cluster.get("/api/v1/pods").await?;
    let pods = pods["items"].as_array().context("pods")?;
    ensure!(pods.len() == 12 && pods.iter().all(|pod| pod["status"]["podIP"].is_string()), "{pods:?}");
    ensure!(run["kubernetes"] == true && run["start"]["seconds"].is_number(), "{run}");
    let is_measured = |run: &Value| {
        let changes = run["changes"].as_array().map_or(&[][..], Vec::as_slice);
        changes.len() == 5 && changes.iter().all(|change| change["affected"] == 2 && change["lost"] == 0)
    };
    ensure!(is_measured(&run) && run["check"]["mismatches"] == 0, "{run}");

    // Another server is measured with what the first run left there.
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let (xds, admin) = (local(ports::free_port()?), local(ports::free_port()?));
    let arguments = ["--kubernetes", "--kubeconfig", &kubeconfig];
    let empty = workspace::scratch("bench-config")?;
    let server = Server::start_on("bench-server", &empty, xds, admin, &arguments).await?;
    let pid = server.id().context("a process")?.to_string();
    let run = bench(&kubeconfig, &["--services", "6", "--target", &xds.to_string(), "--pid", &pid])?;
    ensure!(is_measured(&run) && run["start"].is_null(), "{run}");

    let refused = bench(&kubeconfig, &["--services", "7"]).map(|run| run.to_string());
    let error = refused.err().context("a mesh of another size is there")?.to_string();
    ensure!(error.contains("has the mesh of another run"), "{error}");
    Ok(())
}
