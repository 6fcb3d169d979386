//! Objects that are made for another object and belong to it: kept as they should be, and never taken from
//! anybody else.

use std::collections::BTreeMap;

use kube::Client;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::maker::{Maker, WriteError};
use crate::request::{self, Change, Collection, FIELD_MANAGER, Failure, understood};

/// The version that no object has, and that is not zero, which would be any: who applies for it either makes
/// an object or is told of a conflict (apiserver: `Store.Update`).
pub(crate) const VERSION_OF_NONE: &str = "1";

/// As whom istiod applies what it makes for gateways.
const FORMER_MANAGER: &str = "istio.io/gateway-controller";

/// How often an object is looked at again that became another while it was looked at.
const CONFLICTS_MAX: usize = 2;

/// What became of an object that was to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Managed {
    /// It is as it should be, in this version, which it may have had before.
    Applied { version: String, changed: bool },
    /// There is one that is not ours: it has not the label, or belongs to something else.
    OfOthers,
}

/// What is asked of an object that is there.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Found {
    metadata: FoundMetadata,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct FoundMetadata {
    name: String,
    namespace: String,
    resource_version: String,
    deletion_timestamp: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<Owner>>,
    managed_fields: Option<Vec<Manager>>,
}

/// Who has written fields, and how.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Manager {
    manager: String,
    operation: String,
    subresource: String,
}

