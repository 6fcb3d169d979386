//! Which addresses a URL in a policy may lead to.
//!
//! Who may write a policy is not who may send requests from the control plane. A URL must not make it ask
//! what listens on its own machine, or a cloud for the credentials of that machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Addresses of metadata services that are not link-local.
const METADATA: [IpAddr; 5] = [
    // Alibaba Cloud, Azure, Oracle Cloud, and over IPv6 Amazon and Google.
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Which addresses may be asked.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    allowed: Vec<IpNet>,
}

impl Addresses {
    /// The usual ones, and those that an operator allows.
    #[must_use]
    pub fn allowing(allowed: Vec<IpNet>) -> Self {
        Addresses { allowed }
    }

    /// Why an address may not be asked.
    #[must_use]
    pub fn refusal(&self, address: IpAddr) -> Option<&'static str> {
        let address = address.to_canonical();
        if self.allowed.iter().any(|network| network.contains(&address)) {
            return None;
        }
        refusal(address)
    }
}

fn refusal(address: IpAddr) -> Option<&'static str> {
    if METADATA.contains(&address) {
        return Some("it is the metadata service of a cloud");
    }
    match address {
        IpAddr::V4(address) => match () {
            () if address.is_loopback() => Some("it is loopback"),
            () if address.is_link_local() => Some("it is link-local"),
            () if address.octets()[0] == 0 => Some("it stands for this machine"),
            () if address.is_multicast() || address.is_broadcast() => Some("it is of more than one machine"),
            () => None,
        },
        IpAddr::V6(address) => match () {
            () if address.is_loopback() => Some("it is loopback"),
            () if address.is_unspecified() => Some("it stands for this machine"),
            () if address.is_unicast_link_local() => Some("it is link-local"),
            () if address.is_multicast() => Some("it is of more than one machine"),
            () => embedded(address).and_then(|inner| refusal(inner.into())),
        },
    }
}

/// The IPv4 address that an IPv6 address leads to: NAT64 (RFC 6052), 6to4 (RFC 3056), IPv4-compatible (RFC
/// 4291).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let of = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match (a, b) {
        (0x64, 0xff9b) if (c, d, e, f) == (0, 0, 0, 0) => Some(of(g, h)),
        (0x2002, _) => Some(of(b, c)),
        (0, 0) if (c, d, e, f) == (0, 0, 0, 0) => Some(of(g, h)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_is_not_asked_unless_it_is_allowed() {
        let network = |text: &str| text.parse::<IpNet>().expect("a network");
        let usual = Addresses::default();
        let open = Addresses::allowing(vec![network("127.0.0.0/8"), network("fe80::/10")]);
        for (address, refused, refused_if_open) in [
            ("127.0.0.1", true, false),
            ("127.9.9.9", true, false),
            ("::1", true, true),
            ("::ffff:127.0.0.1", true, false),
            ("::127.0.0.1", true, true),
            ("64:ff9b::7f00:1", true, true),
            ("2002:7f00:1::", true, true),
            ("64:ff9b::a00:1", false, false),
            ("0.0.0.0", true, true),
            ("0.1.2.3", true, true),
            ("::", true, true),
            ("169.254.169.254", true, true),
            ("::ffff:169.254.169.254", true, true),
            ("fe80::1", true, false),
            ("fd00:ec2::254", true, true),
            ("100.100.100.200", true, true),
            ("168.63.129.16", true, true),
            ("224.0.0.1", true, true),
            ("255.255.255.255", true, true),
            ("ff02::1", true, true),
            ("10.0.0.1", false, false),
            ("192.168.1.1", false, false),
            ("93.184.216.34", false, false),
            ("2606:2800::1", false, false),
        ] {
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(usual.refusal(address).is_some(), refused, "{address}");
            assert_eq!(open.refusal(address).is_some(), refused_if_open, "{address}, if open");
        }
    }
}
