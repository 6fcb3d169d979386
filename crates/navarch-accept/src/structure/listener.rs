//! Listeners: an address, filter chains, and one chain for each match.

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::IpAddr;

use super::filters::wrapped;
use super::numbers::{
    additional_address, address, api_listener, chain_match as wanted, cidr, filter_chain as chain,
    listener as l, socket_address,
};
use super::{content, filters};
use crate::violation::Rule;
use crate::walk::At;
use crate::wire::{Fields, Value, last, message, messages, text, varint};

/// Combinations of what chains match beyond which no more are compared.
const COMBINATIONS_MAX: usize = 1 << 18;

/// `envoy.config.core.v3.SocketAddress.Protocol.UDP`.
const UDP: u64 = 1;

pub fn listener(listener: &[u8], at: &mut At<'_>) {
    let has = |number| message(listener, number).is_some();
    let address = message(listener, l::ADDRESS);
    if address.is_none() && !has(l::INTERNAL_LISTENER) && !has(l::API_LISTENER) {
        at.say(Rule::Structure, "address", "is missing: a listener needs one".to_owned());
    }
    let socket = address.and_then(|address| message(address, address::SOCKET_ADDRESS)).unwrap_or_default();
    let udp = last(socket, socket_address::PROTOCOL).and_then(Value::varint) == Some(UDP);
    if let Some(words) = address.and_then(content::address_problem) {
        at.say(Rule::Content, "address", words);
    }
    for (index, more) in messages(listener, l::ADDITIONAL_ADDRESSES).enumerate() {
        if let Some(words) = message(more, additional_address::ADDRESS).and_then(content::address_problem) {
            at.say(Rule::Content, &format!("additional_addresses[{index}].address"), words);
        }
    }
    if udp && has(l::FILTER_CHAINS) && !has(l::UDP_LISTENER_CONFIG) {
        at.say(Rule::Structure, "filter_chains", "is set, but a UDP listener has none".to_owned());
    }
    let api = message(listener, l::API_LISTENER);
    if api.is_some_and(|api| message(api, api_listener::API_LISTENER).is_none()) {
        at.say(Rule::Structure, "api_listener.api_listener", "is missing".to_owned());
    }
    let none = !has(l::FILTER_CHAINS) && !has(l::DEFAULT_FILTER_CHAIN) && !has(l::FCDS_CONFIG);
    if none && !udp && !has(l::API_LISTENER) && !has(l::UDP_LISTENER_CONFIG) {
        at.say(Rule::Structure, "filter_chains", "is empty: a listener needs a filter chain".to_owned());
    }
    if has(l::FILTER_CHAIN_MATCHER) { unique_names(listener, at) } else { unique_matches(listener, at) }
}

/// A matcher finds chains by their names.
fn unique_names(listener: &[u8], at: &mut At<'_>) {
    let mut seen = HashSet::new();
    for (index, chain) in messages(listener, l::FILTER_CHAINS).enumerate() {
        let name = text(chain, chain::NAME);
        let place = format!("filter_chains[{index}].name");
        if name.is_empty() {
            at.say(Rule::Structure, &place, "is empty, but `filter_chain_matcher` needs it".to_owned());
        } else if !seen.insert(name) {
            at.say(Rule::Structure, &place, format!("is {name:?}, which another chain has too"));
        }
    }
}

/// Everything that one connection has and a chain can ask for.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Combination<'a> {
    destination_port: Option<u64>,
    destination: Option<Range>,
    server_name: Cow<'a, str>,
    transport_protocol: &'a str,
    application_protocol: &'a str,
    direct_source: Option<Range>,
    source_type: u64,
    source: Option<Range>,
    source_port: Option<u64>,
}

/// A range of addresses: whether of version 6, the bits that count, and how many they are.
type Range = (bool, u128, u64);

/// Envoy finds the chain of a connection by looking up each of its properties in turn, so each combination of
/// properties leads to one chain.
fn unique_matches(listener: &[u8], at: &mut At<'_>) {
    let mut seen: HashSet<Combination<'_>> = HashSet::new();
    for (index, chain) in messages(listener, l::FILTER_CHAINS).enumerate() {
        let wanted = message(chain, chain::FILTER_CHAIN_MATCH).unwrap_or_default();
        let mut twice = false;
        combinations(wanted, &mut |combination| {
            twice |= seen.len() < COMBINATIONS_MAX && !seen.insert(combination);
        });
        if twice {
            let name = text(chain, chain::NAME);
            let words = format!("matches what is matched already (the chain's name is {name:?})");
            at.say(Rule::Structure, &format!("filter_chains[{index}].filter_chain_match"), words);
        }
    }
}

