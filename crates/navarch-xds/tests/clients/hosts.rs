//! Virtual hosts as resources of their own, all sent at once: what a stock Envoy makes of them while it
//! serves. Over delta only: there are no virtual hosts in state-of-the-world.

use std::time::Duration;

use anyhow::{Result, ensure};
use navarch_envoy::XdsType;
use navarch_testkit::envoy::Envoy;
use navarch_testkit::http::Call;
use navarch_testkit::{ports, wait};
use serde_json::{Value, json};

use crate::load::Load;
use crate::resources::{ads, at, cluster, rds_listener};
use crate::rig::{
    Config, Plane, Protocol, assert_clean, backend, bounded, dump, sum, url, wait_clusters, wait_instance,
    wait_stat,
};

const CONNECTED: &str = "control_plane.connected_state";

/// A route configuration without hosts of its own.
fn split(name: &str, header: &str) -> Value {
    json!({
        "name": name,
        "vhds": {"config_source": ads()},
        "ignore_port_in_host_matching": true,
        "response_headers_to_add": [{"header": {"key": "x-routes", "value": header}}],
    })
}

/// The host for `domain` of a route configuration.
fn host(routes: &str, domain: &str, action: &Value) -> Value {
    let mut route = action.clone();
    route["match"] = json!({"prefix": "/"});
    json!({"name": format!("{routes}/{domain}"), "domains": [domain], "routes": [route]})
}

fn to_cluster(name: &str) -> Value {
    json!({"route": {"cluster": name}})
}

fn answers(body: &str) -> Value {
    json!({"direct_response": {"status": 200, "body": {"inline_string": body}}})
}

/// Hosts that nobody asks for.
fn others(config: Config, routes: &str, count: usize) -> Config {
    (0..count).fold(config, |config, n| {
        config.with(XdsType::Vhds, &host(routes, &format!("other-{n}.test"), &answers("other")))
    })
}

/// The application at `127.0.0.1`, behind routes of one hundred hosts.
struct Served {
    port: u16,
    config: Config,
}

impl Served {
    fn new(address: std::net::SocketAddr) -> Result<Served> {
        let port = ports::free_port()?;
        let config = Config::default()
            .with(XdsType::Cds, &cluster("one"))
            .with(XdsType::Eds, &at("one", address))
            .with(XdsType::Lds, &rds_listener("front", port, "r"))
            .with(XdsType::Rds, &split("r", "1"))
            .with(XdsType::Vhds, &host("r", "127.0.0.1", &to_cluster("one")));
        Ok(Served { port, config: others(config, "r", 100) })
    }
}

async fn body(port: u16, domain: &str) -> Result<String> {
    Ok(Call::get(url(port)).header("host", domain).send().await?.ok()?.text())
}

async fn wait_host(port: u16, domain: &str, expected: &str) -> Result<()> {
    wait::until(&format!("{expected} from {domain}"), wait::STEP, || async {
        let found = body(port, domain).await?;
        ensure!(found == expected, "it is {found}");
        Ok(())
    })
    .await
}

async fn wait_header(port: u16, expected: &str) -> Result<()> {
    wait::until(&format!("header {expected}"), wait::STEP, || async {
        let answer = Call::get(url(port)).send().await?.ok()?;
        let found = answer.header("x-routes").to_owned();
        ensure!(found == expected, "it is {found}");
        Ok(())
    })
    .await
}

/// Responses of a type on the one stream there is.
fn sent(plane: &Plane, ty: XdsType) -> u64 {
    let streams = plane.registry().streams();
    streams.iter().flat_map(|stream| &stream.types).filter(|of| of.ty == ty).map(|of| of.sent_total).sum()
}

/// How often the table of hosts of a route configuration was made again.
async fn reloads(envoy: &Envoy, routes: &str) -> Result<u64> {
    sum(envoy, &format!(r"vhds\.{routes}\.config_reload$")).await
}

