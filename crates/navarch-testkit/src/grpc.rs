//! Real proxyless gRPC clients, and back ends for them, as programs under control.

use crate::{http, ports, process::Process, workspace};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::{
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

/// The package `grpcio` of PyPI: gRPC's C++ core.
const PYTHON: &str = "grpcio==1.85.0";
/// The packages of npm.
const NODE: [&str; 2] = ["@grpc/grpc-js@1.14.7", "@grpc/grpc-js-xds@1.14.1"];

/// An implementation of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// The C++ core, through Python.
    Python,
    /// The one in JavaScript.
    Node,
}

/// Installs what both languages need, so that no test waits for it.
pub fn obtain() -> Result<()> {
    program(Language::Python)?;
    program(Language::Node)?;
    Ok(())
}

/// A program that can run with the packages it needs, which are installed first if need be. Never skips: what
/// is missing is an error that says what to do.
fn program(language: Language) -> Result<Command> {
    let cache = workspace::target_dir().join("grpc");
    std::fs::create_dir_all(&cache)?;
    match language {
        Language::Python => {
            let home = install(&cache.join("python-1.85.0"), pip).with_context(|| {
                format!(
                    "cannot obtain {PYTHON} from PyPI; install Python 3 with pip (on Debian: python3-pip)"
                )
            })?;
            let mut command = Command::new("python3");
            command.env("PYTHONPATH", home).env("PYTHONDONTWRITEBYTECODE", "1");
            Ok(command)
        }
        Language::Node => {
            let home = install(&cache.join("node-1.14.7"), npm).with_context(|| {
                format!("cannot obtain {} from npm; install Node.js 20 or newer with npm", NODE.join(" and "))
            })?;
            let mut command = Command::new("node");
            command.env("NODE_PATH", home.join("node_modules"));
            Ok(command)
        }
    }
}

/// Runs `how` once for all processes, with a directory that becomes `home` when it has succeeded.
fn install(home: &Path, how: fn(&Path) -> Result<()>) -> Result<PathBuf> {
    let lock = File::create(home.with_extension("lock"))?;
    lock.lock().context("waiting for another process that installs")?;
    if !home.is_dir() {
        let partial = home.with_extension("partial");
        let _ = std::fs::remove_dir_all(&partial);
        std::fs::create_dir_all(&partial)?;
        how(&partial)?;
        std::fs::rename(&partial, home)?;
    }
    Ok(home.to_path_buf())
}

fn pip(dir: &Path) -> Result<()> {
    let args =
        ["install", "--quiet", "--disable-pip-version-check", "--timeout", "30", "--only-binary", ":all:"];
    let mut python = Command::new("python3");
    let first = run(python.args(["-m", "pip"]).args(args).arg("--target").arg(dir).arg(PYTHON));
    let Err(reason) = first else { return Ok(()) };
    let second = run(Command::new("pip3").args(args).arg("--target").arg(dir).arg(PYTHON));
    second.with_context(|| format!("python3 -m pip: {reason:#}; pip3"))
}

fn npm(dir: &Path) -> Result<()> {
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-audit", "--no-fund", "--fetch-timeout=60000", "--prefix"]);
    run(npm.arg(dir).args(NODE))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().context("cannot run it")?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        bail!("{}: {}", output.status, crate::process::tail(&String::from_utf8_lossy(&text), 4));
    }
    Ok(())
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

/// A gRPC server that answers calls with its name. It is killed when dropped.
#[derive(Debug)]
pub struct Backend {
    address: SocketAddr,
    _process: Process,
}

impl Backend {
    /// Starts it, without waiting for it: clients try again.
    pub fn start(name: &str) -> Result<Backend> {
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free_port()?));
        let log = workspace::scratch(&format!("grpc-backend-{name}"))?.join("log");
        let mut command = program(Language::Python)?;
        command.arg(script("grpc_backend.py")).arg(address.to_string()).arg(name);
        let process = Process::start("the gRPC back end", &mut command, &log)?;
        Ok(Backend { address, _process: process })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A client with a channel to `xds:///<name>` for each of some names. It is killed when dropped.
#[derive(Debug)]
pub struct Client {
    port: u16,
    process: Process,
}

impl Client {
    /// Starts one for one name that gets its configuration from `xds`; calls fail until it listens.
    pub fn start(language: Language, name: &str, xds: SocketAddr) -> Result<Client> {
        Client::start_with(language, &[name], &xds.to_string())
    }

    /// The same for some names, with a server as gRPC names it: `unix:/run/xds.sock`.
    pub fn start_with(language: Language, names: &[&str], server: &str) -> Result<Client> {
        let port = ports::free_port()?;
        let bootstrap = json!({
            "xds_servers": [{
                "server_uri": server,
                "channel_creds": [{"type": "insecure"}],
                "server_features": ["xds_v3"],
            }],
            // The one in JavaScript refuses a node without a locality.
            "node": {"id": format!("grpc-{language:?}"), "locality": {}},
        });
        let mut command = program(language)?;
        command.arg(script(if language == Language::Python { "grpc_client.py" } else { "grpc_client.js" }));
        command.arg(port.to_string()).args(names.iter().map(|name| format!("xds:///{name}")));
        command.env("GRPC_XDS_BOOTSTRAP_CONFIG", bootstrap.to_string()).env_remove("GRPC_XDS_BOOTSTRAP");
        // A proxy of the machine is not for loopback.
        command.env("no_grpc_proxy", "*").env("no_proxy", "*");
        let log = workspace::scratch(&format!("grpc-client-{language:?}"))?.join("log");
        Ok(Client { port, process: Process::start("the gRPC client", &mut command, &log)? })
    }

    /// Makes one call: its status, and what it gave or why it failed.
    pub async fn call(&mut self) -> Result<(String, String)> {
        self.call_on(0).await
    }

    /// The same on the channel of this number.
    pub async fn call_on(&mut self, channel: usize) -> Result<(String, String)> {
        self.process.check_running()?;
        let url = format!("http://127.0.0.1:{}/{channel}", self.port);
        let answer: Value = http::get(url).await?.ok()?.json()?;
        let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
        ensure!(!text("code").is_empty(), "{answer}");
        Ok((text("code"), text("body")))
    }
}

/// Asks `address` for a certificate (`istio.v1.auth.IstioCertificateService/CreateCertificate`), as
/// `grpc_certificate.py` says: the answer has `code`, and `chain` or `details`.
pub fn certificate(address: SocketAddr, request: &Value) -> Result<Value> {
    let mut command = program(Language::Python)?;
    command.arg(script("grpc_certificate.py")).arg(address.to_string()).arg(request.to_string());
    command.env("no_grpc_proxy", "*").env("no_proxy", "*");
    let output = command.output().context("running the gRPC client")?;
    let said = |bytes: &[u8]| crate::process::tail(&String::from_utf8_lossy(bytes), 10);
    ensure!(output.status.success(), "the gRPC client: {}: {}", output.status, said(&output.stderr));
    serde_json::from_slice(&output.stdout).with_context(|| said(&output.stdout))
}
