//! Objects of one kind that claim the same workloads where only one can have them.

use std::collections::BTreeMap;

use navarch_model::finding::{Code, Finding};
use navarch_model::networking::Sidecar;
use navarch_model::object::ObjectKey;
use navarch_model::telemetry::Telemetry;
use navarch_model::{Config, Name};

use crate::engine::{Cx, Gather};
use crate::findings::problem::Problem;

/// Sidecars and Telemetry objects.
pub(super) struct OfKinds;

impl Gather for OfKinds {
    const NAME: &'static str = "analyzers.conflicts";
    type Key = ();
    type Output = Vec<Problem>;

    fn run((): &(), cx: &Cx<'_>) -> Vec<Problem> {
        let mut problems = Vec::new();
        let sidecars = cx.view().all_objects::<Sidecar>();
        let sidecars = sidecars.iter().map(|sidecar| {
            let labels = sidecar.spec.workload_selector.as_ref().map(|selector| &selector.labels);
            (place(sidecar), sidecar.key(), labels, "spec.workloadSelector")
        });
        claims(sidecars, &mut problems);
        let telemetries = cx.view().all_objects::<Telemetry>();
        let general = telemetries
            .iter()
            .filter(|telemetry| telemetry.spec.target_ref.is_none() && telemetry.spec.target_refs.is_empty());
        let telemetries = general.map(|telemetry| {
            let labels = telemetry.spec.selector.as_ref().map(|selector| &selector.match_labels);
            (place(telemetry), telemetry.key(), labels, "spec.selector")
        });
        claims(telemetries, &mut problems);
        problems
    }
}

fn place<T>(object: &Config<T>) -> Name {
    object.namespace.clone()
}

type Claim<'a> = (Name, ObjectKey, Option<&'a BTreeMap<String, String>>, &'static str);

/// The first claim of a namespace with a selector counts, or the first without one.
fn claims<'a>(objects: impl Iterator<Item = Claim<'a>>, problems: &mut Vec<Problem>) {
    let mut known: BTreeMap<(Name, BTreeMap<String, String>), ObjectKey> = BTreeMap::new();
    for (namespace, key, labels, path) in objects {
        let labels = labels.cloned().unwrap_or_default();
        let general = labels.is_empty();
        let Some(first) = known.get(&(namespace.clone(), labels.clone())) else {
            known.insert((namespace, labels), key);
            continue;
        };
        let message = if general {
            format!(
                "{first} is for all workloads of namespace {namespace} too and comes first; this one is ignored"
            )
        } else {
            format!("{first} selects the same workloads and comes first; this one is ignored for them")
        };
        let finding = Finding::error(Code::Unreachable, message)
            .hint("put both into one object, or select other workloads");
        problems.push(Problem { key, path: if general { "spec" } else { path }.to_owned(), finding });
    }
}
