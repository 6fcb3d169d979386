//! Datagrams that a listener passes on.

use navarch_envoy::any::any;
use navarch_envoy::proto::envoy::config::core::v3::RuntimeFractionalPercent;
use navarch_envoy::proto::envoy::config::listener::v3::ListenerFilter;
use navarch_envoy::proto::envoy::extensions::filters::udp::udp_proxy::v3::udp_proxy_config::RouteSpecifier;
use navarch_envoy::proto::envoy::extensions::filters::udp::udp_proxy::v3::{Route, UdpProxyConfig};
use navarch_envoy::proto::envoy::extensions::matching::common_inputs::network::v3::SourcePortInput;
use navarch_envoy::proto::envoy::extensions::matching::input_matchers::runtime_fraction::v3::RuntimeFraction;
use navarch_envoy::proto::envoy::r#type::v3::FractionalPercent;
use navarch_envoy::proto::envoy::r#type::v3::fractional_percent::DenominatorType;
use navarch_envoy::proto::xds::core::v3::TypedExtensionConfig;
use navarch_envoy::proto::xds::r#type::matcher::v3::Matcher;
use navarch_envoy::proto::xds::r#type::matcher::v3::matcher::matcher_list::predicate::{
    MatchType, SinglePredicate, single_predicate,
};
use navarch_envoy::proto::xds::r#type::matcher::v3::matcher::matcher_list::{FieldMatcher, Predicate};
use navarch_envoy::proto::xds::r#type::matcher::v3::matcher::{MatcherList, MatcherType, OnMatch, on_match};
use navarch_model::Name;
use prost::{Message, Name as MessageName};

use super::inspectors;

const MILLION: u64 = 1_000_000;

/// Passes datagrams on to clusters, by weight.
///
/// Envoy's filter has no weights. Its matchers choose for each session (addresses and ports on both sides):
/// what a hash of the source port makes of it stands for a number that is drawn.
pub fn proxy(stat_prefix: &str, clusters: &[(Name, u32)]) -> ListenerFilter {
    let config = UdpProxyConfig {
        stat_prefix: stat_prefix.to_owned(),
        route_specifier: Some(RouteSpecifier::Matcher(choice(clusters))),
        ..UdpProxyConfig::default()
    };
    inspectors::filter("envoy.filters.udp_listener.udp_proxy", &config)
}

/// One cluster after the other gets its share of what those before it leave; the last gets the rest.
fn choice(clusters: &[(Name, u32)]) -> Matcher {
    let Some(((last, _), others)) = clusters.split_last() else { return Matcher::default() };
    let mut left: u64 = clusters.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let mut matchers = Vec::new();
    for (seed, (cluster, weight)) in (1..).zip(others) {
        let share = u64::from(*weight) * MILLION / left.max(1);
        matchers.push(FieldMatcher {
            predicate: Some(by_share(u32::try_from(share).unwrap_or(u32::MAX), seed)),
            on_match: Some(to(cluster)),
        });
        left -= u64::from(*weight);
    }
    let matchers = (!matchers.is_empty()).then_some(MatcherType::MatcherList(MatcherList { matchers }));
    Matcher { on_no_match: Some(Box::new(to(last))), matcher_type: matchers }
}

fn by_share(millionths: u32, seed: u64) -> Predicate {
    let fraction = RuntimeFraction {
        runtime_fraction: Some(RuntimeFractionalPercent {
            default_value: Some(FractionalPercent {
                numerator: millionths,
                denominator: DenominatorType::Million.into(),
            }),
            ..RuntimeFractionalPercent::default()
        }),
        seed,
    };
    Predicate {
        match_type: Some(MatchType::SinglePredicate(SinglePredicate {
            input: Some(extension("envoy.matching.inputs.source_port", &SourcePortInput {})),
            matcher: Some(single_predicate::Matcher::CustomMatch(extension(
                "envoy.matching.matchers.runtime_fraction",
                &fraction,
            ))),
        })),
    }
}

fn to(cluster: &str) -> OnMatch {
    let route = Route { cluster: cluster.to_owned() };
    OnMatch { on_match: Some(on_match::OnMatch::Action(extension("route", &route))), ..OnMatch::default() }
}

fn extension<M: Message + MessageName>(name: &str, config: &M) -> TypedExtensionConfig {
    TypedExtensionConfig { name: name.to_owned(), typed_config: Some(any(config)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shares of what is left that all but the last cluster get, in millionths.
    fn check(weights: &[u32], expected: &[u32]) {
        let clusters: Vec<(Name, u32)> = weights.iter().map(|weight| (Name::from("c"), *weight)).collect();
        let matchers = match choice(&clusters).matcher_type {
            Some(MatcherType::MatcherList(list)) => list.matchers,
            _ => Vec::new(),
        };
        let share = |matcher: &FieldMatcher| {
            let predicate = matcher.predicate.as_ref().and_then(|predicate| predicate.match_type.as_ref());
            let Some(MatchType::SinglePredicate(single)) = predicate else { return None };
            let Some(single_predicate::Matcher::CustomMatch(custom)) = &single.matcher else { return None };
            let encoded = custom.typed_config.as_ref()?;
            let fraction = RuntimeFraction::decode(encoded.value.as_ref()).ok()?.runtime_fraction?;
            Some(fraction.default_value?.numerator)
        };
        assert_eq!(matchers.iter().filter_map(share).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn each_cluster_gets_its_share_of_what_is_left() {
        check(&[1], &[]);
        check(&[1, 1], &[500_000]);
        check(&[1, 1, 2], &[250_000, 333_333]);
        check(&[7, 2, 1], &[700_000, 666_666]);
    }
}
