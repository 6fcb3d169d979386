//! Which objects look at the Kubernetes node that a client runs on.
//!
//! Almost none do. As long as there are none, clients that differ in their node only get the same configuration, which makes one
//! plan of what would be a plan per node.

use std::collections::BTreeMap;

use navarch_model::kinds::Spec;
use navarch_model::networking::{DestinationRule, LoadBalancerSettings, TrafficPolicy};
use navarch_model::object::Object;

/// The label that every workload has by running on a node.
pub const NODE_LABEL: &str = "kubernetes.io/hostname";

/// Whether the configuration of some client depends on its node because of this object. May err on the side
/// of yes. Objects with routes are not looked at here: what they say is known once it is lowered
/// ([`crate::bind::routes`]).
pub(crate) fn looks_at_node(object: &Object) -> bool {
    let selects = |selector: Option<&BTreeMap<String, String>>| {
        selector.is_some_and(|labels| labels.contains_key(NODE_LABEL))
    };
    // The service-entry annotation and the field of a Service take the same values.
    let prefers_node =
        object.metadata.annotations.iter().any(|(key, value)| {
            &**key == "networking.istio.io/traffic-distribution" && value.contains("Node")
        });
    match &object.spec {
        Spec::Service(service) => {
            prefers_node
                || service.spec.internal_traffic_policy == "Local"
                || service.spec.traffic_distribution.contains("Node")
        }
        Spec::ServiceEntry(_) => prefers_node,
        Spec::DestinationRule(rule) => {
            selects(rule.workload_selector.as_ref().map(|selector| &selector.match_labels))
                || prioritises_node(rule)
        }
        Spec::Gateway(gateway) => gateway.selector.contains_key(NODE_LABEL),
        Spec::Sidecar(sidecar) => {
            selects(sidecar.workload_selector.as_ref().map(|selector| &selector.labels))
        }
        Spec::EnvoyFilter(filter) => {
            selects(filter.workload_selector.as_ref().map(|selector| &selector.labels))
        }
        Spec::ProxyConfig(config) => selects(config.selector.as_ref().map(|selector| &selector.match_labels)),
        Spec::PeerAuthentication(policy) => {
            selects(policy.selector.as_ref().map(|selector| &selector.match_labels))
        }
        Spec::AuthorizationPolicy(policy) => {
            selects(policy.selector.as_ref().map(|selector| &selector.match_labels))
        }
        Spec::RequestAuthentication(policy) => {
            selects(policy.selector.as_ref().map(|selector| &selector.match_labels))
        }
        Spec::Telemetry(telemetry) => {
            selects(telemetry.selector.as_ref().map(|selector| &selector.match_labels))
        }
        Spec::WasmPlugin(plugin) => selects(plugin.selector.as_ref().map(|selector| &selector.match_labels)),
        Spec::TrafficExtension(extension) => {
            selects(extension.selector.as_ref().map(|selector| &selector.match_labels))
        }
        _ => false,
    }
}

fn prioritises_node(rule: &DestinationRule) -> bool {
    let subsets = rule.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref());
    let balancers = rule.traffic_policy.iter().chain(subsets).flat_map(|policy: &TrafficPolicy| {
        let ports = policy.port_level_settings.iter().filter_map(|port| port.load_balancer.as_ref());
        policy.load_balancer.iter().chain(ports)
    });
    balancers.into_iter().any(balances_by_node)
}

fn balances_by_node(balancer: &LoadBalancerSettings) -> bool {
    let locality = balancer.locality_lb_setting.iter().flat_map(|setting| &setting.failover_priority);
    let zone = balancer.zone_aware_lb_setting.iter().flat_map(|setting| &setting.failover_priority);
    locality.chain(zone).any(|label| label.starts_with(NODE_LABEL))
}
