//! One sidecar Envoy that calls one service with two versions, all on loopback.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod api_server;
#[cfg(feature = "kubernetes")]
pub mod applied;
pub mod authority;
pub mod https;
pub mod issuer;
pub mod load;
pub mod minute;
pub mod pair;
pub mod pki;
pub mod registered;
pub mod table;

use anyhow::{Context, Result, ensure};
use navarch_testkit::{
    apps::{App, Role, Running},
    envoy::Envoy,
    http::{Answer, Call},
    navarch::{self, Server},
    ports, wait, workspace,
};
use serde_json::Value;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Its address is nobody else's: the labels of a workload come from the registry first, by address.
pub const NODE: &str = "sidecar~127.0.3.1~client.default~default.svc.cluster.local";

/// Node metadata of the sidecar. Nothing redirects its traffic: it listens where it is told to.
pub const METADATA: [(&str, &str); 4] = [
    ("NAMESPACE", "default"),
    ("INTERCEPTION_MODE", "NONE"),
    ("INSTANCE_IPS", "127.0.3.1"),
    ("LABELS", r#"{"app":"client"}"#),
];

/// The whole mesh without TLS.
pub const PLAINTEXT: &str = "apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: DISABLE}}
";

/// A directory of configuration, and what it talks about.
pub struct Fixture {
    pub config: PathBuf,
    /// Where the sidecar takes calls to `echo.test`.
    pub port: u16,
    pub v1: Running,
    pub v2: Running,
}

impl Fixture {
    pub async fn new(name: &str) -> Result<Fixture> {
        let config = workspace::scratch(name)?.join("config");
        std::fs::create_dir_all(&config)?;
        let (v1, v2) = (app("v1").await?, app("v2").await?);
        let fixture = Fixture { config, port: ports::free_port()?, v1, v2 };
        fixture.write("service.yaml", &fixture.service())?;
        fixture.write("workload-v1.yaml", &workload("v1", fixture.v1.address()))?;
        fixture.write("workload-v2.yaml", &workload("v2", fixture.v2.address()))?;
        fixture.write("routes.yaml", &routes("v1"))?;
        Ok(fixture)
    }

    pub fn write(&self, file: &str, content: &str) -> Result<()> {
        navarch::replace(&self.config.join(file), content)
    }

    fn service(&self) -> String {
        let port = self.port;
        format!(
            "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: echo, namespace: default}}
spec:
  hosts: [echo.test]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: {port}, name: http, protocol: HTTP}}]
  workloadSelector: {{labels: {{app: echo}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: echo, namespace: default}}
spec:
  host: echo.test
  subsets:
    - {{name: v1, labels: {{version: v1}}}}
    - {{name: v2, labels: {{version: v2}}}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: default, namespace: default}}
spec:
  egress:
    - port: {{number: {port}, name: http, protocol: HTTP}}
      bind: 127.0.0.1
      captureMode: NONE
      hosts: ['./*']
"
        )
    }

    pub async fn serve(&self, name: &str) -> Result<Server> {
        Server::start(name, &self.config).await
    }

    /// The sidecar, LIVE.
    pub async fn sidecar(&self, name: &str, xds: SocketAddr) -> Result<Envoy> {
        let mut envoy = Envoy::start(name, bootstrap(xds)?).await?;
        envoy.wait_live().await?;
        Ok(envoy)
    }

    /// A call to `echo.test` through the sidecar.
    pub async fn call(&self) -> Result<Answer> {
        let url = format!("http://127.0.0.1:{}/", self.port);
        Call::get(url).header("host", "echo.test").send().await
    }

    /// The version that answered; an error for any other answer than 200.
    pub async fn version(&self) -> Result<String> {
        let page = self.call().await?.ok()?.json()?;
        Ok(page["version"].as_str().context("no version")?.to_owned())
    }

    pub async fn wait_for(&self, version: &str) -> Result<()> {
        let what = format!("an answer of {version}");
        wait::until(&what, wait::STEP, || async {
            let found = self.version().await?;
            ensure!(found == version, "{found} answered");
            Ok(())
        })
        .await
    }
}

pub fn bootstrap(xds: SocketAddr) -> Result<Value> {
    navarch::bootstrap(NODE, &METADATA, xds, &[])
}

async fn app(version: &str) -> Result<Running> {
    let role = Role::Leaf { facts: Value::Null };
    let app =
        App { service: "echo".into(), version: version.into(), instance: format!("echo-{version}"), role };
    app.start(SocketAddr::from(([127, 0, 0, 1], 0))).await
}

pub fn workload(version: &str, address: SocketAddr) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: echo-{version}, namespace: default}}
spec:
  address: {}
  ports: {{http: {}}}
  labels: {{app: echo, version: {version}}}
",
        address.ip(),
        address.port()
    )
}

/// A VirtualService that sends everything to one version.
pub fn routes(version: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: echo, namespace: default}}
spec:
  hosts: [echo.test]
  http:
    - route:
        - destination: {{host: echo.test, subset: {version}}}
"
    )
}

/// How many updates of each kind an Envoy has taken, and the bytes it got from the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub cds: u64,
    pub eds: u64,
    pub lds: u64,
    pub rds: u64,
    pub bytes: u64,
}

impl Received {
    /// Whether nothing came in between but keepalives of the connection, 17 bytes each; the
    /// smallest response is several times that.
    pub fn nothing_since(&self, before: &Received) -> bool {
        let bytes = self.bytes.saturating_sub(before.bytes);
        bytes <= 2 * 17 && self.no_update_since(before)
    }

    /// The same over any time: keepalives are not counted.
    pub fn no_update_since(&self, before: &Received) -> bool {
        Received { bytes: before.bytes, ..self.clone() } == *before
    }
}

pub async fn received(envoy: &Envoy) -> Result<Received> {
    let stats = envoy.stats(r"update_success$|^cluster\.xds-grpc.*\.upstream_cx_rx_bytes_total$").await?;
    let sum = |matches: &dyn Fn(&str) -> bool| -> u64 {
        stats.iter().filter(|(name, _)| matches(name)).map(|(_, count)| count).sum()
    };
    Ok(Received {
        cds: sum(&|name| name == "cluster_manager.cds.update_success"),
        eds: sum(&|name| name.starts_with("cluster.") && name.ends_with("update_success")),
        lds: sum(&|name| name == "listener_manager.lds.update_success"),
        rds: sum(&|name| name.contains(".rds.") && name.ends_with("update_success")),
        bytes: sum(&|name| name.starts_with("cluster.xds-grpc")),
    })
}

/// Waits until nothing new has arrived for a quarter of a second, and gives what has arrived.
pub async fn settled(envoy: &Envoy) -> Result<Received> {
    let mut last = received(envoy).await?;
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
        let now = received(envoy).await?;
        if now == last {
            return Ok(now);
        }
        last = now;
    }
}

/// Paths in messages are relative or absolute; tests only look at the end.
pub fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
