//! Settings of the proxy: what flags say counts, then the ProxyConfig, then the agent's own defaults.
//!
//! A ProxyConfig is stated in five places, each over the one before, as in Istio: the mesh, its namespaces,
//! the environment of the workload, its annotations, and the object of the kind ProxyConfig that selects it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use navarch_model::mesh::{ClusterName, ProxyConfig, StatedProxyConfig, TracingServiceName, read_stated};
use serde_json::{Value, json};

use crate::node::Node;
use crate::options::{Local, Options, Place};
use crate::provision::Provision;
use crate::workload::Workload;

/// Where the agent says what its metadata would otherwise be.
const META: &str = "ISTIO_META_";
const METAJSON: &str = "ISTIO_METAJSON_";
const MINIMUM_DRAIN: &str = "MINIMUM_DRAIN_DURATION";

/// What holds unless somebody says something else.
const CONCURRENCY: u32 = 2;
const DRAIN: Duration = Duration::from_secs(5);
const DRAIN_LEAST: Duration = Duration::from_secs(1);
const DRAIN_HANDOVER: Duration = Duration::from_secs(45);
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// A proxy, as all places together describe it.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    pub node: Node,
    pub config: ProxyConfig,
    /// What is merged into its bootstrap, encoded.
    pub patch: Vec<u8>,
}

/// Puts together what the control plane and the workload itself say of a proxy.
#[must_use]
pub fn described(node: &Node, local: &Local, provision: Provision) -> Described {
    let Provision { mesh, namespace, workload, patch } = provision;
    let is_own = !(namespace.is_empty() && local.config.is_empty() && workload.is_empty());
    let mut stated = mesh;
    for layer in [&namespace, &local.config, &workload] {
        stated.put_all(layer);
    }
    let (config, findings) = read_stated(&stated);
    for finding in findings {
        tracing::warn!(field = finding.path, "ProxyConfig: {}", finding.message);
    }
    for (field, why) in UNUSED.iter().filter(|(field, _)| stated.states(field)) {
        tracing::warn!(field, "ProxyConfig: the field has no effect: {why}");
    }
    let mut node = node.clone();
    complete(&mut node, &config, &stated, &local.metadata);
    if is_own {
        // What the mesh says the control plane knows, and changes while proxies run.
        node.metadata.insert("PROXY_CONFIG".to_owned(), stated.to_json().to_serde());
    }
    Described { node, config, patch }
}

/// What holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub node: Node,
    pub config: ProxyConfig,
    /// What is merged into the bootstrap, encoded.
    pub patch: Vec<u8>,
    /// Threads; those of the machine if absent.
    pub concurrency: Option<u32>,
    pub drain: Duration,
    pub drain_least: Duration,
    pub drain_handover: Duration,
    pub admin: Place,
    pub status: Place,
    pub flush_interval: Duration,
    /// `--file-flush-min-size-kb`, unless it is 0.
    pub flush_kilobytes: u32,
    /// Whether COMMAND is started only when Envoy is ready.
    pub holds_command: bool,
    /// Variables for Envoy and COMMAND.
    pub environment: BTreeMap<String, String>,
}

impl Settings {
    /// What holds for an agent with these options.
    #[must_use]
    pub fn new(options: &Options, provision: Provision) -> Self {
        let Described { mut node, config, patch } = described(&options.node, &options.local, provision);
        Workload::tell(&mut node);
        let flags = options.flags;
        let least =
            || navarch_model::duration::parse_duration(config.proxy_metadata.get(MINIMUM_DRAIN)?).ok();
        let threads = || config.concurrency.and_then(|threads| u32::try_from(threads).ok());
        Settings {
            concurrency: Some(flags.concurrency.or_else(threads).unwrap_or(CONCURRENCY)).filter(|n| *n > 0),
            drain: flags.drain.or(config.termination_drain_duration).unwrap_or(DRAIN),
            drain_least: flags.drain_least.or_else(least).unwrap_or(DRAIN_LEAST),
            drain_handover: flags.drain_handover.or(config.drain_duration).unwrap_or(DRAIN_HANDOVER),
            admin: at_port(options.envoy.admin, config.proxy_admin_port),
            status: at_port(options.status.place, config.status_port),
            flush_interval: config.file_flush_interval.unwrap_or(FLUSH_INTERVAL),
            flush_kilobytes: config.file_flush_min_size_kb,
            holds_command: config.hold_application_until_proxy_starts.unwrap_or(true),
            environment: environment(&config),
            node,
            config,
            patch,
        }
    }
}

/// The place that somebody asked for; otherwise that of the ProxyConfig, if it states a port.
fn at_port(place: Place, port: i32) -> Place {
    match u16::try_from(port) {
        Ok(port) if port > 0 && !place.is_stated => {
            Place { address: SocketAddr::new(place.address.ip(), port), is_stated: true }
        }
        _ => place,
    }
}

