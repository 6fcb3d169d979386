//! Routes: unique domains, weights that add up, fields that exclude each other.

use std::collections::HashSet;

use super::content;
use super::filters::{is_set, wrapped};
use super::numbers::{
    cluster_weight as weight, data_source, direct_response, filter_config as fc, header_value,
    header_value_option, mirror as m, rds, retry_back_off as back_off, route as r, route_action as action,
    route_configuration as rc, route_upgrade, virtual_host as host, weighted_cluster as weighted,
};
use crate::violation::Rule;
use crate::walk::{At, nanoseconds};
use crate::wire::{message, messages, text};

/// The longest body of a direct response, in bytes, if the route configuration does not say.
const BODY_MAX: u64 = 4096;

pub fn headers_of_all(routes: &[u8], at: &mut At<'_>) {
    headers(
        routes,
        &[
            ("request_headers_to_add", rc::REQUEST_HEADERS_TO_ADD),
            ("response_headers_to_add", rc::RESPONSE_HEADERS_TO_ADD),
        ],
        &[
            ("request_headers_to_remove", rc::REQUEST_HEADERS_TO_REMOVE),
            ("response_headers_to_remove", rc::RESPONSE_HEADERS_TO_REMOVE),
        ],
        at,
    );
}

pub fn route_configuration(routes: &[u8], at: &mut At<'_>) {
    domains(routes, at);
    let most = wrapped(routes, rc::MAX_DIRECT_RESPONSE_BODY_SIZE_BYTES).unwrap_or(BODY_MAX);
    for (index, virtual_host) in messages(routes, rc::VIRTUAL_HOSTS).enumerate() {
        for (inner, route) in messages(virtual_host, host::ROUTES).enumerate() {
            let body =
                message(route, r::DIRECT_RESPONSE).and_then(|direct| message(direct, direct_response::BODY));
            let Some(body) = body else { continue };
            let text = message(body, data_source::INLINE_STRING).or(message(body, data_source::INLINE_BYTES));
            let length = text.map_or(0, <[u8]>::len) as u64;
            if length > most {
                let place = format!("virtual_hosts[{index}].routes[{inner}].direct_response.body");
                let words = format!("has {length} bytes, but may have at most {most}");
                at.say(Rule::Structure, &place, words);
            }
        }
    }
}

/// Each domain leads to one virtual host. Envoy compares them in lower case.
fn domains(routes: &[u8], at: &mut At<'_>) {
    let mut seen: HashSet<String> = HashSet::new();
    for (index, virtual_host) in messages(routes, rc::VIRTUAL_HOSTS).enumerate() {
        for (inner, domain) in messages(virtual_host, host::DOMAINS).enumerate() {
            let domain = String::from_utf8_lossy(domain).to_ascii_lowercase();
            if seen.contains(&domain) {
                let place = format!("virtual_hosts[{index}].domains[{inner}]");
                at.say(Rule::Structure, &place, format!("is {domain:?}, which is there already"));
            } else {
                seen.insert(domain);
            }
        }
    }
}

pub fn virtual_host(virtual_host: &[u8], at: &mut At<'_>) {
    headers(
        virtual_host,
        &[
            ("request_headers_to_add", host::REQUEST_HEADERS_TO_ADD),
            ("response_headers_to_add", host::RESPONSE_HEADERS_TO_ADD),
        ],
        &[
            ("request_headers_to_remove", host::REQUEST_HEADERS_TO_REMOVE),
            ("response_headers_to_remove", host::RESPONSE_HEADERS_TO_REMOVE),
        ],
        at,
    );
}

pub fn route(route: &[u8], at: &mut At<'_>) {
    headers(
        route,
        &[
            ("request_headers_to_add", r::REQUEST_HEADERS_TO_ADD),
            ("response_headers_to_add", r::RESPONSE_HEADERS_TO_ADD),
        ],
        &[
            ("request_headers_to_remove", r::REQUEST_HEADERS_TO_REMOVE),
            ("response_headers_to_remove", r::RESPONSE_HEADERS_TO_REMOVE),
        ],
        at,
    );
}

/// Headers that a route may neither set nor remove: what routing itself rests on.
pub fn headers(outer: &[u8], added: &[(&str, u32)], removed: &[(&str, u32)], at: &mut At<'_>) {
    let kept = |name: &str| name.starts_with(':') || name.eq_ignore_ascii_case("host");
    for (field, number) in added {
        for (index, option) in messages(outer, *number).enumerate() {
            let header = message(option, header_value_option::HEADER).unwrap_or_default();
            let name = text(header, header_value::KEY);
            let place = format!("{field}[{index}].header");
            if kept(name) {
                at.say(Rule::Structure, &place, format!("is {name:?}, which may not be changed"));
            }
            if let Some(problem) = content::format_problem(text(header, header_value::VALUE)) {
                at.say(Rule::Content, &format!("{place}.value"), problem);
            }
        }
    }
    for (field, number) in removed {
        for (index, name) in messages(outer, *number).enumerate() {
            let name = String::from_utf8_lossy(name);
            if kept(&name) {
                at.say(
                    Rule::Structure,
                    &format!("{field}[{index}]"),
                    format!("is {name:?}, which may not be removed"),
                );
            }
        }
    }
}

