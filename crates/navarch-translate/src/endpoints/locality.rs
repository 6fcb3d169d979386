//! Locality: weights and priorities that keep traffic near, or spread it as configured.
//!
//! Envoy sends traffic to priority 0 as long as enough of its endpoints are healthy, and spreads it among
//! localities by weight only if the cluster says so. Priorities have no gaps.

use std::collections::BTreeMap;

use navarch_model::endpoint::Locality;
use navarch_model::networking::{
    DestinationRule, LoadBalancerSettings, LocalityDistribute, LocalityFailover, LocalityLoadBalancerSetting,
    TrafficPolicy, ZoneAwareLoadBalancerSetting,
};
use navarch_model::service::{Service, TrafficDistribution};

use super::select::topology;
use super::selection::Group;
use super::view::{EndpointMesh, EndpointView};

/// What decides about locality for a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    Locality {
        setting: LocalityLoadBalancerSetting,
        /// Failover does not wait for outlier detection: endpoint health is enough (`trafficDistribution`).
        force_failover: bool,
    },
    ZoneAware(ZoneAwareLoadBalancerSetting),
}

/// Precedence: DestinationRule, `trafficDistribution` of the service, MeshConfig; in a rule and in MeshConfig
/// zone-aware before locality. A DestinationRule that disables locality load balancing disables all that
/// comes after it.
pub fn effective(
    mesh: &EndpointMesh,
    rule: Option<&LoadBalancerSettings>,
    service: &Service,
) -> Option<Setting> {
    let enabled = |setting: &LocalityLoadBalancerSetting| setting.enabled != Some(false);
    let plain = |setting: &LocalityLoadBalancerSetting| {
        enabled(setting).then(|| Setting::Locality { setting: setting.clone(), force_failover: false })
    };
    if let Some(setting) = rule.and_then(|rule| rule.zone_aware_lb_setting.as_ref()) {
        return Some(Setting::ZoneAware(setting.clone()));
    }
    if let Some(setting) = rule.and_then(|rule| rule.locality_lb_setting.as_ref()) {
        return plain(setting);
    }
    if let Some(priority) = distribution_labels(service.traffic_distribution) {
        let setting = LocalityLoadBalancerSetting {
            enabled: Some(true),
            failover_priority: priority.iter().map(|label| (*label).to_owned()).collect(),
            ..LocalityLoadBalancerSetting::default()
        };
        return Some(Setting::Locality { setting, force_failover: true });
    }
    if let Some(setting) = &mesh.zone_aware_lb {
        return Some(Setting::ZoneAware(setting.clone()));
    }
    mesh.locality_lb.as_ref().and_then(plain)
}

/// Whether anything about a service may depend on where its client runs. May err on the side of yes.
pub fn matters(service: &Service, rule: Option<&DestinationRule>, mesh: &EndpointMesh) -> bool {
    let distributes = |setting: &LocalityLoadBalancerSetting| !setting.distribute.is_empty();
    service.traffic_distribution != TrafficDistribution::Any
        || mesh.zone_aware_lb.is_some()
        || mesh.locality_lb.as_ref().is_some_and(distributes)
        || mesh.outlier_detection
        || rule.is_some_and(|rule| {
            let subsets = rule.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref());
            rule.traffic_policy.iter().chain(subsets).any(is_local)
        })
}

/// Whether a policy looks at localities, or makes failover among them possible.
fn is_local(policy: &TrafficPolicy) -> bool {
    let balancer = |balancer: &Option<LoadBalancerSettings>| {
        balancer.as_ref().is_some_and(|balancer| {
            balancer.locality_lb_setting.is_some() || balancer.zone_aware_lb_setting.is_some()
        })
    };
    policy.outlier_detection.is_some()
        || balancer(&policy.load_balancer)
        || policy
            .port_level_settings
            .iter()
            .any(|port| port.outlier_detection.is_some() || balancer(&port.load_balancer))
}

/// Keys of the client's own labels that a rule or the mesh compares with those of endpoints.
pub fn priority_labels(policy: &DestinationRule) -> impl Iterator<Item = &str> {
    let subsets = policy.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref());
    let policies = policy.traffic_policy.iter().chain(subsets);
    let balancers = policies.flat_map(|policy| {
        policy
            .load_balancer
            .iter()
            .chain(policy.port_level_settings.iter().filter_map(|port| port.load_balancer.as_ref()))
    });
    balancers.flat_map(|balancer| {
        let locality = balancer.locality_lb_setting.iter().flat_map(|setting| &setting.failover_priority);
        let zone = balancer.zone_aware_lb_setting.iter().flat_map(|setting| &setting.failover_priority);
        locality.chain(zone).map(|label| split_label(label).0)
    })
}

