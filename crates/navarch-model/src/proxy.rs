//! `ProxyFacts`: what a proxy says about itself when it connects.

mod metadata;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use self::metadata::Metadata;
pub use self::metadata::{CertificateFiles, InterceptionMode, MetadataProblem, PodPort};
use crate::Hashed;
use crate::endpoint::Locality;
use crate::mesh::{MeshConfig, ProxyConfig};
use crate::service::{Labels, Name};

/// Everything about a proxy that may shape its configuration, parsed once from its node.
///
/// Two proxies with equal facts get equal configuration; narrower views, cut from the facts, decide what is
/// shared between proxies that differ. Names in capitals are keys of the node's metadata.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProxyFacts {
    pub kind: ProxyKind,
    /// `<pod>.<namespace>`, the third part of the node id.
    pub id: Name,
    /// Namespace that configuration is chosen for.
    pub namespace: Name,
    /// `NAMESPACE`, which may be empty; telemetry says this one.
    pub stated_namespace: Name,
    /// `<namespace>.svc.<suffix>`.
    pub dns_domain: Name,
    /// Addresses of the instance, primary first.
    pub addresses: Vec<IpAddr>,
    /// Labels as the node states them (`LABELS`); the registry's labels of the same workload go over them.
    pub labels: Labels,
    /// Labels that hold whatever the registry says (`STATIC_LABELS`).
    pub static_labels: Labels,
    /// Annotations of the pod (`ANNOTATIONS`).
    pub annotations: Labels,
    pub locality: Locality,
    pub cluster_id: Name,
    pub mesh_id: Name,
    pub network: Name,
    /// `REQUESTED_NETWORK_VIEW`: only endpoints of these networks; empty means all.
    pub network_view: Vec<Name>,
    pub service_account: Name,
    pub workload_name: Name,
    /// The WorkloadGroup that the workload registers itself in (`AUTO_REGISTER_GROUP`).
    pub group: Name,
    pub node_name: Name,
    pub interception: InterceptionMode,
    pub istio_version: IstioVersion,
    /// Ports of the containers (`POD_PORTS`).
    pub pod_ports: Vec<PodPort>,
    /// The configuration of the proxy itself (`PROXY_CONFIG`): see [`ProxyFacts::proxy_config`].
    pub own_proxy_config: Option<Arc<Hashed<ProxyConfig>>>,
    /// The port of the HTTP proxy (`HTTP_PROXY_PORT`), 0 for none: see [`ProxyFacts::http_proxy_port`].
    pub own_http_proxy_port: Option<u16>,
    /// Where the name server beside the proxy listens, if it takes the workload's questions (`DNS_CAPTURE`,
    /// `DNS_PROXY_ADDR`). Hosts without addresses have allocated ones then.
    pub dns_capture: Option<SocketAddr>,
    /// The proxy may not bind ports below 1024 (`UNPRIVILEGED_POD`).
    pub unprivileged: bool,
    /// Ports other than 0 that the bootstrap of the proxy listens on at every address (`ENVOY_STATUS_PORT`
    /// and others), sorted.
    pub bootstrap_ports: Vec<u16>,
    /// The idle timeout of connections (`IDLE_TIMEOUT`).
    pub idle_timeout: Option<Duration>,
    /// HTTP/1.0 is accepted (`HTTP10`).
    pub http_10: bool,
    /// `INBOUND_LISTENER_EXACT_BALANCE`
    pub exact_balance_inbound: bool,
    /// `OUTBOUND_LISTENER_EXACT_BALANCE`
    pub exact_balance_outbound: bool,
    /// Certificates that the workload shows to clients (`TLS_SERVER_*`).
    pub server_certificates: CertificateFiles,
    /// Certificates that the workload shows to servers (`TLS_CLIENT_*`).
    pub client_certificates: CertificateFiles,
    /// The file with the roots of the operating system where the proxy runs (`SYSTEM_ROOTS`).
    pub system_roots: Name,
    /// The agent beside the proxy fetches secrets of others (`credential`).
    pub external_secrets: bool,
    /// The agent beside the proxy makes Istio's standard metrics of what the proxy counts, and tells other
    /// proxies about its workload (`PEER_METADATA`).
    pub standard_metrics: bool,
    /// What the node states, for EnvoyFilters that select proxies by it.
    pub metadata: NodeMetadata,
    /// `node.cluster`, for telemetry.
    pub service_cluster: Name,
    /// The proxy takes virtual hosts as resources of their own. Not what the node states: the server says so
    /// of clients that can.
    pub split_routes: bool,
}

