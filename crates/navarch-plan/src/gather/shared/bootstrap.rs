//! What agents start their Envoys with.

use std::collections::BTreeMap;
use std::sync::Arc;

use navarch_envoy::Resource;
use navarch_model::mesh::StatedProxyConfig;
use navarch_model::networking::{PatchContext, ProxyConfig, WorkloadGroup};
use navarch_model::{Config, Hashed, Name};
use navarch_snapshot::Scope;
use navarch_snapshot::bound::selects;
use navarch_translate::bootstrap::{BootstrapInput, BootstrapResource, merged_by};
use navarch_translate::patching::Reach;

use super::envoy_filters::{FilterTarget, patches};
use crate::class::Class;
use crate::composed::Composed;
use crate::engine::{Cx, Gather};

/// The resource that the agents of a class ask for before they start Envoy.
pub fn bootstrap(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, _scope: &Arc<Hashed<Scope>>) -> Composed {
    let key = (FilterTarget::of(&class.facts), class.facts.group.clone());
    let made = cx.gather::<Made>(&key);
    Composed::own(made.0.iter().cloned().collect())
}

/// The resource for the proxies of a group that EnvoyFilters and ProxyConfigs do not tell apart.
struct Made;

#[derive(Clone, Debug, PartialEq)]
struct Bootstrap(Arc<Option<Arc<Resource>>>);

impl Gather for Made {
    const NAME: &'static str = "bootstrap.made";
    type Key = (FilterTarget, Name);
    type Output = Bootstrap;

    fn run((target, group): &Self::Key, cx: &Cx<'_>) -> Bootstrap {
        let view = cx.view();
        let mesh = view.mesh();
        let (root, own) = (mesh.config.root_namespace.as_str(), target.namespace());
        let mut namespace = StatedProxyConfig::default();
        let mut general = |name: &str| {
            let found = oldest(view.objects::<ProxyConfig>(name), |config| config.selector.is_none());
            namespace.put_all(&found);
        };
        general(root);
        if own != root {
            general(own);
        }
        let mut workload = oldest(view.objects::<ProxyConfig>(own), |config| {
            let labels = config.selector.as_ref().map(|selector| &selector.match_labels);
            labels
                .is_some_and(|labels: &BTreeMap<_, _>| !labels.is_empty() && selects(labels, target.labels()))
        });
        let groups = if group.is_empty() { &[][..] } else { view.objects::<WorkloadGroup>(own) };
        let own_group = groups.iter().find(|known| known.name == *group);
        if let Some(probe) = own_group.and_then(|group| group.spec.probe.as_ref()) {
            workload.put_probe(probe);
        }
        let merged = patches(cx, target).into_iter().filter_map(|(origin, patch)| {
            let context = patch.match_.as_ref().map_or(PatchContext::Any, |matches| matches.context);
            let value = merged_by(patch).filter(|_| target.is_of_kind(context))?;
            cx.reach(&origin, Reach::Done);
            Some(value.clone())
        });
        let input = BootstrapInput {
            mesh: mesh.default_config.clone(),
            namespace,
            workload,
            patches: merged.collect(),
        };
        Bootstrap(cx.get::<BootstrapResource>(&input))
    }
}

/// What the oldest of those that are meant states.
fn oldest(
    configs: &[Arc<Hashed<Config<ProxyConfig>>>],
    is_meant: impl Fn(&ProxyConfig) -> bool,
) -> StatedProxyConfig {
    let meant = configs.iter().filter(|config| is_meant(&config.spec));
    let oldest = meant.min_by(|one, other| one.age_order().cmp(&other.age_order()));
    oldest.map(|config| StatedProxyConfig::of_object(&config.spec)).unwrap_or_default()
}
