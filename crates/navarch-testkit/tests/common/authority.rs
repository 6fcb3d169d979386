//! A control plane with an authority, and proxies that prove who they are to it.

use super::pki::Authority;
use anyhow::{Context, Result, ensure};
use navarch_testkit::{
    envoy::Envoy,
    grpc,
    navarch::{self, Server},
    ports, wait, workspace,
};
use rcgen::{CertificateParams, KeyPair, SanType};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// A control plane with an authority.
pub struct Rig {
    pub server: Server,
    pub state: PathBuf,
    pub directory: PathBuf,
    pub secure: SocketAddr,
    /// Who proves to the control plane who proxies are, and to them who it is, if it is not its own
    /// authority.
    channels: Option<Authority>,
    /// The roots of an authority that is provided.
    provided: Option<String>,
}

impl Rig {
    /// Serves an empty directory, with these arguments beside the usual ones.
    pub async fn start(name: &str, more: &[&str]) -> Result<Rig> {
        Rig::start_in(name, workspace::scratch(name)?, None, more).await
    }

    /// The same, with channels that another authority secures: what happens to the own one does not concern
    /// them.
    pub async fn with_channels(name: &str, more: &[&str]) -> Result<Rig> {
        let directory = workspace::scratch(name)?;
        let channels = Authority::new(&directory, "channels")?;
        let (certificate, key) = channels.sign("server", SanType::IpAddress([127, 0, 0, 1].into()))?;
        let files = [("--tls-cert", &certificate), ("--tls-key", &key), ("--tls-client-ca", &channels.file)];
        let files = files.map(|(flag, path)| [flag.to_owned(), path.display().to_string()]).concat();
        let arguments: Vec<&str> = files.iter().map(String::as_str).chain(more.iter().copied()).collect();
        Rig::start_in(name, directory, Some(channels), &arguments).await
    }

    /// The same with an authority that is provided.
    pub async fn with_provided(name: &str, authority: &Authority, more: &[&str]) -> Result<Rig> {
        let files = authority.plugged()?.display().to_string();
        let arguments = [&["--ca-dir", files.as_str()], more].concat();
        let rig = Rig::start(name, &arguments).await?;
        Ok(Rig { provided: Some(authority.pem.clone()), ..rig })
    }

    async fn start_in(
        name: &str,
        directory: PathBuf,
        channels: Option<Authority>,
        more: &[&str],
    ) -> Result<Rig> {
        let (config, state) = (directory.join("config"), directory.join("state"));
        std::fs::create_dir_all(&config)?;
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (xds, admin) = (local(ports::free_port()?), local(ports::free_port()?));
        let secure = local(ports::free_port()?);
        let (state_text, secure_text) = (state.display().to_string(), secure.to_string());
        let usual = ["--state", &state_text, "--secure-addr", &secure_text];
        let arguments = [&usual[..], more].concat();
        let server = Server::start_on(&format!("{name}-serve"), &config, xds, admin, &arguments).await?;
        Ok(Rig { server, state, directory, secure, channels, provided: None })
    }

