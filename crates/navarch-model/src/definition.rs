//! CustomResourceDefinitions, written from the kinds table.
//!
//! An API server takes objects of our kinds after it has been given these. Fields of a
//! specification are not checked by it: what is wrong with them is a finding, as it is in a file.

use serde_json::{Value, json};

use crate::kinds::{Kind, Scope};

/// The annotation without which an API server warns of definitions in groups that belong to
/// Kubernetes (KEP-1111).
const APPROVAL: &str = "api-approved.kubernetes.io";

/// The definition of a kind; `None` for what every API server has.
pub fn definition(kind: Kind) -> Option<Value> {
    if kind.is_built_in() {
        return None;
    }
    let (group, plural, singular) = (kind.group(), kind.plural(), kind.as_str().to_lowercase());
    let mut metadata = json!({"name": format!("{plural}.{group}")});
    if group.ends_with(".k8s.io") {
        metadata["annotations"] = json!({APPROVAL: "unapproved, fields are not checked"});
    }
    let scope = match kind.scope() {
        Scope::Namespaced => "Namespaced",
        Scope::Cluster => "Cluster",
    };
    let versions = kind.versions().iter().enumerate().map(|(index, name)| version(name, index == 0));
    Some(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": {
            "group": group,
            "scope": scope,
            "names": {
                "kind": kind.as_str(),
                "listKind": format!("{}List", kind.as_str()),
                "plural": plural,
                "singular": singular,
            },
            "versions": versions.collect::<Vec<_>>(),
        },
    }))
}

fn version(name: &str, stored: bool) -> Value {
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "name": name,
        "served": true,
        "storage": stored,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": any, "status": any}}},
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_that_is_not_built_in_has_one_with_all_of_its_versions() {
        for kind in Kind::ALL {
            let Some(definition) = definition(*kind) else {
                assert!(kind.is_built_in(), "{kind}");
                continue;
            };
            let versions = definition["spec"]["versions"].as_array().expect("a list");
            let stored: Vec<_> = versions.iter().filter(|version| version["storage"] == true).collect();
            assert_eq!(versions.len(), kind.versions().len(), "{kind}");
            assert!(matches!(stored.as_slice(), [one] if one["name"] == kind.versions()[0]), "{kind}");
        }
    }
}
