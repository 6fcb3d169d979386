//! Gateways: which of them apply to a workload, and the listeners they make.

mod listeners;

pub use listeners::listeners;

use std::sync::Arc;

use navarch_model::networking::Gateway;
use navarch_model::{Config, Hashed, Name};
use navarch_snapshot::bound::{Instance, selects};
use navarch_translate::gateway::merge::{SelectedGateway, ServicePortOfGateway};
use navarch_translate::gateway::{MergedGateways, merge};

use crate::class::Class;
use crate::engine::{Cx, Gather};

/// Services by which a Gateway made from the Gateway API is served, instead of a selector.
const SERVICES_ANNOTATION: &str = "internal.istio.io/gateway-service";
/// Namespace of the Gateway API object.
const PARENT_NAMESPACE_ANNOTATION: &str = "internal.istio.io/parent-namespace";
/// Which API a Gateway stems from, and the service account of the proxies that are made for it.
const SEMANTICS_ANNOTATION: &str = "internal.istio.io/gateway-semantics";
const SERVICE_ACCOUNT_ANNOTATION: &str = "internal.istio.io/service-account-name";
/// Label of a Service whose ports Gateways do not mean.
const NO_TRANSLATION_LABEL: &str = "experimental.istio.io/disable-gateway-port-translation";
/// ProxyConfig `proxyMetadata` that asks for HTTP/3 beside HTTPS.
const HTTP3_SETTING: &str = "PILOT_ENABLE_QUIC_LISTENERS";

/// The merged servers of all Gateways that apply to a class; nothing if none do.
pub(crate) struct GatewaysOf;

impl Gather for GatewaysOf {
    const NAME: &'static str = "merged_gateways";
    type Key = Arc<Hashed<Class>>;
    type Output = Option<Arc<Hashed<MergedGateways>>>;

    fn run(class: &Self::Key, cx: &Cx<'_>) -> Self::Output {
        let all = Arc::new(class.instances.iter().map(service_port).collect::<Vec<_>>());
        let configs = cx.view().all_objects::<Gateway>();
        let selected = configs.iter().filter_map(|config| select(class, config, &all)).collect();
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

/// Whether a Gateway applies: it selects the workload's labels (without a selector every gateway), or names a Service that the
/// workload backs.
fn select(
    class: &Class,
    config: &Arc<Hashed<Config<Gateway>>>,
    all: &Arc<Vec<ServicePortOfGateway>>,
) -> Option<SelectedGateway> {
    let Some(services) = config.annotations.get(SERVICES_ANNOTATION) else {
        return selects(&config.spec.selector, class.labels()).then(|| SelectedGateway {
            config: config.clone(),
            by_service: false,
            ports: all.clone(),
        });
    };
    let namespace = parent_namespace(config);
    let named = |instance: &&Instance| {
        instance.service.namespace == namespace
            && services.split(',').any(|service| service == &*instance.service.hostname)
    };
    let ports: Vec<_> = class.instances.iter().filter(named).map(service_port).collect();
    (!ports.is_empty()).then(|| SelectedGateway {
        config: config.clone(),
        by_service: true,
        ports: Arc::new(ports),
    })
}

fn parent_namespace(config: &Config<Gateway>) -> Name {
    match config.annotations.get(PARENT_NAMESPACE_ANNOTATION) {
        Some(namespace) if !namespace.is_empty() => namespace.clone(),
        _ => config.namespace.clone(),
    }
}

/// Proxies that were made for a Gateway of the Gateway API take no Istio Gateways of other namespaces: their hosts and
/// credentials are not to be mixed.
fn without_strangers(mut selected: Vec<SelectedGateway>) -> Vec<SelectedGateway> {
    let of_gateway_api = |gateway: &SelectedGateway| {
        gateway.config.annotations.get(SEMANTICS_ANNOTATION).is_some_and(|value| &**value == "gateway")
    };
    let managed: Vec<Name> = selected
        .iter()
        .filter(|gateway| {
            of_gateway_api(gateway)
                && gateway
                    .config
                    .annotations
                    .get(SERVICE_ACCOUNT_ANNOTATION)
                    .is_some_and(|value| !value.is_empty())
        })
        .map(|gateway| gateway.config.namespace.clone())
        .collect();
    if !managed.is_empty() {
        selected.retain(|gateway| of_gateway_api(gateway) || managed.contains(&gateway.config.namespace));
    }
    selected
}
