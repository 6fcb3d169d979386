//! Clusters and virtual hosts that Envoy asks for when a request needs them. Over delta: a state-of-the-world
//! client that names a cluster would lose all others.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use navarch_envoy::XdsType;
use navarch_testkit::http::{Answer, Call};
use navarch_testkit::{ports, wait};
use serde_json::{Value, json};

use crate::resources::{ads, at, cluster, endpoint, endpoints, listener, manager, rds_listener, route};
use crate::rig::{
    Config, Plane, Protocol, assert_clean, backend, bootstrap, bounded, live_envoy, sum, url, wait_clusters,
    wait_instance, wait_stat,
};

/// What Envoy would wait on its own. An answer within the bound of a call came because the server said
/// something.
const TIMEOUT: &str = "100s";
const CALL: Duration = Duration::from_secs(20);

fn on_demand(options: &Value) -> Value {
    let mut options = options.clone();
    options["@type"] = json!("type.googleapis.com/envoy.extensions.filters.http.on_demand.v3.OnDemand");
    json!({"name": "on_demand", "typed_config": options})
}

async fn call(port: u16, header: &str, value: &str) -> Result<Answer> {
    Call::get(url(port)).header(header, value).within(CALL).send().await
}

async fn wait_status(port: u16, header: &str, value: &str, status: u16) -> Result<()> {
    wait::until(&format!("status {status} for {value}"), wait::STEP, || async {
        let found = call(port, header, value).await?.status;
        ensure!(found == status, "it is {found}");
        Ok(())
    })
    .await
}

/// Requests say in a header which cluster they want.
fn odcds_listener(port: u16) -> Value {
    let routes = json!({"name": "inline", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
        {"match": {"prefix": "/"}, "route": {"cluster_header": "x-cluster"}}]}]});
    let filter = on_demand(&json!({"odcds": {"source": ads(), "timeout": TIMEOUT}}));
    listener("front", port, &manager(&json!({"route_config": routes}), &[filter]))
}

async fn odcds(name: &str, wildcard: bool) -> Result<()> {
    let (app, port) = (backend("one").await?, ports::free_port()?);
    let config = Config::default()
        .with(XdsType::Cds, &cluster("known"))
        .with(XdsType::Eds, &at("known", app.address()))
        .with(XdsType::Eds, &at("late", app.address()))
        .with(XdsType::Lds, &odcds_listener(port));
    let mut plane = Plane::start(Some(&config)).await?;
    let mut bootstrap = bootstrap(plane.address(), name, Protocol::Delta);
    if !wildcard && let Some(resources) = bootstrap["dynamic_resources"].as_object_mut() {
        resources.remove("cds_config");
    }
    let envoy = live_envoy(name, Protocol::Delta, bootstrap).await?;

    if !wildcard {
        wait_clusters(&envoy, &[]).await?;
    }
    // The request waits for its cluster, and goes on.
    let found = call(port, "x-cluster", "known").await?;
    ensure!(found.status == 200, "{} from a known cluster", found.status);
    let found = call(port, "x-cluster", "late").await?.status;
    ensure!(found == 503, "{found} from an unknown cluster");
    ensure!(sum(&envoy, "update_success$").await? >= 1, "no update");
    if !wildcard {
        wait_stat(&envoy, "cluster_manager.odcds.update_success", |count| count >= 1).await?;
    }
    // It is there later.
    let config = config.with(XdsType::Cds, &cluster("late"));
    plane.publish(&config);
    wait_status(port, "x-cluster", "late", 200).await?;
    plane.accepted().await?;

    // Another process knows what was asked for.
    plane.down();
    wait_stat(&envoy, "control_plane.connected_state", |state| state == 0).await?;
    let moved = backend("two").await?;
    let config = config
        .with(XdsType::Eds, &at("known", moved.address()))
        .with(XdsType::Eds, &at("late", moved.address()));
    plane.up(Some(&config)).await?;
    for name in ["known", "late"] {
        wait::until("the other backend", wait::STEP, || async {
            let answer = call(port, "x-cluster", name).await?.ok()?.json()?;
            ensure!(answer["instance"] == "two", "{answer}");
            Ok(())
        })
        .await?;
    }
    wait_clusters(&envoy, &["known", "late"]).await?;
    plane.accepted().await?;
    assert_clean(&envoy).await
}

#[tokio::test]
async fn e26_clusters_on_demand() -> Result<()> {
    bounded(odcds("e26-odcds", false)).await
}

#[tokio::test]
async fn e26_clusters_on_demand_beside_all_others() -> Result<()> {
    bounded(odcds("e26-wildcard", true)).await
}