impl EndpointMesh {
    /// The same for the mesh-wide settings.
    pub fn priority_labels(&self) -> impl Iterator<Item = &str> {
        let locality = self.locality_lb.iter().flat_map(|setting| &setting.failover_priority);
        let zone = self.zone_aware_lb.iter().flat_map(|setting| &setting.failover_priority);
        locality.chain(zone).map(|label| split_label(label).0)
    }
}

fn distribution_labels(distribution: TrafficDistribution) -> Option<&'static [&'static str]> {
    const ALL: [&str; 5] =
        [topology::NETWORK, topology::REGION, topology::ZONE, topology::SUB_ZONE, topology::HOSTNAME];
    match distribution {
        TrafficDistribution::Any => None,
        TrafficDistribution::PreferSameNetwork => Some(&ALL[..1]),
        TrafficDistribution::PreferSameRegion => Some(&ALL[..2]),
        TrafficDistribution::PreferSameZone => Some(&ALL[..3]),
        TrafficDistribution::PreferSameNode => Some(&ALL),
    }
}

impl Setting {
    /// Whether failover is on without outlier detection.
    pub fn force_failover(&self) -> bool {
        match self {
            Setting::Locality { force_failover, .. } => *force_failover,
            Setting::ZoneAware(setting) => is_routing_enabled(setting),
        }
    }

    /// Sets weights or priorities as `view` should see them. `failover`: outlier detection is on, so Envoy
    /// will notice when it has to move on to the next priority.
    pub(crate) fn apply<'a>(
        &self,
        groups: Vec<Group<'a>>,
        view: &EndpointView,
        failover: bool,
    ) -> Vec<Group<'a>> {
        match self {
            Setting::Locality { setting, .. } if !setting.distribute.is_empty() => {
                distribute(groups, &view.locality, &setting.distribute)
            }
            Setting::Locality { setting, force_failover } if failover || *force_failover => {
                let near = |group: &Group<'_>| proximity(&view.locality, &group.locality, &setting.failover);
                if setting.failover_priority.is_empty() {
                    return refine(groups, 5, near);
                }
                let groups = by_labels(groups, view, &setting.failover_priority);
                if setting.failover.is_empty() { groups } else { refine(groups, 5, near) }
            }
            Setting::Locality { .. } => groups,
            Setting::ZoneAware(setting) if !is_routing_enabled(setting) => groups,
            Setting::ZoneAware(setting) => {
                let groups = match setting.failover_priority.as_slice() {
                    [] => groups,
                    labels => by_labels(groups, view, labels),
                };
                // Even without a failover list: endpoints of other regions must not be in priority 0, where
                // Envoy balances among zones.
                refine(groups, 3, |group| {
                    region_proximity(&view.locality, &group.locality, &setting.failover)
                })
            }
        }
    }
}

/// `zoneAwareLbSetting.enabled`; unset means on.
pub fn is_routing_enabled(setting: &ZoneAwareLoadBalancerSetting) -> bool {
    setting.enabled != Some(false)
}

/// The first entry whose `from` matches the client decides; localities in no `to` get no traffic.
fn distribute<'a>(
    mut groups: Vec<Group<'a>>,
    ours: &Locality,
    entries: &[LocalityDistribute],
) -> Vec<Group<'a>> {
    let Some(entry) = entries.iter().find(|entry| matches(ours, &entry.from)) else {
        return groups;
    };
    let mut unmatched: Vec<&mut Group<'a>> = groups.iter_mut().collect();
    for (to, share) in &entry.to {
        let (matched, rest): (Vec<_>, Vec<_>) =
            unmatched.into_iter().partition(|group| matches(&group.locality, to));
        unmatched = rest;
        let total: u64 = matched.iter().map(|group| u64::from(group.weight.unwrap_or(1))).sum();
        for group in matched {
            // A pattern may match several localities: they divide the share by their own weights, rounded up.
            let part = (u64::from(group.weight.unwrap_or(1)) * u64::from(*share)).div_ceil(total.max(1));
            if part > 0 {
                group.weight = Some(u32::try_from(part).unwrap_or(u32::MAX));
            }
        }
    }
    for group in unmatched {
        group.members.clear();
    }
    groups
}

