//! DestinationRules for hosts that nobody has, and subsets that select nothing.

use std::collections::BTreeMap;

use navarch_model::finding::{Code, Finding};
use navarch_snapshot::bound::BoundRule;
use navarch_snapshot::host::is_wildcard;
use navarch_snapshot::{Bucket, View};

use crate::engine::{Cx, Gather};
use crate::findings::problem::Problem;
use crate::findings::references::is_covered;

/// Rules for the hosts of a bucket.
pub(super) struct InBucket;

impl Gather for InBucket {
    const NAME: &'static str = "analyzers.rules";
    type Key = Bucket;
    type Output = Vec<Problem>;

    fn run(bucket: &Bucket, cx: &Cx<'_>) -> Vec<Problem> {
        let rules = cx.view().destination_rules_in(*bucket).values().flatten();
        rules.flat_map(|rule| problems(cx.view(), rule)).collect()
    }
}

fn problems(view: &View<'_>, rule: &BoundRule) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut add = |path: String, finding: Finding| {
        problems.push(Problem { key: rule.config.key(), path, finding });
    };
    let services = view.services(&rule.host);
    if services.is_empty() && !is_wildcard(&rule.host) && !is_covered(view, &rule.host) {
        let message = format!("no Service or ServiceEntry has the host {}; the rule does nothing", rule.host);
        let hint = format!(
            "correct the host, or add a ServiceEntry; a short name is completed with the namespace {}",
            rule.config.namespace
        );
        add("spec.host".to_owned(), Finding::warning(Code::InvalidReference, message).hint(hint));
        return problems;
    }
    for (index, subset) in rule.config.spec.subsets.iter().enumerate() {
        if !subset.labels.is_empty() && selects_nothing(view, rule, &subset.labels) {
            let message = format!("no endpoint of {} has the labels of subset {:?}", rule.host, subset.name);
            let hint =
                "correct the labels, or label the workloads; what is sent to the subset fails until then";
            let path = format!("spec.subsets[{index}].labels");
            add(path, Finding::warning(Code::InvalidReference, message).hint(hint));
        }
    }
    problems
}

/// Whether there are endpoints with labels, and none of them has these.
fn selects_nothing(view: &View<'_>, rule: &BoundRule, labels: &BTreeMap<String, String>) -> bool {
    let services = view.services(&rule.host);
    let sets = services.iter().filter_map(|service| view.endpoints(&service.hostname, &service.namespace));
    let mut any = false;
    for endpoint in sets.flat_map(|set| &set.endpoints) {
        // Without a Pod the labels of an address are not known.
        any |= !endpoint.labels.is_empty();
        if labels
            .iter()
            .all(|(key, value)| endpoint.labels.get(key.as_str()).is_some_and(|own| **own == **value))
        {
            return false;
        }
    }
    any
}
