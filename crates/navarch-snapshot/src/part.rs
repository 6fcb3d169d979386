//! Parts: the units in which a snapshot changes and in which reads are recorded.

use std::net::IpAddr;

use navarch_model::Name;
use navarch_model::fact::FactKey;
use navarch_model::kinds::Kind;
use navarch_model::object::ObjectKey;
use navarch_model::route::Parent;

/// Number of buckets that hosts are spread over.
///
/// The number is fixed, so that the cost of checking all buckets does not grow with the mesh, and large
/// enough that the bucket of a changed host holds few others: some forty services at 10,000.
pub const BUCKETS: u16 = 256;

/// Index of a bucket, below [`BUCKETS`].
pub type Bucket = u16;

/// The bucket of a host. The same on every replica and after every restart.
pub fn bucket_of(host: &str) -> Bucket {
    // FNV-1a: short, stable, good enough to spread names; nothing is keyed by it but the bucket.
    let hash = host.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    ((hash ^ (hash >> 32)) % u64::from(BUCKETS)) as Bucket
}

/// A part of a snapshot: has a fingerprint, and changes as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Mesh-wide settings and networks.
    Mesh,
    /// Services whose host falls into the bucket.
    Services(Bucket),
    /// Endpoints of the services with this host. Not by bucket: they change far more often than anything
    /// else.
    Endpoints(Name),
    /// What clusters need to know of the endpoints in the bucket; changes far less often than the endpoints.
    EndpointSummaries(Bucket),
    /// DestinationRules for an exact host in the bucket.
    DestinationRules(Bucket),
    /// DestinationRules for wildcard hosts.
    WildcardDestinationRules,
    /// Routes of the mesh for an exact host in the bucket.
    Routes(Bucket),
    /// Routes of the mesh for wildcard hosts.
    WildcardRoutes,
    /// Which routes of the mesh send traffic to a host in the bucket.
    Destinations(Bucket),
    /// Buckets that services, routes and the destinations of routes of a namespace fall into.
    Footprint(Name),
    /// Routes bound to a gateway, or to one listener of a gateway, for an exact host in the bucket; without a
    /// bucket, those for wildcard hosts.
    GatewayRoutes(Parent, Option<Bucket>),
    /// In which buckets a gateway or a listener has routes.
    GatewayBuckets(Parent),
    /// What routes are bound to, there or not.
    GatewaysNamed,
    /// Listeners of all gateways: a mesh has few.
    Gateways,
    /// Objects of another kind in a namespace.
    Objects(Kind, Name),
    /// All objects of a kind, for kinds that are rare in a mesh.
    AllObjects(Kind),
    /// The set of namespaces and their labels.
    Namespaces,
    /// Which services the workloads at an address back, and what the registry knows of them.
    Workload(IpAddr),
    /// Kubernetes Services of a namespace whose selector starts with this label.
    Selectors { namespace: Name, key: Name, value: Name },
    /// Addresses of gateways to other networks.
    NetworkGateways,
    /// Whether some object looks at the node of clients.
    ClientNodes,
    /// Which values of the metadata of Envoy nodes some object looks at.
    NodeMetadata,
    /// Which namespaces have Secrets.
    SecretNamespaces,
    /// One Secret.
    Secret { namespace: Name, name: Name },
    /// One ConfigMap.
    ConfigMap { namespace: Name, name: Name },
    /// One fact.
    Fact(FactKey),
    /// What proxies of a namespace have refused.
    RejectedIn(Name),
    /// Which accounts may not read Secrets.
    SecretReaders,
}

impl Part {
    /// The parts that there is one of.
    pub(crate) const SINGLE: [Part; 8] = [
        Part::Mesh,
        Part::WildcardDestinationRules,
        Part::WildcardRoutes,
        Part::Gateways,
        Part::Namespaces,
        Part::NetworkGateways,
        Part::ClientNodes,
        Part::NodeMetadata,
    ];

    /// The part that a fact is, if translation may read it by itself.
    pub(crate) fn of_fact(key: &FactKey) -> Option<Part> {
        match key {
            FactKey::Jwks(_)
            | FactKey::Unfetched(_)
            | FactKey::TrustBundle(_)
            | FactKey::Day
            | FactKey::Rejected
            | FactKey::NoAuthority
            | FactKey::SecretReader(_)
            | FactKey::Resolved(_) => Some(Part::Fact(key.clone())),
            // The first is a part of the mesh settings, the second only concerns people.
            FactKey::MeshConfig | FactKey::Refused(_) => None,
        }
    }

    /// The part that an object is by itself.
    pub(crate) fn of_object(key: &ObjectKey) -> Option<Part> {
        let (namespace, name) = (key.namespace.clone(), key.name.clone());
        match key.kind {
            Kind::Secret => Some(Part::Secret { namespace, name }),
            Kind::ConfigMap => Some(Part::ConfigMap { namespace, name }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_stable_and_even() {
        // The bucket of a host must not change between versions that run side by side.
        assert_eq!(bucket_of("reviews.default.svc.cluster.local"), 36);
        let mut load = vec![0u32; usize::from(BUCKETS)];
        for index in 0..10_000 {
            load[usize::from(bucket_of(&format!("service-{index}.default.svc.cluster.local")))] += 1;
        }
        assert!(load.iter().all(|hosts| (10..=80).contains(hosts)), "{load:?}");
    }
}
