//! `navarch serve --secure-addr` and `navarch bootstrap --tls-ca`: a stock Envoy that proves who it is.

mod common;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use common::pki::Authority;
use common::table::{shows, table};
use navarch_testkit::apps::{App, Role};
use navarch_testkit::envoy::Envoy;
use navarch_testkit::http::Call;
use navarch_testkit::navarch::{self, Server};
use navarch_testkit::{ports, wait, workspace};
use rcgen::SanType;

const NODE: &str = "router~127.0.0.1~gateway.edge~edge.svc.cluster.local";

/// A gateway that terminates TLS with a Secret.
fn config(certificate: &Path, key: &Path, port: u16) -> Result<String> {
    let indented =
        |path: &Path| -> Result<String> { Ok(std::fs::read_to_string(path)?.trim().replace('\n', "\n    ")) };
    Ok(format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: site, namespace: edge}}\nstringData:\n  tls.crt: |\n    {}\n  tls.key: |\n    {}\n\
         ---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: site, namespace: edge}}\nspec:\n  selector: {{istio: edge}}\n  \
         servers: [{{port: {{number: {port}, name: https, protocol: HTTPS}}, hosts: ['*'], tls: {{mode: SIMPLE, credentialName: site}}}}]\n",
        indented(certificate)?,
        indented(key)?
    ))
}

