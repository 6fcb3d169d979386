//! What objects look at of the Envoy node of a client: the Kubernetes node that it runs on, and its metadata.
//!
//! Almost none do. Clients that differ in nothing that somebody looks at get the same configuration, which
//! makes one plan of what would be a plan per node, or per replica.

use navarch_model::kinds::{Kind, Spec};
use navarch_model::networking::ProxyMatch;
use navarch_model::object::Object;

/// The label that every workload has by running on a node.
pub const NODE_LABEL: &str = "kubernetes.io/hostname";

/// Whether the configuration of some client may depend on its node because of this object.
///
/// Every kind that does not merely say which labels something has counts, if it mentions the label anywhere:
/// a selector that is added some day is not forgotten. Objects with routes are not looked at here: what they
/// say is known once it is lowered ([`crate::bind::routes`]).
pub(crate) fn looks_at_node(object: &Object) -> bool {
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
        spec => !states_labels(spec.kind()) && spec.mentions(NODE_LABEL),
    }
}

/// Kinds that say where things run and which labels they have, and look at nobody's.
fn states_labels(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Pod
            | Kind::Node
            | Kind::Namespace
            | Kind::EndpointSlice
            | Kind::WorkloadEntry
            | Kind::WorkloadGroup
            | Kind::Secret
            | Kind::ConfigMap
    )
}

/// Keys of the metadata of Envoy nodes that an object compares with something.
pub(crate) fn metadata_keys(object: &Object) -> impl Iterator<Item = &str> {
    let filter = match &object.spec {
        Spec::EnvoyFilter(filter) => Some(filter),
        _ => None,
    };
    let patches = filter.into_iter().flat_map(|filter| &filter.config_patches);
    let proxies = patches.filter_map(|patch| patch.match_.as_ref()?.proxy.as_ref());
    proxies.flat_map(|ProxyMatch { proxy_version, metadata }| {
        let version = (!proxy_version.is_empty()).then_some("ISTIO_VERSION");
        metadata.keys().map(String::as_str).chain(version)
    })
}
