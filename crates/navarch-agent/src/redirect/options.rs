//! What is led to Envoy, and what is not.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// How traffic that comes in reaches Envoy. What goes out is always redirected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The destination is rewritten; the application sees Envoy's address as the caller's.
    #[default]
    Redirect,
    /// It keeps source and destination; Envoy needs `CAP_NET_ADMIN` then.
    Tproxy,
    /// Nothing is led anywhere.
    None,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "REDIRECT" => Ok(Mode::Redirect),
            "TPROXY" => Ok(Mode::Tproxy),
            "NONE" => Ok(Mode::None),
            _ => Err("expected REDIRECT, TPROXY or NONE".to_owned()),
        }
    }
}

/// A list in which an asterisk stands for everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chosen<T> {
    All,
    Only(Vec<T>),
}

impl<T: FromStr<Err = String>> FromStr for Chosen<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "*" { Ok(Chosen::All) } else { list(text).map(Chosen::Only) }
    }
}

/// A list with commas between its items; empty items do not count.
///
/// # Errors
/// If an item is not what it should be.
pub fn list<T: FromStr<Err = String>>(text: &str) -> Result<Vec<T>, String> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(|item| item.parse().map_err(|error| format!("{item:?}: {error}"))).collect()
}

/// A port, or a range of ports with both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    pub first: u16,
    pub last: u16,
}

impl From<u16> for Ports {
    fn from(port: u16) -> Self {
        Ports { first: port, last: port }
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| match text.parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err("expected a port, or a range such as 8000-8010".to_owned()),
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let ports = Ports { first: port(first)?, last: port(last)? };
        if ports.first > ports.last {
            return Err("the range ends before it begins".to_owned());
        }
        Ok(ports)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// A range of addresses; an address stands for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range(pub IpNet);

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        // What is written of the host's part does not count: 10.1.2.3/8 is 10.0.0.0/8.
        net.map(|net| Range(net.trunc())).map_err(|_| "expected a range such as 10.0.0.0/8".to_owned())
    }
}

/// The name of a network interface; an asterisk or, as in iptables, a plus at its end stands for any end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface(String);

impl Interface {
    /// As nftables has it.
    #[must_use]
    pub fn pattern(&self) -> &str {
        &self.0
    }
}

impl FromStr for Interface {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.strip_suffix('+').map_or(text.to_owned(), |stem| format!("{stem}*"));
        let stem = text.strip_suffix('*').unwrap_or(&text);
        // 15 bytes are what the kernel takes.
        let is_name = !stem.is_empty()
            && text.len() <= 15
            && stem.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@:".contains(&byte));
        if is_name { Ok(Interface(text)) } else { Err("expected the name of an interface".to_owned()) }
    }
}

/// A user or a group: its number, or its name on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner(String);

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Owner {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_number = text.parse::<u32>().is_ok();
        let is_name = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if is_number || is_name {
            Ok(Owner(text.to_owned()))
        } else {
            Err("expected a user or group".to_owned())
        }
    }
}

/// Whose traffic goes through Envoy, by group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Groups {
    Only(Vec<Owner>),
    AllBut(Vec<Owner>),
}

/// Questions for name servers that are led to the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Where the agent answers, on loopback.
    pub port: u16,
    /// Of questions to these servers; all others stay.
    pub servers: Chosen<IpAddr>,
}