/// Whether a locality is meant by `region/zone/subzone`, where each part may be `*` and missing parts match
/// all.
fn matches(locality: &Locality, pattern: &str) -> bool {
    let mut parts = pattern.split('/');
    let region = parts.next().unwrap_or("");
    let rest =
        |part: Option<&str>, actual: &str| part.is_none_or(|part| matches!(part, "*" | "") || part == actual);
    (region == "*" || region == &*locality.region)
        && rest(parts.next(), &locality.zone)
        && rest(parts.next(), &locality.sub_zone)
}

/// 0: same sub-zone, 1: same zone, 2: same region, 3: elsewhere, 4: elsewhere although `failover` names
/// another place.
fn proximity(ours: &Locality, theirs: &Locality, failover: &[LocalityFailover]) -> u32 {
    if ours.region != theirs.region {
        let target = failover.iter().find(|entry| entry.from == *ours.region);
        return if target.is_none_or(|entry| entry.to == *theirs.region) { 3 } else { 4 };
    }
    if ours.zone != theirs.zone {
        2
    } else if ours.sub_zone != theirs.sub_zone {
        1
    } else {
        0
    }
}

/// 0: same region, 1: the region to fail over to, 2: any other.
fn region_proximity(ours: &Locality, theirs: &Locality, failover: &[LocalityFailover]) -> u32 {
    if ours.region == theirs.region {
        return 0;
    }
    let target = failover.iter().find(|entry| entry.from == *ours.region);
    if target.is_some_and(|entry| entry.to == *theirs.region) { 1 } else { 2 }
}

/// Orders groups of equal priority by `rank` (below `ranks`), and closes gaps.
fn refine<'a>(mut groups: Vec<Group<'a>>, ranks: u32, rank: impl Fn(&Group<'_>) -> u32) -> Vec<Group<'a>> {
    for group in &mut groups {
        group.priority = group.priority.saturating_mul(ranks).saturating_add(rank(group));
    }
    compact(&mut groups);
    groups
}

/// Splits each locality by how many leading labels its endpoints share with the client.
///
/// If the first label is the network, a difference in it alone does not end the comparison: it puts the
/// endpoint behind all endpoints of the client's network, in the order of the other labels.
fn by_labels<'a>(groups: Vec<Group<'a>>, view: &EndpointView, labels: &[String]) -> Vec<Group<'a>> {
    let wanted: Vec<(&str, &str)> = labels
        .iter()
        .map(|label| {
            let (key, value) = split_label(label);
            (key, value.unwrap_or_else(|| view.label(key)))
        })
        .collect();
    let network_first = labels.first().is_some_and(|label| label == topology::NETWORK);
    let count = u32::try_from(wanted.len()).unwrap_or(u32::MAX);
    let mut out = Vec::with_capacity(groups.len());
    for group in groups {
        let Group { locality, members, .. } = group;
        let mut split: BTreeMap<u32, Group<'a>> = BTreeMap::new();
        for member in members {
            let mut priority = 0;
            for (position, (key, value)) in (0..count).zip(&wanted) {
                if member.source.label(key) == *value {
                    continue;
                }
                if position == 0 && network_first {
                    priority = count;
                    continue;
                }
                priority += count - position;
                break;
            }
            split
                .entry(priority)
                .or_insert_with(|| Group {
                    locality: locality.clone(),
                    priority,
                    weight: None,
                    members: Vec::new(),
                })
                .members
                .push(member);
        }
        out.extend(split.into_values().map(|mut group| {
            group.sum_weights();
            group
        }));
    }
    compact(&mut out);
    out
}

/// `label` or `label=value`.
fn split_label(label: &str) -> (&str, Option<&str>) {
    match label.split_once('=') {
        Some((key, value)) if !value.contains('=') => (key, Some(value)),
        Some((key, _)) => (key, None),
        None => (label, None),
    }
}

fn compact(groups: &mut [Group<'_>]) {
    let ranks: BTreeMap<u32, u32> = groups
        .iter()
        .map(|group| group.priority)
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .zip(0..)
        .collect();
    for group in groups {
        group.priority = ranks.get(&group.priority).copied().unwrap_or(group.priority);
    }
}
