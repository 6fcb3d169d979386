//! What contributions depend on of the proxy.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use navarch_model::mesh::MeshConfig;
use navarch_model::proxy::{InterceptionMode, IpMode, ProxyFacts};
use navarch_model::{Hashed, Name};
use navarch_snapshot::{Bucket, ClientLabels, bucket_of};
use navarch_translate::routes::domains;

use crate::class::Class;

/// What contributions depend on of the proxy and the mesh. Proxies with equal views share them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProxyView {
    pub common: Arc<Hashed<CommonView>>,
    /// Labels of the proxy, as far as they are known.
    pub labels: ClientLabels,
    /// The proxy's own address, for the buckets of the headless services that it backs.
    pub own_addresses: BTreeMap<Bucket, IpAddr>,
}

/// What the contributions of one bucket depend on of the proxy besides what all do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct BucketView {
    /// Those labels that are known.
    pub labels: ClientLabels,
    /// The proxy's own address, if it backs a headless service of the bucket: a workload does not dial
    /// itself.
    pub own_address: Option<IpAddr>,
}

/// The part of the view that is the same for all buckets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CommonView {
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
            dns_domain: facts.dns_domain.clone(),
            ip_mode: facts.ip_mode(),
            intercepted: facts.interception != InterceptionMode::None,
            unprivileged: facts.unprivileged,
            dns_capture: facts.dns_capture.is_some(),
            own_ports: own_ports(facts, Some(mesh)),
            stat_name: Name::from(mesh.outbound_cluster_stat_name.as_str()),
        }
    }
}

impl ProxyView {
    /// The view of a class of whose labels nothing is known.
    pub fn of(class: &Class, mesh: &MeshConfig) -> Self {
        let headless = class.instances.iter().filter(|instance| instance.service.headless);
        let own_addresses = class.own_addresses.first().into_iter().flat_map(|address| {
            headless.clone().map(|backed| (bucket_of(&backed.service.hostname), *address))
        });
        ProxyView {
            common: Arc::new(Hashed::new(CommonView::of(&class.facts, mesh))),
            labels: ClientLabels::default(),
            own_addresses: own_addresses.collect(),
        }
    }

    /// The same with these known labels.
    pub fn with(&self, labels: &ClientLabels) -> Self {
        ProxyView { labels: labels.clone(), ..self.clone() }
    }

    /// The view of a client elsewhere than in a namespace, of whose labels nothing is known; `None` if the
    /// client's domain is not that of its namespace.
    pub fn elsewhere(&self, namespace: &str) -> Option<Self> {
        let dns_domain = domains::elsewhere(&self.common.dns_domain, namespace)?;
        let common = CommonView { dns_domain, ..(**self.common).clone() };
        Some(ProxyView {
            common: Arc::new(Hashed::new(common)),
            labels: ClientLabels::default(),
            own_addresses: BTreeMap::new(),
        })
    }

    /// The view for one bucket, to which these labels are known.
    pub fn bucket(&self, bucket: Bucket, labels: &ClientLabels) -> BucketView {
        BucketView { labels: labels.clone(), own_address: self.own_addresses.get(&bucket).copied() }
    }
}

/// Ports that the proxy itself listens on at every address: those of its bootstrap, and those of the virtual
/// listeners if a mesh is given.
pub fn own_ports(facts: &ProxyFacts, mesh: Option<&MeshConfig>) -> Vec<u16> {
    let virtual_listeners = mesh
        .into_iter()
        .flat_map(|mesh| [mesh.proxy_listen_port, mesh.proxy_inbound_listen_port])
        .filter_map(|port| u16::try_from(port).ok());
    let mut ports: Vec<u16> =
        facts.bootstrap_ports.iter().copied().chain(virtual_listeners).filter(|port| *port != 0).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}
