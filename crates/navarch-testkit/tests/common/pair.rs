//! A small mesh in which everybody has to prove who they are.

use super::authority::{Rig, Workload};
use anyhow::{Result, ensure};
use navarch_testkit::{
    apps::{App, Role, Running},
    http::Call,
    ports, wait,
};
use serde_json::Value;
use std::process::{Command, Stdio};

pub const REVIEWS: Workload = Workload { namespace: "shop", account: "reviews", address: "127.0.4.1" };
pub const WEB: Workload = Workload { namespace: "front", account: "web", address: "127.0.4.2" };
pub const SPY: Workload = Workload { namespace: "back", account: "spy", address: "127.0.4.3" };

/// A service with a sidecar, and two that call it. Every call is a handshake, and none is tried again.
pub struct Mesh {
    pub rig: Rig,
    /// Where the sidecar of the service takes calls.
    pub inbound: u16,
    /// Where those of the others take calls to it.
    pub outbound: [u16; 2],
    _app: Running,
}

impl Mesh {
    pub async fn start(rig: Rig) -> Result<Mesh> {
        let role = Role::Leaf { facts: Value::Null };
        let app = App { service: "reviews".into(), version: "v1".into(), instance: "reviews".into(), role };
        let app = app.start(([127, 0, 0, 1], 0).into()).await?;
        let (inbound, outbound) = (ports::free_port()?, [ports::free_port()?, ports::free_port()?]);
        let mesh = Mesh { rig, inbound, outbound, _app: app };
        mesh.rig.server.write("mesh.yaml", &mesh.config(mesh._app.address().port()))?;
        Ok(mesh)
    }

    fn config(&self, app: u16) -> String {
        let (inbound, [web, spy]) = (self.inbound, self.outbound);
        let address = REVIEWS.address;
        let caller = |namespace: &str, port: u16| {
            format!(
                "---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: default, namespace: {namespace}}}
spec:
  egress:
    - port: {{number: {port}, name: http, protocol: HTTP}}
      bind: 127.0.0.1
      captureMode: NONE
      hosts: ['shop/*']
"
            )
        };
        format!(
            "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: reviews, namespace: shop}}
spec:
  hosts: [reviews.test]
  location: MESH_INTERNAL
  resolution: STATIC
  ports:
    - {{number: {web}, name: http, protocol: HTTP}}
    - {{number: {spy}, name: http-spy, protocol: HTTP}}
  workloadSelector: {{labels: {{app: reviews}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews, namespace: shop}}
spec:
  hosts: [reviews.test]
  http: [{{retries: {{attempts: 0}}, route: [{{destination: {{host: reviews.test}}}}]}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: reviews, namespace: shop}}
spec:
  host: reviews.test
  trafficPolicy: {{connectionPool: {{http: {{maxRequestsPerConnection: 1}}}}}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: reviews, namespace: shop}}
spec:
  address: {address}
  ports: {{http: {inbound}, http-spy: {inbound}}}
  labels: {{app: reviews, security.istio.io/tlsMode: istio}}
  serviceAccount: reviews
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: default, namespace: shop}}
spec:
  ingress:
    - port: {{number: {inbound}, name: http, protocol: HTTP}}
      bind: {address}
      defaultEndpoint: 127.0.0.1:{app}
  egress: [{{hosts: ['~/*']}}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: istio-system}}
spec: {{mtls: {{mode: STRICT}}}}
{}{}",
            caller("front", web),
            caller("back", spy)
        )
    }

    /// The status that a caller gets: 0 if the connection is lost.
    pub async fn status(&self, caller: usize) -> Result<u16> {
        let url = format!("http://127.0.0.1:{}/", self.outbound[caller]);
        Ok(Call::get(url).header("host", "reviews.test").send().await?.status.as_u16())
    }

    /// Waits until the two callers get these.
    pub async fn expect(&self, expected: [u16; 2]) -> Result<()> {
        wait::until("the answers", wait::STEP, || async {
            let found = [self.status(0).await?, self.status(1).await?];
            ensure!(found == expected, "{found:?} instead of {expected:?}");
            Ok(())
        })
        .await
    }

    pub async fn policy(&self, source: &str, expected: [u16; 2]) -> Result<()> {
        let policy = format!(
            "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: reviews, namespace: shop}}
spec: {{action: ALLOW, rules: [{{from: [{{source: {{{source}}}}}]}}]}}
"
        );
        self.rig.server.write("policy.yaml", &policy)?;
        self.expect(expected).await
    }

    /// What `openssl s_client` gets from the sidecar of the service, with these arguments.
    pub fn openssl(&self, arguments: &[&str]) -> Result<String> {
        let address = format!("{}:{}", REVIEWS.address, self.inbound);
        let request = "printf 'GET / HTTP/1.1\\r\\nHost: reviews.test\\r\\nConnection: close\\r\\n\\r\\n'";
        let client =
            format!("openssl s_client -quiet -alpn istio -connect {address} {}", arguments.join(" "));
        let output = Command::new("sh")
            .args(["-c", &format!("{request} | timeout 10 {client} 2>&1")])
            .stdin(Stdio::null())
            .output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