/// In each revision the host goes to a new cluster, the old one is gone, and another host comes or goes.
async fn changes() -> Result<()> {
    let apps = [backend("even").await?, backend("odd").await?];
    let Served { port, config } = Served::new(apps[0].address())?;
    let config = config.without(XdsType::Cds, "one").without(XdsType::Eds, "one");
    let revision = |n: usize| {
        let name = format!("c{n}");
        config
            .clone()
            .with(XdsType::Cds, &cluster(&name))
            .with(XdsType::Eds, &at(&name, apps[n % 2].address()))
            .with(XdsType::Vhds, &host("r", "127.0.0.1", &to_cluster(&name)))
            .with(XdsType::Vhds, &host("r", &format!("passing-{n}.test"), &to_cluster(&name)))
    };
    let mut plane = Plane::start(Some(&revision(0))).await?;
    let envoy = plane.live_envoy("vhds-07", Protocol::Delta).await?;
    let load = Load::start(port);
    for n in 1..=6 {
        plane.publish(&revision(n));
        wait_instance(port, ["even", "odd"][n % 2]).await?;
    }
    for n in 7..=31 {
        plane.publish(&revision(n));
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    wait_instance(port, "odd").await?;
    wait_clusters(&envoy, &["c31"]).await?;
    plane.accepted().await?;
    load.must_be_clean().await?;
    // What is gone is gone, and the rest is there.
    let found = Call::get(url(port)).header("host", "passing-30.test").send().await?.status;
    ensure!(found == 404, "{found} from a host that is gone");
    ensure!(body(port, "other-99.test").await? == "other");
    ensure!(sent(&plane, XdsType::Rds) == 1, "the route configuration was sent again");
    assert_clean(&envoy).await
}

#[tokio::test]
async fn vhds_07_hosts_change_without_a_lost_request() -> Result<()> {
    bounded(changes()).await
}

/// Routes around the hosts, and the listener above them, change under load.
async fn routes_change() -> Result<()> {
    let app = backend("one").await?;
    let Served { port, config } = Served::new(app.address())?;
    let mut plane = Plane::start(Some(&config)).await?;
    let envoy = plane.live_envoy("vhds-03", Protocol::Delta).await?;
    let load = Load::start(port);
    for n in 2..=12 {
        plane.publish(&config.clone().with(XdsType::Rds, &split("r", &n.to_string())));
        wait_header(port, &n.to_string()).await?;
    }
    plane.accepted().await?;
    for n in 1..=3 {
        let mut front = rds_listener("front", port, "r");
        front["filter_chains"][0]["filters"][0]["typed_config"]["server_name"] = json!(format!("n{n}"));
        plane.publish(&config.clone().with(XdsType::Lds, &front).with(XdsType::Rds, &split("r", "12")));
        wait_stat(&envoy, "listener_manager.listener_in_place_updated", |count| count == n).await?;
        wait_stat(&envoy, "listener_manager.total_listeners_warming", |count| count == 0).await?;
        plane.accepted().await?;
    }
    ensure!(body(port, "other-99.test").await? == "other");
    load.must_be_clean().await?;
    assert_clean(&envoy).await
}

#[tokio::test]
async fn vhds_03_routes_change_around_their_hosts_without_a_lost_request() -> Result<()> {
    bounded(routes_change()).await
}

/// A host that Envoy refuses is left out alone.
async fn rejection() -> Result<()> {
    let app = backend("one").await?;
    let Served { port, config } = Served::new(app.address())?;
    let config = config.with(XdsType::Vhds, &host("r", "a.test", &answers("a1")));
    let mut plane = Plane::start(Some(&config)).await?;
    let _envoy = plane.live_envoy("vhds-06", Protocol::Delta).await?;
    wait_host(port, "a.test", "a1").await?;
    let load = Load::start(port);
    // One that takes the domain of another, one that is new, one that changes, one that goes.
    let mut thief = host("r", "thief.test", &answers("thief"));
    thief["domains"] = json!(["thief.test", "other-7.test"]);
    let config = config
        .with(XdsType::Vhds, &thief)
        .with(XdsType::Vhds, &host("r", "new.test", &answers("new")))
        .with(XdsType::Vhds, &host("r", "a.test", &answers("a2")))
        .without(XdsType::Vhds, "r/other-8.test");
    plane.publish(&config);
    wait_host(port, "a.test", "a2").await?;
    wait_host(port, "new.test", "new").await?;
    wait_host(port, "other-7.test", "other").await?;
    let aside = || {
        let streams = plane.registry().streams();
        let types = streams.iter().flat_map(|stream| &stream.types).filter(|of| of.ty == XdsType::Vhds);
        types.flat_map(|of| of.set_aside.iter().map(|name| name.to_string())).collect::<Vec<_>>()
    };
    wait::until("the thief to be set aside alone", wait::STEP, || async {
        let aside = aside();
        ensure!(aside == ["r/thief.test"], "{aside:?}");
        Ok(())
    })
    .await?;
    let status = |domain: &'static str| async move {
        anyhow::Ok(Call::get(url(port)).header("host", domain).send().await?.status)
    };
    wait::until("the removed host to be gone", wait::STEP, || async {
        let found = status("other-8.test").await?;
        ensure!(found == 404, "{found}");
        Ok(())
    })
    .await?;
    // It is repaired.
    let config = config.with(XdsType::Vhds, &host("r", "thief.test", &answers("honest")));
    plane.publish(&config);
    wait_host(port, "thief.test", "honest").await?;
    plane.accepted().await?;
    load.must_be_clean().await
}