async fn envoy(name: &str, xds: SocketAddr, ca: &Path, client: &(PathBuf, PathBuf)) -> Result<Envoy> {
    let text = |path: &Path| path.display().to_string();
    let (ca, cert, key) = (text(ca), text(&client.0), text(&client.1));
    let arguments = ["--tls-ca", &ca, "--tls-cert", &cert, "--tls-key", &key];
    let metadata =
        [("NAMESPACE", "edge"), ("SERVICE_ACCOUNT", "gateway"), ("LABELS", r#"{"istio": "edge"}"#)];
    Envoy::start(name, navarch::bootstrap(NODE, &metadata, xds, &arguments)?).await
}

async fn has_secret(envoy: &Envoy) -> Result<bool> {
    let dump = envoy.admin_get("/config_dump?resource=dynamic_active_secrets").await?.ok()?.text();
    Ok(dump.contains("kubernetes://site"))
}

async fn wait_secret(envoy: &Envoy) -> Result<()> {
    wait::until("the secret of the gateway", wait::STEP, || async {
        ensure!(has_secret(envoy).await?, "not there");
        Ok(())
    })
    .await
}

/// Waits until the server has said so.
async fn said(server: &Server, text: &str) -> Result<()> {
    wait::until(text, wait::STEP, || async {
        ensure!(server.log().contains(text), "not said");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn over_mutual_tls_a_proxy_is_what_its_certificate_says() -> Result<()> {
    let directory = workspace::scratch("tls")?;
    let (ours, theirs) = (Authority::new(&directory, "ours")?, Authority::new(&directory, "theirs")?);
    let server = ours.sign("server", SanType::IpAddress([127, 0, 0, 1].into()))?;
    let gateway = ours.workload("gateway", "spiffe://cluster.local/ns/edge/sa/gateway")?;
    let other = ours.workload("other", "spiffe://cluster.local/ns/other/sa/gateway")?;
    let foreign = theirs.workload("foreign", "spiffe://cluster.local/ns/edge/sa/gateway")?;

    let mesh = directory.join("config");
    std::fs::create_dir_all(&mesh)?;
    std::fs::write(mesh.join("site.yaml"), config(&gateway.0, &gateway.1, ports::free_port()?)?)?;
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let secure = local(ports::free_port()?);
    let clients = directory.join("clients.pem");
    std::fs::copy(&ours.file, &clients)?;
    let arguments: Vec<String> = [
        ("--secure-addr", secure.to_string()),
        ("--tls-cert", server.0.display().to_string()),
        ("--tls-key", server.1.display().to_string()),
        ("--tls-client-ca", clients.display().to_string()),
    ]
    .into_iter()
    .flat_map(|(flag, value)| [flag.to_owned(), value])
    .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (xds, admin) = (local(ports::free_port()?), local(ports::free_port()?));
    let control = Server::start_on("tls-serve", &mesh, xds, admin, &arguments).await?;

    let mut trusted = envoy("tls-gateway", secure, &ours.file, &gateway).await?;
    trusted.wait_live().await?;
    wait_secret(&trusted).await?;
    ensure!(trusted.rejections().await?.is_empty(), "something was rejected");

    // A good certificate of somebody else: the stream is refused.
    let impostor = envoy("tls-impostor", secure, &ours.file, &other).await?;
    said(&control, "its certificate is of spiffe://cluster.local/ns/other/sa/gateway").await?;
    // A certificate of an authority that is not trusted: the handshake fails.
    let stranger = envoy("tls-stranger", secure, &ours.file, &foreign).await?;
    said(&control, "connection refused").await?;
    let fleet = control.fleet().await?;
    ensure!(fleet["proxies"].as_array().is_some_and(|proxies| proxies.len() == 1), "{fleet}");
    ensure!(!has_secret(&impostor).await? && !has_secret(&stranger).await?, "a key was given away");

    // Files that change are read again.
    navarch::replace(&clients, &std::fs::read_to_string(&theirs.file)?)?;
    said(&control, "new certificates are in use").await?;
    wait_secret(&stranger).await
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_are_missing_or_refused_are_said() -> Result<()> {
    let directory = workspace::scratch("secrets")?;
    let certificate =
        Authority::new(&directory, "site-root")?.sign("site", SanType::DnsName("site.test".try_into()?))?;
    let mesh = directory.join("config");
    std::fs::create_dir_all(&mesh)?;
    let port = ports::free_port()?;
    let text = config(&certificate.0, &certificate.1, port)?;
    let (secret, gateway) = text.split_once("\n---\n").context("two objects")?;
    std::fs::write(mesh.join("gateway.yaml"), gateway)?;
    let server = Server::start("secrets-serve", &mesh).await?;
    let metadata = [("NAMESPACE", "edge"), ("LABELS", r#"{"istio": "edge"}"#)];
    let bootstrap = navarch::bootstrap(NODE, &metadata, server.xds(), &[])?;
    let mut envoy = Envoy::start("secrets-envoy", bootstrap).await?;
    envoy.wait_live().await?;

    // The port is open, and no connection to it works.
    shows(&server, &["NOT SENT (1 missing)", "kubernetes://site"]).await?;
    let lacking = server.command(&["wait", "--timeout", "1s"]).err().map(|error| error.to_string());
    ensure!(
        lacking.as_ref().is_some_and(|said| said.contains("lacks secrets: kubernetes://site")),
        "{lacking:?}"
    );
    server.command(&["wait", "--ignore-secrets"])?;
    server.write("secret.yaml", secret)?;
    server.command(&["wait"])?;
    ensure!(!table(&server)?.contains("missing"), "{}", table(&server)?);

    // Files hold no secret of ours: what Envoy says about them is told.
    let absent = directory.join("absent.pem").display().to_string();
    let files = format!("serverCertificate: {absent}, privateKey: {absent}");
    server.write("gateway.yaml", &gateway.replace("credentialName: site", &files))?;
    shows(&server, &["rejects SDS", &absent, "file-cert:"]).await
}

/// Nobody issues the certificates that the mesh's mutual TLS needs: every call fails, and it is said why.
#[tokio::test(flavor = "multi_thread")]
async fn mutual_tls_of_a_mesh_without_an_authority_is_said() -> Result<()> {
    let directory = workspace::scratch("no-authority")?;
    let mesh = directory.join("config");
    std::fs::create_dir_all(&mesh)?;
    let port = ports::free_port()?;
    let role = Role::Leaf { facts: App::facts("details", "v1") };
    let application = App { service: "app".into(), version: "v1".into(), instance: "1".into(), role };
    let application = application.start(([127, 0, 0, 1], 0).into()).await?;
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: edge, namespace: edge}}\nspec:\n  selector: {{istio: edge}}\n  \
         servers: [{{port: {{number: {port}, name: http, protocol: HTTP}}, hosts: ['*']}}]\n\
         ---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: app, namespace: edge}}\nspec:\n  \
         hosts: ['*']\n  gateways: [edge]\n  http: [{{route: [{{destination: {{host: app.test}}}}]}}]\n\
         ---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: app, namespace: edge}}\nspec:\n  hosts: [app.test]\n  \
         resolution: STATIC\n  ports: [{{number: 80, name: http, protocol: HTTP}}]\n  endpoints: [{{address: 127.0.0.1, ports: {{http: {}}}}}]\n\
         ---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: app, namespace: edge}}\nspec:\n  host: app.test\n  \
         trafficPolicy: {{tls: {{mode: ISTIO_MUTUAL}}}}\n",
        application.address().port()
    );
    std::fs::write(mesh.join("mesh.yaml"), text)?;
    let server = Server::start("no-authority-serve", &mesh).await?;
    let metadata = [("NAMESPACE", "edge"), ("LABELS", r#"{"istio": "edge"}"#)];
    let bootstrap = navarch::bootstrap(NODE, &metadata, server.xds(), &[])?;
    let mut envoy = Envoy::start("no-authority-envoy", bootstrap).await?;
    envoy.wait_live().await?;
    wait::until("calls to fail", wait::STEP, || async {
        let answer = Call::get(format!("http://127.0.0.1:{port}/")).send().await?;
        ensure!(answer.status == 503, "{}", answer.status);
        Ok(())
    })
    .await?;
    // At the file and line of the rule, in the log of the server and to whoever asks.
    let place =
        "mesh.yaml:30:31: DestinationRule edge/app: spec.trafficPolicy.tls.mode: the mesh's certificates";
    said(&server, place).await?;
    let findings = server.admin_get("/debug/findings").await?.ok()?.text();
    ensure!(findings.contains("no authority that issues them"), "{findings}");
    Ok(())
}
