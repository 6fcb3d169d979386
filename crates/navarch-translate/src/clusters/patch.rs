//! EnvoyFilter on clusters.

use navarch_envoy::dynamic::{self, Lists};
use navarch_envoy::json::from_json_lenient;
use navarch_envoy::proto::envoy::config::cluster::v3::Cluster;
use navarch_envoy::proto::envoy::config::core::v3::{TransportSocket, transport_socket};
use navarch_model::networking::{
    ApplyTo, ClusterMatch, EnvoyConfigObjectPatch, ObjectTypes, PatchContext, PatchOperation,
};
use navarch_model::{Name, Origin};
use prost::{Message, Name as _};

use crate::encoded::Encoded;
use crate::guard::{self, Contribution};
use crate::patching::{Fates, Trace};

/// A change to clusters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClusterPatch {
    pub origin: Origin,
    pub context: PatchContext,
    /// `None` matches every cluster.
    pub matches: Option<ClusterMatch>,
    pub operation: PatchOperation,
    pub value: Encoded<Cluster>,
}

impl Contribution for ClusterPatch {
    fn origin(&self) -> &Origin {
        &self.origin
    }
}

impl ClusterPatch {
    /// Reads a patch; nothing if it is not for clusters, or its value is not a cluster (validation has said
    /// so).
    pub fn parse(origin: Origin, patch: &EnvoyConfigObjectPatch) -> Option<Self> {
        if patch.apply_to != ApplyTo::Cluster {
            return None;
        }
        let change = patch.patch.as_ref()?;
        let value = match &change.value {
            Some(value) => {
                let (message, _) = from_json_lenient(&Cluster::full_name(), &value.to_serde()).ok()?;
                Cluster::decode(dynamic::encode(&message)).ok()?
            }
            None => Cluster::default(),
        };
        let matches = patch.match_.as_ref();
        let operation = match change.operation {
            // Clusters have no order to insert by.
            PatchOperation::InsertFirst | PatchOperation::InsertBefore | PatchOperation::InsertAfter => {
                PatchOperation::Add
            }
            operation => operation,
        };
        Some(ClusterPatch {
            origin,
            context: matches.map_or(PatchContext::Any, |matches| matches.context),
            matches: matches.and_then(|matches| match &matches.object_types {
                Some(ObjectTypes::Cluster(cluster)) => Some(cluster.clone()),
                _ => None,
            }),
            operation,
            value: Encoded::new(value),
        })
    }

    fn is_for(&self, context: PatchContext) -> bool {
        self.context == PatchContext::Any || self.context == context
    }
}

/// A cluster after all patches, in order; nothing if one of them removes it. `hosts` are the services behind
/// an inbound cluster, whose name does not tell.
///
/// Patches that would make Envoy refuse it are left out.
pub(super) fn apply(
    cluster: Cluster,
    patches: &[ClusterPatch],
    context: PatchContext,
    hosts: &[Name],
) -> (Option<Cluster>, Fates) {
    let is_meant = |name: &str, patch: &ClusterPatch| {
        patch.is_for(context) && matches(name, patch.matches.as_ref(), hosts)
    };
    if !patches.iter().any(|patch| is_meant(&cluster.name, patch)) {
        return (Some(cluster), Fates::default());
    }
    let patches: Vec<&ClusterPatch> = patches.iter().collect();
    guard::accepted(&format!("cluster {}", cluster.name), &patches, |patches, trace| {
        changed(cluster.clone(), patches, is_meant, trace)
    })
}

fn changed(
    mut cluster: Cluster,
    patches: &[&ClusterPatch],
    is_meant: impl Fn(&str, &ClusterPatch) -> bool,
    trace: &Trace,
) -> Option<Cluster> {
    for patch in patches {
        if !is_meant(&cluster.name, patch) {
            continue;
        }
        let lists = match patch.operation {
            PatchOperation::Remove => {
                trace.did(&patch.origin, format!("removes the cluster {}", cluster.name));
                return None;
            }
            PatchOperation::Merge => Lists::Append,
            PatchOperation::MergeAndReplaceList => Lists::Replace,
            _ => continue,
        };
        trace.did(&patch.origin, format!("changes the cluster {}", cluster.name));
        cluster = match &patch.value.transport_socket {
            Some(socket) => with_socket(cluster, socket),
            None => merged(&cluster, &patch.value, lists).unwrap_or(cluster),
        };
    }
    Some(cluster)
}

