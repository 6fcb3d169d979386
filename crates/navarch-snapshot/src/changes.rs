//! What differs between two snapshots, found without looking at what they share.

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use crate::part::{BUCKETS, Bucket, Part};
use crate::snapshot::Snapshot;

impl Snapshot {
    /// The parts that are others than they were `before`.
    ///
    /// Snapshots of one world share what did not change, so this costs what the changes between them are, and a fixed number of
    /// comparisons. The answer is right for any two snapshots.
    pub fn changed_since(&self, before: &Snapshot) -> Vec<Part> {
        let mut parts = Part::SINGLE.to_vec();
        let mut by_bucket = |part: fn(Bucket) -> Part, same: bool| {
            if !same {
                parts.extend((0..BUCKETS).map(part));
            }
        };
        by_bucket(Part::Services, self.services.is_same(&before.services));
        by_bucket(Part::Endpoints, self.endpoints.is_same(&before.endpoints));
        by_bucket(Part::EndpointSummaries, self.summaries.is_same(&before.summaries));
        by_bucket(Part::DestinationRules, self.rules.is_same(&before.rules));
        by_bucket(Part::VirtualServices, self.virtual_services.is_same(&before.virtual_services));
        by_bucket(Part::Destinations, self.destinations.is_same(&before.destinations));
        parts.extend(self.footprints.changed_since(&before.footprints).cloned().map(Part::Footprint));
        let gateways = changed_keys(&self.gateway_virtual_services, &before.gateway_virtual_services);
        parts.extend(gateways.cloned().map(Part::GatewayVirtualServices));
        parts.extend(changed_keys(&self.workloads, &before.workloads).copied().map(Part::Workload));
        parts.extend(
            changed_keys(&self.selectors, &before.selectors)
                .cloned()
                .map(|(namespace, key, value)| Part::Selectors { namespace, key, value }),
        );
        parts.extend(changed_keys(&self.objects, &before.objects).filter_map(Part::of_object));
        parts.extend(self.tables.changed_since(&before.tables));
        parts.retain(|part| self.fingerprint(part) != before.fingerprint(part));
        parts
    }
}

/// Keys with other values than before, or that only one of the maps has. Nodes that the maps share are not visited.
pub(crate) fn changed_keys<'a, K: Ord, V: PartialEq>(
    after: &'a OrdMap<K, V>,
    before: &'a OrdMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    before.diff(after).map(|item| match item {
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) => key,
        DiffItem::Update { new: (key, _), .. } => key,
    })
}
