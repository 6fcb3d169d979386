//! Which objects a resource was made from, for rejections.
//!
//! Resources carry what they stem from in the metadata `istio` (as istiod's do): `config` names the object behind a route, cluster or
//! filter chain, `services` the services behind a cluster. Where there is none, the name of the resource says it.

use std::collections::BTreeSet;

use navarch_envoy::XdsType;
use navarch_envoy::json::any_to_json;
use navarch_model::kinds::Kind;
use navarch_model::networking::{Gateway, Sidecar, SidecarPort};
use navarch_model::object::ObjectKey;
use navarch_model::service::Registry;
use navarch_snapshot::Snapshot;
use navarch_xds::Node;
use serde_json::Value;

use crate::fleet::Fleet;

/// More would be a list of everything.
const SOURCES_MAX: usize = 8;

/// `file:line:column Kind namespace/name` of the objects behind a resource, in the order of their keys.
pub fn sources(fleet: &Fleet, node: &Node, ty: XdsType, name: &str) -> Vec<String> {
    let snapshot = fleet.snapshot();
    let mut keys = BTreeSet::new();
    if let Some(resource) = fleet.resources(node).and_then(|resources| resources.set(ty).get(name).cloned()) {
        from_metadata(&any_to_json(ty.type_url(), &resource.body()), &snapshot, &mut keys);
    }
    if keys.is_empty() {
        from_name(name, &snapshot, &mut keys);
    }
    let shown = keys.iter().filter_map(|key| snapshot.object(key)).take(SOURCES_MAX);
    shown.map(|object| format!("{} {}", object.source.span(), object.key)).collect()
}

fn from_metadata(value: &Value, snapshot: &Snapshot, keys: &mut BTreeSet<ObjectKey>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| from_metadata(item, snapshot, keys)),
        Value::Object(fields) => {
            if let Some(istio) = fields.get("filterMetadata").and_then(|metadata| metadata.get("istio")) {
                let config = istio.get("config").and_then(Value::as_str).and_then(config_key);
                keys.extend(config);
                let services = istio.get("services").and_then(Value::as_array);
                for service in services.into_iter().flatten() {
                    let text = |field: &str| service.get(field).and_then(Value::as_str).unwrap_or_default();
                    service_keys(snapshot, text("host"), Some(text("namespace")), keys);
                }
            }
            fields.values().for_each(|item| from_metadata(item, snapshot, keys));
        }
        _ => {}
    }
}

/// `/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews`
fn config_key(path: &str) -> Option<ObjectKey> {
    let mut parts = path.strip_prefix("/apis/")?.split('/');
    let group = parts.next()?;
    let (_version, _namespaces) = (parts.next()?, parts.next()?);
    let (namespace, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
    let kind: String = kind.split('-').map(capitalised).collect();
    Some(ObjectKey::new(Kind::find(group, &kind)?, namespace, name))
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}

fn from_name(name: &str, snapshot: &Snapshot, keys: &mut BTreeSet<ObjectKey>) {
    if let Some(extension) = name.strip_prefix("extensions.istio.io/trafficextension/")
        && let Some((namespace, name)) = extension.split_once('.')
    {
        keys.insert(ObjectKey::new(Kind::TrafficExtension, namespace, name));
        keys.insert(ObjectKey::new(Kind::WasmPlugin, namespace, name));
        return;
    }
    if let Some((_, host)) = name.rsplit_once('|') {
        service_keys(snapshot, host, None, keys);
        return;
    }
    // A listener is named after its address and port.
    let Some((address, port)) = name.rsplit_once('_') else { return };
    let Ok(port) = port.parse::<u16>() else { return };
    for service in snapshot.services() {
        let listens = service.ports.iter().any(|known| known.port == port);
        if listens && service.addresses.iter().any(|known| **known == *address) {
            service_keys(snapshot, &service.hostname, Some(&service.namespace), keys);
        }
    }
    from_sidecars(address, port, snapshot, keys);
    if keys.is_empty() {
        let gateways = snapshot.objects_of(Kind::Gateway).filter(|object| {
            let spec = object.spec::<Gateway>();
            spec.is_some_and(|gateway| {
                gateway
                    .servers
                    .iter()
                    .any(|server| server.port.as_ref().is_some_and(|known| known.number == u32::from(port)))
            })
        });
        keys.extend(gateways.map(|object| object.key.clone()));
    }
}

/// Sidecars that ask for a listener on this address and port by themselves.
fn from_sidecars(address: &str, port: u16, snapshot: &Snapshot, keys: &mut BTreeSet<ObjectKey>) {
    let asks = |bind: &str, stated: Option<&SidecarPort>| {
        bind == address && stated.is_some_and(|stated| stated.number == u32::from(port))
    };
    let sidecars = snapshot.objects_of(Kind::Sidecar).filter(|object| {
        object.spec::<Sidecar>().is_some_and(|sidecar| {
            sidecar.ingress.iter().any(|listener| asks(&listener.bind, listener.port.as_ref()))
                || sidecar.egress.iter().any(|listener| asks(&listener.bind, listener.port.as_ref()))
        })
    });
    keys.extend(sidecars.map(|object| object.key.clone()));
}

fn service_keys(snapshot: &Snapshot, host: &str, namespace: Option<&str>, keys: &mut BTreeSet<ObjectKey>) {
    let view = snapshot.view();
    for service in view.services(host) {
        if namespace.is_none_or(|namespace| *service.namespace == *namespace) {
            let kind = match service.registry {
                Registry::Kubernetes => Kind::Service,
                Registry::ServiceEntry => Kind::ServiceEntry,
            };
            keys.insert(ObjectKey { kind, namespace: service.namespace.clone(), name: service.name.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_an_object_is_its_key() {
        let key = config_key("/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews");
        assert_eq!(key, Some(ObjectKey::new(Kind::VirtualService, "default", "reviews")));
        assert_eq!(config_key("/apis/networking.istio.io/v1/namespaces/default/virtual-service"), None);
        assert_eq!(config_key("outbound|80||a"), None);
    }
}
