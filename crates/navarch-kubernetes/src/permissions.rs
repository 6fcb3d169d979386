//! What an API server has to allow us, and what for: the source of ClusterRoles and of the documentation.
//!
//! Reads follow from the kinds table, statuses from the list of kinds that have one of ours, and
//! everything else is a row here.

use navarch_model::Kind;

/// Kinds whose objects are told what became of them, in their status.
pub const STATUS_KINDS: &[Kind] = &[
    Kind::GatewayClass,
    Kind::KubernetesGateway,
    Kind::ListenerSet,
    Kind::HttpRoute,
    Kind::GrpcRoute,
    Kind::TlsRoute,
    Kind::TcpRoute,
    Kind::UdpRoute,
    Kind::BackendTlsPolicy,
    Kind::BackendTrafficPolicy,
    Kind::Ingress,
    Kind::ServiceEntry,
];

/// Where a permission is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Where {
    /// In the whole cluster: a ClusterRole.
    Everywhere,
    /// In the namespace that we run in: a Role.
    OwnNamespace,
}

/// Who needs a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Everybody, or whoever asks for it later.
    Always,
    /// Who deploys gateways (`--deploy-gateways`).
    Gateways,
}

/// A rule of a ClusterRole or a Role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The API group; empty for the core group.
    pub group: &'static str,
    pub resource: &'static str,
    /// Empty for the object itself.
    pub subresource: &'static str,
    /// The only objects that it is for (`resourceNames`); all if there are none.
    pub names: &'static [&'static str],
    pub verbs: &'static [&'static str],
    pub place: Where,
    pub need: Need,
    pub reason: &'static str,
}

impl Permission {
    /// As a rule has it: `resource`, or `resource/subresource`.
    pub fn resource(&self) -> String {
        match self.subresource {
            "" => self.resource.to_owned(),
            subresource => format!("{}/{subresource}", self.resource),
        }
    }
}

const GATEWAYS: &str = "gateways are deployed (only with --deploy-gateways)";

/// What is neither a read nor a status.
pub const OTHERS: &[Permission] = &[
    Permission {
        group: "coordination.k8s.io",
        resource: "leases",
        subresource: "",
        names: &[],
        verbs: &["get", "list", "create", "update", "patch", "delete"],
        place: Where::OwnNamespace,
        need: Need::Always,
        reason: "one of all replicas writes; replicas with workloads that registered themselves say that they are there",
    },
    Permission {
        group: "networking.istio.io",
        resource: "workloadentries",
        subresource: "",
        names: &[],
        verbs: &["create", "patch", "delete"],
        place: Where::Everywhere,
        need: Need::Always,
        reason: "workloads register themselves, and go",
    },
    // Who creates by applying is asked for both verbs, and creating cannot be restricted to names.
    Permission {
        group: "",
        resource: "configmaps",
        subresource: "",
        names: &[],
        verbs: &["create"],
        place: Where::Everywhere,
        need: Need::Always,
        reason: "the roots of the mesh, in every namespace",
    },
    Permission {
        group: "",
        resource: "configmaps",
        subresource: "",
        names: &["istio-ca-root-cert"],
        verbs: &["patch"],
        place: Where::Everywhere,
        need: Need::Always,
        reason: "the roots of the mesh are kept right",
    },
    Permission {
        group: "",
        resource: "secrets",
        subresource: "",
        names: &[],
        verbs: &["create"],
        place: Where::OwnNamespace,
        need: Need::Always,
        reason: "the authority is made once, and shared by all replicas",
    },
    Permission {
        group: "authentication.k8s.io",
        resource: "tokenreviews",
        subresource: "",
        names: &[],
        verbs: &["create"],
        place: Where::Everywhere,
        need: Need::Always,
        reason: "tokens of service accounts prove who somebody is",
    },
    Permission {
        group: "",
        resource: "events",
        subresource: "",
        names: &[],
        verbs: &["create", "patch"],
        place: Where::Everywhere,
        need: Need::Always,
        reason: "findings, told at the object (only with --events)",
    },
    Permission {
        group: "",
        resource: "serviceaccounts",
        subresource: "",
        names: &[],
        verbs: &["get", "list", "create", "patch"],
        place: Where::Everywhere,
        need: Need::Gateways,
        reason: GATEWAYS,
    },
    Permission {
        group: "",
        resource: "services",
        subresource: "",
        names: &[],
        verbs: &["create", "patch"],
        place: Where::Everywhere,
        need: Need::Gateways,
        reason: GATEWAYS,
    },
    Permission {
        group: "apps",
        resource: "deployments",
        subresource: "",
        names: &[],
        verbs: &["get", "list", "create", "patch"],
        place: Where::Everywhere,
        need: Need::Gateways,
        reason: GATEWAYS,
    },
    Permission {
        group: "autoscaling",
        resource: "horizontalpodautoscalers",
        subresource: "",
        names: &[],
        verbs: &["get", "list", "create", "patch"],
        place: Where::Everywhere,
        need: Need::Gateways,
        reason: GATEWAYS,
    },
    Permission {
        group: "policy",
        resource: "poddisruptionbudgets",
        subresource: "",
        names: &[],
        verbs: &["get", "list", "create", "patch"],
        place: Where::Everywhere,
        need: Need::Gateways,
        reason: GATEWAYS,
    },
];

/// Everything that we ask of an API server.
pub fn permissions() -> Vec<Permission> {
    let of = |kind: &Kind, subresource, verbs, reason| Permission {
        group: kind.group(),
        resource: kind.plural(),
        subresource,
        names: &[],
        verbs,
        place: Where::Everywhere,
        need: Need::Always,
        reason,
    };
    let reads = Kind::ALL.iter().map(|kind| of(kind, "", &["get", "list", "watch"] as &[_], "configuration"));
    let statuses =
        STATUS_KINDS.iter().map(|kind| of(kind, "status", &["patch"] as &[_], "what became of objects"));
    reads.chain(statuses).chain(OTHERS.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_is_documented_and_needed_once() {
        let document = include_str!("../../../docs/kubernetes.md");
        for row in OTHERS {
            let resource = match row.group {
                "" => row.resource(),
                group => format!("{}.{group}", row.resource()),
            };
            let line = document.lines().find(|line| {
                line.starts_with(&format!("| `{resource}`")) && line.contains(row.verbs.join(", ").as_str())
            });
            assert!(line.is_some(), "{row:?}");
        }
        let all = permissions();
        let distinct: BTreeSet<_> =
            all.iter().map(|row| (row.group, row.resource(), row.names, row.verbs)).collect();
        assert_eq!(distinct.len(), all.len());
        // Nothing is taken away but what a replica has written of itself.
        let may_go = ["leases", "workloadentries"];
        let is_bounded = |row: &Permission| !row.verbs.contains(&"delete") || may_go.contains(&row.resource);
        assert!(all.iter().all(|row| is_bounded(row) && !row.verbs.contains(&"*")));
    }
}
