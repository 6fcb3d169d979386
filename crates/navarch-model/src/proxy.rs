//! `ProxyFacts`: what a proxy says about itself when it connects.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::endpoint::Locality;
use crate::service::{Labels, Name};

/// Everything about a proxy that may shape its configuration, parsed once from its node.
///
/// Two proxies with equal facts get equal configuration; narrower views, cut from the facts, decide what is shared between
/// proxies that differ.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProxyFacts {
    pub kind: ProxyKind,
    /// `<pod>.<namespace>`, the third part of the node id.
    pub id: Name,
    /// Namespace that configuration is chosen for.
    pub namespace: Name,
    /// `<namespace>.svc.<suffix>`.
    pub dns_domain: Name,
    /// Addresses of the instance, primary first.
    pub addresses: Vec<IpAddr>,
    /// Labels as the node states them; the registry's labels of the same workload go over them.
    pub labels: Labels,
    pub locality: Locality,
    pub cluster_id: Name,
    pub network: Name,
    /// `REQUESTED_NETWORK_VIEW`: only endpoints of these networks; empty means all.
    pub network_view: Vec<Name>,
    pub service_account: Name,
    pub workload_name: Name,
    pub node_name: Name,
    pub interception: InterceptionMode,
    pub istio_version: IstioVersion,
    /// All metadata as strings or JSON text, for EnvoyFilter matches and for settings read rarely. Keys as in the node.
    pub metadata: BTreeMap<Name, Name>,
    /// `node.cluster`, for telemetry.
    pub service_cluster: Name,
}

impl ProxyFacts {
    /// A metadata value, or the empty string.
    pub fn metadata(&self, key: &str) -> &str {
        self.metadata.get(key).map_or("", |value| value)
    }

    /// A boolean metadata value: `"true"` and `"1"` are true.
    pub fn flag(&self, key: &str) -> bool {
        matches!(self.metadata(key), "true" | "1")
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

/// How traffic reaches a sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InterceptionMode {
    #[default]
    Redirect,
    Tproxy,
    /// Nothing is intercepted: listeners bind real ports.
    None,
}

/// Address families of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpMode {
    V4,
    V6,
    Dual,
}

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
    /// Reads what a proxy says about itself: `node.id`, `node.cluster`, `node.metadata` and `node.locality`.
    ///
    /// The rules are Istio's (`pkg/model` in its tree): the id has exactly four parts, the addresses come from the metadata
    /// `INSTANCE_IPS` if each of them is valid and from the id otherwise, the namespace comes from the metadata `NAMESPACE` or
    /// else from the first label of the DNS domain. Metadata values may be strings, booleans, numbers or JSON objects.
    pub fn parse(
        id: &str,
        cluster: &str,
        metadata: &serde_json::Map<String, serde_json::Value>,
        locality: Locality,
    ) -> Result<Self, NodeError> {
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
        let metadata: BTreeMap<Name, Name> =
            metadata.iter().map(|(key, value)| (Name::from(key.as_str()), metadata_text(value))).collect();
        let text = |key: &str| metadata.get(key).cloned().unwrap_or_else(|| Name::from(""));

        let addresses = instance_addresses(&text("INSTANCE_IPS"))
            .or_else(|| address.parse().ok().map(|address| vec![address]))
            .ok_or_else(|| NodeError::Address(id.to_owned()))?;
        let namespace = match metadata.get("NAMESPACE") {
            Some(namespace) if !namespace.is_empty() => namespace.clone(),
            _ => match dns_domain.split_once('.') {
                Some((first, _)) => Name::from(first),
                None => Name::from(""),
            },
        };
        let interception = match &*text("INTERCEPTION_MODE") {
            "TPROXY" => InterceptionMode::Tproxy,
            "NONE" => InterceptionMode::None,
            _ => InterceptionMode::Redirect,
        };
        let network_view = text("REQUESTED_NETWORK_VIEW")
            .split(',')
            .map(str::trim)
            .filter(|network| !network.is_empty())
            .map(Name::from)
            .collect();

        Ok(ProxyFacts {
            kind,
            id: Name::from(name),
            namespace,
            dns_domain: Name::from(dns_domain),
            addresses,
            labels: metadata_labels(&text("LABELS")),
            locality,
            cluster_id: text("CLUSTER_ID"),
            network: text("NETWORK"),
            network_view,
            service_account: text("SERVICE_ACCOUNT"),
            workload_name: text("WORKLOAD_NAME"),
            node_name: text("NODE_NAME"),
            interception,
            istio_version: IstioVersion::parse(&text("ISTIO_VERSION")),
            service_cluster: Name::from(cluster),
            metadata,
        })
    }

    /// Labels that hold whatever the registry says (`STATIC_LABELS`).
    pub fn static_labels(&self) -> Labels {
        metadata_labels(self.metadata("STATIC_LABELS"))
    }

    /// Name and namespace of the pod, if the id has that form and agrees with the namespace.
    pub fn pod(&self) -> Option<(&str, &str)> {
        self.id.split_once('.').filter(|(_, namespace)| *namespace == &*self.namespace)
    }
}

/// A metadata value as text: strings as they are, everything else as JSON.
fn metadata_text(value: &serde_json::Value) -> Name {
    match value {
        serde_json::Value::String(text) => Name::from(text.as_str()),
        serde_json::Value::Null => Name::from(""),
        other => Name::from(other.to_string()),
    }
}

/// The addresses of `INSTANCE_IPS`, or nothing if one of them is invalid.
fn instance_addresses(text: &str) -> Option<Vec<IpAddr>> {
    text.split(',').map(|address| address.trim().parse().ok()).collect()
}

/// Labels out of the JSON text of a metadata object; what is no object has no labels.
fn metadata_labels(text: &str) -> Labels {
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text) {
        Ok(labels) => {
            labels.iter().map(|(key, value)| (Name::from(key.as_str()), metadata_text(value))).collect()
        }
        Err(_) => Labels::default(),
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
        assert_eq!(facts.static_labels().get("zone").map(|l| &**l), Some("a"));
        assert!(facts.flag("DNS_CAPTURE") && facts.flag("HTTP10") && !facts.flag("MISSING"));
        assert_eq!(facts.metadata("ENVOY_STATUS_PORT"), "15021");
        assert_eq!(facts.network_view.len(), 2);
        assert_eq!(facts.metadata("UNSET"), "");
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
