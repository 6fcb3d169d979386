//! Namespaces: each has a service account, and can go.

use super::world::{Change, World, core};
use crate::objects::{is_leaving, name};
use http::Method;
use serde_json::json;

pub fn due(world: &World) -> Vec<Change> {
    let changes = world.namespaces.iter().filter_map(|namespace| {
        let name = name(namespace);
        if is_leaving(namespace) {
            let mut body = namespace.clone();
            body["spec"]["finalizers"] = json!([]);
            return Some(Change {
                method: Method::PUT,
                path: format!("/api/v1/namespaces/{name}/finalize"),
                body,
            });
        }
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name},
        });
        let is_there = World::find(&world.accounts, &account).is_some();
        (!is_there).then(|| Change::apply(core("serviceaccounts", name, "default"), account))
    });
    changes.collect()
}
