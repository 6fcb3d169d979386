//! The mesh of the demo: `navarch serve`, the applications, an agent with its Envoy beside each, a gateway.

use super::{shown::shown, traffic};
use anyhow::{Context, Result, ensure};
use navarch_testkit::{
    agent::Agent,
    apps::{App, Role, Running},
    envoy,
    navarch::{self, Server},
    ports, wait,
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    time::Instant,
};

/// A proxy of the mesh. Addresses are those of `examples/bookinfo`.
pub struct Workload {
    pub name: &'static str,
    pub app: &'static str,
    pub version: &'static str,
    pub ip: Ipv4Addr,
}

const fn workload(name: &'static str, app: &'static str, version: &'static str, last: u8) -> Workload {
    Workload { name, app, version, ip: Ipv4Addr::new(127, 0, 1, last) }
}

pub const WORKLOADS: [Workload; 6] = [
    workload("productpage-v1", "productpage", "v1", 1),
    workload("details-v1-a", "details", "v1", 11),
    workload("details-v1-b", "details", "v1", 12),
    workload("reviews-v1", "reviews", "v1", 21),
    workload("reviews-v2", "reviews", "v2", 22),
    workload("reviews-v3", "reviews", "v3", 23),
];
const GATEWAY: Workload = workload("ingressgateway", "ingressgateway", "v1", 100);

const NAMESPACE: &str = "bookinfo";
/// Where applications listen, on the address of their workload.
const APP_PORT: u16 = 8080;
/// Where sidecars accept for their applications, and the port of every service.
const SERVICE_PORT: u16 = 9080;
const GATEWAY_PORT: u16 = 8080;
/// Where the sidecar of the front page takes its outgoing calls.
const FRONT_PAGE_OUTBOUND: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 1);

pub struct Mesh {
    server: Server,
    /// Declared before the applications, so that proxies stop first.
    proxies: Vec<(&'static str, Agent)>,
    apps: Vec<Running>,
}

impl Mesh {
    /// Starts everything and waits until every Envoy is LIVE.
    pub async fn start(config: &Path) -> Result<Mesh> {
        check_addresses()?;
        println!("envoy     {}", shown(&envoy::binary()?));
        println!("navarch   {}", shown(&navarch::binary()?));

        let began = Instant::now();
        let (xds, admin) = (address_or_free(15010)?, address_or_free(15014)?);
        let server = Server::start_on("demo", config, xds, admin, &[]).await?;
        println!("serve     xDS on {xds}, admin on {admin}, ready after {} ms", began.elapsed().as_millis());

        let mut apps = Vec::new();
        for workload in &WORKLOADS {
            apps.push(start_app(workload).await?);
        }
        println!("apps      {} instances", apps.len());

        let began = Instant::now();
        let mut mesh = Mesh { server, proxies: Vec::new(), apps };
        for workload in [&GATEWAY].into_iter().chain(&WORKLOADS) {
            let agent = start_proxy(workload, xds).with_context(|| workload.name)?;
            mesh.proxies.push((workload.name, agent));
        }
        for (name, agent) in &mut mesh.proxies {
            agent.wait_live().await.with_context(|| *name)?;
        }
        println!(
            "proxies   {} agents, their Envoys LIVE after {} ms",
            mesh.proxies.len(),
            began.elapsed().as_millis()
        );
        // LIVE means that its first configuration is there, not that those it calls are LIVE too.
        wait::until("the first page", wait::STEP, || async {
            let tally = mesh.traffic(&traffic::Caller::Anybody, 1).await?;
            ensure!(tally.share("v1") == 100, "the first page was {tally}");
            Ok(())
        })
        .await?;
        println!("first page after {} ms", began.elapsed().as_millis());
        Ok(mesh)
    }

    pub fn server(&self) -> &Server {
        &self.server
    }

