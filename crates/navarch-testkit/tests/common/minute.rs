//! The mesh of `examples/minute`, whose proxies have agents.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, ensure};
use navarch_testkit::agent::Agent;
use navarch_testkit::http::Call;
use navarch_testkit::navarch::{self, Server};
use navarch_testkit::{ports, wait, workspace};

use super::load::Load;

/// The mesh of `examples/minute` on free ports: a greeter, and a caller.
pub struct Mesh {
    pub server: Server,
    directory: PathBuf,
    state: PathBuf,
    secure: SocketAddr,
    /// Where the application listens, where its sidecar does, and where the caller's takes calls to it.
    pub application: u16,
    pub inbound: SocketAddr,
    pub outbound: SocketAddr,
}

impl Mesh {
    pub async fn start(name: &str) -> Result<Mesh> {
        Mesh::start_with(name, "", &[]).await
    }

    /// The same with more configuration, and more arguments for the server.
    pub async fn start_with(name: &str, more: &str, arguments: &[&str]) -> Result<Mesh> {
        let directory = workspace::scratch(name)?;
        let (config, state) = (directory.join("config"), directory.join("state"));
        std::fs::create_dir_all(&config)?;
        let (inbound, outbound, application) =
            (ports::free_port()?, ports::free_port()?, ports::free_port()?);
        let text = std::fs::read_to_string(workspace::root().join("examples/minute/mesh/mesh.yaml"))?;
        let text = text
            .replace("address: 127.0.1.31", &format!("address: 127.0.0.1\n  ports: {{http: {inbound}}}"))
            .replace(
                "{number: 9080, name: http, protocol: HTTP}\n      bind: 127.0.1.31",
                &format!("{{number: {inbound}, name: http, protocol: HTTP}}\n      bind: 127.0.0.1"),
            )
            .replace(
                "{number: 9080, name: http, protocol: HTTP}\n      bind: 127.0.2.32",
                &format!("{{number: {outbound}, name: http, protocol: HTTP}}\n      bind: 127.0.0.1"),
            )
            .replace("127.0.0.1:8080", &format!("127.0.0.1:{application}"))
            .replace("ports: [{number: 9080,", &format!("ports: [{{number: {outbound},"));
        std::fs::write(config.join("mesh.yaml"), text)?;
        std::fs::write(config.join("more.yaml"), more)?;
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (xds, admin) = (local(ports::free_port()?), local(ports::free_port()?));
        let secure = local(ports::free_port()?);
        let (state_text, secure_text) = (state.display().to_string(), secure.to_string());
        let usual = ["--state", &state_text, "--secure-addr", &secure_text];
        let arguments = [&usual[..], arguments].concat();
        let server = Server::start_on(&format!("{name}-serve"), &config, xds, admin, &arguments).await?;
        let (inbound, outbound) = (local(inbound), local(outbound));
        Ok(Mesh { server, directory, state, secure, application, inbound, outbound })
    }

    /// A `navarch` command on the state directory.
    pub fn ca(&self, arguments: &[&str]) -> Result<String> {
        let state = self.state.display().to_string();
        navarch::stdout(arguments.iter().copied().chain(["--state", &state]))
    }

    /// A `navarch` command that changes what the server does.
    pub fn operate(&self, arguments: &[&str]) -> Result<String> {
        let state = self.state.display().to_string();
        self.server.command(&[arguments, &["--state", &state]].concat())
    }

    /// An agent whose token is for one certificate.
    pub fn agent(&self, service: &str, more: &[&str], command: &[&str]) -> Result<Agent> {
        self.agent_of("sidecar", service, more, command)
    }

    /// The same with a role: `sidecar` or `gateway`.
    pub fn agent_of(&self, role: &str, service: &str, more: &[&str], command: &[&str]) -> Result<Agent> {
        // Of two that start at once neither reads what the other is given. A token is good once.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let own = format!("{service}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let file = |of: &str| self.directory.join(format!("{own}.{of}"));
        let (root, token) = (file("root.pem"), file("token"));
        std::fs::write(&root, self.ca(&["ca", "root"])?)?;
        let create = ["token", "create", "-n", "shop", "--service-account", service, "--once"];
        std::fs::write(&token, self.ca(&create)?)?;
        let (server, root, token) =
            (self.secure.to_string(), root.display().to_string(), token.display().to_string());
        let arguments = [
            &[role, "--service", service, "-n", "shop", "--service-account", service][..],
            &["--server", &server, "--root", &root, "--token", &token],
            // Nobody is called who ends, unless a test is about that.
            if more.contains(&"--drain-min") { &[] } else { &["--drain-min", "0s"] },
            more,
        ];
        Agent::start(&format!("agent-{service}"), &arguments.concat(), command)
    }

    pub fn greeter(&self, more: &[&str]) -> Result<Agent> {
        let script = workspace::root().join("examples/minute/greeter.py").display().to_string();
        self.agent("greeter", more, &["python3", &script, &self.application.to_string()])
    }

    pub async fn call(&self) -> Result<String> {
        let url = format!("http://{}/", self.outbound);
        Ok(Call::get(url).header("host", "greeter.shop").send().await?.ok()?.text())
    }

    /// Calls all the time.
    pub fn load(&self) -> Load {
        Load::start(&format!("http://{}/", self.outbound), "greeter.shop")
    }

    pub async fn greeted(&self) -> Result<()> {
        wait::until("a greeting", wait::STEP, || async {
            let greeting = self.call().await?;
            ensure!(greeting == "hello, spiffe://cluster.local/ns/shop/sa/caller\n", "{greeting}");
            Ok(())
        })
        .await
    }
}