/// All that decides what is led where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub mode: Mode,
    /// Where Envoy takes what goes out, what comes in, and what comes in through tunnels.
    pub outbound_port: u16,
    pub inbound_port: u16,
    pub tunnel_port: u16,
    /// Who Envoy and the agent run as: what they send stays as it is.
    pub users: Vec<Owner>,
    pub groups: Vec<Owner>,
    pub inbound_ports: Chosen<Ports>,
    /// Not led to Envoy if all other ports are.
    pub inbound_ports_left: Vec<Ports>,
    pub outbound_ranges: Chosen<Range>,
    pub outbound_ranges_left: Vec<Range>,
    /// Led to Envoy whatever their address is.
    pub outbound_ports: Vec<Ports>,
    pub outbound_ports_left: Vec<Ports>,
    /// Interfaces whose traffic stays as it is.
    pub interfaces_left: Vec<Interface>,
    /// Interfaces of virtual machines: what comes in from them is traffic that goes out.
    pub interfaces_of_guests: Vec<Interface>,
    pub owner_groups: Groups,
    pub names: Option<Names>,
    /// Whether IPv6 is led to Envoy too, which has to listen there.
    pub ipv6: bool,
    /// Drop packets that belong to no connection, instead of having the kernel reset connections.
    pub drop_invalid: bool,
    /// [`Mode::Tproxy`]: the mark of packets for Envoy, and the table of routes that leads them there.
    pub mark: u32,
    pub route_table: u32,
}

impl Default for Options {
    fn default() -> Self {
        let proxy = || vec![Owner("1337".to_owned())];
        Options {
            mode: Mode::Redirect,
            outbound_port: 15001,
            inbound_port: 15006,
            tunnel_port: 15008,
            users: proxy(),
            groups: proxy(),
            inbound_ports: Chosen::All,
            inbound_ports_left: Vec::new(),
            outbound_ranges: Chosen::All,
            outbound_ranges_left: Vec::new(),
            outbound_ports: Vec::new(),
            outbound_ports_left: Vec::new(),
            interfaces_left: Vec::new(),
            interfaces_of_guests: Vec::new(),
            owner_groups: Groups::AllBut(Vec::new()),
            names: None,
            ipv6: false,
            drop_invalid: false,
            mark: 1337,
            route_table: 133,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_istio_writes_them() {
        let shown =
            |text: &str| list::<Ports>(text).map(|ports| ports.iter().map(Ports::to_string).collect());
        let check = |text: &str, expected: &[&str]| {
            let found: Result<Vec<String>, String> = shown(text);
            assert_eq!(found, Ok(expected.iter().map(|port| (*port).to_owned()).collect()), "{text}");
        };
        check("", &[]);
        check("15090, 15021,,15020", &["15090", "15021", "15020"]);
        check("8000-8010", &["8000-8010"]);
        for bad in ["0", "70000", "x", "9-8", "*", "80 443", "1-", "-1"] {
            assert!(shown(bad).is_err(), "{bad}");
        }
        assert_eq!("*".parse(), Ok(Chosen::<Ports>::All));
        assert_eq!("".parse(), Ok(Chosen::<Ports>::Only(Vec::new())));
    }

    #[test]
    fn nothing_gets_into_the_rules_that_is_not_a_name() {
        for (text, pattern) in [("eth0", "eth0"), ("docker+", "docker*"), ("br-*", "br-*")] {
            assert_eq!(
                text.parse::<Interface>().map(|found| found.pattern().to_owned()),
                Ok(pattern.to_owned())
            );
        }
        for bad in
            ["", "*", "a b", "a\"; flush ruleset; \"", "e\nth0", "a-name-that-is-too-long", "../x", "a*b"]
        {
            assert!(bad.parse::<Interface>().is_err(), "{bad}");
        }
        for bad in ["", "-1", "4294967296", "root } accept", "a b", "*"] {
            assert!(bad.parse::<Owner>().is_err(), "{bad}");
        }
        assert!("1337".parse::<Owner>().is_ok() && "systemd-resolve".parse::<Owner>().is_ok());
    }

    #[test]
    fn ranges_are_addresses_too() {
        for (text, range) in
            [("10.1.2.3/8", "10.0.0.0/8"), ("10.1.2.3", "10.1.2.3/32"), ("fd00::/8", "fd00::/8")]
        {
            assert_eq!(text.parse::<Range>().map(|found| found.0.to_string()), Ok(range.to_owned()));
        }
        assert!("10.0.0.0/33".parse::<Range>().is_err());
    }
}
