//! What all clients know together: names, and what was learned of each distinct resource, so that a resource
//! that a thousand clients receive is looked into once.

use std::collections::HashMap;
use std::rc::Rc;

use navarch_envoy::XdsType;
use navarch_envoy::wire::{Fields, Value};

use crate::message::{Received, all_nested, nested, text};
use crate::{mark, unordered};

/// A text by its number.
pub type Id = u32;

/// Texts by number. What is compared and kept per client are numbers.
#[derive(Debug, Default)]
pub struct Texts {
    ids: HashMap<Rc<str>, Id>,
    texts: Vec<Rc<str>>,
}

impl Texts {
    /// The number of a text.
    pub fn id(&mut self, text: &str) -> Id {
        if let Some(id) = self.ids.get(text) {
            return *id;
        }
        let id = Id::try_from(self.texts.len()).unwrap_or(Id::MAX);
        let shared: Rc<str> = Rc::from(text);
        self.texts.push(shared.clone());
        self.ids.insert(shared, id);
        id
    }

    /// The text of a number.
    #[must_use]
    pub fn text(&self, id: Id) -> Rc<str> {
        self.texts.get(id as usize).cloned().unwrap_or_else(|| Rc::from(""))
    }
}

/// What a resource means to a client.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Names that it refers to: the endpoints of a cluster, the route configurations of a listener.
    pub refers_to: Vec<Id>,
    /// A route configuration whose virtual hosts are resources of their own (`RouteConfiguration.vhds`).
    pub discovers_hosts: bool,
    /// The change that it carries.
    pub mark: Option<u32>,
    /// Its content, whatever the order in which that is encoded.
    pub unordered: u64,
}

/// What was learned so far.
#[derive(Debug, Default)]
pub struct Known {
    pub texts: Texts,
    facts: HashMap<u64, Rc<Facts>>,
    nothing: Rc<Facts>,
}

impl Known {
    /// What a resource with this content means; looked up if it has been seen before.
    pub fn learn(&mut self, ty: XdsType, content: u64, received: &Received<'_>) -> Rc<Facts> {
        if let Some(facts) = self.facts.get(&content) {
            return facts.clone();
        }
        let names = match ty {
            XdsType::Cds => endpoints_of(received).into_iter().collect(),
            XdsType::Lds => routes_of(received.body),
            _ => Vec::new(),
        };
        let facts = Rc::new(Facts {
            refers_to: names.into_iter().map(|name| self.texts.id(name)).collect(),
            discovers_hosts: ty == XdsType::Rds && Fields::new(received.body).any(|(number, _)| number == 9),
            mark: mark::find(ty, received.body),
            unordered: unordered::hash(received.body),
        });
        self.facts.insert(content, facts.clone());
        facts
    }

    /// What a resource with this content means, if it has been seen.
    #[must_use]
    pub fn of(&self, content: u64) -> Rc<Facts> {
        self.facts.get(&content).unwrap_or(&self.nothing).clone()
    }
}

/// The name of the assignment that a cluster takes its endpoints from (`Cluster.type` = EDS: field 2 = 3), if
/// it does.
fn endpoints_of<'a>(received: &Received<'a>) -> Option<&'a str> {
    let discovered = Fields::new(received.body).any(|field| field == (2, Value::Varint(3)));
    // Cluster.eds_cluster_config.service_name; without it the cluster's name.
    let service = text(nested(nested(received.body, 3), 2));
    discovered.then_some(if service.is_empty() { received.name } else { service })
}

/// The route configurations that a listener's HTTP connection managers ask for.
fn routes_of(listener: &[u8]) -> Vec<&str> {
    // Listener.filter_chains and default_filter_chain, FilterChain.filters, Filter.typed_config.
    let chains = all_nested(listener, 3).chain(all_nested(listener, 25));
    let configs = chains.flat_map(|chain| all_nested(chain, 3)).map(|filter| nested(filter, 4));
    let managers = configs.filter(|any| text(nested(any, 1)).ends_with(".HttpConnectionManager"));
    let mut names: Vec<&str> =
        // HttpConnectionManager.rds.route_config_name.
        managers.map(|any| text(nested(nested(nested(any, 2), 3), 2))).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use navarch_envoy::wire::put_field;

    fn received(body: &[u8]) -> Received<'_> {
        Received { name: "c", version: "", any: &[], body }
    }

    fn refers_to(ty: XdsType, body: &[u8]) -> Vec<String> {
        let mut known = Known::default();
        let facts = known.learn(ty, 1, &received(body));
        assert_eq!(known.of(1), facts);
        facts.refers_to.iter().map(|id| known.texts.text(*id).to_string()).collect()
    }

    #[test]
    fn clusters_refer_to_endpoints() {
        let mut body = vec![0x10, 3];
        assert_eq!(refers_to(XdsType::Cds, &body), ["c"]);
        let mut eds = Vec::new();
        put_field(&mut eds, 0x12, b"other");
        put_field(&mut body, 0x1a, &eds);
        assert_eq!(refers_to(XdsType::Cds, &body), ["other"]);
        // STRICT_DNS.
        assert!(refers_to(XdsType::Cds, &[0x10, 1]).is_empty());
    }

    #[test]
    fn listeners_refer_to_routes() {
        let wrapped = |tag: u8, inner: &[u8]| {
            let mut out = Vec::new();
            put_field(&mut out, tag, inner);
            out
        };
        let mut any = wrapped(0x0a, b"type.googleapis.com/envoy.HttpConnectionManager");
        any.extend(wrapped(0x12, &wrapped(0x1a, &wrapped(0x12, b"80"))));
        let chain = wrapped(0x1a, &wrapped(0x22, &any));
        let mut listener = wrapped(0x1a, &chain);
        listener.extend(wrapped(0x1a, &chain));
        assert_eq!(refers_to(XdsType::Lds, &listener), ["80"]);
    }
}
