//! Which name a question means, and what is answered.

use std::net::IpAddr;

use super::message::{A, AAAA, ANY, Code, Query};
use super::table::{Known, Table};

/// Where short names are looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Domains {
    /// The namespace of the workload, and the domain of the mesh.
    pub namespace: String,
    pub mesh: String,
    /// The domain that clients of this machine try first.
    pub search: Option<String>,
}

/// A name that a question means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Meant<'t> {
    known: Known<'t>,
    /// How much of the front of the question's name is the name that is meant, if a client has put a domain
    /// behind it: the question's name is an alias then.
    alias_of: Option<usize>,
}

/// The answer to a question, in at most `bytes_max` bytes; nothing if the name is not one of the mesh's. The
/// addresses begin with another one for each `turn`.
#[must_use]
pub fn answer(
    table: &Table,
    domains: &Domains,
    query: &Query<'_>,
    turn: usize,
    bytes_max: usize,
) -> Option<Vec<u8>> {
    let name = query.name.as_deref()?;
    let Meant { known, alias_of } = meant(table, domains, name)?;
    let is_wanted = |address: &&IpAddr| match query.kind {
        A => address.is_ipv4(),
        AAAA => address.is_ipv6(),
        kind => kind == ANY,
    };
    let mut addresses: Vec<IpAddr> = known.addresses.iter().filter(is_wanted).copied().collect();
    if !addresses.is_empty() {
        let by = turn % addresses.len();
        addresses.rotate_left(by);
    }
    // A name that is there without such a record: no error and nothing in it (RFC 2308, 2.2). Nobody may
    // keep that without the record that says for how long.
    let alias = alias_of.and_then(|bytes| name.get(..bytes)).filter(|_| !addresses.is_empty());
    Some(query.records(Code::NoError, alias, &addresses, bytes_max))
}

fn meant<'t>(table: &'t Table, domains: &Domains, name: &str) -> Option<Meant<'t>> {
    let itself = |known| Meant { known, alias_of: None };
    if let Some(known) = table.get(name).or_else(|| short(table, domains, name)) {
        return Some(itself(known));
    }
    // A client tries `api.example.com` in its domain first.
    let search = domains.search.as_deref();
    let front = search.and_then(|search| name.strip_suffix(search)?.strip_suffix('.'));
    if let Some(front) = front
        && let Some(known) = table.get(front).or_else(|| wildcard(table, front))
    {
        return Some(Meant { known, alias_of: Some(front.len()) });
    }
    wildcard(table, name).map(itself)
}

/// A service of Kubernetes by a part of its name, completed as the search list of a pod does.
fn short<'t>(table: &'t Table, domains: &Domains, name: &str) -> Option<Known<'t>> {
    let Domains { namespace, mesh, .. } = domains;
    if name.is_empty() || name.contains('*') {
        return None;
    }
    let completed =
        [format!("{name}.{namespace}.svc.{mesh}"), format!("{name}.svc.{mesh}"), format!("{name}.{mesh}")];
    completed.iter().filter_map(|full| table.get(full)).find(|known| known.is_kubernetes)
}

/// The nearest wildcard above a name. Of services, such as `_ldap._tcp.example.com` (RFC 2782), it says
/// nothing.
fn wildcard<'t>(table: &'t Table, name: &str) -> Option<Known<'t>> {
    if name.starts_with('_') {
        return None;
    }
    let parents = name.match_indices('.').map(|(at, _)| &name[at..]);
    parents.map(|parent| format!("*{parent}")).find_map(|pattern| table.get(&pattern))
}

#[cfg(test)]
mod tests {
    use navarch_envoy::proto::istio::networking::nds::v1::{NameTable, name_table::NameInfo};
    use prost::Message;

    use super::*;

    fn table() -> Table {
        let names = [
            ("web.shop.svc.cluster.local", "Kubernetes", &["10.0.0.1"][..]),
            ("web.other.svc.cluster.local", "Kubernetes", &["10.0.0.2", "fd00::2"]),
            ("db-0.db.shop.svc.cluster.local", "Kubernetes", &["10.1.0.7"]),
            ("api.example.com", "External", &["240.240.0.1", "2001:2::1"]),
            ("*.example.com", "External", &["10.0.0.4"]),
            ("*.deep.example.com", "External", &["10.0.0.5"]),
            ("plain.shop.svc.cluster.local", "External", &["10.0.0.6"]),
        ];
        let info = |registry: &str, ips: &[&str]| NameInfo {
            registry: registry.to_owned(),
            ips: ips.iter().map(|ip| (*ip).to_owned()).collect(),
            ..NameInfo::default()
        };
        let table = names.map(|(name, registry, ips)| (name.to_owned(), info(registry, ips)));
        Table::read(&NameTable { table: table.into(), name_info: None }.encode_to_vec())
    }