/// The metadata of a node as texts, for patterns that users write. Everything else has a field in
/// [`ProxyFacts`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeMetadata(BTreeMap<Name, Name>);

impl NodeMetadata {
    /// Whether a value is stated with exactly this text; other values than texts are compared as JSON.
    pub fn has(&self, key: &str, text: &str) -> bool {
        self.0.get(key).is_some_and(|value| **value == *text)
    }

    /// `ISTIO_VERSION` as it is stated, or the empty text.
    pub fn istio_version(&self) -> &str {
        self.0.get("ISTIO_VERSION").map_or("", |version| version)
    }

    /// Those values that have one of these keys.
    #[must_use]
    pub fn only(&self, keys: &BTreeSet<Name>) -> Self {
        let wanted = self.0.iter().filter(|(key, _)| keys.contains(*key));
        NodeMetadata(wanted.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

impl ProxyFacts {
    /// The configuration of the proxy: its own if it states any, as a whole, else the mesh's default.
    pub fn proxy_config<'a>(&'a self, mesh: &'a MeshConfig) -> Cow<'a, ProxyConfig> {
        let own = self.own_proxy_config.as_ref().map(|own| &***own);
        own.or(mesh.default_config.as_ref()).map(Cow::Borrowed).unwrap_or_default()
    }

    /// The port of the HTTP proxy that applications may be configured to use: the proxy's own, or that of the
    /// mesh.
    pub fn http_proxy_port(&self, mesh: &MeshConfig) -> Option<u16> {
        let of_mesh = || u16::try_from(mesh.proxy_http_port).ok();
        self.own_http_proxy_port.or_else(of_mesh).filter(|port| *port != 0)
    }

    /// Which address families the proxy has.
    pub fn ip_mode(&self) -> IpMode {
        let v4 = self.addresses.iter().any(IpAddr::is_ipv4);
        let v6 = self.addresses.iter().any(IpAddr::is_ipv6);
        match (v4, v6) {
            (true, true) => IpMode::Dual,
            (false, true) => IpMode::V6,
            _ => IpMode::V4,
        }
    }

    /// Domain suffix of the mesh: `cluster.local` in `default.svc.cluster.local`.
    pub fn domain_suffix(&self) -> &str {
        self.dns_domain.split_once(".svc.").map_or("cluster.local", |(_, suffix)| suffix)
    }
}

/// The first part of the node id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProxyKind {
    Sidecar,
    /// A gateway.
    Router,
    Waypoint,
    Ztunnel,
}

/// Address families of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpMode {
    V4,
    V6,
    Dual,
}

/// Where most systems have the roots that everybody trusts, and where they are looked for if a node does not
/// say.
pub const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The key of the metadata under which an agent says what it tells other workloads' proxies about its own:
/// the value of Istio's header `x-envoy-peer-metadata`.
pub const PEER_METADATA: &str = "PEER_METADATA";

/// The version of Istio that proxies state who get their bootstrap from navarch, as EnvoyFilters match by it:
/// the one whose configuration is spoken.
pub const COMPATIBLE_ISTIO_VERSION: &str = "1.32.0";

/// `ISTIO_VERSION`; what cannot be parsed counts as newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IstioVersion {
    pub major: u16,
    pub minor: u16,
    pub patch: u16,
}

