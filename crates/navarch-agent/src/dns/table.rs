//! The names of the mesh, as small as they can be: a sorted list over one text.

use std::net::IpAddr;
use std::ops::Range;

use navarch_envoy::wire::{Fields, Value};

/// Services of this registry are known by short names, too.
const KUBERNETES: &[u8] = b"Kubernetes";

/// Names and their addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    text: Box<str>,
    /// In the order of their names.
    entries: Box<[Entry]>,
    addresses: Box<[IpAddr]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    name: u32,
    name_bytes: u8,
    is_kubernetes: bool,
    addresses_count: u16,
    addresses: u32,
}

impl Entry {
    fn name<'t>(&self, text: &'t str) -> &'t str {
        let start = self.name as usize;
        text.get(start..start + usize::from(self.name_bytes)).unwrap_or_default()
    }

    fn addresses(&self) -> Range<usize> {
        let start = self.addresses as usize;
        start..start + usize::from(self.addresses_count)
    }
}

/// A name that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known<'t> {
    pub name: &'t str,
    pub addresses: &'t [IpAddr],
    pub is_kubernetes: bool,
}

impl Table {
    /// Reads an encoded `NameTable`. Names that are none, and addresses that are none, are left out; of a
    /// name that is there twice the first counts.
    #[must_use]
    pub fn read(message: &[u8]) -> Self {
        let mut text = String::new();
        let mut addresses: Vec<IpAddr> = Vec::new();
        let mut entries: Vec<Entry> = Vec::new();
        for pair in bytes_of(message, 1) {
            let mut own = None;
            let mut info = &[][..];
            for (field, value) in Fields::new(pair) {
                match (field, value) {
                    (1, Value::Bytes(bytes)) => own = Some(bytes),
                    (2, Value::Bytes(bytes)) => info = bytes,
                    _ => {}
                }
            }
            let start = addresses.len();
            let read = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse::<IpAddr>().ok();
            addresses.extend(bytes_of(info, 1).filter_map(read).take(usize::from(u16::MAX)));
            let is_kubernetes = bytes_of(info, 2).any(|registry| registry == KUBERNETES);
            for name in own.into_iter().chain(bytes_of(info, 5)) {
                let name = name.strip_suffix(b".").unwrap_or(name);
                let (Ok(at), Ok(name_bytes)) = (u32::try_from(text.len()), u8::try_from(name.len())) else {
                    continue;
                };
                let Some(name) = std::str::from_utf8(name).ok().filter(|name| !name.is_empty()) else {
                    continue;
                };
                text.extend(name.chars().map(|char| char.to_ascii_lowercase()));
                entries.push(Entry {
                    name: at,
                    name_bytes,
                    is_kubernetes,
                    addresses_count: (addresses.len() - start) as u16,
                    addresses: u32::try_from(start).unwrap_or(u32::MAX),
                });
            }
        }
        // Stable, so that of two the first stays first.
        entries.sort_by(|one, other| one.name(&text).cmp(other.name(&text)));
        entries.dedup_by(|other, one| one.name(&text) == other.name(&text));
        Table { text: text.into(), entries: entries.into(), addresses: addresses.into() }
    }

    /// A name in lower case, as it stands in the table.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Known<'_>> {
        let found = self.entries.binary_search_by(|entry| entry.name(&self.text).cmp(name)).ok()?;
        let entry = self.entries.get(found)?;
        Some(Known {
            name: entry.name(&self.text),
            addresses: self.addresses.get(entry.addresses()).unwrap_or_default(),
            is_kubernetes: entry.is_kubernetes,
        })
    }

    /// How many names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of memory that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.text.len() + size_of_val(&*self.entries) + size_of_val(&*self.addresses)
    }
}

fn bytes_of(message: &[u8], wanted: u32) -> impl Iterator<Item = &[u8]> {
    Fields::new(message).filter_map(move |(field, value)| match value {
        Value::Bytes(bytes) if field == wanted => Some(bytes),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use navarch_envoy::proto::istio::networking::nds::v1::{NameTable, name_table::NameInfo};
    use prost::Message;

    use super::*;

    #[test]
    fn fifty_thousand_names_are_small() {
        let table = (0..50_000).map(|n| {
            let info = NameInfo {
                ips: vec![format!("10.{}.{}.{}", n >> 16, (n >> 8) & 255, n & 255)],
                registry: "Kubernetes".to_owned(),
                shortname: format!("service-{n}"),
                namespace: format!("namespace-{}", n % 500),
                alt_hosts: Vec::new(),
            };
            (format!("service-{n}.namespace-{}.svc.cluster.local", n % 500), info)
        });
        let message = NameTable { table: table.collect(), name_info: None }.encode_to_vec();
        let table = Table::read(&message);
        let known = table.get("service-49999.namespace-499.svc.cluster.local").expect("known");
        assert_eq!(known.addresses, [IpAddr::from([10, 0, 195, 79])]);
        // With the message that it came in, of which one stays for the next start of a proxy.
        let all = table.bytes() + message.len();
        assert!(
            table.len() == 50_000 && table.bytes() < 5 << 20 && all < 25 << 20,
            "{}, {all}",
            table.bytes()
        );
    }

    #[test]
    fn what_is_no_table_has_no_names() {
        for bytes in [&b""[..], b"\xff\xff", b"\x0a\x05\x0a\x03a", &[0x0a; 64]] {
            assert!(Table::read(bytes).is_empty(), "{bytes:?}");
        }
        let info = |ip: &str, alt: &[&str]| NameInfo {
            ips: vec![ip.to_owned(), "x".to_owned()],
            alt_hosts: alt.iter().map(|name| (*name).to_owned()).collect(),
            ..NameInfo::default()
        };
        let names =
            [("B.example.com.", info("::1", &["a.example.com"])), ("a.example.com", info("10.0.0.1", &[]))];
        let table = names.map(|(name, info)| (name.to_owned(), info)).into();
        let table = Table::read(&NameTable { table, name_info: None }.encode_to_vec());
        assert_eq!(table.len(), 2);
        assert_eq!(table.get("b.example.com").map(|known| known.addresses.len()), Some(1));
        assert!(table.get("B.example.com").is_none() && table.get("").is_none());
    }
}
