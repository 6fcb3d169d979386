//! Which workloads a policy is for (Istio: selectors and `targetRefs`).

use std::collections::BTreeMap;
use std::sync::Arc;

use navarch_model::proxy::{ProxyFacts, ProxyKind};
use navarch_model::types::PolicyTargetReference;
use navarch_model::{Config, Hashed, Labels, Name};
use navarch_snapshot::bound::selects;
use navarch_snapshot::{Listed, View};

/// The label by which a proxy states the Kubernetes Gateway that it is an instance of.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// A workload as policies select it. Proxies of equal workloads share everything that is made from policies
/// alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Workload {
    pub namespace: Name,
    pub labels: Labels,
    pub kind: ProxyKind,
}

/// What says which workloads a policy is for.
#[derive(Clone, Copy, Debug)]
pub struct Attachment<'a> {
    /// Labels that a workload must have.
    pub selector: Option<&'a BTreeMap<String, String>>,
    pub target_ref: Option<&'a PolicyTargetReference>,
    pub target_refs: &'a [PolicyTargetReference],
}

impl<'a> Attachment<'a> {
    /// `targetRefs`, or the single `targetRef` of earlier versions.
    fn targets(&self) -> impl Iterator<Item = &'a PolicyTargetReference> {
        let single = self.target_ref.filter(|_| self.target_refs.is_empty());
        self.target_refs.iter().chain(single)
    }

    /// Whether the policy is for all workloads of its namespace (or of the mesh).
    pub fn is_general(&self) -> bool {
        self.selector.is_none_or(BTreeMap::is_empty) && self.targets().next().is_none()
    }
}

impl Workload {
    /// The workload of a proxy.
    pub fn of(facts: &ProxyFacts) -> Self {
        Workload { namespace: facts.namespace.clone(), labels: facts.labels.clone(), kind: facts.kind }
    }

    /// Whether a policy of `namespace` that was found for this workload is for it. Policies of the root
    /// namespace and of the workload's own are found; targets are only ever in the own namespace.
    pub fn is_meant_by(&self, namespace: &str, attachment: Attachment<'_>) -> bool {
        let gateway = self.labels.get(GATEWAY_NAME);
        let targeted = attachment.targets().next().is_some();
        let Some(gateway) = gateway else {
            return !targeted && self.is_selected(attachment.selector);
        };
        if !targeted {
            // Waypoints serve services, not workloads, and know no selectors.
            return self.kind != ProxyKind::Waypoint && self.is_selected(attachment.selector);
        }
        *self.namespace == *namespace
            && attachment.targets().any(|target| {
                (target.namespace.is_empty() || *target.namespace == *self.namespace)
                    && target.group == "gateway.networking.k8s.io"
                    && target.kind == "Gateway"
                    && *target.name == **gateway
            })
    }

    fn is_selected(&self, selector: Option<&BTreeMap<String, String>>) -> bool {
        selector.is_none_or(|selector| selects(selector, &self.labels))
    }

    /// The policies of some namespaces that are for this workload, each namespace oldest first.
    pub fn policies<T: Listed>(
        &self,
        view: &View<'_>,
        namespaces: [&str; 2],
        attachment: impl Fn(&T) -> Attachment<'_>,
    ) -> Vec<Arc<Hashed<Config<T>>>> {
        let [first, second] = namespaces;
        let second = (second != first).then_some(second);
        std::iter::once(first)
            .chain(second)
            .flat_map(|namespace| view.objects::<T>(namespace))
            .filter(|policy| self.is_meant_by(&policy.namespace, attachment(&policy.spec)))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(labels: &[(&str, &str)], kind: ProxyKind) -> Workload {
        let labels = labels.iter().map(|(key, value)| (Name::from(*key), Name::from(*value))).collect();
        Workload { namespace: Name::from("ns"), labels, kind }
    }

    fn selector(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn gateway(name: &str) -> PolicyTargetReference {
        PolicyTargetReference {
            group: "gateway.networking.k8s.io".to_owned(),
            kind: "Gateway".to_owned(),
            name: name.to_owned(),
            namespace: String::new(),
        }
    }

    #[test]
    fn selectors_and_targets() {
        let plain = workload(&[("app", "a")], ProxyKind::Sidecar);
        let instance = workload(&[("app", "a"), (GATEWAY_NAME, "gw")], ProxyKind::Router);
        let waypoint = workload(&[(GATEWAY_NAME, "gw")], ProxyKind::Waypoint);
        let (a, b, any) = (selector(&[("app", "a")]), selector(&[("app", "b")]), selector(&[]));
        let (own, other) = ([gateway("gw")], [gateway("other")]);
        for (workload, namespace, selector, targets, expected) in [
            (&plain, "ns", None, &[][..], true),
            (&plain, "ns", Some(&any), &[][..], true),
            (&plain, "ns", Some(&a), &[][..], true),
            (&plain, "root", Some(&a), &[][..], true),
            (&plain, "ns", Some(&b), &[][..], false),
            (&plain, "ns", None, &own[..], false),
            (&instance, "ns", None, &own[..], true),
            (&instance, "root", None, &own[..], false),
            (&instance, "ns", None, &other[..], false),
            (&instance, "ns", Some(&a), &[][..], true),
            (&waypoint, "ns", None, &[][..], false),
            (&waypoint, "ns", None, &own[..], true),
        ] {
            let attachment = Attachment { selector, target_ref: None, target_refs: targets };
            assert_eq!(workload.is_meant_by(namespace, attachment), expected, "{namespace} {attachment:?}");
        }
    }
}