impl IstioVersion {
    /// Treated as newer than any release.
    pub const MAX: IstioVersion = IstioVersion { major: u16::MAX, minor: u16::MAX, patch: u16::MAX };

    /// Parses `1.32.0`, `release-1.32`, `1.32-dev`: the first numbers count; a missing patch is the newest.
    pub fn parse(text: &str) -> Self {
        let text = text.strip_prefix("release-").unwrap_or(text);
        let mut numbers = text.splitn(3, '.').map(|part| {
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            part[..digits].parse::<u16>().ok()
        });
        match (numbers.next().flatten(), numbers.next().flatten()) {
            (Some(major), Some(minor)) if major > 0 => {
                IstioVersion { major, minor, patch: numbers.next().flatten().unwrap_or(u16::MAX) }
            }
            _ => IstioVersion::MAX,
        }
    }
}

/// Why a node cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    #[error(
        "node id {0:?} has not the form <type>~<address>~<pod>.<namespace>~<dns domain>; correct the id the proxy sends"
    )]
    Shape(String),
    #[error("node type {0:?} is not served; use sidecar, router, waypoint or ztunnel")]
    Kind(String),
    #[error("neither the node id {0:?} nor the metadata INSTANCE_IPS hold a valid IP address")]
    Address(String),
}

impl ProxyFacts {
    /// As [`ProxyFacts::read`], for those who do not care what is wrong with the metadata.
    ///
    /// # Errors
    /// If the node cannot be served.
    pub fn parse(
        id: &str,
        cluster: &str,
        metadata: &serde_json::Map<String, serde_json::Value>,
        locality: Locality,
    ) -> Result<Self, NodeError> {
        Self::read(id, cluster, metadata, locality).map(|(facts, _)| facts)
    }

    /// Reads what a proxy says about itself: `node.id`, `node.cluster`, `node.metadata` and `node.locality`.
    ///
    /// The rules are Istio's (`pkg/model` in its tree): the id has exactly four parts, the addresses come
    /// from the metadata `INSTANCE_IPS` if each of them is valid and from the id otherwise, the namespace
    /// comes from the metadata `NAMESPACE` or else from the first label of the DNS domain. Metadata that
    /// cannot be used does not keep a proxy from being served; it is returned beside the facts.
    ///
    /// # Errors
    /// If the node cannot be served.
    pub fn read(
        id: &str,
        cluster: &str,
        metadata: &serde_json::Map<String, serde_json::Value>,
        locality: Locality,
    ) -> Result<(Self, Vec<MetadataProblem>), NodeError> {
        let parts: Vec<&str> = id.split('~').collect();
        let [kind, address, name, dns_domain] = parts[..] else {
            return Err(NodeError::Shape(id.to_owned()));
        };
        let kind = match kind {
            "sidecar" => ProxyKind::Sidecar,
            "router" => ProxyKind::Router,
            "waypoint" => ProxyKind::Waypoint,
            "ztunnel" => ProxyKind::Ztunnel,
            other => return Err(NodeError::Kind(other.to_owned())),
        };
        let mut stated = Metadata::new(metadata);
        let addresses = stated
            .instance_addresses()
            .or_else(|| address.parse().ok().map(|address| vec![address]))
            .ok_or_else(|| NodeError::Address(id.to_owned()))?;
        let stated_namespace = stated.text("NAMESPACE");
        let namespace = if stated_namespace.is_empty() {
            dns_domain.split_once('.').map(|(first, _)| Name::from(first)).unwrap_or_default()
        } else {
            stated_namespace.clone()
        };
        let facts = ProxyFacts {
            kind,
            id: Name::from(name),
            namespace,
            stated_namespace,
            dns_domain: Name::from(dns_domain),
            addresses,
            labels: stated.texts("LABELS"),
            static_labels: stated.texts("STATIC_LABELS"),
            annotations: stated.texts("ANNOTATIONS"),
            locality,
            cluster_id: stated.text("CLUSTER_ID"),
            mesh_id: stated.text("MESH_ID"),
            network: stated.text("NETWORK"),
            network_view: stated.list("REQUESTED_NETWORK_VIEW"),
            service_account: stated.text("SERVICE_ACCOUNT"),
            workload_name: stated.text("WORKLOAD_NAME"),
            group: stated.text("AUTO_REGISTER_GROUP"),
            node_name: stated.text("NODE_NAME"),
            interception: stated.interception(),
            istio_version: IstioVersion::parse(&stated.text("ISTIO_VERSION")),
            pod_ports: stated.pod_ports(),
            own_proxy_config: stated.proxy_config(),
            own_http_proxy_port: stated.port("HTTP_PROXY_PORT"),
            dns_capture: stated.dns_capture(),
            unprivileged: stated.flag("UNPRIVILEGED_POD"),
            bootstrap_ports: stated.bootstrap_ports(),
            idle_timeout: stated.duration("IDLE_TIMEOUT"),
            http_10: stated.http_10(),
            exact_balance_inbound: stated.flag("INBOUND_LISTENER_EXACT_BALANCE"),
            exact_balance_outbound: stated.flag("OUTBOUND_LISTENER_EXACT_BALANCE"),
            server_certificates: stated.certificate_files("SERVER"),
            client_certificates: stated.certificate_files("CLIENT"),
            system_roots: match stated.text("SYSTEM_ROOTS") {
                path if path.is_empty() => Name::from(SYSTEM_ROOTS),
                path => path,
            },
            external_secrets: &*stated.text("credential") == "true",
            standard_metrics: !stated.text(PEER_METADATA).is_empty(),
            service_cluster: Name::from(cluster),
            split_routes: false,
            metadata: NodeMetadata(stated.values),
        };
        Ok((facts, stated.problems))
    }