pub fn route_action(route: &[u8], at: &mut At<'_>) {
    let set = |number| message(route, number).is_some_and(|value| !value.is_empty());
    let rewrites = [
        !text(route, action::PREFIX_REWRITE).is_empty(),
        message(route, action::REGEX_REWRITE).is_some(),
        message(route, action::PATH_REWRITE_POLICY).is_some(),
        set(action::PATH_REWRITE),
    ];
    if rewrites.iter().filter(|set| **set).count() > 1 {
        let words = "has more than one of `prefix_rewrite`, `regex_rewrite`, `path_rewrite_policy` and `path_rewrite`";
        at.say(Rule::Structure, "", words.to_owned());
    }
    let mut seen: HashSet<String> = HashSet::new();
    for (index, upgrade) in messages(route, action::UPGRADE_CONFIGS).enumerate() {
        let kind = text(upgrade, route_upgrade::UPGRADE_TYPE).to_ascii_lowercase();
        if !seen.insert(kind.clone()) {
            let place = format!("upgrade_configs[{index}].upgrade_type");
            at.say(Rule::Structure, &place, format!("is {kind:?}, which is there already"));
        }
    }
}

pub fn mirror(policy: &[u8], at: &mut At<'_>) {
    one_of(policy, m::CLUSTER, m::CLUSTER_HEADER, "cluster", at);
}

/// One of the name of a cluster and the header that holds it.
fn one_of(outer: &[u8], name: u32, header: u32, field: &str, at: &mut At<'_>) {
    let (named, in_header) = (!text(outer, name).is_empty(), !text(outer, header).is_empty());
    if named == in_header {
        let number = if named { "both" } else { "neither" };
        let words = format!("has {number} of `{field}` and `cluster_header`, but must have one");
        at.say(Rule::Structure, "", words);
    }
}

pub fn weighted_cluster(clusters: &[u8], at: &mut At<'_>) {
    let weights =
        messages(clusters, weighted::CLUSTERS).filter_map(|cluster| wrapped(cluster, weight::WEIGHT));
    let sum: u64 = weights.fold(0, u64::saturating_add);
    let complete =
        messages(clusters, weighted::CLUSTERS).all(|cluster| wrapped(cluster, weight::WEIGHT).is_some());
    if sum == 0 && complete && message(clusters, weighted::CLUSTERS).is_some() {
        at.say(Rule::Structure, "clusters", "have weights whose sum is 0".to_owned());
    }
    if sum > u64::from(u32::MAX) {
        at.say(Rule::Structure, "clusters", format!("have weights whose sum is above {}", u32::MAX));
    }
}

pub fn cluster_weight(cluster: &[u8], at: &mut At<'_>) {
    if message(cluster, weight::WEIGHT).is_none() {
        at.say(Rule::Structure, "weight", "is missing, but required".to_owned());
    }
    one_of(cluster, weight::NAME, weight::CLUSTER_HEADER, "name", at);
    headers(
        cluster,
        &[
            ("request_headers_to_add", weight::REQUEST_HEADERS_TO_ADD),
            ("response_headers_to_add", weight::RESPONSE_HEADERS_TO_ADD),
        ],
        &[
            ("request_headers_to_remove", weight::REQUEST_HEADERS_TO_REMOVE),
            ("response_headers_to_remove", weight::RESPONSE_HEADERS_TO_REMOVE),
        ],
        at,
    );
}

/// Routes come from somewhere, unless their name is a URL that says where.
pub fn rds(rds: &[u8], at: &mut At<'_>) {
    if message(rds, rds::CONFIG_SOURCE).is_none() && !text(rds, rds::ROUTE_CONFIG_NAME).starts_with("xdstp:")
    {
        at.say(Rule::Structure, "config_source", "is missing".to_owned());
    }
}

pub fn retry_back_off(policy: &[u8], at: &mut At<'_>) {
    let base = message(policy, back_off::BASE_INTERVAL).map(nanoseconds);
    let most = message(policy, back_off::MAX_INTERVAL).map(nanoseconds);
    if let (Some(base), Some(most)) = (base, most)
        && most < base
    {
        at.say(Rule::Structure, "max_interval", "is shorter than `base_interval`".to_owned());
    }
}

pub fn filter_config(config: &[u8], at: &mut At<'_>) {
    if message(config, fc::CONFIG).is_none() && !is_set(config, fc::DISABLED) {
        at.say(Rule::Structure, "config", "is missing, and the filter is not disabled".to_owned());
    }
}