/// Clusters that patches add, without those that Envoy would refuse, and what became of each. Without a
/// stated context they are added once, not for both directions of a sidecar.
pub(super) fn added(
    patches: &[ClusterPatch],
    context: PatchContext,
) -> impl Iterator<Item = (Option<Cluster>, Fates)> {
    patches
        .iter()
        .filter(move |patch| {
            patch.operation == PatchOperation::Add
                && patch.is_for(context)
                && (patch.context != PatchContext::Any || context != PatchContext::SidecarInbound)
        })
        .map(|patch| {
            let trace = Trace::default();
            trace.did(&patch.origin, format!("adds the cluster {}", patch.value.name));
            let mut fates = trace.into_fates();
            match guard::refused(&format!("cluster {:?}", patch.value.name), &*patch.value) {
                Some(refusal) => {
                    fates.refuse(&patch.origin, refusal);
                    (None, fates)
                }
                None => (Some(Cluster::clone(&patch.value)), fates),
            }
        })
}

fn merged(cluster: &Cluster, patch: &Cluster, lists: Lists) -> Option<Cluster> {
    let mut base = dynamic::from_typed(cluster).ok()?;
    dynamic::merge(&mut base, &dynamic::from_typed(patch).ok()?, lists).ok()?;
    Cluster::decode(dynamic::encode(&base)).ok()
}

/// A patch of the transport socket is merged into the socket of the same name; of several candidates, the
/// first one. If there is none of that name, it takes the place of the only socket, but does not stand beside
/// candidates, which Envoy would reject.
fn with_socket(mut cluster: Cluster, patch: &TransportSocket) -> Cluster {
    if cluster.transport_socket_matches.is_empty() {
        cluster.transport_socket = Some(match cluster.transport_socket.take() {
            Some(socket) if socket.name == patch.name => merged_socket(socket, patch),
            _ => patch.clone(),
        });
        return cluster;
    }
    let sockets =
        cluster.transport_socket_matches.iter_mut().filter_map(|item| item.transport_socket.as_mut());
    if let Some(socket) = sockets.into_iter().find(|socket| socket.name == patch.name) {
        *socket = merged_socket(socket.clone(), patch);
    }
    cluster
}

fn merged_socket(socket: TransportSocket, patch: &TransportSocket) -> TransportSocket {
    use transport_socket::ConfigType::TypedConfig;
    let (Some(TypedConfig(base)), Some(TypedConfig(change))) = (&socket.config_type, &patch.config_type)
    else {
        return socket;
    };
    match dynamic::merge_any(base, change, Lists::Append) {
        Ok(config) => TransportSocket { config_type: Some(TypedConfig(config)), ..socket },
        Err(_) => socket,
    }
}

fn matches(name: &str, wanted: Option<&ClusterMatch>, hosts: &[Name]) -> bool {
    let Some(wanted) = wanted else { return true };
    if !wanted.name.is_empty() {
        return wanted.name == name;
    }
    let parts = Parts::of(name);
    let service = wanted.service.as_str();
    (wanted.subset.is_empty() || wanted.subset == parts.subset)
        && (service.is_empty()
            || if parts.inbound && !hosts.is_empty() {
                hosts.iter().any(|host| **host == *service)
            } else {
                parts.host == service
            })
        && (wanted.port_number == 0 || wanted.port_number == parts.port)
}

/// What the name of a cluster says; nothing for names of another form.
#[derive(Default)]
struct Parts<'a> {
    inbound: bool,
    port: u32,
    subset: &'a str,
    host: &'a str,
}

impl<'a> Parts<'a> {
    fn of(name: &'a str) -> Self {
        let separator = if name.starts_with("outbound_") { "_." } else { "|" };
        let mut parts = name.splitn(4, separator);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(direction), Some(port), Some(subset), Some(host)) => {
                Parts { inbound: direction == "inbound", port: port.parse().unwrap_or(0), subset, host }
            }
            _ => Parts::default(),
        }
    }
}