#[tokio::test]
async fn vhds_06_a_rejected_host_is_set_aside_alone() -> Result<()> {
    bounded(rejection()).await
}

/// The control plane goes and comes back, as another process.
async fn reconnect() -> Result<()> {
    let app = backend("one").await?;
    let Served { port, config } = Served::new(app.address())?;
    let config = config.with(XdsType::Vhds, &host("r", "a.test", &answers("a1")));
    let mut plane = Plane::start(Some(&config)).await?;
    let envoy = plane.live_envoy("vhds-07", Protocol::Delta).await?;
    plane.accepted().await?;
    let load = Load::start(port);
    let before = reloads(&envoy, "r").await?;
    ensure!(before > 0, "no hosts were loaded");
    // Nothing is different.
    plane.down();
    wait_stat(&envoy, CONNECTED, |state| state == 0).await?;
    plane.up(Some(&config)).await?;
    wait_stat(&envoy, CONNECTED, |state| state == 1).await?;
    wait::until_true("the hosts to be asked for", wait::STEP, || async {
        Ok(sent(&plane, XdsType::Vhds) > 0)
    })
    .await?;
    plane.accepted().await?;
    ensure!(reloads(&envoy, "r").await? == before, "the hosts were loaded again");
    // One host is changed, one is gone, one is new, and so is a cluster that the load goes to.
    plane.down();
    wait_stat(&envoy, CONNECTED, |state| state == 0).await?;
    let config = config
        .with(XdsType::Cds, &cluster("two"))
        .with(XdsType::Eds, &at("two", app.address()))
        .with(XdsType::Vhds, &host("r", "127.0.0.1", &to_cluster("two")))
        .with(XdsType::Vhds, &host("r", "a.test", &answers("a2")))
        .with(XdsType::Vhds, &host("r", "new.test", &answers("new")))
        .without(XdsType::Vhds, "r/other-8.test")
        .without(XdsType::Cds, "one");
    plane.up(Some(&config)).await?;
    wait_host(port, "a.test", "a2").await?;
    wait_host(port, "new.test", "new").await?;
    let found = Call::get(url(port)).header("host", "other-8.test").send().await?.status;
    ensure!(found == 404, "{found} from a host that is gone");
    wait_clusters(&envoy, &["two"]).await?;
    plane.accepted().await?;
    load.must_be_clean().await?;
    assert_clean(&envoy).await
}

#[tokio::test]
async fn vhds_05_a_returning_proxy_is_sent_the_hosts_that_differ() -> Result<()> {
    bounded(reconnect()).await
}

