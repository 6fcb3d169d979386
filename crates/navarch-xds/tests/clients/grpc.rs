//! The server against real proxyless gRPC clients: they ask by name, and for a part of what there is.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use navarch_envoy::XdsType;
use navarch_testkit::agent::Agent;
use navarch_testkit::grpc::{Backend, Client, Language};
use navarch_testkit::wait;
use navarch_xds::SyncState;
use serde_json::json;
use tokio::time::Instant;

use crate::resources::{ads, at, cluster, endpoint, endpoints, manager, route};
use crate::rig::{Config, Plane, Protocol, assert_clean, bounded};

/// The whole chain of `xds:///echo`, and something that nobody asks for.
fn config() -> Config {
    let rds = json!({"rds": {"route_config_name": "r", "config_source": ads()}});
    let listener = json!({"name": "echo", "api_listener": {"api_listener": manager(&rds, &[])}});
    Config::default()
        .with(XdsType::Lds, &listener)
        .with(XdsType::Rds, &route("r", "c"))
        .with(XdsType::Cds, &cluster("c"))
        .with(XdsType::Cds, &cluster("other"))
}

/// Calls until the outcome is as wanted.
async fn wait_outcome(client: &mut Client, code: &str, body: &str) -> Result<()> {
    wait_outcome_on(client, 0, code, body).await
}

async fn wait_outcome_on(client: &mut Client, channel: usize, code: &str, body: &str) -> Result<()> {
    let deadline = Instant::now() + wait::STEP;
    loop {
        let outcome = client.call_on(channel).await;
        match &outcome {
            Ok((found, text)) if found == code && text.contains(body) => return Ok(()),
            Err(error) if error.is::<wait::Fatal>() => return outcome.map(drop),
            _ if Instant::now() > deadline => bail!("{outcome:?}, and not {code} {body}"),
            _ => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    }
}

async fn follows(language: Language) -> Result<()> {
    let (a, b) = (Backend::start("a")?, Backend::start("b")?);
    let config = config().with(XdsType::Eds, &at("c", a.address()));
    let mut plane = Plane::start(Some(&config)).await?;
    let mut client = Client::start(language, "echo", plane.address())?;
    wait_outcome(&mut client, "OK", "a").await?;
    plane.accepted().await?;
    // Another endpoint, then another cluster.
    plane.publish(&config.clone().with(XdsType::Eds, &at("c", b.address())));
    wait_outcome(&mut client, "OK", "b").await?;
    plane.publish(
        &config.with(XdsType::Eds, &at("other", b.address())).with(XdsType::Rds, &route("r", "other")),
    );
    for _ in 0..10 {
        let (code, body) = client.call().await?;
        ensure!(code == "OK", "{code} {body}");
    }
    wait_outcome(&mut client, "OK", "b").await?;
    plane.accepted().await
}

#[tokio::test]
async fn grp_01_python_calls_through_the_chain_of_names() -> Result<()> {
    bounded(follows(Language::Python)).await
}

#[tokio::test]
async fn grp_01_javascript_calls_through_the_chain_of_names() -> Result<()> {
    bounded(follows(Language::Node)).await
}

async fn outage() -> Result<()> {
    let (a, b) = (Backend::start("a")?, Backend::start("b")?);
    let config = config().with(XdsType::Eds, &at("c", a.address()));
    let mut plane = Plane::start(Some(&config)).await?;
    let mut client = Client::start(Language::Python, "echo", plane.address())?;
    wait_outcome(&mut client, "OK", "a").await?;
    plane.accepted().await?;
    plane.down();
    for _ in 0..30 {
        let (code, body) = client.call().await?;
        ensure!(code == "OK" && body == "a", "{code} {body}");
    }
    plane.up(Some(&config.with(XdsType::Eds, &at("c", b.address())))).await?;
    wait_outcome(&mut client, "OK", "b").await?;
    plane.accepted().await
}

#[tokio::test]
async fn grp_04_calls_go_on_while_the_server_is_gone() -> Result<()> {
    bounded(outage()).await
}

async fn removal() -> Result<()> {
    let a = Backend::start("a")?;
    let config = config().with(XdsType::Eds, &at("c", a.address()));
    let mut plane = Plane::start(Some(&config)).await?;
    let mut client = Client::start(Language::Python, "echo", plane.address())?;
    wait_outcome(&mut client, "OK", "a").await?;
    plane.publish(&config.clone().without(XdsType::Lds, "echo"));
    wait_outcome(&mut client, "UNAVAILABLE", "echo").await?;
    plane.publish(&config);
    wait_outcome(&mut client, "OK", "a").await
}

#[tokio::test]
async fn rmv_09_a_listener_that_is_gone_fails_calls_of_grpc() -> Result<()> {
    bounded(removal()).await
}

async fn health() -> Result<()> {
    let (a, b) = (Backend::start("a")?, Backend::start("b")?);
    let of =
        |health: &str| endpoints("c", &[endpoint(a.address(), "HEALTHY"), endpoint(b.address(), health)]);
    let config = config().with(XdsType::Eds, &of("DRAINING"));
    let mut plane = Plane::start(Some(&config)).await?;
    let mut client = Client::start(Language::Python, "echo", plane.address())?;
    wait_outcome(&mut client, "OK", "a").await?;
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        seen.insert(client.call().await?.1);
    }
    ensure!(seen == BTreeSet::from(["a".to_owned()]), "{seen:?}");
    plane.publish(&config.with(XdsType::Eds, &of("HEALTHY")));
    wait_outcome(&mut client, "OK", "b").await?;
    let streams = plane.registry().streams();
    let rejected: u64 = streams.iter().flat_map(|stream| &stream.types).map(|ty| ty.rejected_total).sum();
    ensure!(rejected == 0, "{rejected} rejections");
    Ok(())
}

