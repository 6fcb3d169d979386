//! What differs between two snapshots, found without looking at what they share.

use std::collections::BTreeSet;

use navarch_model::Name;
use navarch_model::fact::FactKey;

use crate::changed_keys::changed_keys;
use crate::part::{BUCKETS, Bucket, Part};
use crate::snapshot::Snapshot;

impl Snapshot {
    /// The parts whose fingerprint differs from that of `before`.
    ///
    /// Snapshots of one world share what did not change, so this costs as much as there are changes between
    /// them, and a fixed number of comparisons. The answer is right for any two snapshots.
    pub fn changed_since(&self, before: &Snapshot) -> Vec<Part> {
        let mut parts = self.not_shared_with(before);
        parts.retain(|part| self.fingerprint(part) != before.fingerprint(part));
        parts
    }

    /// The parts that have to be compared.
    fn not_shared_with(&self, before: &Snapshot) -> Vec<Part> {
        let mut parts = Part::SINGLE.to_vec();
        let mut by_bucket = |part: fn(Bucket) -> Part, same: bool| {
            if !same {
                parts.extend((0..BUCKETS).map(part));
            }
        };
        by_bucket(Part::Services, self.services.is_same(&before.services));
        by_bucket(Part::EndpointSummaries, self.summaries.is_same(&before.summaries));
        by_bucket(Part::DestinationRules, self.rules.is_same(&before.rules));
        by_bucket(Part::Routes, self.routes.is_same(&before.routes));
        by_bucket(Part::Destinations, self.destinations.is_same(&before.destinations));
        parts.extend(self.endpoints.changed_since(&before.endpoints).into_iter().map(Part::Endpoints));
        parts.extend(self.footprints.changed_since(&before.footprints).cloned().map(Part::Footprint));
        parts.extend(self.gateway_routes.changed_since(&before.gateway_routes));
        parts.extend(changed_keys(&self.workloads, &before.workloads).copied().map(Part::Workload));
        parts.extend(
            changed_keys(&self.selectors, &before.selectors)
                .cloned()
                .map(|(namespace, key, value)| Part::Selectors { namespace, key, value }),
        );
        let objects = changed_keys(&self.objects, &before.objects);
        let before_objects = parts.len();
        parts.extend(objects.filter_map(Part::of_object));
        if parts[before_objects..].iter().any(|part| matches!(part, Part::Secret { .. })) {
            parts.push(Part::SecretNamespaces);
        }
        let before_facts = parts.len();
        parts.extend(changed_keys(&self.facts, &before.facts).filter_map(Part::of_fact));
        if parts[before_facts..].contains(&Part::Fact(FactKey::Rejected)) {
            let namespaces: BTreeSet<&Name> =
                self.rejecting_namespaces().chain(before.rejecting_namespaces()).collect();
            parts.extend(namespaces.into_iter().cloned().map(Part::RejectedIn));
        }
        if parts[before_facts..].iter().any(|part| matches!(part, Part::Fact(FactKey::SecretReader(_)))) {
            parts.push(Part::SecretReaders);
        }
        parts.extend(self.tables.changed_since(&before.tables));
        parts
    }
}

#[cfg(test)]
mod tests {
    use navarch_model::change::ChangeSet;
    use navarch_model::document::parse_text;
    use navarch_testkit::mesh;

    use crate::world::{Options, Work, World};

    fn change(yaml: &str) -> ChangeSet {
        let parsed = parse_text("test.yaml", yaml);
        assert!(parsed.rejected.is_empty() && !parsed.incomplete, "{:?}", parsed.findings);
        ChangeSet::upserting(parsed.objects)
    }

    /// What a change costs, counted: values derived, hosts put together, parts that differ.
    #[test]
    fn one_change_does_not_cost_a_whole_mesh() {
        let rule = |kind: &str, spec: &str| {
            let metadata = "{name: r, namespace: n7}";
            format!(
                "{{apiVersion: networking.istio.io/v1, kind: {kind}, metadata: {metadata}, spec: {spec}}}"
            )
        };
        let route = "{hosts: [s7], http: [{route: [{destination: {host: s17}}]}]}";
        let edits = [
            // With both addresses.
            ("an endpoint", mesh::slice(7, 1), (3, 1, 1)),
            // Endpoints, who they are, and the workload.
            ("a pod", mesh::pod(7, "other"), (2, 1, 3)),
            ("a route", rule("VirtualService", route), (1, 2, 2)),
            ("a subset", rule("DestinationRule", "{host: s7, subsets: [{name: v1}]}"), (1, 1, 1)),
            ("a scope", rule("Sidecar", "{egress: [{hosts: ['./*']}]}"), (0, 0, 2)),
            ("a service", mesh::service(2_007), (2, 2, 3)),
        ];
        let compared = [100, 2_000].map(|services| {
            let mut world = World::new(Options::default());
            world.apply(change(&mesh::services(services)));
            let check = |(what, edit, expected): &(&str, String, (usize, usize, usize))| {
                let before = world.snapshot().clone();
                let after = world.apply(change(edit));
                let Work { derived, assembled } = world.work();
                let differ = after.changed_since(&before);
                let cost = (derived, assembled, differ.len());
                assert_eq!(cost, *expected, "{what} among {services} services: {differ:?}");
                after.not_shared_with(&before).len()
            };
            edits.iter().map(check).collect::<Vec<usize>>()
        });
        // Buckets: every mesh has the same number.
        assert_eq!(compared[0], compared[1], "parts compared");
    }
}
