//! The names of the mesh for a server of names beside the proxy (NDS).
//!
//! A table is the same in pieces: of an encoded map, the entries of several messages put one after the other
//! are the entries of one (Protocol Buffers, "Merging").

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use navarch_envoy::proto::istio::networking::nds::v1::{NameTable as Table, name_table::NameInfo};
use navarch_envoy::{Resource, XdsType};
use navarch_model::Name;
use prost::Message;

use crate::pure::{Pure, Sealed};

/// A name and where it leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedAddresses {
    pub host: Name,
    pub addresses: Vec<Name>,
    /// Name and namespace by which it is known in Kubernetes; nothing if it is not of Kubernetes.
    pub kubernetes: Option<(Name, Name)>,
}

/// The names of a piece of the mesh. Of a name that is there twice the first counts.
#[derive(Clone, Debug, Hash)]
pub struct NamesInput(pub Vec<NamedAddresses>);

/// A piece of the table.
pub struct Names;

impl Sealed for Names {}

impl Pure for Names {
    const NAME: &'static str = "name_table.names";
    type Input = NamesInput;
    type Output = Resource;

    fn run(NamesInput(names): &NamesInput) -> Resource {
        let mut table: BTreeMap<String, NameInfo> = BTreeMap::new();
        for NamedAddresses { host, addresses, kubernetes } in names {
            let (shortname, namespace) = kubernetes.clone().unwrap_or_default();
            let registry = if kubernetes.is_some() { "Kubernetes" } else { "External" };
            let text = |name: &Name| name.as_ref().to_owned();
            table.entry(text(host)).or_insert_with(|| NameInfo {
                ips: addresses.iter().map(text).collect(),
                registry: registry.to_owned(),
                shortname: text(&shortname),
                namespace: text(&namespace),
                alt_hosts: Vec::new(),
            });
        }
        let message = Table { table, name_info: None }.encode_to_vec();
        Resource::of(XdsType::Nds, "", &message)
    }
}

/// Pieces of a table.
#[derive(Clone, Debug)]
pub struct NameTableInput(pub Vec<Arc<Resource>>);

impl Hash for NameTableInput {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for piece in &self.0 {
            piece.version().hash(state);
        }
    }
}

/// A whole table. It has no name, as of istiod.
pub struct NameTable;

impl Sealed for NameTable {}

impl Pure for NameTable {
    const NAME: &'static str = "name_table.table";
    type Input = NameTableInput;
    type Output = Resource;

    fn run(NameTableInput(pieces): &NameTableInput) -> Resource {
        let bodies: Vec<_> = pieces.iter().map(|piece| piece.body()).collect();
        Resource::of(XdsType::Nds, "", &bodies.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_its_pieces() {
        let named = |host: &str, address: &str| NamedAddresses {
            host: host.into(),
            addresses: vec![address.into()],
            kubernetes: None,
        };
        let piece = |names: &[(&str, &str)]| {
            let names = names.iter().map(|(host, address)| named(host, address)).collect();
            Arc::new(Names::run(&NamesInput(names)))
        };
        let pieces =
            vec![piece(&[("b", "10.0.0.2"), ("b", "10.0.0.9")]), piece(&[]), piece(&[("a", "10.0.0.1")])];
        let whole = NameTable::run(&NameTableInput(pieces));
        let table = Table::decode(whole.body()).expect("a table").table;
        let ips: Vec<_> = table.iter().map(|(host, info)| (host.as_str(), info.ips.join(","))).collect();
        assert_eq!(ips, [("a", "10.0.0.1".to_owned()), ("b", "10.0.0.2".to_owned())]);
    }
}
