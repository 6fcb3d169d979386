//! Which part of a request decides where it goes (DestinationRule `consistentHash`).

use navarch_envoy::proto::envoy::config::route::v3::route_action::HashPolicy;
use navarch_envoy::proto::envoy::config::route::v3::route_action::hash_policy::{
    ConnectionProperties, Cookie, CookieAttribute, Header, PolicySpecifier, QueryParameter,
};
use navarch_envoy::wkt;
use navarch_model::networking::{
    ConsistentHashLb, DestinationRule, HashKey, LbPolicy, LoadBalancerSettings, PortTrafficPolicy,
};
use navarch_model::route::ServiceBackend;

/// The hash policy that makes a ring-hash or Maglev cluster sticky; nothing if the setting names no key.
pub fn hash_policy(hash: &ConsistentHashLb) -> Option<HashPolicy> {
    let specifier = match hash.hash_key.as_ref()? {
        HashKey::HttpHeaderName(name) => {
            PolicySpecifier::Header(Header { header_name: name.clone(), ..Header::default() })
        }
        HashKey::HttpCookie(cookie) => PolicySpecifier::Cookie(Cookie {
            name: cookie.name.clone(),
            ttl: cookie.ttl.map(wkt::duration),
            path: cookie.path.clone(),
            attributes: cookie
                .attributes
                .iter()
                .map(|attribute| CookieAttribute {
                    name: attribute.name.clone(),
                    value: attribute.value.clone(),
                })
                .collect(),
        }),
        HashKey::UseSourceIp(source_ip) => {
            PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: *source_ip })
        }
        HashKey::HttpQueryParameterName(name) => {
            PolicySpecifier::QueryParameter(QueryParameter { name: name.clone() })
        }
    };
    Some(HashPolicy { policy_specifier: Some(specifier), ..HashPolicy::default() })
}

/// The hash that holds for requests to a port of a service that has no routes of its own: of the port, else
/// of the host.
pub fn for_service(rule: &DestinationRule, port: u16) -> Option<&ConsistentHashLb> {
    let policy = rule.traffic_policy.as_ref()?;
    let of_port = of_port(&policy.port_level_settings, u32::from(port));
    of_port.or_else(|| consistent_hash(policy.load_balancer.as_ref()))
}

/// The hash that holds for a backend of a route. The most specific wins: the port of the subset, the subset,
/// the port, the host. Only a port that the route states counts.
pub fn for_backend<'r>(rule: &'r DestinationRule, backend: &ServiceBackend) -> Option<&'r ConsistentHashLb> {
    let port = backend.port.map(u32::from);
    let at_port = |settings: &'r [PortTrafficPolicy]| port.and_then(|port| of_port(settings, port));
    let subset = rule
        .subsets
        .iter()
        .find(|subset| subset.name == *backend.subset)
        .and_then(|subset| subset.traffic_policy.as_ref());
    let whole = rule.traffic_policy.as_ref();
    subset
        .and_then(|policy| at_port(&policy.port_level_settings))
        .or_else(|| consistent_hash(subset.and_then(|policy| policy.load_balancer.as_ref())))
        .or_else(|| whole.and_then(|policy| at_port(&policy.port_level_settings)))
        .or_else(|| consistent_hash(whole.and_then(|policy| policy.load_balancer.as_ref())))
}

fn of_port(settings: &[PortTrafficPolicy], port: u32) -> Option<&ConsistentHashLb> {
    let setting = settings
        .iter()
        .find(|setting| setting.port.as_ref().is_some_and(|selector| selector.number == port))?;
    consistent_hash(setting.load_balancer.as_ref())
}

fn consistent_hash(settings: Option<&LoadBalancerSettings>) -> Option<&ConsistentHashLb> {
    match settings?.lb_policy.as_ref()? {
        LbPolicy::ConsistentHash(hash) => Some(hash),
        LbPolicy::Simple(_) => None,
    }
}
