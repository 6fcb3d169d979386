//! `/etc/resolv.conf` (resolv.conf(5)): who is asked for names that the mesh does not know.

use std::net::{IpAddr, SocketAddr};

/// Where the file is.
pub const PATH: &str = "/etc/resolv.conf";

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolv {
    pub servers: Vec<SocketAddr>,
    /// Domains that clients try a name in, in lower case and without a dot at the end.
    pub search: Vec<String>,
}

const PORT: u16 = 53;

impl Resolv {
    /// Reads the file. Lines that are not understood do not count.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut made = Resolv::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address =
                        words.next().and_then(|word| word.split('%').next()?.parse::<IpAddr>().ok());
                    let server = address.map(|address| SocketAddr::new(address, PORT));
                    made.servers.extend(server.filter(|server| !made.servers.contains(server)));
                }
                // Of these the last one counts.
                Some("search" | "domain") => {
                    let name = |word: &str| word.trim_end_matches('.').to_ascii_lowercase();
                    made.search = words.map(name).filter(|name| !name.is_empty()).collect();
                }
                _ => {}
            }
        }
        made
    }

    /// The servers' addresses.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.servers.iter().map(SocketAddr::ip).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read() {
        let text = "# nameserver 9.9.9.9\nnameserver 10.0.0.2\n nameserver fe80::1%eth0\nnameserver x\nnameserver 10.0.0.2\nnameserver\ndomain other\nsearch Shop.svc.cluster.local. corp\noptions ndots:5\n";
        let made = Resolv::parse(text);
        assert_eq!(made.servers, [([10, 0, 0, 2], 53).into(), "[fe80::1]:53".parse().expect("an address")]);
        assert_eq!(made.search, ["shop.svc.cluster.local", "corp"]);
    }
}
