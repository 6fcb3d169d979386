//! What an API server in memory has: objects, what happened to them, and how requests change them.

use anyhow::Result;
use serde_json::{Value, json};
use std::{collections::BTreeMap, ops::Bound};

const CONFLICT: u16 = 409;
const UNSUPPORTED: u16 = 415;

#[derive(Debug, Default)]
pub(super) struct State {
    /// By path, such as `/api/v1/pods`.
    pub collections: BTreeMap<String, Collection>,
    pub version: u64,
    /// Events after this version are kept.
    pub kept_after: u64,
    /// What has been written by requests, in order.
    pub writes: Vec<Write>,
    /// Requests that are refused: a method, a part of a path, and the status.
    pub refusals: Vec<(String, String, u16)>,
    /// What is answered to objects that are sent to a path and not kept.
    pub reviews: BTreeMap<String, Review>,
}

/// A request that has changed an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    pub method: String,
    pub path: String,
    pub body: Value,
}

/// Answers a question.
pub(super) struct Review(pub(super) Box<dyn Fn(&Value) -> Value + Send>);

impl std::fmt::Debug for Review {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Review")
    }
}

#[derive(Debug, Default)]
pub(super) struct Collection {
    /// By namespace and name.
    pub objects: BTreeMap<(String, String), Value>,
    /// By version: what happened.
    pub events: BTreeMap<u64, Value>,
}

impl State {
    pub fn next(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// A page of a list, after what the page before ended with, or why there is none.
    pub fn page(&self, path: &str, limit: usize, rest: &str) -> Result<Value, u16> {
        let objects = &self.collections.get(path).ok_or(NOT_FOUND)?.objects;
        let mut start = Bound::Unbounded;
        if !rest.is_empty() {
            let (version, key) = rest.split_once('~').ok_or(GONE)?;
            let (namespace, name) = key.split_once('/').ok_or(GONE)?;
            // All pages of a list are of one version, and older ones than the newest are not kept.
            if version != self.version.to_string() {
                return Err(GONE);
            }
            start = Bound::Excluded((namespace.to_owned(), name.to_owned()));
        }
        let mut left = objects.range((start, Bound::Unbounded));
        let page: Vec<_> = left.by_ref().take(limit).collect();
        let rest = match (page.last(), left.next()) {
            (Some(((namespace, name), _)), Some(_)) => format!("{}~{namespace}/{name}", self.version),
            _ => String::new(),
        };
        let items: Vec<_> = page.into_iter().map(|(_, object)| object).collect();
        let metadata = json!({"resourceVersion": self.version.to_string(), "continue": rest});
        Ok(json!({"metadata": metadata, "items": items}))
    }

    /// The events of a collection after a version, as lines; `Err` if it has to be listed again.
    pub fn events(&self, path: &str, after: u64) -> Result<String, u16> {
        let collection = self.collections.get(path).ok_or(GONE)?;
        if after < self.kept_after {
            return Err(GONE);
        }
        let events = collection.events.range((Bound::Excluded(after), Bound::Unbounded));
        Ok(events.map(|(_, event)| event.to_string() + "\n").collect())
    }
}

pub(super) const NOT_FOUND: u16 = 404;
const GONE: u16 = 410;

pub(super) fn status(code: u16) -> Value {
    json!({"kind": "Status", "code": code, "message": "said by a test"})
}

pub(super) fn key(object: &Value) -> (String, String) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// All objects of the kind.
    pub collection: String,
    pub namespace: String,
    /// Empty for one that is about to be created.
    pub name: String,
    pub status: bool,
}

impl Target {
    /// What a path means: `/api/v1/namespaces/a/pods/b/status`, `/apis/g/v1/classes/c`.
    pub fn of(path: &str) -> Option<Target> {
        let mut parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        let group = parts.drain(..if parts.first() == Some(&"api") { 2 } else { 3 }.min(parts.len()));
        let group = group.collect::<Vec<_>>().join("/");
        let mut namespace = "";
        if let ["namespaces", name, _, ..] = parts[..]
            && parts[2] != "status"
        {
            namespace = name;
            parts.drain(..2);
        }
        let (plural, name, status) = match parts[..] {
            [plural] => (plural, "", false),
            [plural, name] => (plural, name, false),
            [plural, name, "status"] => (plural, name, true),
            _ => return None,
        };
        let collection = format!("/{group}/{plural}");
        Some(Target { collection, namespace: namespace.to_owned(), name: name.to_owned(), status })
    }
}

impl State {
    /// An object, as it is.
    pub fn object(&self, target: &Target) -> Result<Value, u16> {
        let collection = self.collections.get(&target.collection).ok_or(NOT_FOUND)?;
        let key = (target.namespace.clone(), target.name.clone());
        collection.objects.get(&key).cloned().ok_or(NOT_FOUND)
    }

    /// Changes an object as a request says; gives it as it is then.
    pub fn change(
        &mut self,
        method: &str,
        content: &str,
        target: &Target,
        body: Value,
    ) -> Result<Value, u16> {
        let mut target = target.clone();
        if method == "POST" {
            target.name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        }
        let found = self.object(&target).ok();
        let stated = body["metadata"]["resourceVersion"].as_str();
        if let (Some(found), Some(stated)) = (&found, stated)
            && found["metadata"]["resourceVersion"] != stated
        {
            return Err(CONFLICT);
        }
        let mut object = match (method, content, found) {
            ("POST", _, None) => body,
            ("POST", _, Some(_)) => return Err(CONFLICT),
            ("PUT", _, Some(found)) => {
                let kept = if target.status { "spec" } else { "status" };
                let mut object = body;
                object[kept] = found[kept].clone();
                object
            }
            ("PATCH", "application/apply-patch+yaml", None) if !target.status => body,
            ("PATCH", "application/apply-patch+yaml" | "application/merge-patch+json", Some(mut found)) => {
                let mut patch = body;
                if target.status {
                    patch = json!({"status": patch["status"]});
                } else if let Some(patch) = patch.as_object_mut() {
                    patch.remove("status");
                }
                merge(&mut found, patch);
                found
            }
            (_, _, None) => return Err(NOT_FOUND),
            _ => return Err(UNSUPPORTED),
        };
        let version = self.next();
        object["metadata"]["resourceVersion"] = version.to_string().into();
        if !target.namespace.is_empty() {
            object["metadata"]["namespace"] = target.namespace.clone().into();
        }
        self.collections.entry(target.collection).or_default().put(version, object.clone());
        Ok(object)
    }
}

impl Collection {
    pub fn put(&mut self, version: u64, object: Value) {
        let known = self.objects.insert(key(&object), object.clone());
        let ty = if known.is_some() { "MODIFIED" } else { "ADDED" };
        self.events.insert(version, json!({"type": ty, "object": object}));
    }
}

/// RFC 7396; it is also what becomes of fields that are applied where no schema says how lists are merged.
fn merge(object: &mut Value, patch: Value) {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (name, value) in patch {
                if value.is_null() {
                    object.remove(&name);
                } else {
                    merge(object.entry(name).or_insert(Value::Null), value);
                }
            }
        }
        (object, patch) => *object = patch,
    }
}
