//! Connections that fail without a word, and clients that speak slowly.

use std::time::Duration;

use anyhow::{Result, ensure};
use navarch_envoy::XdsType;
use navarch_testkit::{ports, wait};
use serde_json::json;

use crate::load::Load;
use crate::proxy::Proxy;
use crate::resources::{answering, at, cluster, rds_listener, route};
use crate::rig::{
    Config, Plane, Protocol, Settings, assert_clean, backend, bootstrap, live_envoy, wait_body,
    wait_instance, wait_stat,
};

both!(e30_black_hole_is_found_by_both_sides, e31_client_with_a_rate_limit_has_the_last_state);

const PING: Duration = Duration::from_secs(1);

/// Nothing passes any more, and the connection stays open. Both sides find out by their pings.
async fn e30_black_hole_is_found_by_both_sides(protocol: Protocol) -> Result<()> {
    let (one, two, port) = (backend("one").await?, backend("two").await?, ports::free_port()?);
    let config = Config::default()
        .with(XdsType::Cds, &cluster("c"))
        .with(XdsType::Eds, &at("c", one.address()))
        .with(XdsType::Lds, &rds_listener("front", port, "r"))
        .with(XdsType::Rds, &route("r", "c"));
    let settings = Settings { keepalive_interval: PING, keepalive_timeout: PING, ..Settings::default() };
    let mut plane = Plane::start_with(settings, Some(&config)).await?;
    let proxy = Proxy::start(plane.address()).await?;
    let mut bootstrap = bootstrap(proxy.address(), "e30", protocol);
    let options = &mut bootstrap["static_resources"]["clusters"][0]["typed_extension_protocol_options"];
    options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]["explicit_http_config"] =
        json!({"http2_protocol_options": {"connection_keepalive": {"interval": "1s", "timeout": "1s"}}});
    let envoy = live_envoy("e30", protocol, bootstrap).await?;
    plane.accepted().await?;
    let lost = plane.registry().streams().into_iter().map(|stream| stream.id).max();
    let load = Load::start(port);

    proxy.black_hole();
    plane.publish(&config.with(XdsType::Eds, &at("c", two.address())));
    wait_instance(port, "two").await?;
    wait_stat(&envoy, "cluster.xds.http2.keepalive_timeout", |count| count >= 1).await?;
    wait::until("the lost stream to be forgotten", wait::STEP, || async {
        let ids: Vec<_> = plane.registry().streams().into_iter().map(|stream| stream.id).collect();
        ensure!(ids.len() == 1 && ids.first() > lost.as_ref(), "{ids:?} after {lost:?}");
        Ok(())
    })
    .await?;
    plane.accepted().await?;
    load.must_be_clean().await?;
    assert_clean(&envoy).await
}

/// The client may send a few requests per second, acknowledgements included. It is late, and right in the
/// end.
async fn e31_client_with_a_rate_limit_has_the_last_state(protocol: Protocol) -> Result<()> {
    const CHANGES: usize = 20;
    let port = ports::free_port()?;
    let state = |n: usize| {
        let config = Config::default().with(XdsType::Lds, &answering("front", port, &n.to_string()));
        (0..=n).fold(config, |config, n| config.with(XdsType::Cds, &cluster(&format!("c{n}"))))
    };
    let mut plane = Plane::start(Some(&state(0))).await?;
    let mut bootstrap = bootstrap(plane.address(), "e31", protocol);
    bootstrap["dynamic_resources"]["ads_config"]["rate_limit_settings"] =
        json!({"max_tokens": 8, "fill_rate": 10.0});
    let envoy = live_envoy("e31", protocol, bootstrap).await?;
    plane.accepted().await?;
    for n in 1..=CHANGES {
        plane.publish(&state(n));
        wait_stat(&envoy, "cluster_manager.cluster_added", |count| count >= 2 + n as u64).await?;
    }
    wait_stat(&envoy, "control_plane.rate_limit_enforced", |count| count >= 1).await?;
    wait_body(port, &CHANGES.to_string()).await?;
    plane.accepted().await?;
    wait_stat(&envoy, "control_plane.pending_requests", |count| count == 0).await?;
    ensure!(plane.registry().len() == 1 && plane.heard().returns() == 0, "the stream was lost");
    assert_clean(&envoy).await
}
