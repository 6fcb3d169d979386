//! What a Gateway owns goes when the Gateway is gone.

use super::world::{Change, World, core, path_of_deployment};
use crate::objects::{items, name, namespace, text};
use serde_json::Value;
use std::collections::BTreeSet;

pub fn due(world: &World) -> Vec<Change> {
    let gateways: BTreeSet<&str> = world.gateways.iter().map(crate::objects::uid).collect();
    let is_left_over = |object: &&Value| {
        let mut owners = items(object, "/metadata/ownerReferences").iter();
        owners.any(|owner| owner["kind"] == "Gateway" && !gateways.contains(text(owner, "/uid")))
    };
    let deployments = world.deployments.iter().filter(is_left_over).map(path_of_deployment);
    let of_core = [("services", &world.services), ("serviceaccounts", &world.accounts)].into_iter();
    let of_core = of_core.flat_map(|(plural, all)| {
        let left_over = all.iter().filter(is_left_over);
        left_over.map(move |object| core(plural, namespace(object), name(object)))
    });
    deployments.chain(of_core).map(|path| Change::delete(&path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_belongs_to_a_gateway_goes_with_it() {
        let owned = |kind: &str, uid: &str| {
            let owner = json!({"kind": kind, "uid": uid});
            json!({"metadata": {"name": uid, "namespace": "shop", "ownerReferences": [owner]}})
        };
        let mut world = World {
            services: vec![owned("Gateway", "1"), owned("Gateway", "2"), owned("Other", "3")],
            deployments: vec![owned("Gateway", "1")],
            ..World::default()
        };
        assert_eq!(due(&world).len(), 3);
        world.gateways = vec![json!({"metadata": {"uid": "1"}})];
        assert_eq!(due(&world), [Change::delete(&core("services", "shop", "2"))]);
    }
}
