//! Naming a proxy on the command line.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use navarch_agent::node::{Locality, Node};
use navarch_agent::options::Local;
use navarch_agent::provision::Provision;
use navarch_agent::settings::{self, Described};
use navarch_agent_cli::values::{metadata_value, pair};
use navarch_model::values::Json;
use navarch_server::load::Loaded;
use serde_json::{Map, Value, json};

/// Who the proxy is
#[derive(Args, Clone, Debug)]
pub struct ProxyArgs {
    /// The whole node id: type~ip~name.namespace~namespace.svc.suffix
    #[arg(long, conflicts_with_all = ["proxy_type", "ip", "name", "namespace"])]
    node_id: Option<String>,
    /// A YAML or JSON file with the node: id, cluster, metadata, locality
    #[arg(long, value_name = "FILE", conflicts_with_all = ["node_id", "proxy_type", "ip", "name"])]
    proxy_file: Option<PathBuf>,
    /// Kind of proxy: sidecar, or router for a gateway
    #[arg(long = "type", id = "proxy_type", default_value = "sidecar", value_parser = ["sidecar", "router"])]
    proxy_type: String,
    /// Address of the workload
    #[arg(long, default_value = "127.0.0.1")]
    ip: std::net::IpAddr,
    /// Name of the workload instance (the pod)
    #[arg(long, default_value = "proxy")]
    name: String,
    /// Namespace of the workload
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Domain suffix of the mesh
    #[arg(long, default_value = "cluster.local")]
    domain: String,
    /// A label of the workload; may be given several times
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Metadata of the node, such as INTERCEPTION_MODE=NONE; a value that is a JSON object or list is taken
    /// as such
    #[arg(short, long = "metadata", value_name = "KEY=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// Name that the proxy reports as its cluster; <name>.<namespace> if not given
    #[arg(long)]
    service_cluster: Option<String>,
    /// Where the proxy runs: region/zone/sub-zone
    #[arg(long)]
    locality: Option<String>,
}

impl ProxyArgs {
    /// The node that is described.
    pub fn node(&self) -> Result<Node> {
        let mut node = match (&self.proxy_file, &self.node_id) {
            (Some(file), _) => read(file)?,
            (None, Some(id)) => self.with_id(id)?,
            (None, None) => {
                let (kind, ip, name, ns) = (&self.proxy_type, self.ip, &self.name, &self.namespace);
                self.with_id(&format!("{kind}~{ip}~{name}.{ns}~{ns}.svc.{}", self.domain))?
            }
        };
        for (key, value) in &self.metadata {
            node.metadata.insert(key.clone(), metadata_value(value));
        }
        if !self.labels.is_empty() {
            let labels = node.metadata.entry("LABELS").or_insert_with(|| json!({}));
            let Value::Object(labels) = labels else { bail!("the metadata LABELS is not an object") };
            labels.extend(self.labels.iter().map(|(key, value)| (key.clone(), json!(value))));
        }
        if let Some(locality) = &self.locality {
            node.locality = Some(Locality::parse(locality));
        }
        Ok(node)
    }

    fn with_id(&self, id: &str) -> Result<Node> {
        let parts: Vec<&str> = id.split('~').collect();
        let [_, ip, instance, domain] = parts.as_slice() else {
            bail!("the node id {id} does not have four parts: type~ip~name.namespace~namespace.svc.suffix");
        };
        let namespace = domain.split('.').next().unwrap_or("default");
        let mut metadata = Map::new();
        metadata.insert("NAMESPACE".to_owned(), json!(namespace));
        metadata.insert("INSTANCE_IPS".to_owned(), json!(ip));
        metadata.insert("CLUSTER_ID".to_owned(), json!("Kubernetes"));
        let cluster = self.service_cluster.clone().unwrap_or_else(|| (*instance).to_owned());
        Ok(Node { id: id.to_owned(), cluster, metadata, locality: None })
    }
}

/// What a configuration says of the bootstrap of a proxy.
pub fn described(loaded: &Loaded, node: &Node) -> Result<Described> {
    let place = node.locality.as_ref().map(|place| (&*place.region, &*place.zone, &*place.sub_zone));
    let bootstrap = loaded.bootstrap(&node.id, &node.cluster, &node.metadata, place)?;
    Ok(settings::described(node, &Local::default(), Provision::of(&bootstrap)))
}

fn read(file: &std::path::Path) -> Result<Node> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let value = match Json::parse(&text) {
        Ok(value) => value.to_serde(),
        Err(error) => bail!("{}:{error}", file.display()),
    };
    let value = value.get("node").cloned().unwrap_or(value);
    serde_json::from_value(value)
        .with_context(|| format!("{} does not hold a node (id, cluster, metadata, locality)", file.display()))
}
