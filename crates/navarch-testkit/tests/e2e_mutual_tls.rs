//! Mutual TLS between stock Envoys whose identities come from `navarch serve`, without an agent, without
//! Kubernetes and without root.

mod common;

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use common::{
    authority::Rig,
    pair::{Mesh, REVIEWS, SPY, WEB},
};
use navarch_testkit::{envoy::Envoy, http::Call, navarch, wait};

/// Names and subjects of what Envoy presents and trusts for workloads.
async fn secrets(envoy: &Envoy) -> Result<String> {
    Ok(envoy.admin_get("/config_dump?resource=dynamic_active_secrets").await?.ok()?.text())
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_envoys_prove_to_each_other_who_they_are() -> Result<()> {
    let mesh = Mesh::start(Rig::start("mutual-tls", &[]).await?).await?;
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
    let mesh = Mesh::start(Rig::start("mutual-tls-keys", &[]).await?).await?;
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
