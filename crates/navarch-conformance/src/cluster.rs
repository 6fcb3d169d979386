//! The cluster that the suite finds: an API server, navarch, and a node.

use crate::{
    control::{self, World},
    names::{CLASS, NODE, SERVER},
    node::Node,
    objects::{items, text},
    programs::{self, Programs},
};
use anyhow::{Context, Result, ensure};
use http::Method;
use navarch_testkit::{
    kubernetes::ApiServer,
    navarch::{self, Server},
    network::Network,
    process::Process,
    wait, workspace,
};
use serde_json::{Value, json};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

/// Where the API server asks about pods that are new.
const WEBHOOK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15017);
const KUBELET_PORT: u16 = 10250;
const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";

/// Everything that runs; it ends when dropped.
#[derive(Debug)]
pub struct Cluster {
    node: Node,
    _kubelet: Process,
    _navarch: Server,
    api: ApiServer,
    /// What went wrong the last time, so that it is told once.
    told: Vec<String>,
}

impl Cluster {
    /// Starts all of it. `channel` is that of the definitions of the Gateway API.
    pub async fn start(network: Network, programs: Programs, channel: &str) -> Result<Cluster> {
        let api = ApiServer::start("conformance", &[]).await?;
        for definition in programs::definitions(channel)? {
            let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
            api.send(Method::POST, path, ("application/yaml", &definition)).await?;
        }
        wait::until("the definitions to be served", wait::STEP, || are_established(&api)).await?;
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system"}});
        api.apply("/api/v1/namespaces/istio-system", &namespace).await?;
        let configuration = inject_pods(&api).await?;
        let server = serve(&api, &configuration).await?;
        make_class(&api).await?;

        let dir = workspace::scratch("conformance-pods")?;
        make_node(&api).await?;
        let kubelet = start_kubelet(&api, &programs, &dir)?;
        let node = Node::new(network, programs, dir);
        Ok(Cluster { node, _kubelet: kubelet, _navarch: server, api, told: Vec::new() })
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.api.kubeconfig()
    }

    /// Once around: what controllers would write is written, and the node does what is to be done.
    pub async fn go_round(&mut self) -> Result<()> {
        let world = World::read(&self.api).await?;
        let mut problems = Vec::new();
        for change in control::due(&world) {
            // Others write too; what fails is due again.
            if let Err(problem) = change.write(&self.api).await {
                problems.push(format!("{problem:#}"));
            }
        }
        let of_node = self.node.follow(&self.api, &world.pods).await;
        problems.extend(of_node.iter().map(|problem| format!("{problem:#}")));
        for problem in problems.iter().filter(|problem| !self.told.contains(problem)) {
            eprintln!("    rig: {}", problem.trim());
        }
        self.told = problems;
        Ok(())
    }
}

async fn are_established(api: &ApiServer) -> Result<()> {
    let all = api.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions").await?;
    for definition in items(&all, "/items") {
        let mut conditions = items(definition, "/status/conditions").iter();
        let is_established =
            |condition: &Value| condition["type"] == "Established" && condition["status"] == "True";
        ensure!(conditions.any(is_established), "{} is not established", text(definition, "/metadata/name"));
    }
    Ok(())
}

/// Has the API server ask about pods, as an installation would, at an address in place of a Service. Gives
/// the name of the configuration.
async fn inject_pods(api: &ApiServer) -> Result<String> {
    let printed: Value =
        serde_json::from_str(&navarch::stdout(["install", "--image", "navarch:rig", "-o", "json"])?)?;
    let mut all = items(&printed, "/items").iter();
    let mut found =
        all.find(|object| object["kind"] == "MutatingWebhookConfiguration").context("no webhooks")?.clone();
    let name = text(&found, "/metadata/name").to_owned();
    for hook in found["webhooks"].as_array_mut().into_iter().flatten() {
        let url = format!("https://{WEBHOOK}{}", text(hook, "/clientConfig/service/path"));
        hook["clientConfig"] = json!({"url": url});
    }
    api.apply(&format!("{ADMISSION}/{name}"), &found).await?;
    Ok(name)
}

/// `navarch serve`, where pods and the API server find it.
async fn serve(api: &ApiServer, configuration: &str) -> Result<Server> {
    let dir = workspace::scratch("conformance-navarch")?;
    std::fs::create_dir_all(dir.join("config"))?;
    let settings = dir.join("inject.json");
    let stated = json!({
        "image": "navarch:rig",
        "server": format!("{SERVER}:15012"),
        // There is no other server of names.
        "proxyConfig": {"proxyMetadata": {"ISTIO_META_DNS_CAPTURE": "true"}},
    });
    std::fs::write(&settings, stated.to_string())?;
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let secure = SocketAddr::from((Network::HUB, 15012)).to_string();
    let configuration = format!("mutating/{configuration}");
    let path = |path: &Path| path.display().to_string();
    let args = [
        ["--kubeconfig", &path(&api.kubeconfig())],
        ["--state", &path(&dir.join("state"))],
        ["--secure-addr", &secure],
        ["--tls-name", SERVER],
        ["--webhook-addr", &WEBHOOK.to_string()],
        ["--webhook-configuration", &configuration],
        ["--inject-settings", &path(&settings)],
    ];
    let args =
        [["--kubernetes", "--ca-secret", "--deploy-gateways"].as_slice(), args.as_flattened()].concat();
    Server::start_on("conformance-serve", &dir.join("config"), local(15010), local(15014), &args).await
}

async fn make_class(api: &ApiServer) -> Result<()> {
    let class = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": {"name": CLASS},
        "spec": {"controllerName": "navarch/gateway-controller"},
    });
    api.apply(&format!("/apis/gateway.networking.k8s.io/v1/gatewayclasses/{CLASS}"), &class).await?;
    Ok(())
}

async fn make_node(api: &ApiServer) -> Result<()> {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}});
    api.apply(&format!("/api/v1/nodes/{NODE}"), &node).await?;
    let address = json!({"type": "InternalIP", "address": Ipv4Addr::from(Network::HUB)});
    let status = json!({
        "addresses": [address],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": KUBELET_PORT}},
        "conditions": [{"type": "Ready", "status": "True"}],
    });
    let body = json!({"status": status}).to_string();
    let path = format!("/api/v1/nodes/{NODE}/status");
    api.send(Method::PATCH, &path, ("application/merge-patch+json", &body)).await?;
    Ok(())
}

fn start_kubelet(api: &ApiServer, programs: &Programs, dir: &Path) -> Result<Process> {
    let address = SocketAddr::from((Network::HUB, KUBELET_PORT)).to_string();
    let [certificate, key] = api.certificate();
    let mut command = Command::new(programs.kubelet());
    command.args(["-address", &address, "-dir"]).arg(dir).arg("-cert").arg(certificate).arg("-key").arg(key);
    command.env("PATH", programs.path());
    Process::start("kubelet", &mut command, &dir.join("kubelet.log"))
}
