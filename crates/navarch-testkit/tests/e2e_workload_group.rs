//! Workloads that register themselves in a WorkloadGroup, without Kubernetes.

mod common;

use anyhow::{Result, ensure};
use common::minute::Mesh;
use common::registered::{GROUP, mesh};
use navarch_testkit::{wait, workspace};

/// What to probe is not known when it starts; until that succeeds nobody would ever call it.
#[tokio::test(flavor = "multi_thread")]
async fn a_workload_may_start_before_the_control_plane() -> Result<()> {
    let marker = workspace::scratch("workload-first-marker")?.join("unhealthy");
    let mut mesh = mesh("workload-first", &marker, &[]).await?;
    mesh.server.kill();
    let greeter = mesh.greeter(&GROUP)?;
    greeter.said("the settings of the proxy cannot be asked for", 1).await?;
    mesh.server.restart().await?;
    let _caller = mesh.agent("caller", &["--ip", "127.0.0.9"], &[])?;
    mesh.greeted().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_is_there_as_long_as_it_is_connected_and_healthy() -> Result<()> {
    let marker = workspace::scratch("workload-group-marker")?.join("unhealthy");
    let mesh = mesh("workload-group", &marker, &[]).await?;
    let mut greeter = mesh.greeter(&GROUP)?;
    let caller = mesh.agent("caller", &["--ip", "127.0.0.9"], &[])?;
    mesh.greeted().await?;

    // What says that it is unhealthy is sent nobody, and is not asked to leave.
    std::fs::write(&marker, "")?;
    refused(&mesh).await?;
    let inbound = greeter.envoy("/listeners").await?.text();
    ensure!(inbound.contains(&format!(":{}", mesh.inbound.port())), "{inbound}");
    std::fs::remove_file(&marker)?;
    mesh.greeted().await?;

    // It comes back within the grace: nobody notices. Then it goes for good.
    greeter.kill();
    greeter.launch()?;
    greeter.said("the Envoy of an agent before is taken over", 1).await?;
    mesh.greeted().await?;
    greeter.terminate().await?;
    wait::until("the endpoint to be gone", wait::STEP, || async {
        let clusters = caller.envoy("/clusters").await?.text();
        ensure!(!clusters.contains("greeter.shop::127.0.0.1"), "{clusters}");
        Ok(())
    })
    .await?;

    // Another service account may not.
    let other = mesh.agent("caller", &[GROUP[0], GROUP[1], "--ip", "127.0.0.8"], &[])?;
    other.said("is for the service account greeter", 1).await
}

async fn refused(mesh: &Mesh) -> Result<()> {
    wait::until("calls to be refused", wait::STEP, || async {
        ensure!(mesh.call().await.is_err(), "there is an answer");
        Ok(())
    })
    .await
}
