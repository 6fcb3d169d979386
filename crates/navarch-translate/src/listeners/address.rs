//! Addresses that listeners bind and filter chains match.

use std::net::IpAddr;

use ipnet::IpNet;
use navarch_envoy::proto::envoy::config::core::v3::{
    Address, CidrRange, Pipe, SocketAddress, address, socket_address,
};
use navarch_envoy::proto::envoy::config::listener::v3::AdditionalAddress;
use navarch_model::Name;
use navarch_model::proxy::IpMode;

/// What the address of a Unix domain socket starts with.
pub const UNIX_PREFIX: &str = "unix://";

/// The wildcard addresses of a proxy, primary first.
pub fn wildcards(mode: IpMode) -> &'static [&'static str] {
    match mode {
        IpMode::V4 => &["0.0.0.0"],
        IpMode::V6 => &["::"],
        IpMode::Dual => &["0.0.0.0", "::"],
    }
}

/// The loopback addresses of a proxy, primary first.
pub fn loopbacks(mode: IpMode) -> &'static [&'static str] {
    match mode {
        IpMode::V4 => &["127.0.0.1"],
        IpMode::V6 => &["::1"],
        IpMode::Dual => &["127.0.0.1", "::1"],
    }
}

/// Texts as shared names.
pub fn names(texts: &[&str]) -> Vec<Name> {
    texts.iter().map(|text| Name::from(*text)).collect()
}

/// The name of a listener: `<address>_<port>`.
pub fn listener_name(bind: &str, port: u16) -> String {
    format!("{bind}_{port}")
}

/// The address to bind; without a port it is the path of a Unix domain socket.
pub fn address(bind: &str, port: u16) -> Address {
    let address = if port == 0 {
        address::Address::Pipe(Pipe {
            path: bind.strip_prefix(UNIX_PREFIX).unwrap_or(bind).to_owned(),
            ..Pipe::default()
        })
    } else {
        address::Address::SocketAddress(SocketAddress {
            address: bind.to_owned(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(u32::from(port))),
            ..SocketAddress::default()
        })
    };
    Address { address: Some(address) }
}

/// Further addresses of a listener.
pub fn additional(binds: &[Name], port: u16) -> Vec<AdditionalAddress> {
    binds
        .iter()
        .filter(|bind| !bind.is_empty())
        .map(|bind| AdditionalAddress { address: Some(address(bind, port)), ..AdditionalAddress::default() })
        .collect()
}

/// Parses a block of addresses; a single address is the block of itself.
pub fn parse_block(text: &str) -> Option<IpNet> {
    if text.contains('/') { text.parse().ok() } else { text.parse::<IpAddr>().ok().map(IpNet::from) }
}

/// Address blocks for a filter chain match, in the order of their text. Blocks that contain every IPv4
/// address match everything and are left out, like text that is not an address.
pub fn prefix_ranges(blocks: &[Name]) -> Vec<CidrRange> {
    let mut blocks: Vec<&Name> = blocks.iter().collect();
    blocks.sort();
    blocks
        .into_iter()
        .filter_map(|block| parse_block(block))
        .map(|block| CidrRange {
            address_prefix: block.addr().to_string(),
            prefix_len: Some(u32::from(block.prefix_len())),
        })
        .filter(|range| range.address_prefix != "0.0.0.0")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_port_an_address_is_a_path() {
        let Some(address::Address::Pipe(pipe)) = address("unix:///var/run/app.sock", 0).address else {
            panic!("not a pipe");
        };
        assert_eq!(pipe.path, "/var/run/app.sock");
    }

    #[test]
    fn blocks_are_sorted_and_those_that_match_everything_left_out() {
        let ranges = prefix_ranges(&names(&["10.2.0.0/16", "10.1.0.7", "0.0.0.0/0", "no address"]));
        let texts: Vec<_> = ranges
            .into_iter()
            .map(|range| format!("{}/{}", range.address_prefix, range.prefix_len.unwrap_or_default()))
            .collect();
        assert_eq!(texts, ["10.1.0.7/32", "10.2.0.0/16"]);
    }
}
