//! Which gateways a workload serves.

use std::sync::Arc;

use navarch_model::listener::{GatewayProxies, ListenerSet};
use navarch_model::networking::{ServerTlsMode, ServerTlsSettings};
use navarch_model::{Hashed, Labels, Name};
use navarch_snapshot::bound::{Instance, selects};

use super::merge::{MergedGateways, SelectedGateway, ServicePortOfGateway, merge};
use crate::class::Class;
use crate::engine::{Cx, Gather};
use crate::gather::shared::upstream::FurtherClusters;

/// Label of a Service whose ports gateways do not mean.
const NO_TRANSLATION_LABEL: &str = "experimental.istio.io/disable-gateway-port-translation";
/// ProxyConfig `proxyMetadata` that asks for HTTP/3 beside HTTPS.
const HTTP3_SETTING: &str = "PILOT_ENABLE_QUIC_LISTENERS";

/// The merged listeners of all gateways that a class serves; nothing if there are none.
pub struct GatewaysOf;

impl Gather for GatewaysOf {
    const NAME: &'static str = "gateways.merged";
    type Key = Arc<Hashed<Class>>;
    type Output = Option<Arc<Hashed<MergedGateways>>>;

    fn run(class: &Self::Key, cx: &Cx<'_>) -> Self::Output {
        let all = Arc::new(class.instances.iter().map(service_port).collect::<Vec<_>>());
        let selected = cx.view().gateways().filter_map(|set| select(class, set, &all)).collect();
        let selected = without_strangers(selected);
        if selected.is_empty() {
            return None;
        }
        let proxy = class.facts.proxy_config(&cx.view().mesh().config);
        let http3 = proxy.proxy_metadata.get(HTTP3_SETTING).is_some_and(|value| value == "true");
        Some(Arc::new(Hashed::new(merge(&selected, http3))))
    }
}

fn service_port(instance: &Instance) -> ServicePortOfGateway {
    ServicePortOfGateway {
        port: instance.port,
        target_port: instance.target_port,
        protocol: instance.protocol,
        translation_disabled: instance.service.labels.contains_key(NO_TRANSLATION_LABEL),
    }
}

/// Whether a workload serves a gateway: it has the labels, or is behind one of the Services.
fn select(
    class: &Class,
    set: &Arc<Hashed<ListenerSet>>,
    all: &Arc<Vec<ServicePortOfGateway>>,
) -> Option<SelectedGateway> {
    match &set.proxies {
        GatewayProxies::Labelled(labels) => selects(labels, class.labels()).then(|| SelectedGateway {
            set: set.clone(),
            by_service: false,
            ports: all.clone(),
        }),
        GatewayProxies::Behind { namespace, services } => {
            let named = |instance: &&Instance| {
                let service = &instance.service;
                service.namespace == *namespace && services.contains(&service.hostname)
            };
            let ports: Vec<_> = class.instances.iter().filter(named).map(service_port).collect();
            (!ports.is_empty()).then(|| SelectedGateway {
                set: set.clone(),
                by_service: true,
                ports: Arc::new(ports),
            })
        }
    }
}

/// Proxies that were made for a gateway take no listeners of strangers.
fn without_strangers(mut selected: Vec<SelectedGateway>) -> Vec<SelectedGateway> {
    let owner = |gateway: &SelectedGateway| gateway.set.key().namespace.clone();
    let owners: Vec<Name> = selected.iter().filter(|gateway| gateway.set.provisioned).map(owner).collect();
    if !owners.is_empty() {
        selected.retain(|gateway| gateway.set.admitted || owners.contains(&gateway.set.key().namespace));
    }
    selected
}

/// The clusters that a gateway has besides those for calls to services.
pub fn further_clusters(cx: &Cx<'_>, class: &Arc<Hashed<Class>>) -> FurtherClusters {
    FurtherClusters {
        mesh_tls: *cx.gather::<ForwardsMeshTls>(&class.facts.labels),
        datagrams: *cx.gather::<ForwardsDatagrams>(class),
    }
}

/// The credential that a gateway presents to backends.
pub struct BackendCertificate;

impl Gather for BackendCertificate {
    const NAME: &'static str = "gateways.backend_certificate";
    type Key = Arc<Hashed<Class>>;
    type Output = Option<Name>;

    fn run(class: &Self::Key, cx: &Cx<'_>) -> Option<Name> {
        let gateways = cx.gather::<GatewaysOf>(class);
        gateways.as_ref().as_ref().and_then(|gateways| gateways.backend_certificate.clone())
    }
}

/// Whether a gateway passes on datagrams: some listener is for UDP.
struct ForwardsDatagrams;

impl Gather for ForwardsDatagrams {
    const NAME: &'static str = "gateways.datagrams";
    type Key = Arc<Hashed<Class>>;
    type Output = bool;

    fn run(class: &Self::Key, cx: &Cx<'_>) -> bool {
        let gateways = cx.gather::<GatewaysOf>(class);
        gateways.iter().flat_map(|gateways| &gateways.ports).any(|port| port.port.is_udp())
    }
}

/// Whether a gateway forwards mesh TLS by server name: some listener for it is of mode `AUTO_PASSTHROUGH`.
struct ForwardsMeshTls;

impl Gather for ForwardsMeshTls {
    const NAME: &'static str = "gateways.auto_passthrough";
    /// Labels of the gateway.
    type Key = Labels;
    type Output = bool;

    fn run(labels: &Self::Key, cx: &Cx<'_>) -> bool {
        let gateways: Vec<_> = cx.view().gateways().collect();
        gateways.into_iter().any(|gateway| {
            let selected = match &gateway.proxies {
                GatewayProxies::Labelled(selector) => selects(selector, labels),
                GatewayProxies::Behind { .. } => true,
            };
            let passes_on = |tls: &ServerTlsSettings| tls.mode == ServerTlsMode::AutoPassthrough;
            selected && gateway.listeners.iter().any(|listener| listener.tls.as_ref().is_some_and(passes_on))
        })
    }
}
