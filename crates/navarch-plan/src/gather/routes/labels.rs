//! Which labels of clients matter to routing.
//!
//! Most configuration mentions none, so workloads of one namespace share their routes although their labels differ.

use std::collections::{BTreeMap, BTreeSet};

use navarch_model::route::RouteSet;
use navarch_model::{Labels, Name};
use navarch_snapshot::bound::BoundRule;
use navarch_snapshot::{BUCKETS, Bucket};

use crate::engine::{Cx, Gather};

/// Label keys that are mentioned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mentions {
    /// By routes, for clients in any namespace.
    everywhere: BTreeSet<Name>,
    /// By workload selectors of DestinationRules, for clients in the rule's namespace.
    by_namespace: BTreeMap<Name, BTreeSet<Name>>,
}

impl Mentions {
    fn extend(&mut self, other: &Mentions) {
        self.everywhere.extend(other.everywhere.iter().cloned());
        for (namespace, keys) in &other.by_namespace {
            self.by_namespace.entry(namespace.clone()).or_default().extend(keys.iter().cloned());
        }
    }

    fn add_routes(&mut self, set: &RouteSet) {
        self.everywhere.extend(set.http_clients().flat_map(|client| client.labels.keys()).cloned());
    }

    fn add_rule(&mut self, rule: &BoundRule) {
        if let Some(selector) = &rule.config.spec.workload_selector {
            let keys = selector.match_labels.keys().map(|key| Name::from(key.as_str()));
            self.by_namespace.entry(rule.config.namespace.clone()).or_default().extend(keys);
        }
    }
}

/// The labels of a client in `namespace` that are mentioned somewhere.
pub(crate) fn mentioned(cx: &Cx<'_>, namespace: &Name, labels: &Labels) -> Labels {
    let mentions = cx.gather::<AllMentions>(&());
    let own = mentions.by_namespace.get(namespace);
    let wanted = |key: &Name| mentions.everywhere.contains(key) || own.is_some_and(|keys| keys.contains(key));
    labels.iter().filter(|(key, _)| wanted(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

struct AllMentions;

impl Gather for AllMentions {
    const NAME: &'static str = "label_mentions";
    type Key = ();
    type Output = Mentions;

    fn run((): &(), cx: &Cx<'_>) -> Mentions {
        let mut all = Mentions::default();
        for bucket in 0..BUCKETS {
            all.extend(&cx.gather::<BucketMentions>(&bucket));
        }
        for rule in cx.view().wildcard_destination_rules() {
            all.add_rule(rule);
        }
        for set in cx.view().wildcard_routes() {
            all.add_routes(set);
        }
        all
    }
}

struct BucketMentions;

impl Gather for BucketMentions {
    const NAME: &'static str = "bucket_label_mentions";
    type Key = Bucket;
    type Output = Mentions;

    fn run(bucket: &Bucket, cx: &Cx<'_>) -> Mentions {
        let mut found = Mentions::default();
        for set in cx.view().routes_in(*bucket).values().flatten() {
            found.add_routes(set);
        }
        for rule in cx.view().destination_rules_in(*bucket).values().flatten() {
            found.add_rule(rule);
        }
        found
    }
}
