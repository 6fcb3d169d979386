//! Gateways as sets of listeners: namespaces of hosts resolved, and what annotations say as data.

use std::sync::Arc;

use navarch_model::listener::{GatewayListener, GatewayProxies, ListenerHost, ListenerSet};
use navarch_model::networking::{Gateway, Port, Server};
use navarch_model::object::{Metadata, Object, ObjectKey};
use navarch_model::route::Parent;
use navarch_model::service::name;
use navarch_model::{Hashed, Name, Origin, Precedence};

use super::lowered::LoweredListeners;
use crate::registry::store::Reader;

/// Annotations by which a Gateway says that it was made from a Gateway of the Gateway API: the Services that
/// its proxies are behind, the namespace of the object it was made from, that it was made from one, and the
/// service account of proxies that were made for it.
const SERVICES_ANNOTATION: &str = "internal.istio.io/gateway-service";
const PARENT_NAMESPACE_ANNOTATION: &str = "internal.istio.io/parent-namespace";
const DIALECT_ANNOTATION: &str = "internal.istio.io/gateway-semantics";
const SERVICE_ACCOUNT_ANNOTATION: &str = "internal.istio.io/service-account-name";

/// Lowers a Gateway.
pub fn gateway(reader: &Reader<'_>, key: &ObjectKey) -> LoweredListeners {
    let set = reader.object(key).and_then(|object| listeners(object));
    LoweredListeners { set: set.map(Hashed::new).map(Arc::new), ..LoweredListeners::default() }
}

fn listeners(object: &Object) -> Option<ListenerSet> {
    let gateway = object.spec::<Gateway>()?;
    let Gateway { servers, selector } = &***gateway;
    let metadata = &*object.metadata;
    let annotation = |key: &str| metadata.annotations.get(key).filter(|value| !value.is_empty());
    let gateway_api = annotation(DIALECT_ANNOTATION).is_some_and(|value| &**value == "gateway");
    let listeners = servers.iter().enumerate().filter_map(|(index, server)| {
        let origin = Origin::field(object.key.clone(), &format!("spec.servers[{index}]"));
        Some(Arc::new(Hashed::new(listener(server, origin)?)))
    });
    Some(ListenerSet {
        gateway: object.key.clone(),
        precedence: Precedence {
            created_at: metadata.creation_timestamp,
            key: object.key.clone(),
            position: 0,
        },
        proxies: match metadata.annotations.get(SERVICES_ANNOTATION) {
            Some(services) => GatewayProxies::Behind {
                namespace: parent_namespace(metadata),
                services: services.split(',').map(Name::from).collect(),
            },
            None => GatewayProxies::Labelled(
                selector.iter().map(|(key, value)| (name(key), name(value))).collect(),
            ),
        },
        provisioned: gateway_api && annotation(SERVICE_ACCOUNT_ANNOTATION).is_some(),
        admitted: gateway_api,
        backend_certificate: None,
        listeners: listeners.collect(),
    })
}

fn parent_namespace(metadata: &Metadata) -> Name {
    let stated = metadata.annotations.get(PARENT_NAMESPACE_ANNOTATION).filter(|value| !value.is_empty());
    stated.unwrap_or(&metadata.namespace).clone()
}

/// A server as listener; nothing without a port, which validation refuses.
fn listener(server: &Server, origin: Origin) -> Option<GatewayListener> {
    let Server {
        port,
        bind,
        hosts,
        tls,
        // Not looked at, as by istiod.
        default_endpoint: _,
        name: server_name,
    } = server;
    let Port { number, protocol, name: port_name, target_port: _ } = port.as_ref()?;
    Some(GatewayListener {
        parent: Parent::Gateway(origin.key.clone()),
        kinds: Vec::new(),
        served: true,
        gateway_name: origin.key.name.clone(),
        gateway_namespace: origin.key.namespace.clone(),
        name: name(server_name),
        port: u16::try_from(*number).ok()?,
        port_name: name(port_name),
        protocol: name(protocol),
        bind: name(bind),
        hosts: resolved_hosts(hosts, &origin.key.namespace),
        tls: tls.clone(),
        origin,
    })
}

/// Resolves the namespaces of hosts: `./host` is for routes of the Gateway's own namespace, `*/host` for
/// those of any. The host `*/*` makes all others superfluous.
fn resolved_hosts(hosts: &[String], namespace: &Name) -> Vec<ListenerHost> {
    let host = |text: &str, routes_of: Option<Name>| ListenerHost { name: Name::from(text), routes_of };
    if hosts.iter().any(|host| host == "*/*") {
        return vec![host("*", None)];
    }
    let resolved = hosts.iter().map(|text| match text.split_once('/') {
        Some((".", name)) => host(name, Some(namespace.clone())),
        Some(("*", name)) => host(name, None),
        Some((stated, name)) => host(name, Some(Name::from(stated))),
        None => host(text, None),
    });
    resolved.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_of_hosts_are_resolved() {
        let check = |hosts: &[&str], expected: &[&str]| {
            let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
            let resolved = resolved_hosts(&hosts, &Name::from("edge"));
            assert_eq!(resolved.iter().map(ListenerHost::to_string).collect::<Vec<_>>(), expected);
        };
        check(
            &["./a.com", "*/b.com", "other/c.com", "d.com"],
            &["edge/a.com", "b.com", "other/c.com", "d.com"],
        );
        check(&["a.com", "*/*"], &["*"]);
    }
}
