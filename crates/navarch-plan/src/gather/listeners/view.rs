//! What contributions depend on of the proxy.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use navarch_model::mesh::MeshConfig;
use navarch_model::proxy::{InterceptionMode, IpMode, ProxyFacts};
use navarch_model::{Hashed, Name};
use navarch_snapshot::{Bucket, bucket_of};

use crate::class::Class;

/// What the contributions of a bucket depend on of the proxy and the mesh. Proxies with equal views share them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProxyView {
    pub common: Arc<Hashed<CommonView>>,
    /// Those labels that routes or rules of the bucket look at.
    pub labels: BTreeMap<Name, Name>,
    /// The proxy's own address, if it backs a headless service of the bucket: a workload does not dial itself.
    pub own_address: Option<IpAddr>,
}

/// The part of the view that is the same for all buckets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CommonView {
    pub namespace: Name,
    pub dns_domain: Name,
    pub ip_mode: IpMode,
    pub intercepted: bool,
    /// The proxy may not bind ports below 1024.
    pub unprivileged: bool,
    /// The proxy resolves names itself, so hosts without addresses have allocated ones.
    pub dns_capture: bool,
    /// Ports of the proxy's own listeners.
    pub own_ports: Vec<u16>,
    /// Pattern of names of statistics; empty: Istio's own.
    pub stat_name: Name,
}

impl CommonView {
    /// Cuts the view out of what is known of a proxy.
    pub fn of(facts: &ProxyFacts, mesh: &MeshConfig) -> Self {
        CommonView {
            namespace: facts.namespace.clone(),
            dns_domain: facts.dns_domain.clone(),
            ip_mode: facts.ip_mode(),
            intercepted: facts.interception != InterceptionMode::None,
            unprivileged: facts.flag("UNPRIVILEGED_POD"),
            dns_capture: facts.flag("DNS_CAPTURE"),
            own_ports: own_ports(facts, Some(mesh)),
            stat_name: Name::from(mesh.outbound_cluster_stat_name.as_str()),
        }
    }
}

impl ProxyView {
    /// The view for one bucket, whose configuration looks at the labels `mentioned`.
    pub fn of(common: &Arc<Hashed<CommonView>>, class: &Class, mentioned: &[Name], bucket: Bucket) -> Self {
        let labels = class.labels();
        let named = mentioned.iter().filter_map(|key| Some((key.clone(), labels.get(key)?.clone())));
        let headless = |host: &str, headless: bool| headless && bucket_of(host) == bucket;
        let backs = class
            .instances
            .iter()
            .any(|instance| headless(&instance.service.hostname, instance.service.addresses.is_empty()));
        ProxyView {
            common: common.clone(),
            labels: named.collect(),
            own_address: class.own_addresses.first().copied().filter(|_| backs),
        }
    }
}

/// Ports that the proxy itself listens on at every address: those of its bootstrap, and those of the virtual listeners if a mesh
/// is given.
pub fn own_ports(facts: &ProxyFacts, mesh: Option<&MeshConfig>) -> Vec<u16> {
    const KEYS: [&str; 4] = [
        "ENVOY_STATUS_PORT",
        "ENVOY_PROMETHEUS_PORT",
        "ENVOY_SECURE_METRICS_PORT",
        "ENVOY_SECURE_MERGED_METRICS_PORT",
    ];
    let stated = KEYS.iter().filter_map(|key| facts.metadata(key).parse::<u16>().ok());
    let virtual_listeners = mesh
        .into_iter()
        .flat_map(|mesh| [mesh.proxy_listen_port, mesh.proxy_inbound_listen_port])
        .filter_map(|port| u16::try_from(port).ok());
    let mut ports: Vec<u16> = stated.chain(virtual_listeners).filter(|port| *port != 0).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}
