//! `navarch serve --state`: from a join token to mutual TLS, with a real gRPC client and a stock Envoy.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use navarch_testkit::envoy::Envoy;
use navarch_testkit::navarch::{self, Server};
use navarch_testkit::{grpc, ports, wait, workspace};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

const NODE: &str = "router~127.0.0.1~gateway.edge~edge.svc.cluster.local";
const IDENTITY: &str = "spiffe://cluster.local/ns/edge/sa/gateway";

/// A control plane with an authority.
struct Rig {
    server: Server,
    state: PathBuf,
    directory: PathBuf,
    secure: SocketAddr,
}

impl Rig {
    async fn start(name: &str) -> Result<Rig> {
        let directory = workspace::scratch(name)?;
        let (config, state) = (directory.join("config"), directory.join("state"));
        std::fs::create_dir_all(&config)?;
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (xds, admin) = (local(ports::free_port()?), local(ports::free_port()?));
        let secure = local(ports::free_port()?);
        let (state_text, secure_text) = (state.display().to_string(), secure.to_string());
        let arguments = ["--state", &state_text, "--secure-addr", &secure_text];
        let server = Server::start_on(&format!("{name}-serve"), &config, xds, admin, &arguments).await?;
        Ok(Rig { server, state, directory, secure })
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        let state = self.state.display().to_string();
        navarch::stdout(arguments.iter().copied().chain(["--state", &state]))
    }

    fn roots(&self) -> Result<String> {
        self.run(&["ca", "root"])
    }

    fn token(&self, more: &[&str]) -> Result<String> {
        let create = ["token", "create", "--namespace", "edge", "--service-account", "gateway"];
        Ok(self.run(&[&create[..], more].concat())?.trim().to_owned())
    }

    /// The answer to a request over TLS with these fields beside the CSR.
    fn ask(&self, key: &KeyPair, fields: Value) -> Result<Value> {
        let mut request = json!({
            "csr": CertificateParams::default().serialize_request(key)?.pem()?,
            "roots": self.roots()?,
        });
        let (request_fields, fields) = (request.as_object_mut(), fields.as_object().cloned());
        request_fields.context("an object")?.extend(fields.context("an object")?);
        grpc::certificate(self.secure, &request)
    }

    fn put(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }

    async fn envoy(&self, name: &str, more: &[(&str, &Path)]) -> Result<Envoy> {
        let roots = self.put("roots.pem", &self.roots()?)?;
        let files: Vec<(&str, &Path)> = [("--tls-ca", roots.as_path())].iter().chain(more).copied().collect();
        let arguments: Vec<String> =
            files.iter().flat_map(|(flag, path)| [(*flag).to_owned(), path.display().to_string()]).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let metadata = [("NAMESPACE", "edge"), ("SERVICE_ACCOUNT", "gateway")];
        Envoy::start(name, navarch::bootstrap(NODE, &metadata, self.secure, &arguments)?).await
    }

    async fn said(&self, text: &str) -> Result<()> {
        wait::until(text, wait::STEP, || async {
            ensure!(self.server.log().contains(text), "not said");
            Ok(())
        })
        .await
    }
}

fn refused(answer: &Value, code: &str, details: &str) -> Result<()> {
    ensure!(answer["code"] == code && answer["details"] == details, "{answer}");
    Ok(())
}

/// The leaf and the chain of an answer.
fn chain(answer: &Value) -> Result<(String, String)> {
    ensure!(answer["code"] == "OK", "{answer}");
    let chain: Vec<&str> =
        answer["chain"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let [leaf, root] = chain[..] else { anyhow::bail!("{} elements", chain.len()) };
    Ok((leaf.to_owned(), root.to_owned()))
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
    let mut rig = Rig::start("identity").await?;
    let key = KeyPair::generate()?;

    refused(&rig.ask(&key, json!({}))?, "UNAUTHENTICATED", REFUSED)?;
    refused(&rig.ask(&key, json!({"token": "eyJhbGciOiJub25lIn0.e30."}))?, "UNAUTHENTICATED", REFUSED)?;
    let plaintext =
        grpc::certificate(rig.server.xds(), &json!({"csr": "", "token": rig.token(&["--once"])?}))?;
    refused(&plaintext, "UNIMPLEMENTED", "no such method")?;

    // One use, one certificate, of the identity that the token is for.
    let once = rig.token(&["--once", "--ttl", "10m"])?;
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
        rig.envoy("identity-envoy", &[("--tls-cert", &leaf_file), ("--tls-key", &key_file)]).await?;
    envoy.wait_live().await?;
    ensure!(envoy.rejections().await?.is_empty(), "something was rejected");
    let fleet = rig.server.fleet().await?;
    ensure!(fleet["proxies"].as_array().is_some_and(|proxies| proxies.len() == 1), "{fleet}");

    // Without a certificate: the stream is refused, and says no more than that.
    let _nobody = rig.envoy("identity-nobody", &[]).await?;
    rig.said("neither a certificate nor a token that is known here was presented").await?;

    // What is kept survives: root, tokens, and what was used.
    let (roots, many) = (rig.roots()?, rig.token(&[])?);
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
