//! The status of an object as an API server has it: what of it is ours, and how what we know is written.
//!
//! No clock and no API server.

use std::net::IpAddr;

use navarch_model::kinds::Scope;
use navarch_model::status::{self, Condition, ConditionType, ListenerStatus, ParentStatus, Status, Truth};
use navarch_model::{Kind, ObjectKey, gateway_api};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Names of controllers that we write as, the first unless something says otherwise.
pub(crate) const CONTROLLERS: [&str; 2] = ["istio.io/gateway-controller", "navarch/gateway-controller"];

/// Bytes of the message of a condition (Kubernetes: `metav1.Condition`).
const MESSAGE_MAX: usize = 8 << 10;
/// Of these lists the API server takes no more (Gateway API: `maxItems`).
const PARENTS_MAX: usize = 32;
const ANCESTORS_MAX: usize = 16;
const ADDRESSES_MAX: usize = 16;

/// What of a status is ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Document {
    conditions: Vec<Said>,
    attached: Vec<Attached>,
    listeners: Vec<Listener>,
    addresses: Vec<Address>,
    allocated: Vec<HostAddress>,
    listener_sets: u32,
    features: Vec<Feature>,
}

/// An address of a host of a ServiceEntry.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
struct HostAddress {
    host: String,
    value: String,
}

/// A feature of a class of gateways.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
struct Feature {
    name: String,
}

/// A condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Said {
    #[serde(rename = "type")]
    ty: String,
    status: String,
    reason: String,
    message: String,
    observed_generation: i64,
    last_transition_time: String,
}

/// How it goes with a parent of a route or an ancestor of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Attached {
    to: Reference,
    controller: String,
    conditions: Vec<Said>,
}

/// A `parentRef`. What is left out there is filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    #[serde(default = "gateway_group")]
    group: String,
    #[serde(default = "gateway_kind")]
    kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    namespace: String,
    #[serde(default)]
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    section_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

fn gateway_group() -> String {
    gateway_api::GROUP.to_owned()
}

