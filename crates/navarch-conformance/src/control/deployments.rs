//! Deployments to pods, without the ReplicaSets between them.

use super::world::{Change, World, core, path_of_deployment};
use crate::names::NODE;
use crate::objects::{is_leaving, is_ready, items, name, namespace, text, uid};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
};

pub fn due(world: &World) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut wanted = BTreeSet::new();
    for deployment in world.deployments.iter().filter(|deployment| !is_leaving(deployment)) {
        let names = names(deployment);
        let own =
            |pod: &&Value| namespace(pod) == namespace(deployment) && names.contains(&name(pod).to_owned());
        let pods: Vec<&Value> = world.pods.iter().filter(own).collect();
        for missing in names.iter().filter(|wanted| !pods.iter().any(|pod| name(pod) == **wanted)) {
            let path = core("pods", namespace(deployment), missing);
            changes.push(Change::apply(path, pod(deployment, missing)));
        }
        changes.extend(status(deployment, &pods));
        wanted.extend(names.into_iter().map(|name| (namespace(deployment).to_owned(), name)));
    }
    for pod in &world.pods {
        let (namespace, name) = (namespace(pod), name(pod));
        let is_ours = text(pod, "/metadata/ownerReferences/0/kind") == "Deployment";
        if is_leaving(pod) || is_ours && !wanted.contains(&(namespace.to_owned(), name.to_owned())) {
            changes.push(Change::delete(&core("pods", namespace, name)));
        }
    }
    changes
}

/// The names of the pods that a Deployment is to have. Another template makes other pods.
fn names(deployment: &Value) -> Vec<String> {
    let mut hasher = DefaultHasher::new();
    deployment["spec"]["template"].to_string().hash(&mut hasher);
    let template = hasher.finish() as u32;
    let replicas = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
    (0..replicas).map(|number| format!("{}-{template:08x}-{number}", name(deployment))).collect()
}

fn pod(deployment: &Value, name: &str) -> Value {
    let template = &deployment["spec"]["template"];
    let mut spec = template["spec"].clone();
    spec["nodeName"] = json!(NODE);
    // Elsewhere an admission plugin says so.
    if text(&spec, "/serviceAccountName").is_empty() {
        spec["serviceAccountName"] = json!("default");
    }
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace(deployment),
            "labels": template["metadata"]["labels"],
            "annotations": template["metadata"]["annotations"],
            "ownerReferences": [{
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": crate::objects::name(deployment),
                "uid": uid(deployment),
                "controller": true,
            }],
        },
        "spec": spec,
    })
}

fn status(deployment: &Value, pods: &[&Value]) -> Option<Change> {
    let ready = pods.iter().filter(|pod| is_ready(pod)).count();
    let observed = &deployment["metadata"]["generation"];
    let there = &deployment["status"];
    let is_so = there["readyReplicas"].as_u64().unwrap_or(0) == ready as u64
        && there["observedGeneration"] == *observed;
    let available = |condition: &Value| condition["type"] == "Available";
    if is_so && items(deployment, "/status/conditions").iter().any(available) {
        return None;
    }
    let is_available = ready as u64 == deployment["spec"]["replicas"].as_u64().unwrap_or(1);
    let condition = json!({"type": "Available", "status": if is_available { "True" } else { "False" }});
    let counts = json!({
        "observedGeneration": observed, "replicas": pods.len(), "updatedReplicas": pods.len(),
        "readyReplicas": ready, "availableReplicas": ready, "conditions": [condition],
    });
    Some(Change::status(&path_of_deployment(deployment), counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(image: &str) -> Value {
        json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "1", "generation": 1},
            "spec": {"replicas": 2, "template": {
                "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": image}]},
            }},
        })
    }

    fn made(world: &World) -> Vec<Value> {
        let changes = due(world);
        changes.into_iter().filter(|change| change.body["kind"] == "Pod").map(|change| change.body).collect()
    }

    #[test]
    fn a_deployment_has_as_many_pods_as_it_says() {
        let mut world = World { deployments: vec![deployment("a:1")], ..World::default() };
        world.pods = made(&world);
        assert_eq!(world.pods.len(), 2);
        assert_eq!(world.pods[0]["metadata"]["labels"], json!({"app": "web"}));
        assert_eq!(world.pods[0]["spec"]["nodeName"], NODE);
        assert_eq!(made(&world), Vec::<Value>::new());
    }

    #[test]
    fn pods_of_another_template_and_of_no_deployment_go() {
        let mut world = World { deployments: vec![deployment("a:1")], ..World::default() };
        world.pods = made(&world);
        let deleted = |world: &World| due(world).iter().filter(|change| change.method == "DELETE").count();
        assert_eq!(deleted(&world), 0);
        world.deployments = vec![deployment("a:2")];
        assert_eq!((deleted(&world), made(&world).len()), (2, 2));
        world.deployments.clear();
        assert_eq!((deleted(&world), made(&world).len()), (2, 0));
    }
}
