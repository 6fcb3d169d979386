//! What must have been sent before what, and which resources follow from others.
//!
//! Make before break (xDS spec, "Eventual consistency considerations"): what is referred to arrives before
//! what refers to it, and goes after it.

use std::collections::BTreeSet;
use std::time::Duration;

use navarch_envoy::wire::{Fields, Value, put_varint};
use navarch_envoy::{ProxyResources, Resource, XdsType};

/// How long a type waits for another one that cannot be sent, or for a new cluster to be warm. Then it goes
/// ahead: late configuration does more harm than a short gap.
pub const WAIT_MAX: Duration = Duration::from_secs(5);

/// Unacknowledged cluster responses that may be under way. Envoy holds the acknowledgement back while a
/// cluster warms; the response that removes the stuck cluster must still get through.
pub const CLUSTER_RESPONSES_MAX: usize = 3;

/// After this time without an acknowledgement, one more cluster response may go than
/// [`CLUSTER_RESPONSES_MAX`].
pub const CLUSTER_RESPONSE_INTERVAL: Duration = Duration::from_secs(1);

/// How long after the last type that a returning client asked for it may still ask for another one. Its
/// requests come together, so this is long. Until then, what it holds of that type may refer to anything that
/// it holds.
pub const RETURN_WAIT_MAX: Duration = Duration::from_secs(5);

/// Longest time to wait for the request that tells whether a returning client is past its start. It comes
/// with the others, unless the client has not started. When all return at once, with long lists of what they
/// hold, that may take a while.
pub const STARTUP_WAIT_MAX: Duration = Duration::from_secs(1);

/// Types that must have been sent in full (not: acknowledged) before a response of `ty` is sent.
#[must_use]
pub const fn sent_before(ty: XdsType) -> &'static [XdsType] {
    use XdsType::*;
    match ty {
        Eds => &[Cds],
        Leds => &[Cds, Eds],
        Lds => &[Cds, Eds, Leds, Sds],
        Srds => &[Cds, Eds, Leds, Lds],
        Rds => &[Cds, Eds, Leds, Lds, Srds],
        Vhds => &[Cds, Eds, Leds, Lds, Srds, Rds],
        Ecds => &[Lds],
        Cds | Sds | Rtds | Nds | Address | Authorization | Bootstrap => &[],
    }
}

/// Types that must have been acknowledged before resources of `ty` are taken away: whatever may refer to
/// them.
#[must_use]
pub const fn acked_before_removal(ty: XdsType) -> &'static [XdsType] {
    use XdsType::*;
    match ty {
        Cds => &[Lds, Srds, Rds, Vhds, Ecds],
        Sds => &[Cds, Lds],
        // Endpoints stay with clusters that go, see `Stream::pinned_endpoints`.
        _ => &[],
    }
}

/// Whether removals of this type go out in a phase of their own, after everything else. Listener removals do
/// not: nothing refers to a listener, and one that is renamed on its address must go in the response that
/// adds the other.
#[must_use]
pub const fn removed_last(ty: XdsType) -> bool {
    matches!(ty, XdsType::Cds | XdsType::Eds | XdsType::Sds)
}

/// Whether the brake may hold removals of this type. A domain belongs to one virtual host: one that stays
/// would have Envoy refuse the other that takes its domains.
#[must_use]
pub const fn may_be_held(ty: XdsType) -> bool {
    !matches!(ty, XdsType::Vhds)
}

/// Whether a response of `ty` waits, for at most [`WAIT_MAX`], until new clusters are warm.
#[must_use]
pub const fn waits_for_warm_clusters(ty: XdsType) -> bool {
    matches!(ty, XdsType::Lds | XdsType::Srds | XdsType::Rds | XdsType::Vhds)
}

/// The facts about a cluster that the order of a push depends on, read from its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterFacts<'a> {
    /// The name of its assignment, if its endpoints come by EDS on the same stream.
    pub endpoints: Option<&'a str>,
    /// Whether it takes more than an assignment to become warm: name resolution, health checks, certificates.
    pub slow_to_warm: bool,
}

/// Reads [`ClusterFacts`] from an encoded `envoy.config.cluster.v3.Cluster` of this name.
#[must_use]
pub fn cluster_facts<'a>(name: &'a str, cluster: &'a [u8]) -> ClusterFacts<'a> {
    const TYPE: u32 = 2;
    const EDS_CLUSTER_CONFIG: u32 = 3;
    const HEALTH_CHECKS: u32 = 8;
    const TYPE_STRICT_DNS: u64 = 1;
    const TYPE_LOGICAL_DNS: u64 = 2;
    const TYPE_EDS: u64 = 3;
    let mut facts = ClusterFacts::default();
    let (mut eds, mut service_name, mut over_ads) = (false, None, true);
    for field in Fields::new(cluster) {
        match field {
            (TYPE, Value::Varint(TYPE_EDS)) => eds = true,
            (TYPE, Value::Varint(TYPE_STRICT_DNS | TYPE_LOGICAL_DNS)) | (HEALTH_CHECKS, _) => {
                facts.slow_to_warm = true;
            }
            (EDS_CLUSTER_CONFIG, Value::Bytes(config)) => {
                service_name = eds_service_name(config);
                over_ads = is_over_ads(config);
            }
            _ => {}
        }
    }
    if eds && over_ads {
        facts.endpoints = Some(service_name.unwrap_or(name));
    }
    facts
}

