//! Clients that reach the server through the socket of an agent, as applications beside a proxy do.

use anyhow::{Result, bail};
use navarch_envoy::XdsType;
use navarch_testkit::agent::Agent;
use navarch_testkit::grpc::{Backend, Client, Language};
use navarch_testkit::wait;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::resources::{ads, at, cluster, manager, route};
use crate::rig::{Config, Plane, bounded};

fn listener(name: &str, routes: &str) -> Value {
    let rds = json!({"rds": {"route_config_name": routes, "config_source": ads()}});
    json!({"name": name, "api_listener": {"api_listener": manager(&rds, &[])}})
}

/// Calls until the back end of this name answers.
async fn wait_for(client: &mut Client, position: usize, name: &str) -> Result<()> {
    let deadline = Instant::now() + wait::STEP;
    loop {
        let outcome = client.call_of(position).await;
        match &outcome {
            Ok((code, body)) if code == "OK" && body == name => return Ok(()),
            Err(error) if error.is::<wait::Fatal>() => return outcome.map(drop),
            _ if Instant::now() > deadline => bail!("{outcome:?}, and not {name}"),
            _ => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    }
}

async fn two_channels() -> Result<()> {
    let (a, b) = (Backend::start("a")?, Backend::start("b")?);
    let config = Config::default()
        .with(XdsType::Lds, &listener("echo", "r"))
        .with(XdsType::Lds, &listener("other", "s"))
        .with(XdsType::Rds, &route("r", "c"))
        .with(XdsType::Rds, &route("s", "d"))
        .with(XdsType::Cds, &cluster("c"))
        .with(XdsType::Cds, &cluster("d"))
        .with(XdsType::Eds, &at("c", a.address()))
        .with(XdsType::Eds, &at("d", b.address()));
    let mut plane = Plane::start(Some(&config)).await?;
    let server = plane.address().to_string();
    let arguments = ["sidecar", "--service", "app", "--server", &server, "--drain-min", "0s"];
    let agent = Agent::start("agent-grpc", &arguments, &[])?;
    let socket = format!("unix://{}", agent.directory().join("xds.sock").display());
    let mut client = Client::start_by(Language::Python, &["echo", "other"], &socket)?;
    wait_for(&mut client, 0, "a").await?;
    wait_for(&mut client, 1, "b").await?;
    // While the server is away, and when what it says has changed.
    plane.down();
    wait_for(&mut client, 0, "a").await?;
    wait_for(&mut client, 1, "b").await?;
    plane.up(Some(&config.with(XdsType::Eds, &at("d", a.address())))).await?;
    wait_for(&mut client, 1, "a").await?;
    wait_for(&mut client, 0, "a").await
}

#[tokio::test]
async fn two_channels_through_an_agent() -> Result<()> {
    bounded(two_channels()).await
}
