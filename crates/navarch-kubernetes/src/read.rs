//! From the JSON of an API server to what a place says.

use std::path::Path;
use std::sync::Arc;

use navarch_model::document::{Parsed, WrittenIn, node_of_json, parse_node};
use navarch_model::finding::{Code, Finding};
use navarch_model::kinds::Scope;
use navarch_model::revision::LABEL;
use navarch_model::yaml::{Entry, Node, Style, Value};
use navarch_model::{Kind, ObjectKey, Position, Revision, Whose};
use navarch_sources::{PlaceId, Update};
use serde::Deserialize;

use crate::status::Shown;

/// An object as an API server has it.
#[derive(Debug)]
pub(crate) struct Told {
    pub place: PlaceId,
    /// The version of the object.
    pub version: String,
    pub update: Update,
    /// What it shows to those who write statuses.
    pub shown: Option<Shown>,
}

/// Reads objects of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pub kind: Kind,
    pub origin: WrittenIn,
    /// Which revision of the control plane we are.
    pub revision: Arc<Revision>,
}

#[derive(Debug, Deserialize)]
struct Envelope {
    metadata: Named,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    labels: Option<Labels>,
}

#[derive(Debug, Default, Deserialize)]
struct Labels {
    // `navarch_model::revision::LABEL`
    #[serde(default, rename = "istio.io/rev")]
    revision: String,
}

impl Named {
    /// That of an object; `None` if it has no name.
    fn of(object: &Node) -> Option<Self> {
        let metadata = object.get("metadata")?;
        let text = |field: &str| metadata.get(field).and_then(Node::as_str).map(str::to_owned);
        let label = metadata.get("labels").and_then(|labels| labels.get(LABEL)?.as_str());
        Some(Named {
            name: text("name")?,
            namespace: text("namespace").unwrap_or_default(),
            resource_version: text("resourceVersion").unwrap_or_default(),
            labels: label.map(|label| Labels { revision: label.to_owned() }),
        })
    }
}

impl Reader {
    /// Reads an object. `None` if it is none: it has no name.
    pub(crate) fn read(&self, json: &str) -> Option<Told> {
        let (metadata, update) = match node_of_json(self.kind, json) {
            Ok(node) => {
                let metadata = Named::of(&node)?;
                let update = match self.is_of_another_revision(asked(&metadata)) {
                    true => Update::Says(Parsed::default()),
                    false => self.says(node),
                };
                (metadata, update)
            }
            Err(error) => {
                let Envelope { metadata } = serde_json::from_str(json).ok()?;
                let finding = self.unreadable(&metadata, &error.to_string());
                (metadata, Update::Unreadable(finding))
            }
        };
        let place = self.place(&metadata.namespace, &metadata.name);
        let key = ObjectKey::new(self.kind, &metadata.namespace, &metadata.name);
        let shown = Shown::of(key, json, asked(&metadata));
        Some(Told { place, version: metadata.resource_version, update, shown })
    }

    /// What is at a place of this kind.
    pub(crate) fn key(&self, place: &Path) -> ObjectKey {
        let text = place.to_string_lossy();
        let mut names = text.split('/').skip(1);
        let namespace = match self.kind.scope() {
            Scope::Namespaced => names.next().unwrap_or_default(),
            Scope::Cluster => "",
        };
        ObjectKey::new(self.kind, namespace, names.next().unwrap_or_default())
    }

    /// The version that a bookmark is of.
    pub(crate) fn bookmark(json: &str) -> Option<String> {
        #[derive(Deserialize)]
        struct Bookmark {
            metadata: Version,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            resource_version: String,
        }
        let bookmark: Bookmark = serde_json::from_str(json).ok()?;
        Some(bookmark.metadata.resource_version)
    }

    fn says(&self, mut node: Node) -> Update {
        // Items of lists of built-in kinds do not say what they are.
        if let Value::Mapping(entries) = &mut node.value {
            entries.retain(|entry| !matches!(entry.key.as_str(), "apiVersion" | "kind"));
            entries.push(text_entry("apiVersion", self.kind.api_version()));
            entries.push(text_entry("kind", self.kind.as_str().to_owned()));
        }
        Update::Says(parse_node(&self.origin, node))
    }

    /// Whether the object says that another revision of the control plane reads it. Objects of the
    /// cluster itself are for all of them (Istio: "Canary upgrades").
    fn is_of_another_revision(&self, label: &str) -> bool {
        // The namespace says only who acts.
        !self.kind.is_built_in() && self.revision.whose(label, "") == Whose::Others
    }