    pub fn proxies(&self) -> &[(&'static str, Agent)] {
        &self.proxies
    }

    pub async fn traffic(&self, caller: &traffic::Caller, requests: usize) -> Result<traffic::Tally> {
        let url = format!("http://{}:{GATEWAY_PORT}/productpage", GATEWAY.ip);
        traffic::send(&url, caller, requests).await
    }

    pub fn print_status(&self) -> Result<()> {
        let table = self.server.command(&["proxy-status"])?;
        println!("   $ navarch proxy-status");
        for line in table.lines() {
            println!("   {line}");
        }
        Ok(())
    }

    /// No Envoy has refused anything since it started.
    pub async fn check_nothing_rejected(&self) -> Result<()> {
        for (name, agent) in &self.proxies {
            let rejections = agent.rejections().await?;
            ensure!(rejections.is_empty(), "{name} rejected updates: {rejections:?}");
        }
        Ok(())
    }

    /// For those who keep it running.
    pub fn print_where(&self, config: &Path) {
        println!("\nLeft running; Ctrl-C stops everything.");
        println!("  page      curl http://{}:{GATEWAY_PORT}/productpage", GATEWAY.ip);
        println!("  beta user  curl -H 'end-user: beta' http://{}:{GATEWAY_PORT}/productpage", GATEWAY.ip);
        println!("  edit      {}", shown(config));
        let navarch = navarch::binary().map(|path| shown(&path)).unwrap_or_default();
        println!("  status    {navarch} proxy-status --admin-addr {}", self.server.admin());
        for (name, agent) in &self.proxies {
            println!(
                "  envoy     http://{}  {name}, with its agent in {}",
                agent.admin(),
                agent.directory().display()
            );
        }
    }

    /// Ends all of it gracefully, so that a process that does not end is noticed.
    pub async fn stop(mut self) -> Result<()> {
        for (name, mut agent) in self.proxies.drain(..) {
            let status = agent.terminate().await.with_context(|| name)?;
            ensure!(status.success(), "the agent of {name} ended with {status}");
        }
        self.apps.clear();
        let status = self.server.terminate(wait::STEP).await?;
        ensure!(status.success(), "navarch serve ended with {status}");
        println!("Everything is stopped.");
        Ok(())
    }
}

async fn start_app(workload: &Workload) -> Result<Running> {
    let role = match workload.app {
        "productpage" => Role::FrontPage { outbound: (FRONT_PAGE_OUTBOUND, SERVICE_PORT).into() },
        app => Role::Leaf { facts: App::facts(app, workload.version) },
    };
    let app = App {
        service: workload.app.to_owned(),
        version: workload.version.to_owned(),
        instance: workload.name.to_owned(),
        role,
    };
    app.start((workload.ip, APP_PORT).into()).await
}

fn start_proxy(workload: &Workload, xds: SocketAddr) -> Result<Agent> {
    let gateway = workload.name == GATEWAY.name;
    let labels = if gateway {
        vec!["istio=ingressgateway".to_owned()]
    } else {
        let (app, version, instance) = (workload.app, workload.version, workload.name);
        vec![format!("app={app}"), format!("version={version}"), format!("instance={instance}")]
    };
    let (ip, server) = (workload.ip.to_string(), xds.to_string());
    let role = if gateway { "gateway" } else { "sidecar" };
    let mut arguments =
        vec![role, "--name", workload.name, "-n", NAMESPACE, "--ip", &ip, "--server", &server];
    arguments.extend(labels.iter().flat_map(|label| ["--label", label]));
    // Nobody calls any more when it ends.
    arguments.extend(["--drain", "0s"]);
    Agent::start(workload.name, &arguments, &[])
}

/// The usual port, or a free one if somebody has it.
fn address_or_free(port: u16) -> Result<SocketAddr> {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match TcpListener::bind(usual) {
        Ok(_) => Ok(usual),
        Err(_) => Ok((Ipv4Addr::LOCALHOST, ports::free_port()?).into()),
    }
}

/// A clear word before anything starts, if another program has one of the fixed addresses.
fn check_addresses() -> Result<()> {
    let inside = WORKLOADS.iter().flat_map(|workload| [(workload.ip, APP_PORT), (workload.ip, SERVICE_PORT)]);
    for (ip, port) in inside.chain([(GATEWAY.ip, GATEWAY_PORT), (FRONT_PAGE_OUTBOUND, SERVICE_PORT)]) {
        let address = SocketAddr::new(IpAddr::V4(ip), port);
        TcpListener::bind(address).with_context(|| {
            format!("the demo needs {address}; is another demo, or something on 0.0.0.0:{port}, running?")
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use navarch_testkit::workspace;

    #[test]
    fn the_examples_name_the_same_addresses() {
        let read = |file: &str| {
            let file = workspace::root().join("examples/bookinfo").join(file);
            std::fs::read_to_string(file).unwrap()
        };
        let (entries, sidecars) = (read("workloads.yaml"), read("sidecars.yaml"));
        for Workload { name, app, version, ip } in &WORKLOADS {
            let entry = format!(
                "  name: {name}\n  namespace: {NAMESPACE}\nspec:\n  address: {ip}\n  labels:\n    \
                 app: {app}\n    version: {version}\n    instance: {name}\n"
            );
            assert!(entries.contains(&entry), "no {entry} in\n{entries}");
            assert!(sidecars.contains(&format!("      bind: {ip}\n")), "{name}");
        }
        assert!(read("gateway.yaml").contains(&format!("bind: {}\n", GATEWAY.ip)));
        assert!(sidecars.contains(&format!("bind: {FRONT_PAGE_OUTBOUND}\n")));
    }
}
