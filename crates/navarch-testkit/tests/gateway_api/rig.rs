//! A gateway under test, its control plane, and how to write configuration for it.

use crate::backend::Backend;
use anyhow::{Context, Result, ensure};
use navarch_testkit::{
    envoy::Envoy,
    http::{Answer, Call},
    navarch::{self, Server},
    ports, wait, workspace,
};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};

const NODE: &str = "router~127.0.3.4~edge.default~default.svc.cluster.local";
const METADATA: [(&str, &str); 3] =
    [("NAMESPACE", "default"), ("INSTANCE_IPS", "127.0.3.4"), ("LABELS", r#"{"app":"edge"}"#)];

/// A stock Envoy that serves the Gateway `edge`, and the server that configures it.
pub struct Rig {
    pub server: Server,
    pub envoy: Envoy,
    /// Port of the listener `http`, for `*.test`, and of `exact`, for `exact.test`.
    pub port: u16,
    /// Port of the listener `other`, for `*.test`.
    pub other_port: u16,
    /// Port of the listener `tcp`, and of `udp`.
    pub tcp_port: u16,
}

impl Rig {
    pub async fn new(name: &str) -> Result<Rig> {
        let (port, other_port, tcp_port) = (ports::free_port()?, ports::free_port()?, ports::free_port()?);
        let listeners = format!(
            "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: istio}}
spec: {{controllerName: istio.io/gateway-controller}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge, namespace: default}}
spec:
  gatewayClassName: istio
  addresses: [{{type: Hostname, value: edge.default.svc.cluster.local}}]
  listeners:
  - {{name: http, port: {port}, protocol: HTTP, hostname: '*.test'}}
  - {{name: exact, port: {port}, protocol: HTTP, hostname: exact.test}}
  - {{name: other, port: {other_port}, protocol: HTTP, hostname: '*.test'}}
  - {{name: tcp, port: {tcp_port}, protocol: TCP}}
  - {{name: udp, port: {tcp_port}, protocol: UDP}}
---
apiVersion: v1
kind: Service
metadata: {{name: edge, namespace: default}}
spec:
  clusterIP: 10.250.0.1
  selector: {{app: edge}}
  ports:
  - {{name: a, port: {port}}}
  - {{name: b, port: {other_port}}}
  - {{name: c, port: {tcp_port}}}
  - {{name: d, port: {tcp_port}, protocol: UDP}}
---
apiVersion: v1
kind: Pod
metadata: {{name: edge, namespace: default, labels: {{app: edge}}}}
status:
  phase: Running
  podIP: 127.0.3.4
  podIPs: [{{ip: 127.0.3.4}}]
  conditions: [{{type: Ready, status: 'True'}}]
"
        );
        let (server, envoy) = start(name, &listeners, NODE, &METADATA).await?;
        Ok(Rig { server, envoy, port, other_port, tcp_port })
    }

    /// Writes a route to the gateway, with hosts and rules in flow style, and the services that it names;
    /// waits until the gateway has it.
    pub async fn route(
        &self,
        kind: &str,
        name: &str,
        rules: &str,
        services: &[(&str, &Backend)],
    ) -> Result<String> {
        let host = format!("{name}.test");
        let spec = format!(
            "{{parentRefs: [{{name: edge, sectionName: http}}], hostnames: [{host}], rules: {rules}}}"
        );
        self.apply(name, &(route(kind, name, "default", &spec) + &self::services(services))).await?;
        Ok(host)
    }

    /// Writes the file `name` of the configuration and waits until the gateway has it.
    pub async fn apply(&self, name: &str, objects: &str) -> Result<()> {
        apply(&self.server, name, objects).await
    }

    /// A call to `host` at the gateway.
    pub fn call(&self, host: &str, path: &str) -> Call {
        Call::get(format!("http://127.0.0.1:{}{path}", self.port)).header("host", host)
    }

    pub async fn nothing_rejected(&self) -> Result<()> {
        nothing_rejected(&self.envoy).await
    }
}

/// A server with some configuration, and an Envoy that is LIVE with it.
pub async fn start(
    name: &str,
    objects: &str,
    node: &str,
    metadata: &[(&str, &str)],
) -> Result<(Server, Envoy)> {
    let config = workspace::scratch(name)?.join("config");
    std::fs::create_dir_all(&config)?;
    navarch::replace(&config.join("base.yaml"), objects)?;
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let (xds, admin) = (local(ports::free_port()?), local(ports::free_port()?));
    let server = Server::start_on(&format!("{name}-server"), &config, xds, admin, &[]).await?;
    let bootstrap = navarch::bootstrap(node, metadata, server.xds(), &[])?;
    let mut envoy = Envoy::start(&format!("{name}-envoy"), bootstrap).await?;
    envoy.wait_live().await?;
    Ok((server, envoy))
}

pub async fn apply(server: &Server, name: &str, objects: &str) -> Result<()> {
    let before = server.revision().await?;
    server.write(&format!("{name}.yaml"), objects)?;
    server.reached_since(before).await
}

pub async fn nothing_rejected(envoy: &Envoy) -> Result<()> {
    let rejections = envoy.rejections().await?;
    ensure!(rejections.is_empty(), "Envoy rejected: {rejections:?}");
    Ok(())
}

/// Waits for an answer with this status.
pub async fn expect(call: &Call, status: u16) -> Result<Answer> {
    wait::until(&format!("status {status}"), wait::STEP, || async {
        let answer = call.clone().send().await?;
        ensure!(answer.status.as_u16() == status, "{} {}", answer.status, answer.text());
        Ok(answer)
    })
    .await
}

/// Waits until this backend answers.
pub async fn expect_from(call: &Call, backend: &str) -> Result<Value> {
    wait::until(&format!("an answer of {backend}"), wait::STEP, || async {
        let page = call.clone().send().await?.ok()?.json()?;
        ensure!(page["name"] == backend, "{page}");
        Ok(page)
    })
    .await
}

/// The name of the backend that an echo comes from.
pub fn name_of(answer: &Answer) -> Result<String> {
    Ok(answer.json()?["name"].as_str().context("not from a backend")?.to_owned())
}

/// A route.
pub fn route(kind: &str, name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}}}
spec: {spec}
---
"
    )
}

/// Services with the port 80, and their endpoints.
pub fn services(services: &[(&str, &Backend)]) -> String {
    services.iter().map(|(name, backend)| service(name, "default", 80, backend)).collect()
}

/// A service with one port, and its endpoint.
pub fn service(name: &str, namespace: &str, port: u16, backend: &Backend) -> String {
    let stated = format!("{{name: http, port: {port}}}");
    port_of(name, namespace, &stated) + &endpoint(name, namespace, 0, "TCP", backend.address)
}

/// A service with a port in flow style, called `http`.
pub fn port_of(name: &str, namespace: &str, port: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{clusterIP: 10.250.1.1, ports: [{port}]}}
---
"
    )
}

/// One more endpoint of the port `http` of a service; each has a number.
pub fn endpoint(service: &str, namespace: &str, nth: u8, protocol: &str, address: SocketAddr) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {service}-{nth}, namespace: {namespace}, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: IPv4
endpoints: [{{addresses: [{}], conditions: {{ready: true}}}}]
ports: [{{name: http, port: {}, protocol: {protocol}}}]
---
",
        address.ip(),
        address.port()
    )
}
