//! Whom proxies and the control plane trust: revoked certificates, and roots of other trust domains.

mod common;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use common::{
    authority::{Rig, chain},
    https::Https,
    pair::{Mesh, REVIEWS, WEB},
    pki::Authority,
};
use navarch_testkit::{wait, workspace};
use rcgen::KeyPair;
use serde_json::json;

/// Whether the sidecar of the service answers who has this certificate.
fn is_answered(mesh: &Mesh, (certificate, key): &(PathBuf, PathBuf)) -> Result<bool> {
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let said = mesh.openssl(&["-cert", &certificate, "-key", &key])?;
    Ok(said.contains("HTTP/1.1 200"))
}

async fn answers(mesh: &Mesh, pair: &(PathBuf, PathBuf), expected: bool) -> Result<()> {
    let what = format!("{} to be {}", pair.0.display(), if expected { "answered" } else { "refused" });
    wait::until(&what, wait::STEP, || async {
        ensure!(is_answered(mesh, pair)? == expected, "not yet");
        Ok(())
    })
    .await
}

async fn web_is_answered(mesh: &Mesh) -> Result<()> {
    wait::until("the answer", wait::STEP, || async {
        let status = mesh.status(0).await?;
        ensure!(status == 200, "{status}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_is_refused_by_proxies_and_by_the_control_plane() -> Result<()> {
    let authority = Authority::new(&workspace::scratch("revoked-ca")?, "provided")?;
    let mut mesh = Mesh::start(Rig::with_provided("revoked", &authority, &[]).await?).await?;
    let reviews = mesh.rig.sidecar("revoked-reviews", &REVIEWS).await?;
    let web = mesh.rig.sidecar("revoked-web", &WEB).await?;
    web_is_answered(&mesh).await?;
    let stolen = mesh.rig.certificate("front", "web")?;
    answers(&mesh, &stolen, true).await?;
    let present = |mesh: &Mesh, pair: &(PathBuf, PathBuf)| {
        let (leaf, key) = (std::fs::read_to_string(&pair.0)?, std::fs::read_to_string(&pair.1)?);
        mesh.rig.ask(&KeyPair::generate()?, json!({"key": key, "chain": leaf}))
    };
    let renew = |mesh: &Mesh| present(mesh, &stolen);
    chain(&renew(&mesh)?)?;

    // What ended, and what another authority made, proves nothing, and the log says why.
    let identity = "spiffe://cluster.local/ns/front/sa/web";
    let other = Authority::new(&workspace::scratch("revoked-other")?, "other")?;
    for (pair, reason) in [
        (authority.ended("ended", identity)?, "certificate expired"),
        (other.workload("foreign", identity)?, "UnknownIssuer"),
    ] {
        ensure!(!is_answered(&mesh, &pair)?, "{} was taken by a proxy", pair.0.display());
        let answer = present(&mesh, &pair)?;
        ensure!(answer["code"] == "UNAVAILABLE", "{answer}");
        mesh.rig.said(reason).await?;
    }

    authority.revoke(&[&stolen.0])?;
    answers(&mesh, &stolen, false).await?;
    wait::until("the control plane to refuse it", wait::STEP, || async {
        let answer = renew(&mesh)?;
        ensure!(answer["code"] == "UNAVAILABLE", "{answer}");
        Ok(())
    })
    .await?;
    // Nobody else is concerned, also not who starts now.
    web_is_answered(&mesh).await?;
    let status = mesh.rig.server.command(&["ca", "status"])?;
    ensure!(status.contains("revocation lists"), "{status}");
    mesh.rig.server.kill();
    mesh.rig.server.restart().await?;
    let fresh = mesh.rig.certificate("back", "spy")?;
    answers(&mesh, &fresh, true).await?;
    answers(&mesh, &stolen, false).await?;

    // A list that nothing would verify with is said, and changes nothing.
    let list = authority.file.with_file_name("ca").join("ca-crl.pem");
    std::fs::write(&list, "junk")?;
    mesh.rig.said("ca-crl.pem: there is no revocation list in it").await?;
    answers(&mesh, &stolen, false).await?;
    answers(&mesh, &fresh, true).await?;
    for envoy in [&reviews, &web] {
        ensure!(envoy.rejections().await?.is_empty(), "{:?}", envoy.rejections().await?);
    }
    Ok(())
}

/// A SPIFFE bundle with one root.
fn bundle(root: &Path) -> Result<String> {
    let pem = std::fs::read_to_string(root)?;
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let key = json!({"kty": "EC", "use": "x509-svid", "x5c": [body]});
    Ok(json!({"keys": [key], "spiffe_sequence": 1}).to_string())
}

fn trusting(url: &str) -> String {
    format!(
        "apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data:
  mesh: |
    caCertificates: [{{spiffeBundleUrl: '{url}', trustDomains: [partner.test]}}]
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_vouches_for_its_own_trust_domain_alone() -> Result<()> {
    let directory = workspace::scratch("federation-ca")?;
    let (web_root, partner) = (Authority::new(&directory, "web")?, Authority::new(&directory, "partner")?);
    let fetching = web_root.file.display().to_string();
    let near = ["--fetch-allow", "127.0.0.1/32", "--fetch-allow", "::1/128", "--fetch-ca", &fetching];
    let mut mesh = Mesh::start(Rig::start("federation", &near).await?).await?;
    let reviews = mesh.rig.sidecar("federation-reviews", &REVIEWS).await?;
    let web = mesh.rig.sidecar("federation-web", &WEB).await?;
    web_is_answered(&mesh).await?;
    let own = mesh.rig.certificate("front", "web")?;
    let theirs = partner.workload("theirs", "spiffe://partner.test/ns/front/sa/web")?;
    let forged = partner.workload("forged", "spiffe://cluster.local/ns/front/sa/web")?;
    answers(&mesh, &own, true).await?;
    ensure!(!is_answered(&mesh, &theirs)?, "nobody has said that the partner is trusted");

    let published = Https::serve(&web_root, bundle(&partner.file)?).await?;
    mesh.rig.server.write("mesh-settings.yaml", &trusting(&published.url()))?;
    answers(&mesh, &theirs, true).await?;
    ensure!(!is_answered(&mesh, &forged)?, "the partner made an identity of this mesh");
    answers(&mesh, &own, true).await?;
    web_is_answered(&mesh).await?;
    for envoy in [&reviews, &web] {
        ensure!(envoy.rejections().await?.is_empty(), "{:?}", envoy.rejections().await?);
    }

    // Who published it is gone, and the server starts again: what it knew is good enough.
    drop(published);
    mesh.rig.server.kill();
    mesh.rig.server.restart().await?;
    wait::until("the failure to be said", wait::STEP, || async {
        let said = mesh.rig.server.admin_get("/debug/findings").await?.text();
        ensure!(said.contains("the roots that were fetched before stay in use"), "{said}");
        Ok(())
    })
    .await?;
    let _late = mesh.rig.sidecar("federation-late", &REVIEWS).await.context("a sidecar that starts now")?;
    answers(&mesh, &theirs, true).await?;
    ensure!(!is_answered(&mesh, &forged)?, "the partner made an identity of this mesh");

    // Nobody trusts the partner any more.
    mesh.rig.server.write("mesh-settings.yaml", "")?;
    answers(&mesh, &theirs, false).await?;
    answers(&mesh, &own, true).await
}