impl Manager {
    fn applies_as(&self, name: &str) -> bool {
        self.manager == name && self.operation == "Apply" && self.subresource.is_empty()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Owner {
    uid: String,
}

impl FoundMetadata {
    fn is_marked(&self, label: &str) -> bool {
        self.labels.as_ref().is_some_and(|labels| labels.contains_key(label))
    }

    /// Whether it may be changed by who marks objects with `label`, for the owner with this uid.
    fn is_ours(&self, label: &str, owner: &str) -> bool {
        let owners = self.owner_references.as_deref().unwrap_or_default();
        // Of an owner that is gone: the garbage collector removes it, and then it is made again.
        self.is_marked(label) && (owners.is_empty() || owners.iter().any(|found| found.uid == owner))
    }

    /// Where what istiod has applied is written down, if we have applied nothing yet.
    fn inherited(&self) -> Option<usize> {
        let managers = self.managed_fields.as_deref().unwrap_or_default();
        let at = managers.iter().position(|manager| manager.applies_as(FORMER_MANAGER))?;
        (!managers.iter().any(|manager| manager.applies_as(FIELD_MANAGER))).then_some(at)
    }

    /// What is said of it if it is left as it is.
    fn left(&self, label: &str, owner: Option<&str>) -> Option<Managed> {
        match owner {
            Some(owner) if self.is_ours(label, owner) => None,
            None if self.is_marked(label) => {
                Some(Managed::Applied { version: self.resource_version.clone(), changed: false })
            }
            _ => Some(Managed::OfOthers),
        }
    }
}

impl Maker {
    /// Makes an object be as it is given, if we are the one who writes and it is ours: it is not there, or
    /// it has `label` and belongs to `owner` (a uid) if it belongs to anything. Without an owner it may be
    /// shared: it is made if it is not there, and left as it is otherwise.
    ///
    /// # Errors
    /// If it was not written.
    pub async fn apply_managed(
        &self,
        path: &str,
        object: &Value,
        label: &str,
        owner: Option<&str>,
    ) -> Result<Managed, WriteError> {
        let mut object = object.clone();
        let mut conflicts = 0;
        loop {
            let found = self.metadata(path).await?;
            if let Some(found) = &found {
                if let Some(left) = found.left(label, owner) {
                    return Ok(left);
                }
                if found.deletion_timestamp.is_some() {
                    return Err(WriteError::Failed { reason: "it is being removed".to_owned() });
                }
            }
            // What istiod has applied and we do not apply is to go: lists that are merged would keep its
            // variables and volumes. So its fields become ours before.
            if let Some(at) = found.as_ref().and_then(FoundMetadata::inherited)
                && let Some(found) = &found
            {
                self.inherit(path, &found.resource_version, at).await?;
                continue;
            }
            // For what was looked at and nothing else: what becomes somebody else's meanwhile stays so.
            let before = found.map_or_else(|| VERSION_OF_NONE.to_owned(), |found| found.resource_version);
            object["metadata"]["resourceVersion"] = json!(before);
            if !self.may_write() {
                return Err(WriteError::NotOurs);
            }
            match request::change(self.client(), Change::Apply, path, &object).await {
                Ok(applied) => {
                    let version = parsed(&applied)?.metadata.resource_version;
                    return Ok(Managed::Applied { changed: version != before, version });
                }
                Err(failure) if failure.status() == Some(409) && conflicts < CONFLICTS_MAX => conflicts += 1,
                Err(failure) => return Err(failure.into()),
            }
        }
    }

    /// Takes over the fields that another manager has applied, as they are in a version.
    async fn inherit(&self, path: &str, version: &str, at: usize) -> Result<(), WriteError> {
        if !self.may_write() {
            return Err(WriteError::NotOurs);
        }
        let manager = format!("/metadata/managedFields/{at}/manager");
        let steps = json!([
            {"op": "test", "path": "/metadata/resourceVersion", "value": version},
            {"op": "test", "path": manager, "value": FORMER_MANAGER},
            {"op": "replace", "path": manager, "value": FIELD_MANAGER},
        ]);
        request::change(self.client(), Change::Steps, path, &steps).await?;
        Ok(())
    }

    /// What of an object says whose it is, if there is one and we are the one who writes.
    async fn metadata(&self, path: &str) -> Result<Option<FoundMetadata>, WriteError> {
        if !self.may_write() {
            return Err(WriteError::NotOurs);
        }
        match request::read(self.client(), path).await {
            Ok(bytes) => Ok(Some(parsed(&bytes)?.metadata)),
            Err(Failure::Absent) => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    /// The versions of all objects of a collection that have a label, by namespace and name.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn versions(
        &self,
        collection: &str,
        label: &'static str,
    ) -> Result<BTreeMap<(String, String), String>, WriteError> {
        Ok(list(self.client().clone(), collection, label).await?)
    }
}

async fn list(
    client: Client,
    path: &str,
    labels: &'static str,
) -> Result<BTreeMap<(String, String), String>, Failure> {
    let collection = Collection { client, path: path.to_owned(), fields: "", labels, message: None };
    let mut versions = BTreeMap::new();
    let mut rest = String::new();
    loop {
        let page = collection.page(&rest).await?;
        for item in page.items {
            let FoundMetadata { name, namespace, resource_version, .. } =
                parsed(item.json()?.as_bytes())?.metadata;
            versions.insert((namespace, name), resource_version);
        }
        rest = page.rest;
        if rest.is_empty() {
            return Ok(versions);
        }
    }
}

fn parsed(bytes: &[u8]) -> Result<Found, Failure> {
    serde_json::from_value(understood(bytes)?).map_err(|error| Failure::Nonsense(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_others_is_left_alone() {
        let check = |metadata: Value, expected: bool| {
            let found: FoundMetadata = serde_json::from_value(metadata.clone()).expect("metadata");
            assert_eq!(found.is_ours("mark", "1"), expected, "{metadata}");
        };
        check(json!({}), false);
        check(json!({"labels": {"other": "x"}}), false);
        check(json!({"labels": {"mark": "x"}}), true);
        check(json!({"labels": {"mark": "x"}, "ownerReferences": [{"uid": "1"}, {"uid": "2"}]}), true);
        check(json!({"labels": {"mark": "x"}, "ownerReferences": [{"uid": "2"}]}), false);
        check(json!({"ownerReferences": [{"uid": "1"}]}), false);
    }

    #[test]
    fn what_istiod_has_applied_is_inherited_once() {
        let check = |managers: &[(&str, &str)], expected: Option<usize>| {
            let fields = managers
                .iter()
                .map(|(manager, operation)| json!({"manager": manager, "operation": operation}));
            let metadata = json!({"managedFields": fields.collect::<Vec<_>>()});
            let found: FoundMetadata = serde_json::from_value(metadata).expect("metadata");
            assert_eq!(found.inherited(), expected, "{managers:?}");
        };
        check(&[], None);
        check(&[("kubectl", "Apply"), (FORMER_MANAGER, "Apply")], Some(1));
        check(&[(FORMER_MANAGER, "Update")], None);
        check(&[(FORMER_MANAGER, "Apply"), (FIELD_MANAGER, "Apply")], None);
    }

    #[test]
    fn what_may_be_shared_is_left_as_it_is() {
        let check = |metadata: Value, expected: Managed| {
            let found: FoundMetadata = serde_json::from_value(metadata.clone()).expect("metadata");
            assert_eq!(found.left("mark", None), Some(expected), "{metadata}");
        };
        let version = "7".to_owned();
        let other = json!([{"uid": "2"}]);
        check(json!({"resourceVersion": "7"}), Managed::OfOthers);
        check(
            json!({"resourceVersion": "7", "labels": {"mark": "x"}, "ownerReferences": other}),
            Managed::Applied { version, changed: false },
        );
    }
}