    fn question(name: &str, kind: u16) -> Vec<u8> {
        let mut out = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            out.push(label.len() as u8);
            out.extend(label.as_bytes());
        }
        out.extend([0, (kind >> 8) as u8, kind as u8, 0, 1]);
        out
    }

    /// What is answered: the alias, the addresses; nothing if the question is for others.
    fn asked(name: &str, kind: u16) -> Option<String> {
        let domains = Domains {
            namespace: "shop".to_owned(),
            mesh: "cluster.local".to_owned(),
            search: Some("shop.svc.cluster.local".to_owned()),
        };
        let message = question(name, kind);
        let query = Query::read(&message).expect("a question");
        let answer = answer(&table(), &domains, &query, 0, 65535)?;
        assert_eq!((answer[2] & 0x80, answer[3] & 0xf), (0x80, 0), "no error");
        let mut records = Vec::new();
        let mut at = message.len();
        for _ in 0..answer[7] {
            let (kind, length) = (answer[at + 3], usize::from(answer[at + 11]));
            let data = &answer[at + 12..at + 12 + length];
            records.push(match kind {
                5 => "alias".to_owned(),
                1 => IpAddr::from(<[u8; 4]>::try_from(data).expect("four")).to_string(),
                _ => IpAddr::from(<[u8; 16]>::try_from(data).expect("sixteen")).to_string(),
            });
            at += 12 + length;
        }
        Some(records.join(" "))
    }

    #[test]
    fn names_mean_what_they_mean_in_a_pod() {
        for (name, kind, expected) in [
            ("web.shop.svc.cluster.local", A, Some("10.0.0.1")),
            ("WEB.Shop.svc.cluster.LOCAL", A, Some("10.0.0.1")),
            ("web", A, Some("10.0.0.1")),
            ("web.other", A, Some("10.0.0.2")),
            ("web.other.svc", AAAA, Some("fd00::2")),
            ("web.shop.svc", ANY, Some("10.0.0.1")),
            ("db-0.db", A, Some("10.1.0.7")),
            ("db-0.db.shop", A, Some("10.1.0.7")),
            // Known without such a record (RFC 2308, 2.2): nothing, and not "no such name".
            ("web.shop.svc.cluster.local", AAAA, Some("")),
            ("web", 16, Some("")),
            ("api.example.com", 33, Some("")),
            ("api.example.com", 65, Some("")),
            // With the domain of the client behind it.
            ("api.example.com.shop.svc.cluster.local", A, Some("alias 240.240.0.1")),
            ("api.example.com.shop.svc.cluster.local", AAAA, Some("alias 2001:2::1")),
            ("any.example.com.shop.svc.cluster.local", A, Some("alias 10.0.0.4")),
            ("any.example.com.shop.svc.cluster.local", AAAA, Some("")),
            // The nearest wildcard, any number of labels below it, and never its parent.
            ("any.example.com", A, Some("10.0.0.4")),
            ("a.b.example.com", A, Some("10.0.0.4")),
            ("a.deep.example.com", A, Some("10.0.0.5")),
            ("example.com", A, None),
            ("_ldap._tcp.example.com", 33, None),
            // Short names are Kubernetes's.
            ("plain.shop", A, None),
            ("web.nowhere", A, None),
            ("nosuch.shop.svc.cluster.local", A, None),
            ("web.other.shop.svc.cluster.local", A, None),
            ("shop.svc.cluster.local", A, None),
        ] {
            assert_eq!(asked(name, kind).as_deref(), expected, "{name} {kind}");
        }
    }

    #[test]
    fn the_root_and_odd_names_are_for_others() {
        for message in
            [&[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1][..], &question("a b.example.com", A)]
        {
            let query = Query::read(message).expect("a question");
            assert_eq!(answer(&table(), &Domains::default(), &query, 0, 512), None);
        }
    }
}
