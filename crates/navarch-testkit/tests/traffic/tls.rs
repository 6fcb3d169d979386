//! TLS at a gateway and behind it, with certificates made for this run.

use super::{
    backend::Backend,
    certificate::{Certificate, secret},
    connection::TlsConnection,
    edge::{Edge, gateway, routes, rule, service, to},
};
use anyhow::{Context, Result, ensure};
use navarch_testkit::{ports, wait, workspace};
use std::ffi::OsStr;

const NAME: &str = "a.secure.test";

/// `*.secure.test` at a gateway, with a certificate that can be replaced.
pub struct Site {
    edge: Edge,
    /// Where TLS ends.
    https: u16,
    first: Certificate,
    second: Certificate,
    backend: Backend,
}

/// The Secret by which a certificate is trusted.
fn authority(certificate: &Certificate) -> String {
    secret("trusted-cacert", &[("ca.crt", &certificate.text)])
}

impl Site {
    pub async fn new(edge: &str) -> Result<Site> {
        let edge = Edge::new(edge, &[]).await?;
        let dir = workspace::scratch("traffic-certificates")?;
        let hosts = ["*.secure.test", "origin.secure.test"];
        let certificate = |name: &str| Certificate::new(&dir, name, &hosts);
        let (first, second) = (certificate("first")?, certificate("second")?);
        let (https, backend) = (ports::free_port()?, Backend::echo("site").await?);
        let server = format!(
            "{{port: {{number: {https}, name: https, protocol: HTTPS}}, hosts: ['*.secure.test'], \
             tls: {{mode: SIMPLE, credentialName: site}}}}"
        );
        let routes = routes("*.secure.test", &format!("[{{{}}}]", to("site.traffic.test")));
        let objects = [
            gateway("secure", &server),
            service("site.traffic.test", &[(&backend, "")]),
            routes.replace("gateways: [edge]", "gateways: [secure]"),
        ];
        edge.apply("certificate", &first.key_pair("site")).await?;
        edge.apply("site", &objects.concat()).await?;
        Ok(Site { edge, https, first, second, backend })
    }

    pub async fn nothing_rejected(&self) -> Result<()> {
        self.edge.nothing_rejected().await
    }

    /// A new connection that trusts `authority` only, and an answer over it.
    async fn connect(&self, port: u16, name: &str, authority: &Certificate) -> Result<TlsConnection> {
        wait::until("an answer over TLS", wait::STEP, || async {
            let mut connection = TlsConnection::open(port, name, &authority.file)?;
            served(&mut connection, name).await?;
            Ok(connection)
        })
        .await
    }
}

