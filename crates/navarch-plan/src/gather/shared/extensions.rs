//! Gathering of extensions: which of them apply to a workload, and in which order.

use std::sync::Arc;

use navarch_model::extensions::{TrafficExtension, WasmPlugin};
use navarch_model::{Config, Hashed, Kind, Name, ObjectKey, Origin};
use navarch_snapshot::{Scope, View};
use navarch_translate::extensions::{
    ExtensionResource, ExtensionResourceInput, add_filter, added_by_patch, is_for, is_usable, key_of,
    of_wasm_plugin, sort_by_priority,
};
use navarch_translate::filters::{HttpFilters, NetworkFilters};
use navarch_translate::http_connection_manager::Direction;
use navarch_translate::patching::Reach;

use super::attachment::{Attachment, Workload};
use super::envoy_filters::{FilterTarget, patches};
use super::rejected;
use crate::class::Class;
use crate::composed::{BucketResources, Composed};
use crate::engine::{Cx, Gather};

type Extension = Arc<Hashed<Config<TrafficExtension>>>;

/// The resources of the Wasm modules that a class uses, and those that EnvoyFilters add.
pub fn extensions(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, _scope: &Arc<Hashed<Scope>>) -> Composed {
    let inputs = applying(cx, class).into_iter().filter_map(|config| ExtensionResourceInput::of(&config));
    let mut resources: BucketResources = inputs.map(|input| cx.get::<ExtensionResource>(&input)).collect();
    resources.extend(cx.gather::<AddedExtensions>(&FilterTarget::of(&class.facts)).0.iter().cloned());
    resources.sort_by(|a, b| a.name().cmp(b.name()));
    resources.dedup_by(|a, b| a.name() == b.name());
    Composed::own(resources)
}

/// Resources that EnvoyFilters add; of several with one name the first.
struct AddedExtensions;

#[derive(Clone, Debug, PartialEq)]
struct Added(BucketResources);

impl Gather for AddedExtensions {
    const NAME: &'static str = "extensions.added";
    type Key = FilterTarget;
    type Output = Added;

    fn run(target: &FilterTarget, cx: &Cx<'_>) -> Added {
        let added = patches(cx, target).into_iter().filter_map(|(origin, patch)| {
            let resource = added_by_patch(patch)?;
            cx.reach(&origin, Reach::Done);
            Some(Arc::new(resource))
        });
        Added(added.collect())
    }
}

/// Adds the filters of the extensions that apply to a class to the chains of one direction.
pub fn add_filters(
    cx: &Cx<'_>,
    class: &Class,
    direction: Direction,
    http: &mut HttpFilters,
    network: &mut NetworkFilters,
) {
    for extension in applying(cx, class) {
        add_filter(&extension, direction, http, network);
    }
}

/// The objects whose filters are in the chains of one direction.
pub fn shaping(cx: &Cx<'_>, class: &Class, direction: Direction) -> Vec<ObjectKey> {
    let applying = applying(cx, class).into_iter();
    applying.filter(|extension| is_for(extension, direction)).map(|extension| key_of(&extension)).collect()
}

/// The extensions that apply to a class, in the order in which they run inside a phase: by priority, then
/// those of the own namespace before those of the root namespace, then oldest first.
fn applying(cx: &Cx<'_>, class: &Class) -> Vec<Extension> {
    let workload = Workload::of(&class.facts);
    let own = class.facts.namespace.clone();
    let root = Name::from(cx.view().mesh().config.root_namespace.as_str());
    let mut namespaces = vec![own];
    if !namespaces.contains(&root) {
        namespaces.push(root);
    }
    let mut found: Vec<Extension> = namespaces
        .iter()
        .flat_map(|namespace| cx.gather::<InNamespace>(namespace).0.clone())
        .filter(|extension| applies(&workload, extension))
        .filter(|extension| !is_left_out(cx.view(), &workload, extension))
        .collect();
    sort_by_priority(&mut found, |extension| &extension.spec);
    found
}

/// Whether proxies have refused an extension.
fn is_left_out(view: &View<'_>, workload: &Workload, extension: &Extension) -> bool {
    let origin = Origin::object(key_of(extension));
    let is_left_out = |kind: Kind| match kind {
        Kind::WasmPlugin => {
            let plugins = view.objects::<WasmPlugin>(&extension.namespace).iter();
            let mut plugin = plugins.filter(|plugin| plugin.name == origin.key.name);
            plugin.any(|plugin| rejected::is_left_out(view, &workload.namespace, &origin, &plugin.spec))
        }
        _ => rejected::is_left_out(view, &workload.namespace, &origin, &extension.spec),
    };
    view.rejected_in(&workload.namespace).next().is_some() && is_left_out(origin.key.kind)
}

/// Whether an extension applies to a workload: by its labels, or for gateways of the Gateway API by
/// reference.
fn applies(workload: &Workload, extension: &Config<TrafficExtension>) -> bool {
    let spec = &extension.spec;
    let attachment = Attachment {
        selector: spec.selector.as_ref().map(|selector| &selector.match_labels),
        target_ref: None,
        target_refs: &spec.target_refs,
    };
    workload.is_meant_by(&extension.namespace, attachment)
}

/// The usable extensions of a namespace, oldest first; WasmPlugins are extensions too.
struct InNamespace;

#[derive(Clone, Debug, PartialEq)]
struct Extensions(Vec<Extension>);

impl Gather for InNamespace {
    const NAME: &'static str = "extensions.namespace";
    type Key = Name;
    type Output = Extensions;

    fn run(namespace: &Name, cx: &Cx<'_>) -> Extensions {
        let view = cx.view();
        let plugins = view.objects::<WasmPlugin>(namespace).iter();
        let mut all: Vec<Extension> = view.objects::<TrafficExtension>(namespace).to_vec();
        all.extend(plugins.map(|plugin| Arc::new(Hashed::new(of_wasm_plugin(plugin)))));
        all.retain(|extension| is_usable(&extension.spec));
        all.sort_by(|a, b| a.age_order().cmp(&b.age_order()));
        Extensions(all)
    }
}
