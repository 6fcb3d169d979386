//! A root is replaced while calls are running: no call is lost, whatever happens to the control plane
//! meanwhile.

mod common;

use std::time::Duration;

use anyhow::{Result, ensure};
use common::{
    authority::Rig,
    load::Load,
    minute,
    pair::{Mesh, REVIEWS, SPY, WEB},
};
use navarch_testkit::{navarch::Server, ports, wait};
use serde_json::Value;

/// How long a certificate lives here. A rotation takes some of these lives.
const LIFE: &str = "10s";

/// Longer than the steps of a rotation that wait for the clock.
const LIVES: Duration = Duration::from_secs(90);

fn status(server: &Server) -> Result<Value> {
    Ok(serde_json::from_str(&server.command(&["ca", "status", "-o", "json"])?)?)
}

/// Waits for the phase of a rotation.
async fn reach(server: &Server, phase: &str) -> Result<()> {
    wait::until(phase, LIVES, || async {
        let status = status(server)?;
        ensure!(status["rotation"]["phase"]["name"] == phase, "{status}");
        Ok(())
    })
    .await
}

/// Waits until one proxy alone keeps the new root from signing.
async fn misses(server: &Server, proxy: &str) -> Result<()> {
    wait::until("somebody to be missing", LIVES, || async {
        let rotation = status(server)?["rotation"].clone();
        let waits = rotation["waiting"]["for"] == "acknowledgements";
        ensure!(waits && rotation["missing"] == serde_json::json!([proxy]), "{rotation}");
        ensure!(rotation["phase"]["name"] == "distributing", "{rotation}");
        Ok(())
    })
    .await
}

/// Waits until so many proxies are connected and have acknowledged the roots of this moment.
async fn all_have(server: &Server, proxies: usize) -> Result<()> {
    wait::until("the proxies to have the roots of this moment", LIVES, || async {
        let status = status(server)?;
        let rotation = &status["rotation"];
        ensure!(rotation["connected"] == proxies && rotation["missing"] == serde_json::json!([]), "{status}");
        Ok(())
    })
    .await
}

fn count(roots: &str) -> usize {
    roots.matches("BEGIN CERTIFICATE").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_is_replaced_under_load_and_kill_9() -> Result<()> {
    let rig = Rig::with_channels("rotation", &["--cert-ttl", LIFE]).await?;
    let mut mesh = Mesh::start(rig).await?;
    let _reviews = mesh.rig.sidecar("rotation-reviews", &REVIEWS).await?;
    let _web = mesh.rig.sidecar("rotation-web", &WEB).await?;
    let mut spy = mesh.rig.sidecar("rotation-spy", &SPY).await?;
    mesh.expect([200, 200]).await?;
    let first = mesh.rig.roots()?;
    ensure!(count(&first) == 1, "{first}");
    // Without the token of the state directory nobody tells the server anything.
    ensure!(mesh.rig.server.command(&["ca", "rotate"]).is_err(), "anybody may replace the root");

    let load = Load::start(&format!("http://127.0.0.1:{}/", mesh.outbound[0]), "reviews.test");
    // What has been distributed and has signed nothing is undone without a trace.
    mesh.rig.operate(&["ca", "rotate"])?;
    ensure!(count(&mesh.rig.roots()?) == 2, "the new root is not trusted");
    mesh.rig.operate(&["ca", "undo"])?;
    ensure!(mesh.rig.roots()? == first, "the old root is not alone");

    // One does not answer: the new root does not sign, and who is missing is said.
    spy.process().signal("STOP")?;
    mesh.rig.operate(&["ca", "rotate"])?;
    misses(&mesh.rig.server, "spy.back").await?;
    mesh.rig.operate(&["ca", "pause"])?;
    let both = mesh.rig.roots()?;
    mesh.rig.server.kill();
    mesh.rig.server.restart().await?;
    let after = status(&mesh.rig.server)?;
    ensure!(after["rotation"]["paused"] == true && mesh.rig.roots()? == both, "{after}");
    spy.process().signal("CONT")?;
    mesh.rig.operate(&["ca", "resume"])?;

    // Everybody has it: it signs. A crash then takes nothing back.
    reach(&mesh.rig.server, "retiring").await?;
    let signing = status(&mesh.rig.server)?["rotation"]["phase"]["signing"].clone();
    mesh.rig.server.kill();
    mesh.rig.server.restart().await?;
    let after = status(&mesh.rig.server)?;
    ensure!(after["rotation"]["phase"]["signing"] == signing, "{after}");
    ensure!(count(&mesh.rig.roots()?) == 2, "the old root went before its last certificate");

    // The last certificate of the old root has ended: it is not trusted any more, and nobody misses it.
    reach(&mesh.rig.server, "idle").await?;
    let last = mesh.rig.roots()?;
    ensure!(count(&last) == 1 && last != first, "{last}");
    all_have(&mesh.rig.server, 3).await?;
    mesh.expect([200, 200]).await?;
    let calls = load.finish().await?;
    ensure!(calls > 100, "{calls} calls are no load");
    Ok(())
}

/// Every call is a handshake, and none is tried again.
fn strict_calls(port: u16) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: greeter, namespace: shop}}
spec:
  hosts: [greeter.shop]
  http: [{{retries: {{attempts: 0}}, route: [{{destination: {{host: greeter.shop}}}}]}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: greeter, namespace: shop}}
spec:
  host: greeter.shop
  trafficPolicy: {{connectionPool: {{http: {{maxRequestsPerConnection: 1}}}}}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: spy, namespace: shop}}
spec:
  workloadSelector: {{labels: {{app: spy}}}}
  ingress:
    - port: {{number: {port}, name: http, protocol: HTTP}}
      bind: 127.0.0.1
      defaultEndpoint: 127.0.0.1:1
  egress: [{{hosts: ['~/*']}}]
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_have_a_root_before_it_signs() -> Result<()> {
    let more = strict_calls(ports::free_port()?);
    let mut mesh = minute::Mesh::start_with("rotation-agents", &more, &["--cert-ttl", LIFE]).await?;
    let life = ["--certificate-life", LIFE];
    let _greeter = mesh.greeter(&life)?;
    let _caller = mesh.agent("caller", &[&life[..], &["--sotw"]].concat(), &[])?;
    let spy = mesh.agent("spy", &life, &[])?;
    // It talks to nobody in the mesh and asks for no roots: its agent does.
    let _edge = mesh.agent_of("gateway", "edge", &life, &[])?;
    mesh.greeted().await?;
    all_have(&mesh.server, 4).await?;
    let first = mesh.ca(&["ca", "root"])?;
    let load = Load::start(&format!("http://{}/", mesh.outbound), "greeter.shop");

    // An agent that is there does not speak for an Envoy that is not.
    spy.signal_envoy("STOP")?;
    mesh.operate(&["ca", "rotate"])?;
    misses(&mesh.server, "spy.shop").await?;
    mesh.server.kill();
    mesh.server.restart().await?;
    misses(&mesh.server, "spy.shop").await?;
    spy.signal_envoy("CONT")?;
    reach(&mesh.server, "retiring").await?;
    reach(&mesh.server, "idle").await?;
    let last = mesh.ca(&["ca", "root"])?;
    ensure!(count(&last) == 1 && last != first, "{last}");
    all_have(&mesh.server, 4).await?;
    let calls = load.finish().await?;
    ensure!(calls > 100, "{calls} calls are no load");
    let kept = std::fs::read(spy.directory().join("roots.pb"))?;
    let root = last.trim().as_bytes();
    ensure!(kept.windows(root.len()).any(|part| part == root), "an agent that starts now has other roots");
    Ok(())
}
