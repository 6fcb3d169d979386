//! A real API server for trying things out, such as `navarch bench --kubernetes`: prints the path of a
//! kubeconfig, and runs until it is interrupted. It has our CustomResourceDefinitions, and no controllers.

use anyhow::{Context, Result};
use navarch_testkit::{kubernetes::ApiServer, navarch};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let printed: Value = serde_json::from_str(&navarch::stdout(["crds", "--gateway-api"])?)?;
    let server = ApiServer::start("api-server", printed["items"].as_array().context("a list")?).await?;
    println!("{}", server.kubeconfig().display());
    // Dropped, it ends.
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
