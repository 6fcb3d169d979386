//! What Envoy really runs, as its agent sees it: `navarch proxy-status` and `navarch wait --active`.

mod common;

use anyhow::{Result, ensure};
use common::pki::Authority;
use common::table::shows;
use navarch_testkit::agent::Agent;
use navarch_testkit::navarch::{self, Server};
use navarch_testkit::{ports, workspace};
use rcgen::SanType;

/// A listener whose secret does not come is acknowledged, and takes no connections.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_and_not_in_use_is_shown() -> Result<()> {
    let directory = workspace::scratch("running")?;
    let certificate =
        Authority::new(&directory, "site-root")?.sign("site", SanType::DnsName("site.test".try_into()?))?;
    let mesh = directory.join("config");
    std::fs::create_dir_all(&mesh)?;
    let server = Server::start("running-serve", &mesh).await?;
    let xds = server.xds().to_string();
    let arguments = ["--service", "edge", "-n", "edge", "-l", "istio=edge", "--server", &xds];
    // State of the world, in which nobody can be told that there is no such secret.
    let gateway = [&["gateway", "--sotw"], &arguments[..]].concat();
    let mut agent = Agent::start("running-gateway", &gateway, &[])?;
    agent.wait_live().await?;
    shows(&server, &[" ACTIVE"]).await?;
    server.command(&["wait", "--active"])?;

    let port = ports::free_port()?;
    let listener = format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: site, namespace: edge}}\nspec:\n  \
         selector: {{istio: edge}}\n  servers: [{{port: {{number: {port}, name: https, protocol: HTTPS}}, \
         hosts: ['*'], tls: {{mode: SIMPLE, credentialName: site}}}}]\n"
    );
    server.write("site.yaml", &listener)?;
    server.command(&["wait", "--ignore-secrets"])?;
    let waits = format!("LDS 0.0.0.0_{port} waits for SDS kubernetes://site");
    shows(&server, &[" WARMING (1)", &waits]).await?;
    let fleet = server.fleet().await?;
    let running = &fleet["proxies"][0]["running"];
    ensure!(running["current"] == true && running["warming"]["LDS"]["count"] == 1, "{fleet}");
    let short = server.command(&["wait", "--ignore-secrets", "--active", "--timeout", "1s"]).err();
    let said = short.map(|error| error.to_string()).unwrap_or_default();
    ensure!(said.contains("1 resource(s) warm") && said.contains(&waits), "{said}");

    let text = |path| -> Result<String> { Ok(std::fs::read_to_string(path)?.trim().replace('\n', "\n    ")) };
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: site, namespace: edge}}\nstringData:\n  tls.crt: |\n    {}\n  \
         tls.key: |\n    {}\n",
        text(&certificate.0)?,
        text(&certificate.1)?
    );
    server.write("secret.yaml", &secret)?;
    server.command(&["wait", "--active"])?;
    shows(&server, &[" ACTIVE"]).await?;
    ensure!(agent.rejections().await?.is_empty(), "something was rejected");

    // A proxy that nobody stands beside does not say it.
    let bootstrap =
        navarch::bootstrap("sidecar~127.0.0.1~a.b~b.svc.cluster.local", &[], server.xds(), &["--sotw"])?;
    let mut alone = navarch_testkit::envoy::Envoy::start("running-alone", bootstrap).await?;
    alone.wait_live().await?;
    server.command(&["wait", "--proxies", "2"])?;
    let short = server.command(&["wait", "--active", "--proxies", "2", "--timeout", "1s"]).err();
    let said = short.map(|error| error.to_string()).unwrap_or_default();
    ensure!(said.contains("a.b: nobody says what Envoy runs"), "{said}");
    Ok(())
}
