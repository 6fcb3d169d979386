//! Which filter chain takes a connection (Envoy: `FilterChainMatch`).
//!
//! The criteria are compared in a fixed order; each step keeps the chains with the most specific matching
//! value, and there is no way back: if no chain is left at a later step, the default filter chain takes the
//! connection.

use std::net::IpAddr;

use navarch_envoy::proto::envoy::config::core::v3::CidrRange;
use navarch_envoy::proto::envoy::config::listener::v3::listener_filter_chain_match_predicate::Rule;
use navarch_envoy::proto::envoy::config::listener::v3::{
    FilterChain, FilterChainMatch, Listener, ListenerFilterChainMatchPredicate,
};

use crate::outcome::{Action, Stage};
use crate::{Call, Protocol};

/// What the listener filters find out about a connection.
struct Detected {
    server_name: String,
    transport: &'static str,
    application_protocols: Vec<String>,
}

/// The chain and its name, or the reason why there is none.
pub fn find<'a>(listener: &'a Listener, call: &Call) -> Result<(&'a FilterChain, String), Action> {
    if listener.filter_chain_matcher.is_some() {
        return Err(Action::Unknown(format!("listener {} has a filter chain matcher", listener.name)));
    }
    let detected = detect(listener, call);
    let chains: Vec<(usize, &FilterChain)> = listener.filter_chains.iter().enumerate().collect();
    match narrow(chains, call, &detected)? {
        Some((index, chain)) => {
            let name = if chain.name.is_empty() { format!("#{index}") } else { chain.name.clone() };
            Ok((chain, name))
        }
        None => match &listener.default_filter_chain {
            Some(chain) if chain.name.is_empty() => Ok((chain, "default".to_owned())),
            Some(chain) => Ok((chain, chain.name.clone())),
            None => {
                let reason = format!("no filter chain of {} matches", listener.name);
                Err(Action::blocked(Stage::FilterChain, None, reason))
            }
        },
    }
}

fn detect(listener: &Listener, call: &Call) -> Detected {
    let port = u32::from(call.destination.port());
    let runs = |name: &str| {
        listener.listener_filters.iter().any(|filter| {
            filter.name == name
                && !filter.filter_disabled.as_ref().is_some_and(|predicate| holds(predicate, port))
        })
    };
    let mut detected =
        Detected { server_name: String::new(), transport: "raw_buffer", application_protocols: Vec::new() };
    match &call.tls {
        Some(tls) if runs("envoy.filters.listener.tls_inspector") => {
            detected.transport = "tls";
            detected.server_name = tls.sni.to_ascii_lowercase();
            detected.application_protocols.clone_from(&tls.alpn);
        }
        None if runs("envoy.filters.listener.http_inspector") => match call.protocol {
            Protocol::Http1 => detected.application_protocols.push("http/1.1".to_owned()),
            Protocol::Http2 => detected.application_protocols.push("h2c".to_owned()),
            Protocol::Tcp => {}
        },
        _ => {}
    }
    detected
}

fn holds(predicate: &ListenerFilterChainMatchPredicate, port: u32) -> bool {
    match &predicate.rule {
        Some(Rule::OrMatch(set)) => set.rules.iter().any(|rule| holds(rule, port)),
        Some(Rule::AndMatch(set)) => set.rules.iter().all(|rule| holds(rule, port)),
        Some(Rule::NotMatch(rule)) => !holds(rule, port),
        Some(Rule::AnyMatch(any)) => *any,
        // The end is not part of the range.
        Some(Rule::DestinationPortRange(range)) => {
            let port = i64::from(port);
            i64::from(range.start) <= port && port < i64::from(range.end)
        }
        None => false,
    }
}

type Candidates<'a> = Vec<(usize, &'a FilterChain)>;

fn narrow<'a>(
    mut chains: Candidates<'a>,
    call: &Call,
    detected: &Detected,
) -> Result<Option<(usize, &'a FilterChain)>, Action> {
    let port = u32::from(call.destination.port());
    keep_best(&mut chains, |m| match m.destination_port {
        None => Some(0),
        Some(wanted) => (wanted == port).then_some(1),
    });
    keep_best(&mut chains, |m| best_prefix(&m.prefix_ranges, call.destination.ip()));
    keep_best(&mut chains, |m| best_server_name(&m.server_names, &detected.server_name));
    keep_best(&mut chains, |m| match m.transport_protocol.as_str() {
        "" => Some(0),
        wanted => (wanted == detected.transport).then_some(1),
    });
    keep_best(&mut chains, |m| best_protocol(&m.application_protocols, &detected.application_protocols));
    let about_source = |(_, chain): &(usize, &FilterChain)| {
        chain.filter_chain_match.as_ref().is_some_and(|m| {
            !m.direct_source_prefix_ranges.is_empty()
                || m.source_type != 0
                || !m.source_prefix_ranges.is_empty()
                || !m.source_ports.is_empty()
        })
    };
    if chains.iter().any(about_source) {
        return Err(Action::Unknown("the filter chain depends on the address of the client".to_owned()));
    }
    Ok(chains.first().copied())
}

/// Keeps the chains with the highest rank; those without a rank do not match.
fn keep_best(chains: &mut Candidates<'_>, rank: impl Fn(&FilterChainMatch) -> Option<usize>) {
    let empty = FilterChainMatch::default();
    let ranks: Vec<Option<usize>> =
        chains.iter().map(|(_, chain)| rank(chain.filter_chain_match.as_ref().unwrap_or(&empty))).collect();
    let best = ranks.iter().flatten().max().copied();
    let mut ranks = ranks.into_iter();
    chains.retain(|_| ranks.next().flatten().is_some_and(|rank| Some(rank) == best));
}

/// 0 for any address, 1 and the length for a range.
fn best_prefix(ranges: &[CidrRange], address: IpAddr) -> Option<usize> {
    if ranges.is_empty() {
        return Some(0);
    }
    ranges.iter().filter_map(|range| contains(range, address)).max()
}

fn contains(range: &CidrRange, address: IpAddr) -> Option<usize> {
    let length = range.prefix_len.unwrap_or(0);
    let same = match (range.address_prefix.parse().ok()?, address) {
        (IpAddr::V4(prefix), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(length)).unwrap_or(0);
            prefix.to_bits() & mask == address.to_bits() & mask
        }
        (IpAddr::V6(prefix), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(length)).unwrap_or(0);
            prefix.to_bits() & mask == address.to_bits() & mask
        }
        _ => false,
    };
    same.then_some(length as usize + 1)
}

/// The exact name before the longest wildcard `*.<suffix>` before any name.
fn best_server_name(names: &[String], found: &str) -> Option<usize> {
    if names.is_empty() {
        return Some(0);
    }
    let rank = |name: &String| {
        let name = name.to_ascii_lowercase();
        match name.strip_prefix('*') {
            // A lone `*` is not a name that Envoy accepts.
            Some("") => None,
            Some(suffix) => (found.len() > suffix.len() && found.ends_with(suffix)).then_some(suffix.len()),
            None => (!found.is_empty() && name == found).then_some(usize::MAX),
        }
    };
    names.iter().filter_map(rank).max()
}

/// The first protocol that the client offers and a chain has wins.
fn best_protocol(wanted: &[String], found: &[String]) -> Option<usize> {
    if wanted.is_empty() {
        return Some(0);
    }
    found.iter().position(|protocol| wanted.contains(protocol)).map(|index| found.len() - index)
}
