//! A gateway under test, its control plane, and how to write configuration for it.

use super::backend::Backend;
use anyhow::{Context, Result, ensure};
use navarch_testkit::{
    envoy::Envoy,
    http::{Answer, Call},
    navarch::{self, Server},
    ports, wait, workspace,
};
use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
};

const NODE: &str = "router~127.0.3.3~edge.default~default.svc.cluster.local";
const METADATA: [(&str, &str); 3] =
    [("NAMESPACE", "default"), ("INSTANCE_IPS", "127.0.3.3"), ("LABELS", r#"{"istio":"edge"}"#)];

/// A stock Envoy as a gateway for `*.traffic.test`, and the server that configures it.
pub struct Edge {
    pub server: Server,
    pub envoy: Envoy,
    /// Where the gateway takes HTTP.
    pub port: u16,
}

impl Edge {
    /// `extra` are more arguments of `navarch bootstrap`.
    pub async fn new(name: &str, extra: &[&str]) -> Result<Edge> {
        Edge::with(name, extra, &[]).await
    }

    /// [`Edge::new`] with more arguments of `navarch serve`.
    pub async fn with(name: &str, extra: &[&str], serve: &[&str]) -> Result<Edge> {
        let config = workspace::scratch(name)?.join("config");
        std::fs::create_dir_all(&config)?;
        let port = ports::free_port()?;
        let server =
            format!("{{port: {{number: {port}, name: http, protocol: HTTP}}, hosts: ['*.traffic.test']}}");
        navarch::replace(&config.join("edge.yaml"), &gateway("edge", &server))?;
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (xds, admin) = (local(ports::free_port()?), local(ports::free_port()?));
        let server = Server::start_on(&format!("{name}-server"), &config, xds, admin, serve).await?;
        let bootstrap = navarch::bootstrap(NODE, &METADATA, server.xds(), extra)?;
        let mut envoy = Envoy::start(&format!("{name}-envoy"), bootstrap).await?;
        envoy.wait_live().await?;
        Ok(Edge { server, envoy, port })
    }

    /// Writes the file `name` of the configuration and waits until the gateway has it.
    pub async fn apply(&self, name: &str, objects: &str) -> Result<()> {
        let before = self.server.revision().await?;
        self.server.write(&format!("{name}.yaml"), objects)?;
        self.server.reached_since(before).await
    }

    /// A call to `host` at the gateway.
    pub fn call(&self, host: &str, path: &str) -> Call {
        Call::get(format!("http://127.0.0.1:{}{path}", self.port)).header("host", host)
    }

    /// The name of the backend that answered with 2xx.
    pub async fn answered(&self, host: &str) -> Result<String> {
        name_of(&self.call(host, "/").send().await?.ok()?)
    }

    /// Waits for an answer with this status to a call without effects on what the test counts.
    pub async fn expect(&self, call: &Call, status: u16) -> Result<Answer> {
        wait::until(&format!("status {status}"), wait::STEP, || async {
            let answer = call.clone().send().await?;
            ensure!(answer.status.as_u16() == status, "{} {}", answer.status, answer.text());
            Ok(answer)
        })
        .await
    }

    pub async fn nothing_rejected(&self) -> Result<()> {
        let rejections = self.envoy.rejections().await?;
        ensure!(rejections.is_empty(), "Envoy rejected: {rejections:?}");
        Ok(())
    }
}

/// The backend that an echo comes from.
pub fn name_of(answer: &Answer) -> Result<String> {
    Ok(answer.json()?["name"].as_str().context("not from a backend")?.to_owned())
}

/// A Gateway with one server on loopback: a mapping in flow style without `bind`.
pub fn gateway(name: &str, server: &str) -> String {
    let server = server.trim().trim_start_matches('{');
    format!(
        "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: default}}
spec:
  selector: {{istio: edge}}
  servers: [{{bind: 127.0.0.1, {server}]
---
"
    )
}

/// A ServiceEntry with the port 80, and the endpoints: backends, and more fields of each.
pub fn service(host: &str, endpoints: &[(&Backend, &str)]) -> String {
    let mut text = format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {}, namespace: default}}
spec:
  hosts: ['{host}']
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  endpoints:
",
        object_name(host)
    );
    for (backend, fields) in endpoints {
        let port = backend.address.port();
        let _ = writeln!(text, "    - {{address: 127.0.0.1, ports: {{http: {port}}}{fields}}}");
    }
    text + "---\n"
}

/// A VirtualService at the gateway `edge`; `http` is the list of its routes in flow style.
pub fn routes(host: &str, http: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {}, namespace: default}}
spec:
  hosts: ['{host}']
  gateways: [edge]
  http: {http}
---
",
        object_name(host)
    )
}

/// A DestinationRule; `spec` are fields in flow style.
pub fn rule(host: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {}, namespace: default}}
spec: {{host: {host}, {spec}}}
---
",
        object_name(host)
    )
}

/// A route action to a host.
pub fn to(host: &str) -> String {
    format!("route: [{{destination: {{host: {host}}}}}]")
}

fn object_name(host: &str) -> String {
    host.replace('*', "any").replace('.', "-")
}