/// Adds to the node what the configuration says of it, where nobody has stated it.
fn complete(node: &mut Node, config: &ProxyConfig, stated: &StatedProxyConfig, known: &BTreeSet<String>) {
    let mut put = |key: &str, value: Value| {
        if !known.contains(key) {
            node.metadata.insert(key.to_owned(), value);
        }
    };
    for (name, value) in &config.proxy_metadata {
        if let Some(key) = name.strip_prefix(META) {
            put(key, json!(value));
        } else if let Some(key) = name.strip_prefix(METAJSON)
            && let Ok(value) = serde_json::from_str(value)
        {
            put(key, value);
        }
    }
    if stated.states("interceptionMode") {
        put("INTERCEPTION_MODE", json!(config.interception_mode.as_str()));
    }
    if !config.mesh_id.is_empty() {
        put("MESH_ID", json!(config.mesh_id));
    }
    let text = |of: &str, key: &str| {
        let value = node.metadata.get(of)?;
        let value = if key.is_empty() { value } else { value.get(key)? };
        value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let namespace = text("NAMESPACE", "").unwrap_or_default();
    let canonical = || {
        let labels = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
        labels.iter().find_map(|label| text("LABELS", label)).or_else(|| text("WORKLOAD_NAME", ""))
    };
    let cluster = match &config.cluster_name {
        None => None,
        Some(ClusterName::ServiceCluster(name)) => Some(name.clone()).filter(|name| !name.is_empty()),
        Some(ClusterName::TracingServiceName(how)) => match how {
            TracingServiceName::AppLabelAndNamespace => {
                let name = text("LABELS", "app").unwrap_or_else(|| "istio-proxy".to_owned());
                Some(format!("{name}.{namespace}"))
            }
            TracingServiceName::CanonicalNameOnly => canonical(),
            TracingServiceName::CanonicalNameAndNamespace => {
                canonical().map(|name| format!("{name}.{namespace}"))
            }
        },
    };
    if let Some(cluster) = cluster {
        node.cluster = cluster;
    }
}

/// Variables that the configuration states, without those that are the agent's own.
fn environment(config: &ProxyConfig) -> BTreeMap<String, String> {
    let is_own = |name: &str| [META, METAJSON].iter().any(|prefix| name.starts_with(prefix));
    let is_possible = |name: &str| !name.is_empty() && !name.contains(['=', '\0']);
    let all = config.proxy_metadata.iter();
    let wanted = all.filter(|(name, value)| !is_own(name) && is_possible(name) && !value.contains('\0'));
    wanted.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Fields that have no effect here, and why.
const UNUSED: [(&str, &str); 12] = [
    ("configPath", "the directory is --dir"),
    ("binaryPath", "Envoy is --envoy, or the one on the PATH"),
    ("customConfigFile", "use an EnvoyFilter with applyTo: BOOTSTRAP"),
    ("proxyBootstrapTemplatePath", "use an EnvoyFilter with applyTo: BOOTSTRAP"),
    ("discoveryRefreshDelay", "nothing is asked for periodically"),
    ("availabilityZone", "the place of the workload is --locality, or the label istio-locality"),
    ("controlPlaneAuthPolicy", "the control plane is talked to over TLS where --root is given"),
    ("statNameLength", "Envoy has no such limit any more"),
    ("sds", "certificates always come over SDS"),
    ("image", "the agent starts the Envoy that its machine has"),
    ("privateKeyProvider", "stock Envoy does not have it"),
    ("caCertificatesPem", "use caCertificates of the mesh"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn stated(text: &str) -> StatedProxyConfig {
        let mut config = StatedProxyConfig::default();
        config.put_text(text).expect("readable");
        config
    }

    #[test]
    fn each_place_goes_over_the_one_before() {
        let check = |layers: [&str; 4], expected: (Option<i32>, &str)| {
            let [mesh, namespace, local, workload] = layers.map(stated);
            let local = Local { config: local, ..Local::default() };
            let provision = Provision { mesh, namespace, workload, patch: Vec::new() };
            let Described { node, config, .. } = described(&Node::default(), &local, provision);
            let own = node.metadata.get("PROXY_CONFIG").map(Value::to_string).unwrap_or_default();
            assert_eq!((config.concurrency, own.as_str()), expected, "{layers:?}");
        };
        check(["", "", "", ""], (None, ""));
        // What the mesh says the control plane knows.
        check(["concurrency: 1", "", "", ""], (Some(1), ""));
        check(["concurrency: 1", "concurrency: 2", "", ""], (Some(2), r#"{"concurrency":2}"#));
        check(["concurrency: 1", "concurrency: 2", "concurrency: 3", ""], (Some(3), r#"{"concurrency":3}"#));
        check(["", "concurrency: 2", "concurrency: 3", "concurrency: 4"], (Some(4), r#"{"concurrency":4}"#));
    }

    #[test]
    fn metadata_follows_unless_it_is_stated() {
        let mesh = stated(
            "{meshId: m, tracingServiceName: CANONICAL_NAME_AND_NAMESPACE, interceptionMode: TPROXY, \
             proxyMetadata: {ISTIO_META_CLUSTER_ID: east, ISTIO_META_NETWORK: n, TIER: gold}}",
        );
        let mut node = Node::default();
        node.metadata.insert("NAMESPACE".to_owned(), json!("shop"));
        node.metadata.insert("NETWORK".to_owned(), json!("own"));
        node.metadata.insert("LABELS".to_owned(), json!({ "app": "web" }));
        let local = Local { metadata: BTreeSet::from(["NETWORK".to_owned()]), ..Local::default() };
        let Described { node, config, .. } =
            described(&node, &local, Provision { mesh, ..Provision::default() });
        let text = |key: &str| node.metadata[key].as_str().unwrap_or_default();
        assert_eq!(
            ["CLUSTER_ID", "NETWORK", "MESH_ID", "INTERCEPTION_MODE"].map(text),
            ["east", "own", "m", "TPROXY"]
        );
        assert_eq!(node.cluster, "web.shop");
        assert_eq!(environment(&config), BTreeMap::from([("TIER".to_owned(), "gold".to_owned())]));
    }
}