async fn served(connection: &mut TlsConnection, host: &str) -> Result<()> {
    let (status, body) = connection.get(host).await?;
    ensure!(status == 200 && body.contains(r#""name":"site""#), "{status} {body}");
    Ok(())
}

pub async fn termination_with_a_credential(site: &Site) -> Result<()> {
    site.connect(site.https, NAME, &site.first).await?;
    let mut distrusting = TlsConnection::open(site.https, NAME, &site.second.file)?;
    ensure!(distrusting.get(NAME).await.is_err(), "another certificate than the Secret's");
    let mut elsewhere = TlsConnection::open(site.https, "other.test", &site.first.file)?;
    ensure!(elsewhere.get("other.test").await.is_err(), "an answer for a name that is not served");
    Ok(())
}

pub async fn mutual_termination_asks_for_a_certificate(site: &Site) -> Result<()> {
    let port = ports::free_port()?;
    let server = format!(
        "{{port: {{number: {port}, name: mutual, protocol: HTTPS}}, hosts: ['*.secure.test'], \
         tls: {{mode: MUTUAL, credentialName: mutual}}}}"
    );
    let (own, client) = (&site.first, &site.second);
    let values = [("tls.crt", own.text.as_str()), ("tls.key", &own.key), ("ca.crt", &client.text)];
    let routes = routes("m.secure.test", &format!("[{{{}}}]", to("site.traffic.test")));
    let routes = routes.replace("gateways: [edge]", "gateways: [mutual]");
    site.edge.apply("mutual", &(secret("mutual", &values) + &gateway("mutual", &server) + &routes)).await?;
    let (name, flags) = ("m.secure.test", [OsStr::new("-cert"), OsStr::new("-key")]);
    let call_as = async |who: &Certificate| {
        let arguments = [flags[0], who.file.as_os_str(), flags[1], who.key_file.as_os_str()];
        served(&mut TlsConnection::open_with(port, name, &own.file, &arguments)?, name).await
    };
    wait::until("an answer over mutual TLS", wait::STEP, || call_as(client)).await?;
    ensure!(call_as(own).await.is_err(), "a certificate of another authority was accepted");
    let mut anonymous = TlsConnection::open(port, name, &own.file)?;
    ensure!(anonymous.get(name).await.is_err(), "a client without a certificate was served");
    Ok(())
}

pub async fn redirect_to_https(site: &Site) -> Result<()> {
    let port = ports::free_port()?;
    let server = format!(
        "{{port: {{number: {port}, name: plain, protocol: HTTP}}, hosts: ['*.secure.test'], \
         tls: {{httpsRedirect: true}}}}"
    );
    site.edge.apply("redirect", &gateway("redirect", &server)).await?;
    let url = format!("http://127.0.0.1:{port}/path?q=1");
    let call = navarch_testkit::http::Call::get(url).header("host", NAME);
    let answer = site.edge.expect(&call, 301).await?;
    ensure!(answer.header("location") == format!("https://{NAME}/path?q=1"), "{answer:?}");
    Ok(())
}

/// The gateway forwards the connection as it is, to its own port where TLS ends: there the name in it chooses
/// again.
pub async fn passthrough_by_sni(site: &Site) -> Result<()> {
    let (port, https) = (ports::free_port()?, site.https);
    let server = format!(
        "{{port: {{number: {port}, name: tls, protocol: TLS}}, hosts: [through.secure.test], \
         tls: {{mode: PASSTHROUGH}}}}"
    );
    let objects = format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: through, namespace: default}}
spec:
  hosts: [through.secure.test]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{{number: 443, name: tls, protocol: TLS}}]
  endpoints: [{{address: 127.0.0.1, ports: {{tls: {https}}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: through, namespace: default}}
spec:
  hosts: [through.secure.test]
  gateways: [through]
  tls:
    - match: [{{port: {port}, sniHosts: [through.secure.test]}}]
      route: [{{destination: {{host: through.secure.test, port: {{number: 443}}}}}}]
---
"
    );
    site.edge.apply("through", &(gateway("through", &server) + &objects)).await?;
    site.connect(port, "through.secure.test", &site.first).await?;
    let mut other = TlsConnection::open(port, NAME, &site.first.file)?;
    ensure!(other.get(NAME).await.is_err(), "a name that no route is for went through");
    Ok(())
}

/// Calls come in as plaintext and go out as TLS, to the gateway's own port where TLS ends.
pub async fn origination(site: &Site) -> Result<()> {
    let host = "origin.traffic.test";
    let route = format!("[{{rewrite: {{authority: origin.secure.test}}, {}}}]", to(host));
    let entry = service(host, &[(&site.backend, "")])
        .replace(&site.backend.address.port().to_string(), &site.https.to_string());
    let plain = entry.clone() + &routes(host, &route);
    site.edge.apply("origin", &plain).await?;
    let call = site.edge.call(host, "/");
    // Without the rule, the port for TLS gets plaintext.
    site.edge.expect(&call, 503).await?;

    let originate = |name: &str| {
        let tls = format!(
            "trafficPolicy: {{tls: {{mode: SIMPLE, credentialName: trusted, sni: origin.secure.test, \
             subjectAltNames: [{name}]}}}}"
        );
        format!("{plain}{}", rule(host, &tls))
    };
    site.edge.apply("authority", &authority(&site.first)).await?;
    site.edge.apply("origin", &originate("origin.secure.test")).await?;
    let answer = site.edge.expect(&call, 200).await?;
    ensure!(super::edge::name_of(&answer)? == "site", "{answer:?}");
    // A server that does not prove the name is not talked to.
    site.edge.apply("origin", &originate("somebody.test")).await?;
    site.edge.expect(&call, 503).await?;
    site.edge.apply("origin", &originate("origin.secure.test")).await?;
    site.edge.expect(&call, 200).await?;
    Ok(())
}

pub async fn rotation_without_a_lost_connection(site: &Site) -> Result<()> {
    let mut before = site.connect(site.https, NAME, &site.first).await?;
    site.edge.server.write("certificate.yaml", &site.second.key_pair("site"))?;
    site.connect(site.https, NAME, &site.second).await?;
    let mut stale = TlsConnection::open(site.https, NAME, &site.first.file)?;
    ensure!(stale.get(NAME).await.is_err(), "the old certificate is still presented");
    // Who was connected has noticed nothing.
    served(&mut before, NAME).await.context("on the connection from before the rotation")?;

    // What callers trust rotates as well.
    site.edge.server.write("authority.yaml", &authority(&site.second))?;
    site.edge.expect(&site.edge.call("origin.traffic.test", "/"), 200).await.map(drop)
}