/// Another listener with routes of its own comes, goes, and comes again.
async fn routes_come_and_go() -> Result<()> {
    let app = backend("one").await?;
    let Served { port, config } = Served::new(app.address())?;
    let side = ports::free_port()?;
    let mut plane = Plane::start(Some(&config)).await?;
    let envoy = plane.live_envoy("vhds-08", Protocol::Delta).await?;
    let load = Load::start(port);
    let both = config
        .clone()
        .with(XdsType::Lds, &rds_listener("side", side, "s"))
        .with(XdsType::Rds, &split("s", "1"))
        .with(XdsType::Vhds, &host("s", "127.0.0.1", &answers("side")));
    let both = others(both, "s", 20);
    for _ in 0..3 {
        plane.publish(&both);
        wait_host(side, "127.0.0.1", "side").await?;
        wait_host(side, "other-19.test", "other").await?;
        plane.accepted().await?;
        plane.publish(&config);
        wait_stat(&envoy, "listener_manager.total_listeners_active", |count| count == 1).await?;
        plane.accepted().await?;
    }
    // The listener goes and the routes stay configured.
    plane.publish(&both);
    wait_host(side, "127.0.0.1", "side").await?;
    plane.publish(&both.clone().without(XdsType::Lds, "side"));
    wait_stat(&envoy, "listener_manager.total_listeners_draining", |count| count == 0).await?;
    wait_stat(&envoy, "listener_manager.total_listeners_active", |count| count == 1).await?;
    plane.publish(&both);
    wait_host(side, "other-19.test", "other").await?;
    plane.accepted().await?;
    load.must_be_clean().await?;
    assert_clean(&envoy).await
}

#[tokio::test]
async fn vhds_04_routes_come_and_go_with_their_hosts() -> Result<()> {
    bounded(routes_come_and_go()).await
}

/// Many hosts: they come in one response, and an edit of one is one.
async fn thousands() -> Result<()> {
    let count = 3000;
    let app = backend("one").await?;
    let Served { port, config } = Served::new(app.address())?;
    let config = others(config, "r", count);
    let mut plane = Plane::start(Some(&config)).await?;
    let mut envoy = plane.envoy("vhds-09", Protocol::Delta).await?;
    envoy.wait_live_within(Duration::from_secs(90)).await?;
    wait_instance(port, "one").await?;
    plane.accepted().await?;
    ensure!(sent(&plane, XdsType::Vhds) == 1, "hosts came in pieces");
    let load = Load::start(port);
    for n in 0..10 {
        let last = format!("other-{}.test", count - 1);
        let body = format!("edit {n}");
        plane.publish(&config.clone().with(XdsType::Vhds, &host("r", &last, &answers(&body))));
        wait_host(port, &last, &body).await?;
    }
    plane.accepted().await?;
    load.must_be_clean().await?;
    let hosts = dump(&envoy, "dynamic_route_configs").await?;
    let hosts = hosts.iter().flat_map(|routes| routes["route_config"]["virtual_hosts"].as_array());
    let shown = hosts.map(Vec::len).max().unwrap_or_default();
    ensure!(shown == count + 1, "{shown} hosts in the dump");
    assert_clean(&envoy).await
}

#[tokio::test]
async fn vhds_09_thousands_of_hosts() -> Result<()> {
    bounded(thousands()).await
}

/// Hosts move from resources of their own into the route configuration, and back. Envoy still has those that
/// it was sent before; the first time, it would serve without hosts until they come (decision 26).
async fn forms() -> Result<()> {
    let app = backend("one").await?;
    let Served { port, config } = Served::new(app.address())?;
    let mut whole = split("r", "whole");
    if let Some(fields) = whole.as_object_mut() {
        fields.remove("vhds");
    }
    let mut hosts = vec![host("r", "127.0.0.1", &to_cluster("one"))];
    hosts.extend((0..100).map(|n| host("r", &format!("other-{n}.test"), &answers("other"))));
    whole["virtual_hosts"] = json!(hosts);
    let whole = config.clone().without_all(XdsType::Vhds).with(XdsType::Rds, &whole);
    let mut plane = Plane::start(Some(&config)).await?;
    let envoy = plane.live_envoy("vhds-10", Protocol::Delta).await?;
    wait_header(port, "1").await?;
    let load = Load::start(port);
    for _ in 0..10 {
        plane.publish(&whole);
        wait_header(port, "whole").await?;
        plane.accepted().await?;
        plane.publish(&config);
        wait_header(port, "1").await?;
        plane.accepted().await?;
    }
    ensure!(body(port, "other-99.test").await? == "other");
    load.must_be_clean().await?;
    assert_clean(&envoy).await
}

#[tokio::test]
async fn vhds_10_hosts_move_into_their_routes_and_back() -> Result<()> {
    bounded(forms()).await
}
