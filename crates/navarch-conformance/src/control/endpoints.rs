//! Services to EndpointSlices, and to addresses of load balancers.

use super::world::{Change, World, core, selector};
use crate::names::NODE;
use crate::objects::{is_leaving, is_ready, items, name, namespace, selects, text, uid};
use serde_json::{Value, json};

const OF_SERVICE: &str = "kubernetes.io/service-name";
const MADE_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// A slice for each Service with a selector.
pub fn due(world: &World) -> Vec<Change> {
    let mut changes = Vec::new();
    let with_selector =
        |service: &&Value| selector(service, "/spec/selector").is_some_and(|all| !all.is_empty());
    let services: Vec<&Value> =
        world.services.iter().filter(with_selector).filter(|one| !is_leaving(one)).collect();
    for service in &services {
        let wanted = slice(service, &world.pods);
        let there = World::find(&world.slices, &wanted);
        let is_so = there.is_some_and(|there| {
            ["endpoints", "ports"]
                .iter()
                .all(|field| items(there, &format!("/{field}")) == items(&wanted, &format!("/{field}")))
        });
        if !is_so {
            changes.push(Change::apply(path(&wanted), wanted));
        }
    }
    for slice in world.slices.iter().filter(|slice| slice["metadata"]["labels"][MADE_BY] == NODE) {
        let of = &slice["metadata"]["labels"][OF_SERVICE];
        if !services.iter().any(|service| namespace(service) == namespace(slice) && name(service) == *of) {
            changes.push(Change::delete(&path(slice)));
        }
    }
    changes
}

/// A balancer without anything to balance: its address is that of the first pod, so ports have to be those of
/// the pods.
pub fn balancers(world: &World) -> Vec<Change> {
    let of_balancers = world.services.iter().filter(|service| service["spec"]["type"] == "LoadBalancer");
    let changes = of_balancers.filter_map(|service| {
        let address =
            backends(service, &world.pods).find(|pod| is_ready(pod)).map(|pod| text(pod, "/status/podIP"));
        let there = text(service, "/status/loadBalancer/ingress/0/ip");
        let address = address.filter(|address| *address != there)?;
        let path = core("services", namespace(service), name(service));
        Some(Change::status(&path, json!({"loadBalancer": {"ingress": [{"ip": address}]}})))
    });
    changes.collect()
}

fn path(slice: &Value) -> String {
    format!("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices/{}", namespace(slice), name(slice))
}

/// The pods that a Service selects and that have an address.
fn backends<'a>(service: &Value, pods: &'a [Value]) -> impl Iterator<Item = &'a Value> {
    let (space, selector) = (namespace(service).to_owned(), selector(service, "/spec/selector").cloned());
    pods.iter().filter(move |pod| {
        namespace(pod) == space && selects(selector.as_ref(), pod) && !text(pod, "/status/podIP").is_empty()
    })
}

fn slice(service: &Value, pods: &[Value]) -> Value {
    let backends: Vec<&Value> = backends(service, pods).collect();
    let endpoints = backends.iter().map(|pod| {
        let target = json!({"kind": "Pod", "namespace": namespace(pod), "name": name(pod), "uid": uid(pod)});
        let conditions = json!({"ready": is_ready(pod), "serving": is_ready(pod), "terminating": false});
        json!({
            "addresses": [text(pod, "/status/podIP")],
            "conditions": conditions,
            "targetRef": target,
            "nodeName": NODE,
        })
    });
    let ports = items(service, "/spec/ports").iter().filter_map(|port| {
        let number = target(port, &backends)?;
        let mut made = json!({"name": text(port, "/name"), "port": number, "protocol": port["protocol"]});
        if let Some(protocol) = port.get("appProtocol") {
            made["appProtocol"] = protocol.clone();
        }
        Some(made)
    });
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{}-{NODE}", name(service)),
            "namespace": namespace(service),
            "labels": {OF_SERVICE: name(service), MADE_BY: NODE},
        },
        "addressType": "IPv4",
        "endpoints": endpoints.collect::<Vec<_>>(),
        "ports": ports.collect::<Vec<_>>(),
    })
}

/// The port of the pods that a port of a Service means, by its number or by its name in a container.
fn target(port: &Value, pods: &[&Value]) -> Option<u64> {
    match &port["targetPort"] {
        Value::Number(number) => number.as_u64(),
        Value::String(wanted) => {
            let containers = pods.iter().flat_map(|pod| items(pod, "/spec/containers"));
            let mut ports = containers.flat_map(|container| items(container, "/ports"));
            ports.find(|port| port["name"] == *wanted)?["containerPort"].as_u64()
        }
        _ => port["port"].as_u64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, address: &str, ready: &str) -> Value {
        json!({
            "metadata": {"name": name, "namespace": "shop", "uid": name, "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "ports": [{"name": "main", "containerPort": 3000}]}]},
            "status": {"podIP": address, "conditions": [{"type": "Ready", "status": ready}]},
        })
    }

    fn service() -> Value {
        let port = |name: &str, target: Value| json!({"name": name, "protocol": "TCP", "port": 80, "targetPort": target});
        json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {
                "type": "LoadBalancer", "selector": {"app": "web"},
                "ports": [port("a", json!(8080)), port("b", json!("main")), port("c", json!("none"))],
            },
        })
    }

    #[test]
    fn a_slice_has_pods_with_an_address_and_ports_that_are_found() {
        let pods = vec![pod("a", "10.0.0.1", "False"), pod("b", "", "False")];
        let mut world = World { services: vec![service()], pods, ..World::default() };
        let changes = due(&world);
        let slice = &changes[0].body;
        assert_eq!(items(slice, "/endpoints").len(), 1);
        assert_eq!(slice["endpoints"][0]["conditions"]["ready"], false);
        let ports: Vec<_> =
            items(slice, "/ports").iter().map(|port| port["port"].as_u64().unwrap()).collect();
        assert_eq!(ports, [8080, 3000]);
        world.slices = vec![slice.clone()];
        assert_eq!(due(&world), []);
        world.services.clear();
        assert_eq!(due(&world).len(), 1, "a slice of no service goes");
    }

    #[test]
    fn the_address_of_a_balancer_is_that_of_a_ready_pod() {
        let mut world = World { services: vec![service()], ..World::default() };
        world.pods = vec![pod("a", "10.0.0.1", "False"), pod("b", "10.0.0.2", "True")];
        let changes = balancers(&world);
        let status = json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.2"}]}});
        assert_eq!(changes[0].body["status"], status);
        world.services[0]["status"] = status;
        assert_eq!(balancers(&world), []);
    }
}