fn combinations<'a>(wanted: &'a [u8], each: &mut impl FnMut(Combination<'a>)) {
    let ranges = |number| or_any(messages(wanted, number).filter_map(range).map(Some), None);
    let texts =
        |number| or_any(messages(wanted, number).filter_map(|name| std::str::from_utf8(name).ok()), "");
    let names: Vec<Cow<'_, str>> = texts(wanted::SERVER_NAMES).into_iter().map(server_name).collect();
    let (destinations, direct, sources) = (
        ranges(wanted::PREFIX_RANGES),
        ranges(wanted::DIRECT_SOURCE_PREFIX_RANGES),
        ranges(wanted::SOURCE_PREFIX_RANGES),
    );
    let ports = or_any(numbers(wanted, wanted::SOURCE_PORTS).into_iter().map(Some), None);
    let protocols = texts(wanted::APPLICATION_PROTOCOLS);
    for destination in &destinations {
        for name in &names {
            for protocol in &protocols {
                for direct_source in &direct {
                    for source in &sources {
                        for port in &ports {
                            each(Combination {
                                destination_port: wrapped(wanted, wanted::DESTINATION_PORT),
                                destination: *destination,
                                server_name: name.clone(),
                                transport_protocol: text(wanted, wanted::TRANSPORT_PROTOCOL),
                                application_protocol: protocol,
                                direct_source: *direct_source,
                                source_type: last(wanted, wanted::SOURCE_TYPE)
                                    .and_then(Value::varint)
                                    .unwrap_or_default(),
                                source: *source,
                                source_port: *port,
                            });
                        }
                    }
                }
            }
        }
    }
}

/// The elements, or one that stands for any.
fn or_any<T>(elements: impl Iterator<Item = T>, any: T) -> Vec<T> {
    let elements: Vec<T> = elements.collect();
    if elements.is_empty() { vec![any] } else { elements }
}

/// Envoy compares names in lower case, and `*.a` as `.a`.
fn server_name(name: &str) -> Cow<'_, str> {
    let name = name.strip_prefix('*').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// The numbers of a repeated field, packed or not.
fn numbers(outer: &[u8], number: u32) -> Vec<u64> {
    let mut found = Vec::new();
    for (_, value) in Fields::new(outer).map_while(Result::ok).filter(|(field, _)| *field == number) {
        match value {
            Value::Varint(value) => found.push(value),
            Value::Bytes(mut packed) => {
                while let Some(value) = varint(&mut packed) {
                    found.push(value);
                }
            }
            _ => {}
        }
    }
    found
}

/// The range of a `CidrRange`; nothing if it has no address.
fn range(cidr: &[u8]) -> Option<Range> {
    let length = wrapped(cidr, cidr::PREFIX_LEN).unwrap_or_default();
    let (v6, bits, width) = match text(cidr, cidr::ADDRESS_PREFIX).parse().ok()? {
        IpAddr::V4(address) => (false, u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (true, address.to_bits(), 128),
    };
    let length = length.min(width);
    let dropped = u32::try_from(width - length).unwrap_or_default();
    Some((v6, bits.checked_shr(dropped).unwrap_or_default(), length))
}

pub fn filter_chain(chain: &[u8], at: &mut At<'_>) {
    filters::network(chain, at);
}

pub fn chain_match(wanted: &[u8], at: &mut At<'_>) {
    for (index, name) in messages(wanted, wanted::SERVER_NAMES).enumerate() {
        let name = std::str::from_utf8(name).unwrap_or_default();
        if name.strip_prefix("*.").unwrap_or(name).contains('*') {
            let words = format!("is {name:?}, but a `*` may only be the whole first label");
            at.say(Rule::Structure, &format!("server_names[{index}]"), words);
        }
    }
    for (number, name) in [(wanted::ADDRESS_SUFFIX, "address_suffix"), (wanted::SUFFIX_LEN, "suffix_len")] {
        if message(wanted, number).is_some_and(|value| number == wanted::SUFFIX_LEN || !value.is_empty()) {
            at.say(Rule::Structure, name, "is set, but Envoy does not implement it".to_owned());
        }
    }
}
