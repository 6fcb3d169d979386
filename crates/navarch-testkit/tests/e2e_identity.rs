//! `navarch serve --state`: from a join token to mutual TLS, with a real gRPC client and a stock Envoy.

mod common;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use common::authority::{Rig, chain};
use common::https::Https;
use common::issuer::Issuer;
use common::pki::Authority;
use navarch_testkit::envoy::Envoy;
use navarch_testkit::{grpc, wait, workspace};
use rcgen::KeyPair;
use serde_json::{Value, json};

const NODE: &str = "router~127.0.0.1~gateway.edge~edge.svc.cluster.local";
const IDENTITY: &str = "spiffe://cluster.local/ns/edge/sa/gateway";

/// The gateway of this test.
async fn gateway(rig: &Rig, name: &str, more: &[(&str, &Path)]) -> Result<Envoy> {
    rig.envoy(name, NODE, &[("NAMESPACE", "edge"), ("SERVICE_ACCOUNT", "gateway")], more).await
}

fn token(rig: &Rig, more: &[&str]) -> Result<String> {
    rig.token("edge", "gateway", more)
}

fn refused(answer: &Value, code: &str, details: &str) -> Result<()> {
    ensure!(answer["code"] == code && answer["details"] == details, "{answer}");
    Ok(())
}

fn names(path: &Path) -> Result<String> {
    let output = Command::new("openssl")
        .args(["x509", "-noout", "-ext", "subjectAltName", "-in"])
        .arg(path)
        .output()?;
    Ok(String::from_utf8(output.stdout)?)
}

const REFUSED: &str = "request authenticate failure";

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_gets_from_a_token_to_mutual_tls() -> Result<()> {
    let mut rig = Rig::start("identity", &[]).await?;
    let key = KeyPair::generate()?;

    refused(&rig.ask(&key, json!({}))?, "UNAUTHENTICATED", REFUSED)?;
    refused(&rig.ask(&key, json!({"token": "eyJhbGciOiJub25lIn0.e30."}))?, "UNAUTHENTICATED", REFUSED)?;
    let plaintext =
        grpc::certificate(rig.server.xds(), &json!({"csr": "", "token": token(&rig, &["--once"])?}))?;
    refused(&plaintext, "UNIMPLEMENTED", "no such method")?;

    // One use, one certificate, of the identity that the token is for.
    let once = token(&rig, &["--once", "--ttl", "10m"])?;
    refused(
        &rig.ask(&key, json!({"token": once, "csr": "junk"}))?,
        "INVALID_ARGUMENT",
        "the certificate request is not readable: there is no certificate request in it",
    )?;
    let (leaf, root) = chain(&rig.ask(&key, json!({"token": once}))?)?;
    ensure!(root == rig.roots()?, "the last element is the roots");
    let leaf_file = rig.put("leaf.pem", &leaf)?;
    ensure!(
        names(&leaf_file)?.contains(&format!("critical\n    URI:{IDENTITY}\n")),
        "{}",
        names(&leaf_file)?
    );
    refused(&rig.ask(&key, json!({"token": once}))?, "UNAUTHENTICATED", REFUSED)?;
    rig.said("was for one use, and has been used").await?;

    // The certificate gets the next one.
    let key_pem = key.serialize_pem();
    let renewed = rig.ask(&KeyPair::generate()?, json!({"key": key_pem, "chain": leaf, "seconds": 3600}))?;
    chain(&renewed)?;

    let key_file = rig.put("leaf.key", &key_pem)?;
    let mut envoy =
        gateway(&rig, "identity-envoy", &[("--tls-cert", &leaf_file), ("--tls-key", &key_file)]).await?;
    envoy.wait_live().await?;
    ensure!(envoy.rejections().await?.is_empty(), "something was rejected");
    let fleet = rig.server.fleet().await?;
    ensure!(fleet["proxies"].as_array().is_some_and(|proxies| proxies.len() == 1), "{fleet}");

    // Without a certificate: the stream is refused, and says no more than that.
    let _nobody = gateway(&rig, "identity-nobody", &[]).await?;
    rig.said("neither a certificate nor a token that is known here was presented").await?;

    // What is kept survives: root, tokens, and what was used.
    let (roots, many) = (rig.roots()?, token(&rig, &[])?);
    rig.server.kill();
    rig.server.restart().await?;
    ensure!(rig.roots()? == roots, "another root");
    chain(&rig.ask(&key, json!({"token": many}))?)?;
    refused(&rig.ask(&key, json!({"token": once}))?, "UNAUTHENTICATED", REFUSED)?;
    let listed: Value = serde_json::from_str(&rig.run(&["token", "list", "-o", "json"])?)?;
    let id = listed.as_array().into_iter().flatten().find(|token| token["once"] == false);
    let id = id.and_then(|token| token["id"].as_str()).context("the token is listed")?;
    rig.run(&["token", "revoke", id])?;
    refused(&rig.ask(&key, json!({"token": many}))?, "UNAUTHENTICATED", REFUSED)?;
    rig.said("has been revoked at").await
}

