//! Load balancing: the algorithm and what it knows of localities.

use navarch_envoy::proto::envoy::config::cluster::v3::cluster::common_lb_config::{
    LocalityConfigSpecifier, LocalityWeightedLbConfig, ZoneAwareLbConfig,
};
use navarch_envoy::proto::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig,
    RingHashLbConfig, RoundRobinLbConfig, SlowStartConfig,
};
use navarch_envoy::proto::envoy::config::core::v3::RuntimeDouble;
use navarch_envoy::proto::envoy::r#type::v3::Percent;
use navarch_envoy::wkt;
use navarch_model::networking::{
    ConsistentHashLb, HashAlgorithm, LbPolicy as Wanted, LoadBalancerSettings, SimpleLb,
};
use navarch_model::proxy::ProxyKind;

use super::{Draft, policy};
use crate::endpoints::locality::{Setting, is_routing_enabled};

/// Sets the algorithm. `locality`: what decides about localities for this cluster, if anything.
pub(super) fn apply(
    draft: &mut Draft,
    settings: Option<&LoadBalancerSettings>,
    locality: Option<&Setting>,
    kind: ProxyKind,
) {
    // The dynamic forward proxy brings its own.
    if draft.cluster.lb_policy == LbPolicy::ClusterProvided as i32 {
        return;
    }
    // Unhealthy endpoints are sent, and must not get traffic when Envoy panics because most endpoints are.
    draft.common_lb().healthy_panic_threshold.get_or_insert(Percent { value: 0.0 });
    let failover = draft.cluster.outlier_detection.is_some();
    draft.common_lb().locality_config_specifier =
        locality.and_then(|setting| locality_config(setting, failover, kind));
    if draft.is_original_dst() {
        draft.cluster.lb_policy = LbPolicy::ClusterProvided as i32;
        return;
    }
    match settings.map_or(SimpleLb::Unspecified, policy::simple) {
        SimpleLb::Unspecified | SimpleLb::LeastConn | SimpleLb::LeastRequest => {
            draft.cluster.lb_policy = LbPolicy::LeastRequest as i32;
            draft.cluster.lb_config = slow_start(settings).map(|slow_start| {
                LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
                    slow_start_config: Some(slow_start),
                    ..LeastRequestLbConfig::default()
                })
            });
        }
        SimpleLb::RoundRobin => {
            draft.cluster.lb_policy = LbPolicy::RoundRobin as i32;
            draft.cluster.lb_config = slow_start(settings).map(|slow_start| {
                LbConfig::RoundRobinLbConfig(RoundRobinLbConfig { slow_start_config: Some(slow_start) })
            });
        }
        SimpleLb::Random => draft.cluster.lb_policy = LbPolicy::Random as i32,
        SimpleLb::Passthrough => {
            draft.cluster.lb_policy = LbPolicy::ClusterProvided as i32;
            draft.cluster.cluster_discovery_type =
                Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32));
            draft.cluster.load_assignment = None;
        }
    }
    if let Some(Wanted::ConsistentHash(hash)) = settings.and_then(|settings| settings.lb_policy.as_ref()) {
        consistent_hash(draft, hash);
    }
}

/// Weights of localities are looked at only if somebody set them: they get in the way of the algorithm
/// otherwise.
fn locality_config(setting: &Setting, failover: bool, kind: ProxyKind) -> Option<LocalityConfigSpecifier> {
    match setting {
        Setting::Locality { setting: locality, .. } => {
            let fails_over = (failover || setting.force_failover())
                && (!locality.failover.is_empty() || !locality.failover_priority.is_empty());
            (fails_over || !locality.distribute.is_empty()).then(|| {
                LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig::default())
            })
        }
        // Needs a cluster of the proxy's own peers, which waypoints do not have.
        Setting::ZoneAware(_) if kind == ProxyKind::Waypoint => None,
        Setting::ZoneAware(zone) => Some(LocalityConfigSpecifier::ZoneAwareLbConfig(ZoneAwareLbConfig {
            routing_enabled: (!is_routing_enabled(zone)).then_some(Percent { value: 0.0 }),
            min_cluster_size: zone.min_cluster_size,
            ..ZoneAwareLbConfig::default()
        })),
    }
}

/// New endpoints get their share of traffic gradually. The runtime key has no meaning; Envoy requires one.
fn slow_start(settings: Option<&LoadBalancerSettings>) -> Option<SlowStartConfig> {
    let settings = settings?;
    if let Some(warmup) = &settings.warmup {
        return Some(SlowStartConfig {
            slow_start_window: warmup.duration.map(wkt::duration),
            aggression: Some(RuntimeDouble {
                default_value: warmup.aggression.map_or(1.0, |aggression| aggression.as_f64()),
                runtime_key: "(".to_owned(),
            }),
            min_weight_percent: Some(Percent {
                value: warmup.minimum_percent.map_or(10.0, |percent| percent.as_f64()),
            }),
        });
    }
    settings.warmup_duration_secs.map(|window| SlowStartConfig {
        slow_start_window: Some(wkt::duration(window)),
        ..SlowStartConfig::default()
    })
}

fn consistent_hash(draft: &mut Draft, hash: &ConsistentHashLb) {
    let ring = |size: u64| {
        LbConfig::RingHashLbConfig(RingHashLbConfig {
            minimum_ring_size: Some(size),
            ..RingHashLbConfig::default()
        })
    };
    match &hash.hash_algorithm {
        Some(HashAlgorithm::Maglev(maglev)) => {
            draft.cluster.lb_policy = LbPolicy::Maglev as i32;
            if maglev.table_size != 0 {
                draft.cluster.lb_config =
                    Some(LbConfig::MaglevLbConfig(MaglevLbConfig { table_size: Some(maglev.table_size) }));
            }
        }
        Some(HashAlgorithm::RingHash(ring_hash)) => {
            draft.cluster.lb_policy = LbPolicy::RingHash as i32;
            if ring_hash.minimum_ring_size != 0 {
                draft.cluster.lb_config = Some(ring(ring_hash.minimum_ring_size));
            }
        }
        None => {
            draft.cluster.lb_policy = LbPolicy::RingHash as i32;
            let size = if hash.minimum_ring_size == 0 { 1024 } else { hash.minimum_ring_size };
            draft.cluster.lb_config = Some(ring(size));
        }
    }
}
