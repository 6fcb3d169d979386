//! Several API servers behind a balancer, which come and go under calls: changes arrive, and nothing else.

mod common;

use anyhow::{Context, Result, ensure};
use common::{Fixture, api_server::serve_as, applied::apply, load::Load, settled};
use navarch_testkit::{faults::FaultProxy, kubernetes::ApiServer, navarch, navarch::Server, wait};
use serde_json::{Value, json};

const ROUTES: &str = "/apis/networking.istio.io/v1/namespaces/default/virtualservices/echo";

/// Times that one of the two API servers is away, and the other one after it.
const ROUNDS: usize = 2;

#[tokio::test(flavor = "multi_thread")]
async fn of_two_api_servers_one_is_enough_whichever_it_is() -> Result<()> {
    let printed: Value = serde_json::from_str(&navarch::stdout(["crds", "--gateway-api"])?)?;
    let definitions = printed["items"].as_array().context("a list")?;
    let mut first = ApiServer::start("balanced-cluster", definitions).await?;
    let mut second = first.start_another().await?;
    let balancer = FaultProxy::balance(vec![first.address(), second.address], 7).await?;
    let fixture = Fixture::new("balanced").await?;
    for file in ["service.yaml", "workload-v1.yaml", "workload-v2.yaml", "routes.yaml"] {
        apply(&first, &std::fs::read_to_string(fixture.config.join(file))?).await?;
    }
    let route = first.get(ROUTES).await?;
    let server = serve_as("balanced-server", &first.kubeconfig_at(balancer.address())?, "default").await?;
    let envoy = fixture.sidecar("balanced-envoy", server.xds()).await?;
    fixture.wait_for("v1").await?;
    let before = settled(&envoy).await?;
    let load = Load::start(&format!("http://127.0.0.1:{}/", fixture.port), "echo.test");

    for _ in 0..ROUNDS {
        first.stop();
        change(&first, &fixture, &server, &route, "v2").await?;
        first.start_again().await?;
        let address = second.address;
        drop(second);
        change(&first, &fixture, &server, &route, "v1").await?;
        second = first.start_another_at(address).await?;
        // Both are there, and who reads next may read from the one that was away.
        balancer.cut();
        change(&first, &fixture, &server, &route, "v2").await?;
        change(&first, &fixture, &server, &route, "v1").await?;
    }
    let after = settled(&envoy).await?;
    ensure!((after.cds, after.lds) == (before.cds, before.lds), "more than a route: {before:?} {after:?}");
    let calls = load.finish().await?;
    assert_eq!(envoy.rejections().await?, Default::default());
    eprintln!("{calls} calls, none lost; one of two API servers was away {} times", 2 * ROUNDS);
    Ok(())
}

/// A change in the store, which no API server has to be asked for, arrives; and all kinds are followed.
async fn change(
    cluster: &ApiServer,
    fixture: &Fixture,
    server: &Server,
    route: &Value,
    version: &str,
) -> Result<()> {
    let mut route = route.clone();
    route["metadata"].as_object_mut().context("metadata")?.remove("resourceVersion");
    route["spec"]["http"][0]["route"][0]["destination"]["subset"] = json!(version);
    cluster.put("networking.istio.io", "virtualservices", &[route]).await?;
    fixture.wait_for(version).await?;
    wait::until("the API servers to be heard", wait::STEP, || async {
        let unheard = server.metric("navarch_source_unheard").await?;
        ensure!(unheard == 0.0, "{unheard} kinds are not heard");
        Ok(())
    })
    .await
}