/// Tokens of an issuer (`JWT_RULE`), whose keys come over HTTPS. Who is refused hears nothing, and the log
/// says why.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_an_issuer_prove_what_the_issuer_says() -> Result<()> {
    let web = Authority::new(&workspace::scratch("oidc-web")?, "web")?;
    let (issuer, stranger) = (Issuer::new("key")?, Issuer::new("key")?);
    let published = Https::serve(&web, issuer.keys()).await?;
    let rule =
        json!({"issuer": "https://issuer.test", "audiences": ["navarch"], "jwks_uri": published.url()});
    let (rule, roots) = (rule.to_string(), web.file.display().to_string());
    let near = ["--fetch-allow", "127.0.0.1/32,::1/128", "--fetch-ca", &roots];
    let rig = Rig::start("oidc", &[&["--jwt-rule", rule.as_str()], &near[..]].concat()).await?;
    let claims = |changed: Value| {
        let mut claims = json!({
            "iss": "https://issuer.test", "aud": ["somebody", "navarch"],
            "sub": "system:serviceaccount:shop:web", "exp": 4_102_444_800_u64,
        });
        for (name, value) in changed.as_object().into_iter().flatten() {
            claims[name.as_str()] = value.clone();
        }
        claims
    };
    let key = KeyPair::generate()?;
    let good = issuer.token(&claims(json!({})))?;
    let (leaf, _) = wait::until("the keys to be fetched", wait::STEP, || async {
        chain(&rig.ask(&key, json!({"token": good}))?)
    })
    .await?;
    let leaf = rig.put("oidc.pem", &leaf)?;
    ensure!(names(&leaf)?.contains("URI:spiffe://cluster.local/ns/shop/sa/web\n"), "{}", names(&leaf)?);

    let unsigned = good.rsplit_once('.').map(|(text, _)| format!("{text}.")).context("three parts")?;
    for (token, reason) in [
        (issuer.token(&claims(json!({"exp": 946_684_800})))?, "it has expired at 2000-01-01T00:00:00Z"),
        (issuer.token(&claims(json!({"nbf": 4_102_444_800_u64})))?, "it is not valid before 2100-01-01"),
        (issuer.token(&claims(json!({"aud": "somebody"})))?, "it is for [\"somebody\"]"),
        (
            issuer.token(&claims(json!({"iss": "https://other.test"})))?,
            "its issuer is \"https://other.test\"",
        ),
        (issuer.token(&claims(json!({"sub": "somebody"})))?, "somebody"),
        (stranger.token(&claims(json!({})))?, "its signature is not of the issuer's keys"),
        (unsigned, "its signature is not of the issuer's keys"),
    ] {
        let before = rig.server.log().len();
        refused(&rig.ask(&key, json!({"token": token}))?, "UNAUTHENTICATED", REFUSED)?;
        wait::until(reason, wait::STEP, || async {
            let log = rig.server.log();
            let said = log.get(before..).unwrap_or_default();
            ensure!(said.contains(reason), "not said: {said}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}