fn gateway_kind() -> String {
    Kind::KubernetesGateway.as_str().to_owned()
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Listener {
    name: String,
    attached_routes: u32,
    supported_kinds: Vec<GroupKind>,
    conditions: Vec<Said>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
struct GroupKind {
    group: String,
    kind: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
struct Address {
    #[serde(rename = "type")]
    ty: String,
    value: String,
}

/// Where the status of a kind has what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Conditions, and of a gateway listeners and addresses.
    Own,
    /// A list, and what names the other object in its items.
    Attached { list: &'static str, reference: &'static str, max: usize },
    /// Addresses of a load balancer.
    Ingress,
    /// Addresses of hosts, and nothing else: what else becomes of an entry is shown, and not written.
    Entry,
}

impl Shape {
    fn of(kind: Kind) -> Shape {
        match kind {
            Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute | Kind::UdpRoute => {
                Shape::Attached { list: "parents", reference: "parentRef", max: PARENTS_MAX }
            }
            Kind::BackendTlsPolicy | Kind::BackendTrafficPolicy => {
                Shape::Attached { list: "ancestors", reference: "ancestorRef", max: ANCESTORS_MAX }
            }
            Kind::Ingress => Shape::Ingress,
            Kind::ServiceEntry => Shape::Entry,
            _ => Shape::Own,
        }
    }
}

impl Document {
    /// What we know of an object. `controllers` says for each parent who serves it.
    pub(crate) fn wanted(object: &ObjectKey, status: &Status, controllers: &[&str]) -> Document {
        let said = |conditions: &[Condition]| -> Vec<Said> {
            conditions.iter().map(|condition| Said::new(condition, status.generation)).collect()
        };
        // What is not in use at all is not in use at any parent.
        let refused = status.condition(ConditionType::Accepted);
        let refused = refused.filter(|condition| condition.status == Truth::False);
        let attached = |(index, parent): (usize, &ParentStatus)| {
            let accepted = |condition: &&Condition| condition.ty != ConditionType::Accepted;
            let conditions = match refused {
                Some(refused) => {
                    let others = parent.conditions.iter().filter(accepted).cloned();
                    said(&[refused.clone()].into_iter().chain(others).collect::<Vec<_>>())
                }
                None => said(&parent.conditions),
            };
            let controller = controllers.get(index).copied().unwrap_or(CONTROLLERS[0]).to_owned();
            Attached { to: Reference::new(parent), controller, conditions }
        };
        let listener = |listener: &ListenerStatus| Listener {
            name: listener.name.to_string(),
            attached_routes: listener.attached_routes,
            supported_kinds: listener
                .supported_kinds
                .iter()
                .map(|kind| GroupKind { group: gateway_group(), kind: kind.as_str().to_owned() })
                .collect(),
            conditions: said(&listener.conditions),
        };
        let mut wanted = Document::default();
        match Shape::of(object.kind) {
            Shape::Own => {
                wanted.conditions = said(&status.conditions);
                wanted.listeners = status.listeners.iter().map(listener).collect();
                let addresses = status.addresses.iter().take(ADDRESSES_MAX);
                wanted.addresses = addresses.map(|address| Address::new(address)).collect();
                wanted.listener_sets = status.attached_listener_sets;
                if object.kind == Kind::GatewayClass {
                    let features = gateway_api::SUPPORTED_FEATURES.iter();
                    wanted.features = features.map(|name| Feature { name: (*name).to_owned() }).collect();
                }
            }
            Shape::Attached { max, .. } => {
                wanted.attached = status.parents.iter().enumerate().map(attached).collect();
                wanted.attached.truncate(max);
            }
            Shape::Entry => {
                let allocated = status.allocated.iter();
                let said = |of: &status::HostAddress| HostAddress {
                    host: of.host.to_string(),
                    value: of.value.to_string(),
                };
                wanted.allocated = allocated.map(said).collect();
            }
            Shape::Ingress => {
                wanted.addresses = status.addresses.iter().map(|address| Address::new(address)).collect();
            }
        }
        wanted
    }

    /// What of a status is ours, if it can be understood; what cannot is not.
    pub(crate) fn of(object: &ObjectKey, status: &Value) -> Document {
        let mut found = Document::default();
        match Shape::of(object.kind) {
            Shape::Own => {
                found.conditions = list(&status["conditions"]);
                found.listeners = list(&status["listeners"]);
                found.addresses = list(&status["addresses"]);
                found.features = list(&status["supportedFeatures"]);
                let sets = status["attachedListenerSets"].as_u64();
                found.listener_sets = sets.and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
            }
            Shape::Attached { list: name, reference, .. } => {
                let items = status[name].as_array().into_iter().flatten().filter(|item| is_ours(item));
                found.attached = items
                    .map(|item| Attached {
                        to: serde_json::from_value(item[reference].clone())
                            .map(|to| Reference::complete(to, object))
                            .unwrap_or_default(),
                        controller: item["controllerName"].as_str().unwrap_or_default().to_owned(),
                        conditions: list(&item["conditions"]),
                    })
                    .collect();
            }
            Shape::Entry => found.allocated = list(&status["addresses"]),
            Shape::Ingress => {
                let items = status["loadBalancer"]["ingress"].as_array().into_iter().flatten();
                let text = |item: &Value| item["ip"].as_str().or(item["hostname"].as_str()).map(Address::new);
                found.addresses = items.filter_map(text).collect();
            }
        }
        found
    }

    /// What is compared: without times, and in one order.
    pub(crate) fn fingerprint(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        self.comparable().hash(&mut hasher);
        hasher.finish()
    }

    fn comparable(&self) -> Document {
        let Document {
            mut conditions,
            mut attached,
            mut listeners,
            mut addresses,
            mut allocated,
            listener_sets,
            features,
        } = self.clone();
        let timeless = |conditions: &mut Vec<Said>| {
            conditions.iter_mut().for_each(|said| said.last_transition_time.clear());
            conditions.sort();
        };
        timeless(&mut conditions);
        attached.iter_mut().for_each(|one| timeless(&mut one.conditions));
        listeners.iter_mut().for_each(|one| timeless(&mut one.conditions));
        attached.sort();
        listeners.sort();
        addresses.sort();
        allocated.sort();
        Document { conditions, attached, listeners, addresses, allocated, listener_sets, features }
    }

    /// Conditions that hold as before hold since then, others since now.
    pub(crate) fn since(mut self, found: &Document, now: &str) -> Document {
        let date = |conditions: &mut Vec<Said>, before: &[Said]| {
            for said in conditions {
                let same = before.iter().find(|one| one.ty == said.ty && one.status == said.status);
                let time =
                    same.map(|same| same.last_transition_time.as_str()).filter(|time| !time.is_empty());
                said.last_transition_time = time.unwrap_or(now).to_owned();
            }
        };
        date(&mut self.conditions, &found.conditions);
        for one in &mut self.attached {
            let before = found.attached.iter().find(|before| before.to == one.to);
            date(&mut one.conditions, before.map_or(&[], |before| &before.conditions));
        }
        for one in &mut self.listeners {
            let before = found.listeners.iter().find(|before| before.name == one.name);
            date(&mut one.conditions, before.map_or(&[], |before| &before.conditions));
        }
        self
    }

    /// The status to write: ours, and what others have said in lists that are replaced as a whole.
    pub(crate) fn written(&self, object: &ObjectKey, found: &Value) -> Value {
        let mut status = Map::new();
        let mut put = |name: &str, value: Value| {
            status.insert(name.to_owned(), value);
        };
        match Shape::of(object.kind) {
            Shape::Own => {
                put("conditions", json!(self.conditions));
                match object.kind {
                    Kind::GatewayClass => put("supportedFeatures", json!(self.features)),
                    _ => put("listeners", json!(self.listeners)),
                }
                if object.kind == Kind::KubernetesGateway {
                    put("addresses", json!(self.addresses));
                    if self.listener_sets > 0 || !found["attachedListenerSets"].is_null() {
                        put("attachedListenerSets", json!(self.listener_sets));
                    }
                }
            }
            Shape::Attached { list: name, reference, max } => {
                let others = found[name].as_array().into_iter().flatten().filter(|item| !is_ours(item));
                let mut items: Vec<Value> = others.cloned().collect();
                items.extend(self.attached.iter().map(|one| {
                    let Attached { to, controller, conditions } = one;
                    json!({reference: to, "controllerName": controller, "conditions": conditions})
                }));
                items.truncate(max);
                put(name, items.into());
            }
            Shape::Entry => put("addresses", json!(self.allocated)),
            Shape::Ingress => {
                let point = |address: &Address| match address.value.parse::<IpAddr>() {
                    Ok(_) => json!({"ip": address.value}),
                    Err(_) => json!({"hostname": address.value}),
                };
                let points: Vec<Value> = self.addresses.iter().map(point).collect();
                put("loadBalancer", json!({"ingress": points}));
            }
        }
        status.into()
    }
}

fn is_ours(item: &Value) -> bool {
    item["controllerName"].as_str().is_some_and(|name| CONTROLLERS.contains(&name))
}

fn list<T: for<'a> Deserialize<'a>>(value: &Value) -> Vec<T> {
    let items = value.as_array().into_iter().flatten();
    items.filter_map(|item| serde_json::from_value(item.clone()).ok()).collect()
}

impl Said {
    fn new(condition: &Condition, generation: i64) -> Self {
        let Condition { ty, status, reason, message } = condition;
        let mut end = message.len().min(MESSAGE_MAX);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        Said {
            ty: ty.as_str().to_owned(),
            status: status.to_string(),
            reason: (*reason).to_owned(),
            message: message[..end].to_owned(),
            observed_generation: generation,
            last_transition_time: String::new(),
        }
    }
}

impl Reference {
    fn new(parent: &ParentStatus) -> Self {
        let ParentStatus { parent, section, port, conditions: _ } = parent;
        Reference {
            group: parent.kind.group().to_owned(),
            kind: parent.kind.as_str().to_owned(),
            namespace: parent.namespace.to_string(),
            name: parent.name.to_string(),
            section_name: section.as_ref().map(ToString::to_string),
            port: *port,
        }
    }

    /// As it is meant in an object.
    fn complete(mut self, object: &ObjectKey) -> Self {
        if self.namespace.is_empty() && object.kind.scope() == Scope::Namespaced {
            self.namespace = object.namespace.to_string();
        }
        self
    }
}

impl Address {
    fn new(value: &str) -> Self {
        let ty = if value.parse::<IpAddr>().is_ok() { "IPAddress" } else { "Hostname" };
        Address { ty: ty.to_owned(), value: value.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use navarch_model::gateway_api::RouteKind;

    use super::*;

    fn condition(ty: ConditionType, holds: bool, reason: &'static str) -> Condition {
        Condition::new(ty, holds, reason, "")
    }

    fn route(accepted: bool) -> (ObjectKey, Status) {
        let parent = ObjectKey::new(Kind::KubernetesGateway, "infra", "web");
        let conditions = vec![condition(ConditionType::Accepted, accepted, "Accepted")];
        let parent = ParentStatus { parent, section: Some("https".into()), port: None, conditions };
        let status = Status { generation: 3, parents: vec![parent], ..Status::default() };
        (ObjectKey::new(Kind::HttpRoute, "shop", "cart"), status)
    }

    /// What is written to an object of which this is found; `None` if nothing is.
    fn write(object: &ObjectKey, status: &Status, found: &Value) -> Option<Value> {
        let (wanted, present) = (Document::wanted(object, status, &[]), Document::of(object, found));
        let differs = wanted.fingerprint() != present.fingerprint();
        differs.then(|| wanted.since(&present, "now").written(object, found))
    }

    /// What is written is understood, and not written again, whatever its order is.
    #[track_caller]
    fn settles(object: &ObjectKey, status: &Status, found: &Value) -> Value {
        let written = write(object, status, found).expect("something to write");
        assert_eq!(write(object, status, &written), None, "{written}");
        let mut turned = written.clone();
        for name in ["conditions", "listeners", "parents", "ancestors", "addresses"] {
            if let Some(items) = turned[name].as_array_mut() {
                items.reverse();
            }
        }
        assert_eq!(write(object, status, &turned), None, "{turned}");
        written
    }

    #[test]
    fn a_route_has_a_status_for_each_of_our_parents_beside_those_of_others() {
        let (object, status) = route(true);
        let foreign = json!({
            "parentRef": {"name": "other"}, "controllerName": "example.com/other",
            "conditions": [{"type": "Accepted", "status": "False", "unknown": 1}],
        });
        let stale =
            json!({"parentRef": {"name": "gone"}, "controllerName": CONTROLLERS[1], "conditions": []});
        let written = settles(&object, &status, &json!({"parents": [stale, foreign]}));
        assert_eq!(
            written,
            json!({"parents": [foreign, {
                "parentRef": {
                    "group": "gateway.networking.k8s.io", "kind": "Gateway",
                    "namespace": "infra", "name": "web", "sectionName": "https",
                },
                "controllerName": CONTROLLERS[0],
                "conditions": [{
                    "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
                    "observedGeneration": 3, "lastTransitionTime": "now",
                }],
            }]})
        );
    }

    #[test]
    fn a_time_is_that_of_the_last_change_of_whether_it_holds() {
        let (object, status) = route(true);
        let mut found = settles(&object, &status, &json!({}));
        found["parents"][0]["conditions"][0]["lastTransitionTime"] = "then".into();
        let time = |status: &Status| {
            let written = write(&object, status, &found).expect("something to write");
            written["parents"][0]["conditions"][0]["lastTransitionTime"].clone()
        };
        assert_eq!(time(&Status { generation: 4, ..status.clone() }), "then", "it holds as before");
        assert_eq!(time(&route(false).1), "now");
    }

    #[test]
    fn what_is_not_in_use_at_all_is_not_in_use_at_any_parent() {
        let (object, mut status) = route(true);
        status.conditions = vec![condition(ConditionType::Accepted, false, "LastGoodInUse")];
        let written = settles(&object, &status, &json!({}));
        let conditions = &written["parents"][0]["conditions"];
        assert_eq!(
            (&conditions[0]["status"], conditions.as_array().map(Vec::len)),
            (&json!("False"), Some(1))
        );
    }

    #[test]
    fn nothing_is_written_where_there_is_nothing_to_say() {
        let (object, status) = route(true);
        let status = Status { parents: Vec::new(), ..status };
        let foreign = json!({"parents": [{"controllerName": "example.com/other"}]});
        assert_eq!(write(&object, &status, &foreign), None);
        let ingress = ObjectKey::new(Kind::Ingress, "shop", "web");
        assert_eq!(write(&ingress, &Status::default(), &json!({"loadBalancer": {}})), None);
    }

    #[test]
    fn an_entry_has_the_addresses_of_its_hosts_and_nothing_else() {
        let entry = ObjectKey::new(Kind::ServiceEntry, "shop", "db");
        let address =
            |host: &str, value: &str| status::HostAddress { host: host.into(), value: value.into() };
        let status = Status {
            conditions: vec![condition(ConditionType::Accepted, true, "Accepted")],
            allocated: vec![address("a.test", "240.240.0.1"), address("a.test", "2001:2::1")],
            ..Status::default()
        };
        let conditions = json!([{"type": "Reconciled", "status": "True"}]);
        let written = settles(&entry, &status, &json!({"conditions": conditions}));
        let expected = json!([
            {"host": "a.test", "value": "240.240.0.1"},
            {"host": "a.test", "value": "2001:2::1"},
        ]);
        assert_eq!(written, json!({"addresses": expected}));
        let none = Status { allocated: Vec::new(), ..status };
        assert_eq!(write(&entry, &none, &json!({"conditions": conditions})), None);
        assert_eq!(settles(&entry, &none, &written), json!({"addresses": []}));
    }

    #[test]
    fn a_gateway_has_listeners_and_addresses_and_an_ingress_where_it_is_reached() {
        let conditions = vec![condition(ConditionType::Accepted, true, "Accepted")];
        let listener = ListenerStatus {
            name: "https".into(),
            attached_routes: 2,
            supported_kinds: vec![RouteKind::Http],
            conditions: conditions.clone(),
        };
        let status = Status {
            conditions,
            listeners: vec![listener],
            addresses: vec!["192.0.2.1".into(), "web.example.com".into()],
            attached_listener_sets: 1,
            ..Status::default()
        };
        let written = settles(&ObjectKey::new(Kind::KubernetesGateway, "a", "b"), &status, &json!({}));
        let address = |ty: &str, value: &str| json!({"type": ty, "value": value});
        assert_eq!(
            written["addresses"],
            json!([address("IPAddress", "192.0.2.1"), address("Hostname", "web.example.com")])
        );
        assert_eq!(written["listeners"][0]["attachedRoutes"], 2);
        assert_eq!(written["attachedListenerSets"], 1);
        let written = settles(&ObjectKey::new(Kind::Ingress, "a", "b"), &status, &json!({}));
        assert_eq!(
            written,
            json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "web.example.com"}]}})
        );
    }

    #[test]
    fn any_status_is_understood_as_far_as_it_can_be() {
        let (object, status) = route(true);
        for found in [
            json!(null),
            json!([]),
            json!({"parents": 1}),
            json!({"parents": [1, {"controllerName": CONTROLLERS[0]}]}),
        ] {
            settles(&object, &status, &found);
        }
    }
}
