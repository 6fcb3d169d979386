//! Gateways to Deployments and Services, as somebody would write them by hand.

use super::{Change, World, core};
use crate::objects::{is_leaving, items, name, namespace, text};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
const MADE_BY: &str = "app.kubernetes.io/managed-by";
const CLASS: &str = crate::cluster::CLASS;

pub fn due(world: &World) -> Vec<Change> {
    let mut changes = Vec::new();
    let ours = |gateway: &&Value| gateway["spec"]["gatewayClassName"] == CLASS && !is_leaving(gateway);
    let gateways: Vec<&Value> = world.gateways.iter().filter(ours).collect();
    for gateway in &gateways {
        let (deployment, service) = (deployment(gateway), service(gateway, &world.listener_sets));
        if World::find(&world.deployments, &deployment).is_none() {
            changes.push(Change::apply(path_of_deployment(&deployment), deployment));
        }
        let numbers = |service: &Value| -> Vec<Value> {
            items(service, "/spec/ports").iter().map(|port| port["name"].clone()).collect()
        };
        let there = World::find(&world.services, &service);
        if there.is_none_or(|there| numbers(there) != numbers(&service)) {
            changes.push(Change::apply(core("services", namespace(&service), name(&service)), service));
        }
    }
    let of_none = |made: &&Value| {
        let of = &made["metadata"]["labels"][GATEWAY_NAME];
        made["metadata"]["labels"][MADE_BY] == "rig"
            && !gateways.iter().any(|gateway| namespace(gateway) == namespace(made) && name(gateway) == *of)
    };
    let deployments = world.deployments.iter().filter(of_none).map(path_of_deployment);
    let services =
        world.services.iter().filter(of_none).map(|made| core("services", namespace(made), name(made)));
    changes.extend(deployments.chain(services).map(|path| Change::delete(&path)));
    changes
}

fn path_of_deployment(deployment: &Value) -> String {
    format!("/apis/apps/v1/namespaces/{}/deployments/{}", namespace(deployment), name(deployment))
}

fn metadata(gateway: &Value) -> Value {
    json!({
        "name": format!("{}-{CLASS}", name(gateway)),
        "namespace": namespace(gateway),
        "labels": {GATEWAY_NAME: name(gateway), MADE_BY: "rig"},
    })
}

fn deployment(gateway: &Value) -> Value {
    let labels =
        json!({GATEWAY_NAME: name(gateway), "sidecar.istio.io/inject": "true", "istio.io/rev": "default"});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(gateway),
        "spec": {
            "selector": {"matchLabels": {GATEWAY_NAME: name(gateway)}},
            "template": {
                "metadata": {"labels": labels, "annotations": {"inject.istio.io/templates": "gateway"}},
                "spec": {"containers": [{"name": "istio-proxy", "image": "auto"}]},
            },
        },
    })
}

fn service(gateway: &Value, listener_sets: &[Value]) -> Value {
    let is_its = |set: &&Value| {
        let parent = &set["spec"]["parentRef"];
        let space = parent["namespace"].as_str().unwrap_or(namespace(set));
        parent["name"] == name(gateway) && space == namespace(gateway)
    };
    let more = listener_sets.iter().filter(is_its).flat_map(|set| items(set, "/spec/listeners"));
    let ports: BTreeSet<(u64, &str)> = items(gateway, "/spec/listeners")
        .iter()
        .chain(more)
        .filter_map(|listener| {
            let protocol = if text(listener, "/protocol") == "UDP" { "UDP" } else { "TCP" };
            Some((listener["port"].as_u64()?, protocol))
        })
        .collect();
    let ports = ports.iter().map(|(port, protocol)| {
        let name = format!("{}-{port}", protocol.to_lowercase());
        json!({"name": name, "port": port, "protocol": protocol, "targetPort": port})
    });
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(gateway),
        "spec": {
            "type": "LoadBalancer",
            "selector": {GATEWAY_NAME: name(gateway)},
            "ports": ports.collect::<Vec<_>>(),
        },
    })
}
