//! TLS at a gateway and behind it.

use super::rig::{apply, endpoint, expect, expect_from, nothing_rejected, port_of, route, services, start};
use crate::{
    backend::Backend,
    certificate::{Certificate, config_map},
    connection::TlsConnection,
};
use anyhow::{Result, ensure};
use navarch_testkit::{envoy::Envoy, http::Call, navarch::Server, ports, wait, workspace};
use std::{
    ffi::OsStr,
    net::{Ipv4Addr, SocketAddr},
};

const NODE: &str = "router~127.0.3.6~edge.default~default.svc.cluster.local";
const METADATA: [(&str, &str); 3] =
    [("NAMESPACE", "default"), ("INSTANCE_IPS", "127.0.3.6"), ("LABELS", r#"{"app":"edge"}"#)];

/// A stock Envoy that serves the Gateway `edge` with TLS, and the server that configures it.
pub struct Site {
    server: Server,
    envoy: Envoy,
    /// Presented to clients of the gateway, and an authority that they trust.
    own: Certificate,
    /// Of clients.
    client: Certificate,
    /// Behind HTTPS.
    backend: Backend,
    ports: Ports,
}

struct Ports {
    /// Plain HTTP for `*.plain.test`.
    plain: u16,
    /// HTTPS for `a.secure.test` and `*.pass.test`.
    https: u16,
    /// TLS that is passed on for `*.pass.test`, and ended for `*.end.test`.
    tls: u16,
    /// HTTPS for clients with certificates, and for those that may have none.
    mutual: u16,
    optional: u16,
    /// For what a ListenerSet adds.
    set: u16,
}

impl Ports {
    fn new() -> Result<Ports> {
        let port = ports::free_port;
        Ok(Ports {
            plain: port()?,
            https: port()?,
            tls: port()?,
            mutual: port()?,
            optional: port()?,
            set: port()?,
        })
    }

    fn gateway(&self) -> String {
        let Ports { plain, https, tls, mutual, optional, set } = self;
        let ends = "tls: {mode: Terminate, certificateRefs: [{name: site}]}";
        let validation = |mode: &str| {
            format!(
                "tls: {{validation: {{{mode}caCertificateRefs: [{{group: '', kind: ConfigMap, name: clients}}]}}}}"
            )
        };
        let service_ports =
            [plain, https, tls, mutual, optional, set].map(|port| format!("{{name: p{port}, port: {port}}}"));
        format!(
            "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge, namespace: default}}
spec:
  gatewayClassName: navarch
  addresses: [{{type: Hostname, value: edge.default.svc.cluster.local}}]
  allowedListeners: {{namespaces: {{from: Same}}}}
  tls:
    backend: {{clientCertificateRef: {{name: client}}}}
    frontend:
      default: {{}}
      perPort:
      - {{port: {mutual}, {}}}
      - {{port: {optional}, {}}}
  listeners:
  - {{name: plain, port: {plain}, protocol: HTTP, hostname: '*.plain.test'}}
  - {{name: secure, port: {https}, protocol: HTTPS, hostname: a.secure.test, {ends}}}
  - {{name: behind, port: {https}, protocol: HTTPS, hostname: '*.pass.test', {ends}}}
  - {{name: passed, port: {tls}, protocol: TLS, hostname: '*.pass.test', tls: {{mode: Passthrough}}}}
  - {{name: ended, port: {tls}, protocol: TLS, hostname: '*.end.test', {ends}}}
  - {{name: mutual, port: {mutual}, protocol: HTTPS, hostname: m.secure.test, {ends}}}
  - {{name: optional, port: {optional}, protocol: HTTPS, hostname: o.secure.test, {ends}}}
---
apiVersion: v1
kind: Service
metadata: {{name: edge, namespace: default}}
spec: {{clusterIP: 10.250.0.2, selector: {{app: edge}}, ports: [{}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: edge, namespace: default, labels: {{app: edge}}}}
status:
  phase: Running
  podIP: 127.0.3.6
  podIPs: [{{ip: 127.0.3.6}}]
  conditions: [{{type: Ready, status: 'True'}}]
---
",
            validation(""),
            validation("mode: AllowInsecureFallback, "),
            service_ports.join(", ")
        )
    }
}

/// A route to a service.
fn to(kind: &str, name: &str, section: &str, host: &str, service: &str) -> String {
    let spec = format!(
        "{{parentRefs: [{{name: edge, sectionName: {section}}}], hostnames: [{host}], \
         rules: [{{backendRefs: [{{name: {service}, port: 80}}]}}]}}"
    );
    route(kind, name, "default", &spec)
}

impl Site {
    pub async fn new(name: &str) -> Result<Site> {
        let dir = workspace::scratch("gateway-api-certificates")?;
        let hosts = ["a.secure.test", "m.secure.test", "o.secure.test", "*.pass.test", "*.end.test"];
        let own = Certificate::new(&dir, "site", &hosts)?;
        let client = Certificate::new(&dir, "client", &["client.test"])?;
        let (ports, backend) = (Ports::new()?, Backend::echo("site").await?);
        let objects = [
            own.key_pair("site"),
            client.key_pair("client"),
            config_map("clients", &[("ca.crt", &client.text)]),
            config_map("trusted", &[("ca.crt", &own.text)]),
            config_map("distrusted", &[("ca.crt", &client.text)]),
            ports.gateway(),
            to("HTTPRoute", "secure", "secure", "a.secure.test", "site"),
            to("HTTPRoute", "behind", "behind", "b.pass.test", "site"),
            to("HTTPRoute", "mutual", "mutual", "m.secure.test", "site"),
            to("HTTPRoute", "optional", "optional", "o.secure.test", "site"),
            services(&[("site", &backend)]),
        ];
        let (server, envoy) = start(name, &objects.concat(), NODE, &METADATA).await?;
        Ok(Site { server, envoy, own, client, backend, ports })
    }

    pub async fn nothing_rejected(&self) -> Result<()> {
        nothing_rejected(&self.envoy).await
    }

    fn open(&self, port: u16, server_name: &str) -> Result<TlsConnection> {
        TlsConnection::open(port, server_name, &self.own.file)
    }

    /// The answer to a request over a connection of its own, once it has this status.
    async fn answer(&self, port: u16, server_name: &str, host: &str, status: u16) -> Result<String> {
        wait::until(&format!("status {status} over TLS"), wait::STEP, || async {
            let (found, body) = self.open(port, server_name)?.get(host).await?;
            ensure!(found == status, "{found} {body}");
            Ok(body)
        })
        .await
    }

    /// The same with a certificate of the client.
    async fn answer_to(&self, port: u16, host: &str, who: &Certificate) -> Result<String> {
        let flags = [OsStr::new("-cert"), OsStr::new("-key")];
        let arguments = [flags[0], who.file.as_os_str(), flags[1], who.key_file.as_os_str()];
        let (status, body) =
            TlsConnection::open_with(port, host, &self.own.file, &arguments)?.get(host).await?;
        ensure!(status == 200, "{status} {body}");
        Ok(body)
    }

    /// Endpoints at a port of the gateway itself.
    fn loop_back(&self, service: &str, port: u16) -> String {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        port_of(service, "default", "{name: http, port: 80}")
            + &endpoint(service, "default", 0, "TCP", address)
    }

    fn call(&self, host: &str) -> Call {
        Call::get(format!("http://127.0.0.1:{}/", self.ports.plain)).header("host", host)
    }
}

/// The connection is forwarded as it is, to the gateway's own port where TLS ends: there the name in it
/// chooses again.
pub async fn passthrough(site: &Site) -> Result<()> {
    let objects = to("TLSRoute", "through", "passed", "b.pass.test", "through")
        + &site.loop_back("through", site.ports.https);
    apply(&site.server, "through", &objects).await?;
    let body = site.answer(site.ports.tls, "b.pass.test", "b.pass.test", 200).await?;
    ensure!(body.contains(r#""name":"site""#), "{body}");
    let other = site.open(site.ports.tls, "c.pass.test")?.get("c.pass.test").await;
    ensure!(other.is_err(), "a name that no route is for went through: {other:?}");
    Ok(())
}

/// By server name, on the port at which other names are passed on.
pub async fn terminate(site: &Site) -> Result<()> {
    let (one, two) = (Backend::echo("one").await?, Backend::echo("two").await?);
    let objects = to("TLSRoute", "end-one", "ended", "one.end.test", "end-one")
        + &to("TLSRoute", "end-two", "ended", "two.end.test", "end-two")
        + &services(&[("end-one", &one), ("end-two", &two)]);
    apply(&site.server, "ended", &objects).await?;
    for name in ["one", "two"] {
        let host = format!("{name}.end.test");
        let body = site.answer(site.ports.tls, &host, &host, 200).await?;
        ensure!(body.contains(&format!(r#""name":"{name}""#)), "{body}");
    }
    let other = site.open(site.ports.tls, "three.end.test")?.get("three.end.test").await;
    ensure!(other.is_err(), "a name that no route is for was answered: {other:?}");
    Ok(())
}

/// Both on one port.
pub async fn mixed_modes(site: &Site) -> Result<()> {
    let ended = Backend::echo("ended").await?;
    let objects = to("TLSRoute", "mixed-pass", "passed", "mixed.pass.test", "mixed-pass")
        + &to("TLSRoute", "mixed-end", "ended", "mixed.end.test", "mixed-end")
        + &to("HTTPRoute", "mixed", "behind", "mixed.pass.test", "site")
        + &site.loop_back("mixed-pass", site.ports.https)
        + &services(&[("mixed-end", &ended)]);
    apply(&site.server, "mixed", &objects).await?;
    for (host, name) in [("mixed.pass.test", "site"), ("mixed.end.test", "ended")] {
        let body = site.answer(site.ports.tls, host, host, 200).await?;
        ensure!(body.contains(&format!(r#""name":"{name}""#)), "{body}");
    }
    Ok(())
}

pub async fn misdirected(site: &Site) -> Result<()> {
    let body = site.answer(site.ports.https, "a.secure.test", "a.secure.test", 200).await?;
    ensure!(body.contains(r#""name":"site""#), "{body}");
    // Another listener has the host, and the certificate covers it: the client has to come again.
    site.answer(site.ports.https, "a.secure.test", "b.pass.test", 421).await?;
    site.answer(site.ports.https, "b.pass.test", "a.secure.test", 421).await?;
    // Nobody has this one.
    site.answer(site.ports.https, "a.secure.test", "nobody.test", 404).await.map(drop)
}

pub async fn client_certificates(site: &Site) -> Result<()> {
    let (port, host) = (site.ports.mutual, "m.secure.test");
    let served = wait::until("an answer over mutual TLS", wait::STEP, || async {
        site.answer_to(port, host, &site.client).await
    });
    served.await?;
    let anonymous = site.open(port, host)?.get(host).await;
    ensure!(anonymous.is_err(), "a client without a certificate was served: {anonymous:?}");
    let stranger = site.answer_to(port, host, &site.own).await;
    ensure!(stranger.is_err(), "a certificate of another authority was accepted: {stranger:?}");
    Ok(())
}

pub async fn insecure_fallback(site: &Site) -> Result<()> {
    let (port, host) = (site.ports.optional, "o.secure.test");
    site.answer(port, host, host, 200).await?;
    site.answer_to(port, host, &site.client).await?;
    site.answer_to(port, host, &site.own).await.map(drop)
}

/// A policy for a service, whose endpoint is the gateway's own port where TLS ends.
fn policy(service: &str, authority: &str, validation: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {{name: {service}, namespace: default}}
spec:
  targetRefs: [{{group: '', kind: Service, name: {service}}}]
  validation: {{caCertificateRefs: [{{group: '', kind: ConfigMap, name: {authority}}}], {validation}}}
---
"
    )
}

/// A route by plain HTTP to a port of the gateway itself, for what that calls `name`.
fn round_trip(site: &Site, service: &str, name: &str, port: u16) -> String {
    let rules = format!(
        "{{parentRefs: [{{name: edge, sectionName: plain}}], hostnames: [{service}.plain.test], \
         rules: [{{filters: [{{type: URLRewrite, urlRewrite: {{hostname: {name}}}}}], \
         backendRefs: [{{name: {service}, port: 80}}]}}]}}"
    );
    route("HTTPRoute", service, "default", &rules) + &site.loop_back(service, port)
}

/// The backend lets nobody in who shows no certificate of its clients.
pub async fn backend_client_certificate(site: &Site) -> Result<()> {
    let objects = round_trip(site, "shown", "m.secure.test", site.ports.mutual);
    let policy = policy("shown", "trusted", "hostname: m.secure.test");
    apply(&site.server, "shown", &(objects + &policy)).await?;
    expect_from(&site.call("shown.plain.test"), "site").await.map(drop)
}

/// Calls by plain HTTP that reach a backend by TLS; then with another authority, and as `wrong` says.
async fn backend_tls(site: &Site, service: &str, right: &str, wrong: &str) -> Result<()> {
    let host = format!("{service}.plain.test");
    let objects = round_trip(site, service, "a.secure.test", site.ports.https);
    let with = |policy: &str| format!("{objects}{policy}");
    let call = site.call(&host);
    apply(&site.server, service, &with(&policy(service, "trusted", right))).await?;
    expect_from(&call, "site").await?;
    apply(&site.server, service, &with(&policy(service, "distrusted", right))).await?;
    expect(&call, 503).await?;
    apply(&site.server, service, &with(&policy(service, "trusted", wrong))).await?;
    expect(&call, 503).await?;
    apply(&site.server, service, &with(&policy(service, "trusted", right))).await?;
    expect_from(&call, "site").await.map(drop)
}

pub async fn backend_policy(site: &Site) -> Result<()> {
    // The name of the other listener is for the certificate, too, but says another listener than the host.
    backend_tls(site, "originated", "hostname: a.secure.test", "hostname: a.nobody.test").await
}

pub async fn backend_policy_names(site: &Site) -> Result<()> {
    let names = |name: &str| {
        format!("hostname: a.secure.test, subjectAltNames: [{{type: Hostname, hostname: {name}}}]")
    };
    backend_tls(site, "named-back", &names("m.secure.test"), &names("nobody.test")).await
}

pub async fn listener_set(site: &Site) -> Result<()> {
    let set = format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {{name: more, namespace: default}}
spec:
  parentRef: {{name: edge}}
  listeners: [{{name: added, port: {}, protocol: HTTP, hostname: '*.set.test'}}]
---
",
        site.ports.set
    );
    let spec = "{parentRefs: [{group: gateway.networking.k8s.io, kind: ListenerSet, name: more}], \
                hostnames: [x.set.test], rules: [{backendRefs: [{name: site, port: 80}]}]}";
    apply(&site.server, "set", &(set + &route("HTTPRoute", "set", "default", spec))).await?;
    let call = Call::get(format!("http://127.0.0.1:{}/", site.ports.set)).header("host", "x.set.test");
    expect_from(&call, "site").await?;
    ensure!(site.backend.requests() > 0, "nothing arrived");
    Ok(())
}