    /// `kind/namespace/name`, or `kind/name` of a kind without a namespace.
    fn place(&self, namespace: &str, name: &str) -> PlaceId {
        let path = match self.kind.scope() {
            Scope::Namespaced => format!("{}/{namespace}/{name}", self.kind),
            Scope::Cluster => format!("{}/{name}", self.kind),
        };
        Arc::from(Path::new(&path))
    }

    fn unreadable(&self, named: &Named, reason: &str) -> Finding {
        let WrittenIn::Cluster { id, name: cluster } = &self.origin else {
            return Finding::error(Code::Syntax, reason);
        };
        let object = ObjectKey::of(*id, self.kind, named.namespace.as_str(), named.name.as_str());
        let position = Position::Cluster { cluster: cluster.clone(), object: object.clone() };
        Finding::error(Code::Syntax, format!("the object cannot be read: {reason}"))
            .at(position)
            .of(object)
            .hint("what it said before stays in use; it is nested too deep, or not JSON")
    }
}

/// The revision or tag that an object names; empty if it names none.
fn asked(metadata: &Named) -> &str {
    metadata.labels.as_ref().map_or("", |labels| &labels.revision)
}

fn text_entry(key: &str, text: String) -> Entry {
    let value = Node { value: Value::Scalar { text, style: Style::Text }, line: 0, column: 0 };
    Entry { key: key.to_owned(), line: 0, column: 0, value }
}

#[cfg(test)]
mod tests {
    use navarch_model::ClusterId;

    use super::*;

    fn reader(kind: Kind) -> Reader {
        let origin = WrittenIn::Cluster { id: ClusterId::LOCAL, name: "east".into() };
        Reader { kind, origin, revision: Arc::default() }
    }

    /// `place version objects findings`
    #[track_caller]
    fn check(kind: Kind, json: &str, expected: &str) {
        let shown = reader(kind).read(json).map(|told| {
            let said = match told.update {
                Update::Says(parsed) => {
                    let objects = parsed.objects.iter().map(|o| o.position().expect("a place").to_string());
                    let findings = parsed.findings.iter().map(ToString::to_string);
                    objects.chain(findings).collect::<Vec<_>>().join(" ")
                }
                Update::Unreadable(finding) => finding.to_string(),
                Update::Gone => "gone".to_owned(),
            };
            format!("{} {} {said}", told.place.display(), told.version)
        });
        let shown = shown.unwrap_or_default();
        assert!(shown.starts_with(expected), "{shown}");
    }

    #[test]
    fn objects_are_called_by_cluster_kind_namespace_and_name() {
        check(
            Kind::Service,
            r#"{"metadata": {"name": "a", "namespace": "b", "resourceVersion": "7"}}"#,
            "Service/b/a 7 east/Service/b/a",
        );
        check(Kind::Namespace, r#"{"metadata": {"name": "a"}}"#, "Namespace/a  east/Namespace/a");
        check(
            Kind::VirtualService,
            r#"{"apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService", "metadata": {"name": "a", "namespace": "b"}, "spec": {"host": []}}"#,
            "VirtualService/b/a  ",
        );
        check(Kind::Service, r#"{"spec": {}}"#, "");
    }

    #[test]
    fn objects_of_another_revision_say_nothing() {
        let of = |label: &str| {
            format!(
                r#"{{"metadata": {{"name": "a", "namespace": "b", "labels": {{"istio.io/rev": "{label}"}}}}}}"#
            )
        };
        check(
            Kind::PeerAuthentication,
            &of("default"),
            "PeerAuthentication/b/a  east/PeerAuthentication/b/a",
        );
        check(Kind::PeerAuthentication, &of(""), "PeerAuthentication/b/a  east/PeerAuthentication/b/a");
        assert!(matches!(
            reader(Kind::PeerAuthentication).read(&of("canary")).map(|told| told.update),
            Some(Update::Says(parsed)) if parsed == Parsed::default()
        ));
        check(Kind::Namespace, &of("canary"), "Namespace/a  east/Namespace/a");
    }

    #[test]
    fn what_is_nested_too_deep_takes_nothing_else_along() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        check(
            Kind::EnvoyFilter,
            &format!(
                r#"{{"spec": {deep}, "metadata": {{"name": "a", "namespace": "b", "resourceVersion": "7"}}}}"#
            ),
            "EnvoyFilter/b/a 7 error[",
        );
    }
}