    /// A `navarch` command on the state directory.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let state = self.state.display().to_string();
        navarch::stdout(arguments.iter().copied().chain(["--state", &state]))
    }

    /// A `navarch` command that changes what the server does.
    pub fn operate(&self, arguments: &[&str]) -> Result<String> {
        let state = self.state.display().to_string();
        self.server.command(&[arguments, &["--state", &state]].concat())
    }

    pub fn roots(&self) -> Result<String> {
        if let Some(provided) = &self.provided {
            return Ok(provided.clone());
        }
        self.run(&["ca", "root"])
    }

    pub fn token(&self, namespace: &str, account: &str, more: &[&str]) -> Result<String> {
        let create = ["token", "create", "--namespace", namespace, "--service-account", account];
        // Of an authority that is provided the state directory knows nothing.
        let domain: &[&str] =
            if self.provided.is_some() { &["--trust-domain", "cluster.local"] } else { &[] };
        Ok(self.run(&[&create[..], domain, more].concat())?.trim().to_owned())
    }

    /// The answer to a request over TLS with these fields beside the CSR.
    pub fn ask(&self, key: &KeyPair, fields: Value) -> Result<Value> {
        let mut request = json!({
            "csr": CertificateParams::default().serialize_request(key)?.pem()?,
            "roots": self.roots()?,
        });
        let (request_fields, fields) = (request.as_object_mut(), fields.as_object().cloned());
        request_fields.context("an object")?.extend(fields.context("an object")?);
        grpc::certificate(self.secure, &request)
    }

    pub fn put(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// Files with a certificate and its key, got with a token of one use.
    pub fn certificate(&self, namespace: &str, account: &str) -> Result<(PathBuf, PathBuf)> {
        if let Some(channels) = &self.channels {
            let identity = format!("spiffe://cluster.local/ns/{namespace}/sa/{account}");
            return channels.workload(&format!("{namespace}-{account}"), &identity);
        }
        let key = KeyPair::generate()?;
        let token = self.token(namespace, account, &["--once"])?;
        let (leaf, _) = chain(&self.ask(&key, json!({"token": token, "seconds": 86400}))?)?;
        let name = format!("{namespace}-{account}");
        Ok((
            self.put(&format!("{name}.pem"), &leaf)?,
            self.put(&format!("{name}.key"), &key.serialize_pem())?,
        ))
    }

    /// A proxy that knows the control plane by its roots and has these arguments for its bootstrap.
    pub async fn envoy(
        &self,
        name: &str,
        node: &str,
        metadata: &[(&str, &str)],
        more: &[(&str, &Path)],
    ) -> Result<Envoy> {
        let roots = match &self.channels {
            Some(channels) => channels.file.clone(),
            None => self.put("roots.pem", &self.roots()?)?,
        };
        let files: Vec<(&str, &Path)> = [("--tls-ca", roots.as_path())].iter().chain(more).copied().collect();
        let arguments: Vec<String> =
            files.iter().flat_map(|(flag, path)| [(*flag).to_owned(), path.display().to_string()]).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Envoy::start(name, navarch::bootstrap(node, metadata, self.secure, &arguments)?).await
    }

    /// A sidecar, LIVE, at an address of its own, that has proven that it is a workload.
    pub async fn sidecar(&self, name: &str, workload: &Workload) -> Result<Envoy> {
        let (certificate, key) = self.certificate(workload.namespace, workload.account)?;
        let files = [("--tls-cert", certificate.as_path()), ("--tls-key", key.as_path())];
        let mut envoy = self.envoy(name, &workload.node(), &workload.metadata(), &files).await?;
        envoy.wait_live().await?;
        Ok(envoy)
    }

    /// Waits until the server has said so.
    pub async fn said(&self, text: &str) -> Result<()> {
        wait::until(text, wait::STEP, || async {
            ensure!(self.server.log().contains(text), "not said");
            Ok(())
        })
        .await
    }
}

/// A workload whose sidecar intercepts nothing.
#[derive(Clone, Copy)]
pub struct Workload {
    pub namespace: &'static str,
    pub account: &'static str,
    pub address: &'static str,
}

impl Workload {
    pub fn node(&self) -> String {
        let Workload { namespace, account, address } = self;
        format!("sidecar~{address}~{account}.{namespace}~{namespace}.svc.cluster.local")
    }

    pub fn metadata(&self) -> [(&'static str, &'static str); 4] {
        [
            ("NAMESPACE", self.namespace),
            ("SERVICE_ACCOUNT", self.account),
            ("INTERCEPTION_MODE", "NONE"),
            ("INSTANCE_IPS", self.address),
        ]
    }
}

/// The leaf and the roots of an answer.
pub fn chain(answer: &Value) -> Result<(String, String)> {
    ensure!(answer["code"] == "OK", "{answer}");
    let chain: Vec<&str> =
        answer["chain"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let [leaf, root] = chain[..] else { anyhow::bail!("{} elements", chain.len()) };
    Ok((leaf.to_owned(), root.to_owned()))
}