#[tokio::test]
async fn eds_03_draining_endpoints_are_not_used_by_grpc() -> Result<()> {
    bounded(health()).await
}

async fn priorities() -> Result<()> {
    let (a, b) = (Backend::start("a")?, Backend::start("b")?);
    let config = config().with(XdsType::Eds, &at("c", a.address()));
    let mut plane = Plane::start(Some(&config)).await?;
    let mut client = Client::start(Language::Python, "echo", plane.address())?;
    wait_outcome(&mut client, "OK", "a").await?;
    plane.accepted().await?;
    // Nothing of priority 0, which Envoy takes.
    let mut gap = at("c", b.address());
    gap["endpoints"][0]["priority"] = json!(1);
    let gap = config.clone().with(XdsType::Eds, &gap);
    plane.publish(&gap);
    wait::until("the rejection", wait::STEP, || async {
        let streams = plane.registry().streams();
        let endpoints = streams.iter().flat_map(|stream| &stream.types).find(|ty| ty.ty == XdsType::Eds);
        let endpoints = endpoints.context("no endpoints")?;
        let text = endpoints.error.as_ref().map(|error| error.text.clone()).unwrap_or_default();
        ensure!(endpoints.state == SyncState::Error && text.contains("priority"), "{endpoints:?}");
        Ok(())
    })
    .await?;
    for _ in 0..10 {
        let (code, body) = client.call().await?;
        ensure!(code == "OK" && body == "a", "{code} {body}");
    }
    plane.publish(&config.with(XdsType::Eds, &at("c", b.address())));
    wait_outcome(&mut client, "OK", "b").await?;
    plane.accepted().await?;
    // The same at an Envoy.
    let plane = Plane::start(Some(&gap)).await?;
    let envoy = plane.live_envoy("eds-03", Protocol::Delta).await?;
    plane.accepted().await?;
    assert_clean(&envoy).await
}

#[tokio::test]
async fn eds_03_gap_of_priorities_is_rejected_by_grpc_and_taken_by_envoy() -> Result<()> {
    bounded(priorities()).await
}

async fn weights() -> Result<()> {
    let (a, b) = (Backend::start("a")?, Backend::start("b")?);
    let mut both = at("c", a.address());
    let mut other = at("c", b.address())["endpoints"][0].clone();
    other["locality"]["zone"] = json!("other");
    let weighted = other.clone();
    if let Some(other) = other.as_object_mut() {
        other.remove("load_balancing_weight");
    }
    if let Some(endpoints) = both["endpoints"].as_array_mut() {
        endpoints.push(other);
    }
    let config = config().with(XdsType::Eds, &both);
    let mut plane = Plane::start(Some(&config)).await?;
    let mut client = Client::start(Language::Python, "echo", plane.address())?;
    wait_outcome(&mut client, "OK", "a").await?;
    for _ in 0..20 {
        let (_, body) = client.call().await?;
        ensure!(body == "a", "{body} answers without a weight");
    }
    both["endpoints"][1] = weighted;
    plane.publish(&config.with(XdsType::Eds, &both));
    wait_outcome(&mut client, "OK", "b").await?;
    plane.accepted().await
}

#[tokio::test]
async fn eds_03_locality_without_a_weight_is_not_used_by_grpc() -> Result<()> {
    bounded(weights()).await
}

/// Two channels of one process through the socket of an agent, which relays what Envoy beside them gets, too.
async fn through_the_agent(language: Language) -> Result<()> {
    let (a, b) = (Backend::start("a")?, Backend::start("b")?);
    let rds = |name: &str| json!({"rds": {"route_config_name": name, "config_source": ads()}});
    let listener = json!({"name": "other", "api_listener": {"api_listener": manager(&rds("s"), &[])}});
    let config = config()
        .with(XdsType::Lds, &listener)
        .with(XdsType::Rds, &route("s", "other"))
        .with(XdsType::Eds, &at("c", a.address()))
        .with(XdsType::Eds, &at("other", b.address()));
    let mut plane = Plane::start(Some(&config)).await?;
    let server = plane.address().to_string();
    let agent = Agent::start("grpc-agent", &["sidecar", "--service", "grpc", "--server", &server], &[])?;
    let socket = format!("unix:{}", agent.directory().join("xds.sock").display());
    let mut client = Client::start_with(language, &["echo", "other"], &socket)?;
    wait_outcome_on(&mut client, 0, "OK", "a").await?;
    wait_outcome_on(&mut client, 1, "OK", "b").await?;
    // What changes reaches the right one.
    plane.publish(&config.with(XdsType::Eds, &at("other", a.address())));
    wait_outcome_on(&mut client, 1, "OK", "a").await?;
    wait_outcome_on(&mut client, 0, "OK", "a").await
}

#[tokio::test]
async fn python_has_two_channels_through_the_socket_of_an_agent() -> Result<()> {
    bounded(through_the_agent(Language::Python)).await
}

#[tokio::test]
async fn javascript_has_two_channels_through_the_socket_of_an_agent() -> Result<()> {
    bounded(through_the_agent(Language::Node)).await
}
