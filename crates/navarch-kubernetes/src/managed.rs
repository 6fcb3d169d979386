//! Objects that are made for another object and belong to it: kept as they should be, and never taken from
//! anybody else.

use std::collections::BTreeMap;

use kube::Client;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::maker::{Maker, WriteError};
use crate::request::{self, Change, Collection, Failure, understood};

/// What became of an object that was to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Managed {
    /// It is as it should be, in this version.
    Applied { version: String },
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
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Owner {
    uid: String,
}

impl FoundMetadata {
    /// Whether it may be changed by who marks objects with `label`, for the owner with this uid.
    fn is_ours(&self, label: &str, owner: &str) -> bool {
        let is_marked = self.labels.as_ref().is_some_and(|labels| labels.contains_key(label));
        let owners = self.owner_references.as_deref().unwrap_or_default();
        // Of an owner that is gone: the garbage collector removes it, and then it is made again.
        is_marked && (owners.is_empty() || owners.iter().any(|found| found.uid == owner))
    }
}

impl Maker {
    /// Makes an object be as it is given, if we are the one who writes and it is ours: it is not there, or
    /// it has `label` and belongs to `owner` (a uid) if it belongs to anything.
    ///
    /// # Errors
    /// If it was not written.
    pub async fn apply_managed(
        &self,
        path: &str,
        object: &Value,
        label: &str,
        owner: &str,
    ) -> Result<Managed, WriteError> {
        let found = match request::read(self.client(), path).await {
            Ok(bytes) => Some(parsed(&bytes)?.metadata),
            Err(Failure::Absent) => None,
            Err(failure) => return Err(failure.into()),
        };
        let mut object = object.clone();
        if let Some(found) = found {
            if !found.is_ours(label, owner) {
                return Ok(Managed::OfOthers);
            }
            if found.deletion_timestamp.is_some() {
                return Err(WriteError::Failed { reason: "it is being removed".to_owned() });
            }
            // Of the version that was looked at and no other: what becomes somebody else's stays so.
            object["metadata"]["resourceVersion"] = json!(found.resource_version);
        }
        if !self.may_write() {
            return Err(WriteError::NotOurs);
        }
        let applied = request::change(self.client(), Change::Apply, path, &object).await?;
        Ok(Managed::Applied { version: parsed(&applied)?.metadata.resource_version })
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
    let collection = Collection { client, path: path.to_owned(), fields: "", labels };
    let mut versions = BTreeMap::new();
    let mut rest = String::new();
    loop {
        let page = collection.page(&rest).await?;
        for item in page.items.unwrap_or_default() {
            let FoundMetadata { name, namespace, resource_version, .. } =
                parsed(item.get().as_bytes())?.metadata;
            versions.insert((namespace, name), resource_version);
        }
        rest = page.metadata.rest;
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
}
