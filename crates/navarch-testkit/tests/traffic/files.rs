//! TLS with certificates in files on the proxy's machine, which has no agent.

use super::{
    backend::Backend,
    certificate::Certificate,
    connection::TlsConnection,
    edge::{Edge, gateway, routes, rule, service, to},
};
use anyhow::{Context, Result, ensure};
use navarch_testkit::{navarch, ports, wait, workspace};
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

const NAME: &str = "files.secure.test";
const HOST: &str = "filed.traffic.test";

/// A gateway that terminates TLS with files, and calls itself with others.
pub struct Files {
    edge: Edge,
    /// Where TLS ends, and where it ends for who has a certificate.
    https: u16,
    mutual: u16,
    /// The certificate of the gateway and its key, as they are named in the configuration.
    own: (PathBuf, PathBuf),
    first: Certificate,
    second: Certificate,
    _backend: Backend,
}

impl Files {
    pub async fn new(edge: &str) -> Result<Files> {
        let dir = workspace::scratch("traffic-files")?;
        let certificate = |name: &str| Certificate::new(&dir, name, &[NAME]);
        let (first, second) = (certificate("first")?, certificate("second")?);
        // What the machine trusts.
        let system = format!("SYSTEM_ROOTS={}", first.file.display());
        let edge = Edge::new(edge, &["--metadata", &system]).await?;
        let own = (dir.join("own.pem"), dir.join("own.key"));
        navarch::replace(&own.0, &first.text)?;
        navarch::replace(&own.1, &first.key)?;
        let (https, mutual, backend) =
            (ports::free_port()?, ports::free_port()?, Backend::echo("files").await?);
        let pair = format!("serverCertificate: {}, privateKey: {}", own.0.display(), own.1.display());
        let server = |port: u16, name: &str, tls: &str| {
            let port = format!("{{number: {port}, name: {name}, protocol: HTTPS}}");
            gateway(name, &format!("{{port: {port}, hosts: ['{NAME}'], tls: {{{tls}, {pair}}}}}"))
        };
        let callers = format!("mode: MUTUAL, caCertificates: {}", second.file.display());
        let objects = [
            server(https, "files", "mode: SIMPLE"),
            server(mutual, "callers", &callers),
            service("files.traffic.test", &[(&backend, "")]),
            routes(NAME, &format!("[{{{}}}]", to("files.traffic.test")))
                .replace("gateways: [edge]", "gateways: [files, callers]"),
        ];
        edge.apply("files", &objects.concat()).await?;
        Ok(Files { edge, https, mutual, own, first, second, _backend: backend })
    }

    pub async fn nothing_rejected(&self) -> Result<()> {
        self.edge.nothing_rejected().await
    }
}

async fn served(mut connection: TlsConnection) -> Result<()> {
    let (status, body) = connection.get(NAME).await?;
    ensure!(status == 200 && body.contains(r#""name":"files""#), "{status} {body}");
    Ok(())
}

pub async fn a_gateway_terminates_with_files_and_sees_that_they_change(files: &Files) -> Result<()> {
    let presents = |authority: &Certificate| {
        let authority = authority.file.clone();
        async move {
            wait::until("an answer over TLS", wait::STEP, || async {
                served(TlsConnection::open(files.https, NAME, &authority)?).await
            })
            .await
        }
    };
    presents(&files.first).await?;
    navarch::replace(&files.own.1, &files.second.key)?;
    navarch::replace(&files.own.0, &files.second.text)?;
    presents(&files.second).await?;
    navarch::replace(&files.own.1, &files.first.key)?;
    navarch::replace(&files.own.0, &files.first.text)?;
    presents(&files.first).await
}

pub async fn a_gateway_asks_for_certificates_of_an_authority_in_a_file(files: &Files) -> Result<()> {
    let flags = [OsStr::new("-cert"), OsStr::new("-key")];
    let call_as = async |who: &Certificate| {
        let arguments = [flags[0], who.file.as_os_str(), flags[1], who.key_file.as_os_str()];
        served(TlsConnection::open_with(files.mutual, NAME, &files.first.file, &arguments)?).await
    };
    wait::until("an answer over mutual TLS", wait::STEP, || call_as(&files.second)).await?;
    ensure!(call_as(&files.first).await.is_err(), "a certificate of another authority was accepted");
    let anonymous = served(TlsConnection::open(files.mutual, NAME, &files.first.file)?).await;
    ensure!(anonymous.is_err(), "a client without a certificate was served");
    Ok(())
}

/// Calls go out as TLS, to the gateway's own ports where it ends.
pub async fn origination_with_files(files: &Files) -> Result<()> {
    let route = routes(HOST, &format!("[{{rewrite: {{authority: {NAME}}}, {}}}]", to(HOST)));
    let roots = |path: &Path| format!("caCertificates: {}", path.display());
    let (good, bad) = (roots(&files.first.file), roots(&files.second.file));
    let name = format!("subjectAltNames: [{NAME}]");
    let pair = |of: &Certificate| {
        format!("clientCertificate: {}, privateKey: {}", of.file.display(), of.key_file.display())
    };
    let (caller, stranger) = (pair(&files.second), pair(&files.first));
    for (port, tls, status) in [
        (files.https, format!("mode: SIMPLE, {good}, {name}"), 200),
        (files.https, format!("mode: SIMPLE, {bad}, {name}"), 503),
        // Without an authority, and by name: the roots of the machine.
        (files.https, format!("mode: SIMPLE, {name}"), 200),
        (files.https, format!("mode: SIMPLE, {good}, subjectAltNames: [somebody.test]"), 503),
        (files.https, format!("mode: SIMPLE, caCertificates: system, {name}"), 200),
        (files.https, format!("mode: MUTUAL, {bad}, {caller}, {name}"), 503),
        (files.https, "mode: SIMPLE, insecureSkipVerify: true".to_owned(), 200),
        (files.mutual, format!("mode: SIMPLE, {good}, {name}"), 503),
        (files.mutual, format!("mode: MUTUAL, {good}, {caller}, {name}"), 200),
        (files.mutual, format!("mode: MUTUAL, {good}, {stranger}, {name}"), 503),
        (files.mutual, format!("mode: MUTUAL, {caller}, {name}"), 200),
    ] {
        let entry = entry(port);
        let rule = rule(HOST, &format!("trafficPolicy: {{tls: {{{tls}, sni: {NAME}}}}}"));
        files.edge.apply("filed", &format!("{entry}{route}{rule}")).await?;
        let answered = files.edge.expect(&files.edge.call(HOST, "/"), status).await;
        answered.with_context(|| tls)?;
    }
    Ok(())
}

/// The service at a port of this machine.
fn entry(port: u16) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: filed, namespace: default}}
spec:
  hosts: [{HOST}]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  endpoints: [{{address: 127.0.0.1, ports: {{http: {port}}}}}]
---
"
    )
}
