//! Mutual TLS between stock Envoys whose identities come from `navarch serve`, without an agent, without
//! Kubernetes and without root.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use common::authority::{Rig, Workload};
use navarch_testkit::{
    apps::{App, Role, Running},
    envoy::Envoy,
    http::Call,
    navarch, ports, wait,
};
use serde_json::Value;

const REVIEWS: Workload = Workload { namespace: "shop", account: "reviews", address: "127.0.4.1" };
const WEB: Workload = Workload { namespace: "front", account: "web", address: "127.0.4.2" };
const SPY: Workload = Workload { namespace: "back", account: "spy", address: "127.0.4.3" };

/// A service with a sidecar, and two that call it.
struct Mesh {
    rig: Rig,
    /// Where the sidecar of the service takes calls.
    inbound: u16,
    /// Where those of the others take calls to it.
    outbound: [u16; 2],
    _app: Running,
}

impl Mesh {
    async fn start(name: &str) -> Result<Mesh> {
        let rig = Rig::start(name, &[]).await?;
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
    async fn status(&self, caller: usize) -> Result<u16> {
        let url = format!("http://127.0.0.1:{}/", self.outbound[caller]);
        Ok(Call::get(url).header("host", "reviews.test").send().await?.status.as_u16())
    }

    /// Waits until the two callers get these.
    async fn expect(&self, expected: [u16; 2]) -> Result<()> {
        wait::until("the answers", wait::STEP, || async {
            let found = [self.status(0).await?, self.status(1).await?];
            ensure!(found == expected, "{found:?} instead of {expected:?}");
            Ok(())
        })
        .await
    }

    async fn policy(&self, source: &str, expected: [u16; 2]) -> Result<()> {
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
    fn openssl(&self, arguments: &[&str]) -> Result<String> {
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

/// Names and subjects of what Envoy presents and trusts for workloads.
async fn secrets(envoy: &Envoy) -> Result<String> {
    Ok(envoy.admin_get("/config_dump?resource=dynamic_active_secrets").await?.ok()?.text())
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_envoys_prove_to_each_other_who_they_are() -> Result<()> {
    let mesh = Mesh::start("mutual-tls").await?;
    let rig = &mesh.rig;
    let reviews = rig.sidecar("mutual-tls-reviews", &REVIEWS).await?;
    let web = rig.sidecar("mutual-tls-web", &WEB).await?;
    let spy = rig.sidecar("mutual-tls-spy", &SPY).await?;
    mesh.expect([200, 200]).await?;
    ensure!(reviews.stats(r"ssl\.handshake$").await?.values().sum::<u64>() > 0, "it was not over TLS");
    let said = reviews.admin_get("/certs").await?.ok()?.text();
    ensure!(said.contains("spiffe://cluster.local/ns/shop/sa/reviews"), "{said}");

    // STRICT: nothing comes through in plain text, nor with a certificate of another authority or with none.
    let plain = Call::get(format!("http://{}:{}/", REVIEWS.address, mesh.inbound)).send().await;
    ensure!(plain.is_err(), "plain text was answered: {plain:?}");
    ensure!(!mesh.openssl(&[])?.contains("HTTP/1.1"), "a client without a certificate was answered");
    let foreign = foreign(&rig.directory)?;
    let (certificate, key) = (foreign.0.display().to_string(), foreign.1.display().to_string());
    let said = mesh.openssl(&["-cert", &certificate, "-key", &key])?;
    ensure!(!said.contains("HTTP/1.1"), "a foreign certificate was taken: {said}");
    // The same call with a certificate of this authority, so that the calls before failed because of what
    // they presented.
    let (certificate, key) = rig.certificate("front", "web")?;
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let said = mesh.openssl(&["-cert", &certificate, "-key", &key])?;
    ensure!(said.contains("HTTP/1.1 200"), "{said}");

    mesh.policy("principals: [cluster.local/ns/front/sa/web]", [200, 403]).await?;
    mesh.policy("namespaces: [back]", [403, 200]).await?;
    mesh.policy("notPrincipals: ['*/sa/spy']", [200, 403]).await?;

    for envoy in [&reviews, &web, &spy] {
        ensure!(envoy.rejections().await?.is_empty(), "{:?}", envoy.rejections().await?);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_the_key_of_somebody_else() -> Result<()> {
    let mesh = Mesh::start("mutual-tls-keys").await?;
    let rig = &mesh.rig;
    // Over plaintext nobody has proven anything, on this machine or elsewhere.
    let bootstrap = navarch::bootstrap(&REVIEWS.node(), &REVIEWS.metadata(), rig.server.xds(), &[])?;
    let mut unproven = Envoy::start("mutual-tls-unproven", bootstrap).await?;
    unproven.wait_live().await?;
    wait::until("the roots", wait::STEP, || async {
        ensure!(secrets(&unproven).await?.contains("ROOTCA"), "not there");
        Ok(())
    })
    .await?;
    let said = secrets(&unproven).await?;
    ensure!(!said.contains("private_key") && !said.contains("tls_certificate"), "{said}");
    // A good certificate of somebody else: no stream, no key.
    let (certificate, key) = rig.certificate("back", "spy")?;
    let files = [("--tls-cert", certificate.as_path()), ("--tls-key", key.as_path())];
    let impostor = rig.envoy("mutual-tls-impostor", &REVIEWS.node(), &REVIEWS.metadata(), &files).await?;
    rig.said("its certificate is of spiffe://cluster.local/ns/back/sa/spy").await?;
    ensure!(!secrets(&impostor).await?.contains("private_key"), "a key was given away");
    Ok(())
}

/// A certificate and its key that say that they are of `web`, from an authority that nobody knows.
fn foreign(directory: &Path) -> Result<(std::path::PathBuf, std::path::PathBuf)> {
    let (certificate, key) = (directory.join("foreign.pem"), directory.join("foreign.key"));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    command.args(["-days", "2", "-subj", "/CN=foreign"]);
    command.args(["-addext", "subjectAltName=URI:spiffe://cluster.local/ns/front/sa/web"]);
    let output = command.arg("-out").arg(&certificate).arg("-keyout").arg(&key).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok((certificate, key))
}
