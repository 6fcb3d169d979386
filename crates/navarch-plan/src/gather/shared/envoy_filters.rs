//! Which EnvoyFilters apply to a proxy.

use std::sync::Arc;

use navarch_model::networking::{EnvoyConfigObjectPatch, EnvoyFilter, PatchContext, ProxyMatch};
use navarch_model::proxy::{NodeMetadata, ProxyFacts, ProxyKind};
use navarch_model::{Config, Hashed, Kind, Labels, ObjectKey, Origin};
use navarch_translate::clusters::{ClusterPatch, ClusterPatches};
use navarch_translate::listeners::patch::{ListenerPatch, ListenerPatches};
use navarch_translate::patching::Reach;
use navarch_translate::routes::patch::{RoutePatch, RoutePatches};

use super::attachment::{Attachment, Workload};
use super::rejected;
use crate::engine::{Cx, Gather};

/// Longer version patterns match no proxy: compiling them costs too much (Istio has the same bound).
const VERSION_PATTERN_MAX: usize = 1024;

/// What EnvoyFilters select proxies by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FilterTarget {
    workload: Workload,
    metadata: NodeMetadata,
}

impl FilterTarget {
    /// The target that a proxy is.
    pub fn of(facts: &ProxyFacts) -> Self {
        FilterTarget { workload: Workload::of(facts), metadata: facts.metadata.clone() }
    }

    pub(crate) fn is_meant_by(&self, filter: &Config<EnvoyFilter>) -> bool {
        let attachment = Attachment {
            selector: filter.spec.workload_selector.as_ref().map(|selector| &selector.labels),
            target_ref: None,
            target_refs: &filter.spec.target_refs,
        };
        self.workload.is_meant_by(&filter.namespace, attachment)
    }

    /// The namespace of the proxy.
    pub fn namespace(&self) -> &str {
        &self.workload.namespace
    }

    /// The labels of the workload.
    pub fn labels(&self) -> &Labels {
        &self.workload.labels
    }

    /// Whether a patch is for this kind of proxy at all.
    pub(crate) fn is_of_kind(&self, context: PatchContext) -> bool {
        let kind = self.workload.kind;
        match context {
            PatchContext::Any => true,
            PatchContext::SidecarInbound | PatchContext::SidecarOutbound => kind == ProxyKind::Sidecar,
            PatchContext::Gateway => kind == ProxyKind::Router,
            PatchContext::Waypoint => kind == ProxyKind::Waypoint,
        }
    }

    fn has(&self, wanted: &ProxyMatch) -> bool {
        let version = self.metadata.istio_version();
        let pattern = wanted.proxy_version.as_str();
        let right_version = pattern.is_empty()
            || (!version.is_empty()
                && pattern.len() <= VERSION_PATTERN_MAX
                && regex::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(version)));
        right_version && wanted.metadata.iter().all(|(key, value)| self.metadata.has(key, value))
    }
}

/// The patches for a proxy, in the order in which they are made: by priority, then those of the root
/// namespace, then oldest first.
pub fn patches<'v>(cx: &Cx<'v>, target: &FilterTarget) -> Vec<(Origin, &'v EnvoyConfigObjectPatch)> {
    let view = cx.view();
    let root = view.mesh().config.root_namespace.as_str();
    let own: &[Arc<Hashed<Config<EnvoyFilter>>>] =
        if *target.workload.namespace == *root { &[] } else { view.objects(&target.workload.namespace) };
    let in_root: &[Arc<Hashed<Config<EnvoyFilter>>>] = view.objects(root);
    let mut filters: Vec<&Config<EnvoyFilter>> = in_root
        .iter()
        .chain(own)
        .map(|filter| &***filter)
        .filter(|filter| target.is_meant_by(filter))
        .collect();
    filters.sort_by_cached_key(|filter| {
        let name = format!("{}.{}", filter.name, filter.namespace);
        (filter.spec.priority, *filter.namespace != *root, filter.created_at, name)
    });
    let is_for = |patch: &EnvoyConfigObjectPatch| {
        let proxy = patch.match_.as_ref().and_then(|matches| matches.proxy.as_ref());
        proxy.is_none_or(|proxy| target.has(proxy))
    };
    let all = filters.into_iter().flat_map(|filter| {
        let key = ObjectKey::new(Kind::EnvoyFilter, &filter.namespace, &filter.name);
        filter.spec.config_patches.iter().enumerate().map(move |(index, patch)| {
            (Origin::field(key.clone(), &format!("spec.configPatches[{index}]")), patch)
        })
    });
    all.filter(|(origin, patch)| {
        let context = patch.match_.as_ref().map_or(PatchContext::Any, |matches| matches.context);
        let selected = is_for(patch);
        let is_left_out = selected && rejected::is_left_out(view, &target.workload.namespace, origin, *patch);
        let reach = match (target.is_of_kind(context), selected) {
            (false, _) => Reach::Workload,
            (true, false) => Reach::Kind,
            // Why it does nothing has been said.
            (true, true) if is_left_out => Reach::Done,
            (true, true) => Reach::Proxy,
        };
        cx.reach(origin, reach);
        selected && !is_left_out
    })
    .collect()
}

/// The patches for a proxy that `parse` takes.
fn read<P>(
    cx: &Cx<'_>,
    target: &FilterTarget,
    parse: impl Fn(Origin, &EnvoyConfigObjectPatch) -> Option<P>,
) -> Vec<P> {
    patches(cx, target).into_iter().filter_map(|(origin, patch)| parse(origin, patch)).collect()
}

/// Changes that EnvoyFilters make to the clusters of a proxy.
pub struct ClusterPatchesOf;

impl Gather for ClusterPatchesOf {
    const NAME: &'static str = "clusters.patches";
    type Key = FilterTarget;
    type Output = ClusterPatches;

    fn run(target: &FilterTarget, cx: &Cx<'_>) -> ClusterPatches {
        Arc::new(Hashed::new(read(cx, target, ClusterPatch::parse)))
    }
}

/// Changes that EnvoyFilters make to the listeners of a proxy in one direction.
pub struct ListenerPatchesOf;

impl Gather for ListenerPatchesOf {
    const NAME: &'static str = "listeners.patches";
    type Key = (FilterTarget, PatchContext);
    type Output = ListenerPatches;

    fn run((target, context): &Self::Key, cx: &Cx<'_>) -> ListenerPatches {
        let parsed = read(cx, target, ListenerPatch::parse).into_iter();
        Arc::new(Hashed::new(parsed.filter(|patch| patch.is_for(*context)).collect()))
    }
}

/// Changes that EnvoyFilters make to the routes of a proxy.
pub struct RoutePatchesOf;

impl Gather for RoutePatchesOf {
    const NAME: &'static str = "routes.patches";
    type Key = FilterTarget;
    type Output = RoutePatches;

    fn run(target: &FilterTarget, cx: &Cx<'_>) -> RoutePatches {
        Arc::new(Hashed::new(read(cx, target, RoutePatch::parse)))
    }
}
