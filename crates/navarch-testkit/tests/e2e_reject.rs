//! What a stock Envoy refuses is shown with its reason and where it was written.

mod common;

use anyhow::{Result, ensure};
use common::{Fixture, routes};
use navarch_testkit::{navarch, ports, wait};

/// An egress listener on an address of TEST-NET-1, which no machine has: correct configuration,
/// as far as the control plane can know.
fn sidecar(port: u16, other: u16) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: other, namespace: default}}
spec:
  hosts: [other.test]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{{number: {other}, name: http, protocol: HTTP}}]
  endpoints: [{{address: 192.0.2.2}}]
---
# A listener that cannot be bound.
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata:
  name: broken
  namespace: default
spec:
  workloadSelector:
    labels:
      app: client
  egress:
    - port: {{number: {port}, name: http, protocol: HTTP}}
      bind: 127.0.0.1
      captureMode: NONE
      hosts: ['./*']
    - port: {{number: {other}, name: unbindable, protocol: HTTP}}
      bind: 192.0.2.1
      captureMode: NONE
      hosts: ['./*']
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_listener_is_blamed_on_its_file_and_heals() -> Result<()> {
    let fixture = Fixture::new("reject").await?;
    let server = fixture.serve("reject-server").await?;
    let envoy = fixture.sidecar("reject-envoy", server.xds()).await?;
    fixture.wait_for("v1").await?;

    fixture.write("broken.yaml", &sidecar(fixture.port, ports::free_port()?))?;
    let admin = server.admin().to_string();
    let status = || navarch::run(["proxy-status", "--admin-addr", &admin]);
    wait::until("the rejection in proxy-status", wait::STEP, || async {
        let output = status()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(!output.status.success(), "exit status {} with {text}", output.status);
        for part in ["ERROR", "192.0.2.1", "broken.yaml:12:"] {
            ensure!(text.contains(part), "no {part} in {text}");
        }
        Ok(())
    })
    .await?;
    // What worked goes on working, and other changes go through.
    assert_eq!(fixture.version().await?, "v1");
    fixture.write("routes.yaml", &routes("v2"))?;
    fixture.wait_for("v2").await?;

    std::fs::remove_file(fixture.config.join("broken.yaml"))?;
    wait::until("proxy-status without a rejection", wait::STEP, || async {
        let output = status()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        Ok(())
    })
    .await?;
    assert!(envoy.ready().await?);
    Ok(())
}
