//! Effective PeerAuthentication (Istio: "PeerAuthentication", precedence of mesh, namespace and workload
//! policies).

use std::collections::BTreeMap;
use std::sync::Arc;

use navarch_model::security::{MutualTlsMode, PeerAuthentication};
use navarch_model::{Config, Hashed, Labels};

use crate::bound::selects;
use crate::view::View;

/// Whether a workload accepts mesh mutual TLS, plain text, or both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MtlsMode {
    /// Plain text only.
    Disable,
    /// Both.
    #[default]
    Permissive,
    /// Mutual TLS only.
    Strict,
}

/// The mode of a workload, and of ports for which it differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PeerPolicy {
    pub mode: MtlsMode,
    /// By port of the workload; also ports that restate the mode.
    pub ports: BTreeMap<u32, MtlsMode>,
}

impl PeerPolicy {
    /// The mode for a port of the workload.
    pub fn mode_for(&self, port: u32) -> MtlsMode {
        self.ports.get(&port).copied().unwrap_or(self.mode)
    }
}

/// The mode for a port of a workload with these labels.
pub fn mtls_mode(view: &View<'_>, namespace: &str, labels: &Labels, port: u32) -> MtlsMode {
    peer_policy(view, namespace, labels).mode_for(port)
}

/// The policy of a workload: the oldest policy that selects it, over the oldest of its namespace, over the
/// oldest of the root namespace, over PERMISSIVE. `UNSET` inherits. Policies with a selector in the root
/// namespace do not count.
pub fn peer_policy(view: &View<'_>, namespace: &str, labels: &Labels) -> PeerPolicy {
    let root_namespace = view.mesh().config.root_namespace.as_str();
    let in_mesh = view.objects::<PeerAuthentication>(root_namespace);
    let mesh = in_mesh.iter().find(|policy| selector(policy).is_none());
    let mut mode = mesh.and_then(stated).unwrap_or_default();
    if namespace == root_namespace {
        return PeerPolicy { mode, ports: BTreeMap::new() };
    }

    let own = view.objects::<PeerAuthentication>(namespace);
    let general = own.iter().find(|policy| selector(policy).is_none());
    mode = general.and_then(stated).unwrap_or(mode);
    let specific =
        own.iter().find(|policy| selector(policy).is_some_and(|selector| selects(selector, labels)));
    mode = specific.and_then(stated).unwrap_or(mode);
    let ports = specific.map_or_else(BTreeMap::new, |policy| {
        let ports = policy.spec.port_level_mtls.iter();
        ports.map(|(port, mtls)| (*port, converted(mtls.mode).unwrap_or(mode))).collect()
    });
    PeerPolicy { mode, ports }
}

/// The policies that [`peer_policy`] goes by, the narrowest first.
pub fn peer_policies(view: &View<'_>, namespace: &str, labels: &Labels) -> Vec<Policy> {
    let root_namespace = view.mesh().config.root_namespace.as_str();
    let general = |namespace: &str| {
        view.objects::<PeerAuthentication>(namespace).iter().find(|policy| selector(policy).is_none())
    };
    let mesh = general(root_namespace);
    if namespace == root_namespace {
        return mesh.into_iter().cloned().collect();
    }
    let own = view.objects::<PeerAuthentication>(namespace);
    let specific =
        own.iter().find(|policy| selector(policy).is_some_and(|selector| selects(selector, labels)));
    let mut found = Vec::new();
    for policy in [specific, general(namespace), mesh].into_iter().flatten() {
        found.push(policy.clone());
        // What states a mode for all ports leaves nothing to wider policies.
        if stated(policy).is_some() {
            break;
        }
    }
    found
}

/// The mode that policies of a namespace or of the mesh state for all workloads of the namespace; `None` if
/// there are no such policies. Clients use it to decide whether to try mutual TLS at all.
pub fn namespace_mtls_mode(view: &View<'_>, namespace: &str) -> Option<MtlsMode> {
    let root_namespace = view.mesh().config.root_namespace.as_str();
    let in_mesh = view.objects::<PeerAuthentication>(root_namespace);
    let mesh = in_mesh.iter().find(|policy| selector(policy).is_none());
    let mesh = mesh.map(|policy| stated(policy).unwrap_or_default());
    if namespace == root_namespace {
        return mesh;
    }
    let own = view.objects::<PeerAuthentication>(namespace);
    match own.iter().find(|policy| selector(policy).is_none()) {
        Some(policy) => Some(stated(policy).or(mesh).unwrap_or_default()),
        None => mesh,
    }
}

/// A policy, shared with the snapshot.
pub type Policy = Arc<Hashed<Config<PeerAuthentication>>>;

/// The labels that a policy selects by; `None` if it is for all workloads.
fn selector(policy: &Policy) -> Option<&BTreeMap<String, String>> {
    policy.spec.selector.as_ref().map(|selector| &selector.match_labels).filter(|labels| !labels.is_empty())
}

/// The mode that a policy states for all ports; `None` if it inherits.
fn stated(policy: &Policy) -> Option<MtlsMode> {
    converted(policy.spec.mtls.as_ref()?.mode)
}

fn converted(mode: MutualTlsMode) -> Option<MtlsMode> {
    match mode {
        MutualTlsMode::Unset => None,
        MutualTlsMode::Disable => Some(MtlsMode::Disable),
        MutualTlsMode::Permissive => Some(MtlsMode::Permissive),
        MutualTlsMode::Strict => Some(MtlsMode::Strict),
    }
}