/// `EdsClusterConfig.service_name`, if it is set.
fn eds_service_name(config: &[u8]) -> Option<&str> {
    const SERVICE_NAME: u32 = 2;
    Fields::new(config).find_map(|field| match field {
        (SERVICE_NAME, Value::Bytes(name)) if !name.is_empty() => std::str::from_utf8(name).ok(),
        _ => None,
    })
}

/// Whether `EdsClusterConfig.eds_config` is not a source of its own (path, REST or gRPC service).
fn is_over_ads(config: &[u8]) -> bool {
    const EDS_CONFIG: u32 = 1;
    const PATH: u32 = 1;
    const API_CONFIG_SOURCE: u32 = 2;
    const PATH_CONFIG_SOURCE: u32 = 8;
    !Fields::new(config).any(|field| match field {
        (EDS_CONFIG, Value::Bytes(source)) => Fields::new(source)
            .any(|(number, _)| matches!(number, PATH | API_CONFIG_SOURCE | PATH_CONFIG_SOURCE)),
        _ => false,
    })
}

/// Whether a `RouteConfiguration` has more virtual hosts than those in it, `vhds`.
#[must_use]
pub fn discovers_hosts(routes: &[u8]) -> bool {
    const VHDS: u32 = 9;
    Fields::new(routes).any(|(number, _)| number == VHDS)
}

/// The name of the assignment that a cluster takes its endpoints from, if they come over the same stream.
#[must_use]
pub fn assignment_of(cluster: &Resource) -> Option<String> {
    cluster_facts(cluster.name(), &cluster.body()).endpoints.map(str::to_owned)
}

/// The names of all assignments that clusters take their endpoints from.
#[must_use]
pub fn assignments(resources: &ProxyResources) -> BTreeSet<String> {
    resources.set(XdsType::Cds).iter().filter_map(|cluster| assignment_of(cluster)).collect()
}

/// The address of an encoded `envoy.config.listener.v3.Listener`, as it is encoded.
#[must_use]
pub fn listener_address(listener: &[u8]) -> Option<Vec<u8>> {
    const ADDRESS: u32 = 2;
    Fields::new(listener).find_map(|field| match field {
        (ADDRESS, Value::Bytes(address)) => Some(address.to_vec()),
        _ => None,
    })
}

/// Whether the resource has the name as a text somewhere. Used where a reference may stand anywhere in a
/// message; to be wrong costs one resource sent twice. Before each text stands its length, without which a
/// short name would be found in any long one.
#[must_use]
pub fn mentions(resource: &Resource, name: &str) -> bool {
    let mut text = Vec::with_capacity(name.len() + 2);
    put_varint(&mut text, name.len() as u64);
    text.extend_from_slice(name.as_bytes());
    !name.is_empty() && resource.body().windows(text.len()).any(|window| window == text)
}

#[cfg(test)]
mod tests {
    use navarch_envoy::wire::put_field;

    use super::*;

    #[test]
    fn every_type_is_sent_after_earlier_ones_only() {
        for ty in XdsType::ALL {
            assert!(sent_before(ty).iter().all(|earlier| *earlier < ty), "{ty}");
        }
    }

    #[test]
    fn cluster_facts_are_read_from_bytes() {
        let mut config = Vec::new();
        put_field(&mut config, 0x12, b"service");
        let mut eds = vec![0x10, 3];
        assert_eq!(cluster_facts("c", &eds).endpoints, Some("c"));
        put_field(&mut eds, 0x1a, &config);
        assert_eq!(cluster_facts("c", &eds).endpoints, Some("service"));
        assert!(!cluster_facts("c", &eds).slow_to_warm);
        put_field(&mut eds, 0x42, b"");
        assert!(cluster_facts("c", &eds).slow_to_warm);
        assert_eq!(cluster_facts("c", &[0x10, 1]), ClusterFacts { endpoints: None, slow_to_warm: true });
        assert_eq!(cluster_facts("c", &[]), ClusterFacts::default());
    }

    #[test]
    fn mentions_finds_names_in_bodies() {
        let check = |name: &str, text: &str, expected| {
            let mut body = b"..".to_vec();
            put_field(&mut body, 0x0a, text.as_bytes());
            let resource = Resource::of(XdsType::Lds, "l", &body);
            assert_eq!(mentions(&resource, name), expected, "{name} in {text}");
        };
        check("kubernetes://cert", "kubernetes://cert", true);
        check("kubernetes://other", "kubernetes://cert", false);
        check("80", "80", true);
        check("80", "0.0.0.0_8080", false);
        check("", "80", false);
        let long = "x".repeat(300);
        check(&long, &long, true);
    }
}