/// Endpoints of a locality are a collection of their own, in which one can come and go without the others.
async fn leds() -> Result<()> {
    const COLLECTION: &str = "xdstp://test/envoy.config.endpoint.v3.LbEndpoint/z/";
    let (one, two, port) = (backend("one").await?, backend("two").await?, ports::free_port()?);
    let mut assignment = endpoints("c", &[]);
    if let Some(locality) = assignment["endpoints"][0].as_object_mut() {
        locality.remove("lb_endpoints");
        let name = format!("{COLLECTION}*");
        let config = json!({"leds_config": ads(), "leds_collection_name": name});
        locality.insert("leds_cluster_locality_config".into(), config);
    }
    let member = |config: Config, name: &str, address: SocketAddr| {
        config.with_named(XdsType::Leds, &format!("{COLLECTION}{name}"), &endpoint(address, "HEALTHY"))
    };
    let config = Config::default()
        .with(XdsType::Cds, &cluster("c"))
        .with(XdsType::Eds, &assignment)
        .with(XdsType::Lds, &rds_listener("front", port, "r"))
        .with(XdsType::Rds, &route("r", "c"));
    // An empty collection does not hold the start.
    let mut plane = Plane::start(Some(&config)).await?;
    let envoy = plane.live_envoy("led-01", Protocol::Delta).await?;
    let config = member(config, "one", one.address());
    plane.publish(&config);
    wait_instance(port, "one").await?;
    let config = member(config, "two", two.address());
    plane.publish(&config);
    wait_stat(&envoy, "cluster.c.membership_healthy", |count| count == 2).await?;
    let config = config.without(XdsType::Leds, &format!("{COLLECTION}one"));
    plane.publish(&config);
    wait_stat(&envoy, "cluster.c.membership_total", |count| count == 1).await?;
    wait_instance(port, "two").await?;
    // A changed cluster waits for its endpoints again, and does not ask.
    let mut changed = cluster("c");
    changed["connect_timeout"] = json!("2s");
    plane.publish(&config.with(XdsType::Cds, &changed));
    wait_stat(&envoy, "cluster_manager.cluster_modified", |count| count == 1).await?;
    wait_stat(&envoy, "cluster_manager.warming_clusters", |count| count == 0).await?;
    wait_instance(port, "two").await?;
    plane.accepted().await?;
    assert_clean(&envoy).await
}

#[tokio::test]
async fn led_01_endpoints_of_a_locality_come_and_go() -> Result<()> {
    bounded(leds()).await
}

/// A virtual host of the route configuration `r`.
fn host(domain: &str, body: &str) -> Value {
    let answer = json!({"status": 200, "body": {"inline_string": body}});
    let routes = json!([{"match": {"prefix": "/"}, "direct_response": answer}]);
    json!({"name": format!("r/{domain}"), "domains": [domain], "routes": routes})
}

async fn vhds() -> Result<()> {
    let port = ports::free_port()?;
    let routes = |version: &str| json!({"name": "r", "vhds": {"config_source": ads()}, "virtual_hosts": [host("fixed.test", version)]});
    let rds = json!({"rds": {"route_config_name": "r", "config_source": ads()}});
    let front = listener("front", port, &manager(&rds, &[on_demand(&json!({}))]));
    let with =
        |config: Config, domain: &str, body: &str| config.with_on_demand(XdsType::Vhds, &host(domain, body));
    let config = Config::default().with(XdsType::Lds, &front).with(XdsType::Rds, &routes("1"));
    let config = with(config, "a.test", "a1");
    let mut plane = Plane::start(Some(&config)).await?;
    let envoy = plane.live_envoy("e26-vhds", Protocol::Delta).await?;
    let wait_answer = |domain: &'static str, body: &'static str| {
        wait::until("the answer", wait::STEP, move || async move {
            let found = call(port, "host", domain).await?.ok()?.text();
            ensure!(found == body, "it is {found}");
            Ok(())
        })
    };
    wait_answer("fixed.test", "1").await?;
    // The first request for a host waits for it, and goes on.
    let found = call(port, "host", "a.test").await?.ok()?.text();
    ensure!(found == "a1", "{found}");
    let found = call(port, "host", "unknown.test").await?.status;
    ensure!(found == 404, "{found} from an unknown host");

    // Hosts change, come, and outlive a change of the routes around them.
    let config = with(with(config, "a.test", "a2"), "unknown.test", "late");
    plane.publish(&config);
    wait_answer("a.test", "a2").await?;
    wait_answer("unknown.test", "late").await?;
    plane.publish(&config.with(XdsType::Rds, &routes("2")));
    wait_answer("fixed.test", "2").await?;
    wait_answer("a.test", "a2").await?;
    plane.accepted().await?;
    assert_clean(&envoy).await
}

#[tokio::test]
async fn e26_virtual_hosts_on_demand() -> Result<()> {
    bounded(vhds()).await
}
