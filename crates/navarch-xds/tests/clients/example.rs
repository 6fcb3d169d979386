//! The example in the readme, as it is, and an Envoy with the bootstrap beside it.

#[path = "../../examples/static_snapshot.rs"]
#[allow(dead_code)]
mod static_snapshot;

use std::net::SocketAddr;

use anyhow::{Result, anyhow, ensure};
use navarch_testkit::envoy::{Bootstrap, Envoy};
use navarch_testkit::{ports, workspace};
use tokio::net::TcpListener;

use crate::rig::{assert_clean, backend, bounded, wait_instance};

async fn example() -> Result<()> {
    let (app, front) = (backend("one").await?, ports::free_port()?);
    let server = static_snapshot::server(SocketAddr::from(([127, 0, 0, 1], front)), app.address())
        .map_err(|error| anyhow!("{error}"))?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let serving = server.clone();
    tokio::spawn(async move { serving.serve(listener).await });

    let bootstrap = include_str!("../../examples/envoy.yaml");
    ensure!(bootstrap.contains("18000"), "the port of the example is another");
    let file = workspace::scratch("xds-example")?.join("envoy.yaml");
    std::fs::write(&file, bootstrap.replace("18000", &port.to_string()))?;
    let mut envoy = Envoy::start("xds-example-envoy", Bootstrap::File(file)).await?;
    envoy.wait_live().await?;
    wait_instance(front, "one").await?;
    ensure!(server.registry().len() == 1, "not one stream");
    assert_clean(&envoy).await
}

#[tokio::test]
async fn the_example_of_the_readme_serves_an_envoy() -> Result<()> {
    bounded(example()).await
}