    /// Name and namespace of the pod, if the id has that form and agrees with the namespace.
    pub fn pod(&self) -> Option<(&str, &str)> {
        self.id.split_once('.').filter(|(_, namespace)| *namespace == &*self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(id: &str, metadata: serde_json::Value) -> Result<ProxyFacts, NodeError> {
        let serde_json::Value::Object(metadata) = metadata else { panic!("metadata must be an object") };
        ProxyFacts::parse(id, "app.default", &metadata, Locality::default())
    }

    const ID: &str = "sidecar~10.0.0.1~app-1.default~default.svc.cluster.local";

    #[test]
    fn an_id_has_four_parts_and_a_known_type() {
        let check = |id: &str, expected: NodeError| assert_eq!(parse(id, json!({})), Err(expected));
        check("sidecar~10.0.0.1~app-1.default", NodeError::Shape("sidecar~10.0.0.1~app-1.default".into()));
        check("sidecar~10.0.0.1~a~b~c", NodeError::Shape("sidecar~10.0.0.1~a~b~c".into()));
        check("proxy~10.0.0.1~a.b~c", NodeError::Kind("proxy".into()));
        check("", NodeError::Shape(String::new()));
        check("router~~a.b~c", NodeError::Address("router~~a.b~c".into()));

        let facts = parse(ID, json!({})).unwrap();
        assert_eq!(facts.kind, ProxyKind::Sidecar);
        assert_eq!(&*facts.id, "app-1.default");
        assert_eq!(&*facts.dns_domain, "default.svc.cluster.local");
        assert_eq!(facts.domain_suffix(), "cluster.local");
        assert_eq!(facts.pod(), Some(("app-1", "default")));
        assert_eq!(facts.istio_version, IstioVersion::MAX);
    }

    #[test]
    fn addresses_come_from_the_metadata_if_all_are_valid() {
        let check = |metadata, expected: &[&str], mode| {
            let facts = parse(ID, metadata).unwrap();
            let addresses: Vec<String> = facts.addresses.iter().map(IpAddr::to_string).collect();
            assert_eq!(addresses, expected);
            assert_eq!(facts.ip_mode(), mode);
        };
        check(json!({}), &["10.0.0.1"], IpMode::V4);
        check(json!({"INSTANCE_IPS": ""}), &["10.0.0.1"], IpMode::V4);
        check(json!({"INSTANCE_IPS": "10.1.1.1,fd00::1"}), &["10.1.1.1", "fd00::1"], IpMode::Dual);
        check(json!({"INSTANCE_IPS": "fd00::1"}), &["fd00::1"], IpMode::V6);
        check(json!({"INSTANCE_IPS": "10.1.1.1,nonsense"}), &["10.0.0.1"], IpMode::V4);
    }

    #[test]
    fn metadata_values_may_have_any_json_type() {
        let facts = parse(
            ID,
            json!({
                "NAMESPACE": "shop", "ISTIO_VERSION": "1.32.0", "INTERCEPTION_MODE": "TPROXY", "CLUSTER_ID": "east",
                "LABELS": {"app": "cart", "tier": 1}, "STATIC_LABELS": {"zone": "a"}, "DNS_CAPTURE": true,
                "HTTP10": "1", "ENVOY_STATUS_PORT": 15021, "REQUESTED_NETWORK_VIEW": "a, b", "UNSET": null,
            }),
        )
        .unwrap();
        assert_eq!(&*facts.namespace, "shop");
        assert_eq!(facts.pod(), None, "the id names another namespace");
        assert_eq!(facts.istio_version, IstioVersion { major: 1, minor: 32, patch: 0 });
        assert_eq!(facts.interception, InterceptionMode::Tproxy);
        assert_eq!(facts.labels.get("app").map(|l| &**l), Some("cart"));
        assert_eq!(facts.labels.get("tier").map(|l| &**l), Some("1"));
        assert_eq!(facts.static_labels.get("zone").map(|l| &**l), Some("a"));
        assert_eq!(facts.dns_capture, Some("127.0.0.1:15053".parse().unwrap()));
        assert!(facts.http_10 && !facts.unprivileged);
        assert_eq!(facts.bootstrap_ports, [15021]);
        assert_eq!(facts.network_view.len(), 2);
        assert!(facts.metadata.has("ENVOY_STATUS_PORT", "15021") && facts.metadata.has("UNSET", ""));
        assert!(facts.metadata.has("DNS_CAPTURE", "true") && !facts.metadata.has("MISSING", ""));
    }

    /// What cannot be read counts as not stated, and is said once.
    #[test]
    fn metadata_that_cannot_be_used_is_said_and_counts_as_not_stated() {
        let check = |metadata: serde_json::Value, problems: &[&str]| {
            let serde_json::Value::Object(stated) = &metadata else { panic!("metadata must be an object") };
            let read = |stated| ProxyFacts::read(ID, "app.default", stated, Locality::default()).unwrap();
            let (mut facts, said) = read(stated);
            let said: Vec<String> = said.iter().map(MetadataProblem::to_string).collect();
            assert_eq!(said.len(), problems.len(), "{metadata}: {said:?}");
            for (said, expected) in said.iter().zip(problems) {
                assert!(said.contains(expected), "{said}");
            }
            if !problems.is_empty() {
                let (nothing, _) = read(&serde_json::Map::new());
                facts.metadata = nothing.metadata.clone();
                assert_eq!(facts, nothing, "{metadata}");
            }
        };
        check(
            json!({"HTTP_PROXY_PORT": "abc"}),
            &["HTTP_PROXY_PORT of the node: \"abc\" is not a port number"],
        );
        check(json!({"HTTP_PROXY_PORT": "65536"}), &["65536"]);
        check(json!({"HTTP_PROXY_PORT": -1}), &["-1"]);
        check(json!({"HTTP_PROXY_PORT": "15080"}), &[]);
        check(json!({"HTTP_PROXY_PORT": ""}), &[]);
        check(json!({"DNS_CAPTURE": "yes"}), &["DNS_CAPTURE of the node: \"yes\" is not true or false"]);
        check(json!({"DNS_PROXY_ADDR": "nowhere"}), &["DNS_PROXY_ADDR"]);
        check(json!({"UNPRIVILEGED_POD": "0", "HTTP10": "0"}), &[]);
        check(json!({"UNPRIVILEGED_POD": {}, "HTTP10": "yes"}), &["UNPRIVILEGED_POD", "HTTP10"]);
        check(json!({"INTERCEPTION_MODE": "IPTABLES"}), &["INTERCEPTION_MODE"]);
        check(json!({"INSTANCE_IPS": "10.1.1.1,nonsense"}), &["INSTANCE_IPS"]);
        check(
            json!({"LABELS": "app=web", "STATIC_LABELS": [], "ANNOTATIONS": 1}),
            &["LABELS", "STATIC", "ANNO"],
        );
        check(json!({"POD_PORTS": "80"}), &["POD_PORTS"]);
        check(json!({"POD_PORTS": "[{\"name\": \"http\"}]"}), &["containerPort"]);
        check(json!({"ENVOY_STATUS_PORT": "no", "ENVOY_PROMETHEUS_PORT": 0}), &["ENVOY_STATUS_PORT"]);
        check(json!({"IDLE_TIMEOUT": "soon"}), &["IDLE_TIMEOUT"]);
        check(json!({"PROXY_CONFIG": {"concurrency": 2}}), &[]);
        let long = "x".repeat(1000);
        let (_, said) = ProxyFacts::read(
            ID,
            "",
            json!({"HTTP_PROXY_PORT": long}).as_object().unwrap(),
            Locality::default(),
        )
        .unwrap();
        assert!(said[0].to_string().len() < 200, "a log line has a bound");
    }

    #[test]
    fn a_proxy_configuration_that_is_wrong_leaves_what_can_be_read() {
        let stated = json!({"PROXY_CONFIG": {"statusPort": 15021, "concurrency": "many"}});
        let (facts, said) =
            ProxyFacts::read(ID, "", stated.as_object().unwrap(), Locality::default()).unwrap();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].to_string().starts_with("metadata PROXY_CONFIG of the node: "), "{}", said[0]);
        let mesh = MeshConfig::default();
        assert_eq!(facts.proxy_config(&mesh).status_port, 15021);
    }

