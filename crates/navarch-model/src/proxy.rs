//! `ProxyFacts`: what a proxy says about itself when it connects.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::endpoint::Locality;
use crate::service::Name;

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
    pub labels: BTreeMap<Name, Name>,
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
