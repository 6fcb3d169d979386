//! What an Envoy is started with: ProxyConfigs of the mesh, of namespaces and of workloads, and EnvoyFilters
//! for bootstraps.

mod common;

use anyhow::{Result, ensure};
use common::minute::Mesh;
use navarch_testkit::wait;
use serde_json::Value;

/// The mesh, its namespace and the caller have settings; an EnvoyFilter adds a cluster to the bootstrap, and
/// another one something that Envoy refuses.
const MORE: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |-
    defaultConfig:
      drainDuration: 7s
      extraStatTags: [tier]
      proxyMetadata: {ISTIO_META_TIER: bronze, ISTIO_META_FLOOR: '1'}
---
apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {name: shop, namespace: shop}
spec: {environmentVariables: {ISTIO_META_TIER: silver}}
---
apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {name: caller, namespace: shop}
spec:
  selector: {matchLabels: {app: caller}}
  environmentVariables: {ISTIO_META_TIER: gold, FROM_PROXY_CONFIG: here}
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: added, namespace: shop}
spec:
  workloadSelector: {labels: {app: caller}}
  configPatches:
    - applyTo: BOOTSTRAP
      patch:
        operation: MERGE
        value:
          stats_flush_interval: 3s
          static_resources: {clusters: [{name: of-a-filter, type: STATIC, connect_timeout: 1s}]}
";

#[tokio::test(flavor = "multi_thread")]
async fn proxy_configs_and_envoy_filters_shape_bootstraps() -> Result<()> {
    let mut mesh = Mesh::start_with("proxy-config", MORE, &[]).await?;
    let _greeter = mesh.greeter(&[])?;
    let mut caller =
        mesh.agent("caller", &[], &["/bin/sh", "-c", "echo variable $FROM_PROXY_CONFIG; sleep 600"])?;
    mesh.greeted().await?;
    caller.wait_live().await?;
    caller.said("variable here", 1).await?;
    let info: Value = serde_json::from_str(&caller.envoy("/server_info").await?.text())?;
    let metadata = &info["node"]["metadata"];
    ensure!(metadata["TIER"] == "gold" && metadata["FLOOR"] == "1", "{metadata}");
    ensure!(info["command_line_options"]["drain_time"] == "7s", "{info}");
    let dump = caller.envoy("/config_dump?mask=bootstrap").await?.text();
    ensure!(dump.contains("of-a-filter") && dump.contains("(tier\\\\.=\\\\."), "{dump}");

    // While the control plane is away, the same holds.
    mesh.server.kill();
    ensure!(caller.terminate().await?.code() == Some(128 + 15), "COMMAND ended by SIGTERM");
    caller.launch()?;
    caller.said("Envoy is ready", 2).await?;
    let clusters = caller.envoy("/clusters").await?.text();
    ensure!(clusters.contains("of-a-filter"), "{clusters}");

    // What Envoy refuses is left out, and said.
    mesh.server.restart().await?;
    let refused = MORE.replace("stats_flush_interval: 3s", "stats_sinks: [{name: there-is-none}]");
    let revision = mesh.server.revision().await?;
    mesh.server.write("more.yaml", &refused)?;
    wait::until("the edit to be read", wait::STEP, || async {
        let now = mesh.server.revision().await?;
        ensure!(now > revision, "still {now}");
        Ok(())
    })
    .await?;
    caller.terminate().await?;
    caller.launch()?;
    caller.said("Envoy is ready", 3).await?;
    let clusters = caller.envoy("/clusters").await?.text();
    ensure!(!clusters.contains("of-a-filter"), "{clusters}");
    caller.said("what EnvoyFilters add to the bootstrap is left out", 1).await?;
    mesh.greeted().await
}