    #[test]
    fn the_port_of_the_http_proxy_is_the_nodes_or_the_meshs() {
        let check = |own: serde_json::Value, of_mesh: i32, expected: Option<u16>| {
            let facts = parse(ID, json!({ "HTTP_PROXY_PORT": own })).unwrap();
            let mesh = MeshConfig { proxy_http_port: of_mesh, ..MeshConfig::default() };
            assert_eq!(facts.http_proxy_port(&mesh), expected, "{of_mesh}");
        };
        check(json!("15081"), 15080, Some(15081));
        check(json!(15081), 0, Some(15081));
        check(json!("0"), 15080, None);
        check(json!(null), 15080, Some(15080));
        check(json!(""), 15080, Some(15080));
        check(json!("abc"), 15080, Some(15080));
        check(json!("70000"), 15080, Some(15080));
        check(json!("abc"), 0, None);
        check(json!(null), -1, None);
        check(json!(null), 70000, None);
    }

    #[test]
    fn versions_compare_and_unknown_ones_are_newest() {
        let check = |text: &str, expected: (u16, u16, u16)| {
            let version = IstioVersion::parse(text);
            assert_eq!((version.major, version.minor, version.patch), expected, "{text}");
        };
        check("1.32.0", (1, 32, 0));
        check("1.32-dev", (1, 32, u16::MAX));
        check("release-1.9.4", (1, 9, 4));
        check("", (u16::MAX, u16::MAX, u16::MAX));
        check("custom", (u16::MAX, u16::MAX, u16::MAX));
    }
}
