//! What metrics say of a workload, and how proxies tell each other.

use std::collections::BTreeMap;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use navarch_envoy::wkt::{self, Kind, Struct};
use navarch_model::proxy::PEER_METADATA;
use prost::Message;
use serde_json::{Value, json};

use crate::node::Node;

/// Labels that say which service and revision a workload is of, the first that is there (Istio: "Canonical
/// service").
const SERVICE: [&str; 3] = [CANONICAL_NAME, "app.kubernetes.io/name", "app"];
const REVISION: [&str; 3] = [CANONICAL_REVISION, "app.kubernetes.io/version", "version"];
const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";

/// Istio's proxies leave the padding away, or do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What metrics say of a workload. What nobody knows is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    pub name: String,
    pub namespace: String,
    pub app: String,
    pub version: String,
    /// The canonical service, and its revision.
    pub service: String,
    pub revision: String,
    pub cluster: String,
}

impl Workload {
    /// The workload of a proxy.
    #[must_use]
    pub fn of_node(node: &Node) -> Self {
        let text = |key: &str| node.metadata.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let labels = node.metadata.get("LABELS").and_then(Value::as_object);
        let labels = labels.into_iter().flatten();
        let labels = labels.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect();
        Self::of(text("WORKLOAD_NAME"), text("NAMESPACE"), text("CLUSTER_ID"), &labels)
    }

    fn of(name: String, namespace: String, cluster: String, labels: &BTreeMap<&str, &str>) -> Self {
        let label = |keys: &[&str]| {
            let stated = keys.iter().filter_map(|key| labels.get(key));
            stated.copied().find(|value| !value.is_empty()).unwrap_or_default().to_owned()
        };
        let service = Some(label(&SERVICE)).filter(|service| !service.is_empty());
        Workload {
            app: label(&["app"]),
            version: label(&["version"]),
            service: service.unwrap_or_else(|| name.clone()),
            revision: label(&REVISION),
            name,
            namespace,
            cluster,
        }
    }

    /// What endpoints say of theirs (`istio.workload`): name, namespace, canonical service, revision and
    /// cluster. The labels `app` and `version` are what canonical services are named by where nobody names
    /// them otherwise.
    #[must_use]
    pub fn of_endpoint(text: &str) -> Option<Self> {
        let mut parts = text.splitn(5, ';').map(str::to_owned);
        let mut next = || parts.next();
        let (name, namespace, service, revision, cluster) = (next()?, next()?, next()?, next()?, next()?);
        Some(Workload {
            app: service.clone(),
            version: revision.clone(),
            name,
            namespace,
            service,
            revision,
            cluster,
        })
    }

    /// The value of the header `x-envoy-peer-metadata`, as proxies of Istio say it of theirs.
    #[must_use]
    pub fn to_header(&self) -> String {
        let Workload { name, namespace, app, version, service, revision, cluster } = self;
        let stated = |pairs: &[(&str, &String)]| {
            let stated = pairs.iter().filter(|(_, value)| !value.is_empty());
            stated.map(|(key, value)| ((*key).to_owned(), wkt::string(*value))).collect::<Vec<_>>()
        };
        let labels = stated(&[
            ("app", app),
            ("version", version),
            (CANONICAL_NAME, service),
            (CANONICAL_REVISION, revision),
        ]);
        let mut fields =
            stated(&[("WORKLOAD_NAME", name), ("NAMESPACE", namespace), ("CLUSTER_ID", cluster)]);
        fields.push(("LABELS".to_owned(), wkt::object(labels)));
        BASE64.encode(wkt::structure(fields).encode_to_vec())
    }

    /// The workload that a header is about.
    #[must_use]
    pub fn of_header(text: &str) -> Option<Self> {
        let said = Struct::decode(&*BASE64.decode(text).ok()?).ok()?;
        let field = |key: &str| match &said.fields.get(key)?.kind {
            Some(Kind::StringValue(text)) => Some(text.clone()),
            _ => None,
        };
        let labels = match said.fields.get("LABELS").map(|labels| &labels.kind) {
            Some(Some(Kind::StructValue(labels))) => labels.fields.iter().collect(),
            _ => Vec::new(),
        };
        let labels = labels.into_iter().filter_map(|(key, value)| match &value.kind {
            Some(Kind::StringValue(text)) => Some((key.as_str(), text.as_str())),
            _ => None,
        });
        let text = |key: &str| field(key).unwrap_or_default();
        Some(Self::of(text("WORKLOAD_NAME"), text("NAMESPACE"), text("CLUSTER_ID"), &labels.collect()))
    }

    /// Says in the metadata of the node what other proxies are told of its workload, and so to the control
    /// plane that this agent serves metrics. What is there stays, the empty text included.
    pub fn tell(node: &mut Node) {
        if !node.metadata.contains_key(PEER_METADATA) {
            let header = Self::of_node(node).to_header();
            node.metadata.insert(PEER_METADATA.to_owned(), json!(header));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(metadata: Value) -> Node {
        let Value::Object(metadata) = metadata else { panic!("metadata must be an object") };
        Node { metadata, ..Node::default() }
    }

    /// Name, namespace, app, version, canonical service and revision, cluster.
    #[track_caller]
    fn check(found: Option<Workload>, expected: [&str; 7]) {
        let [name, namespace, app, version, service, revision, cluster] = expected.map(str::to_owned);
        assert_eq!(found, Some(Workload { name, namespace, app, version, service, revision, cluster }));
    }

    #[test]
    fn labels_say_what_a_workload_is_of() {
        let of = |metadata| Some(Workload::of_node(&node(metadata)));
        check(of(json!({})), ["", "", "", "", "", "", ""]);
        check(of(json!({"WORKLOAD_NAME": "w"})), ["w", "", "", "", "w", "", ""]);
        check(
            of(json!({
                "WORKLOAD_NAME": "w", "NAMESPACE": "n", "CLUSTER_ID": "c",
                "LABELS": {"app": "a", "version": "v", "app.kubernetes.io/name": "k"},
            })),
            ["w", "n", "a", "v", "k", "v", "c"],
        );
    }

    #[test]
    fn what_is_said_in_a_header_is_understood() {
        let labels = json!({"app": "a", "version": "v", CANONICAL_NAME: "s", CANONICAL_REVISION: "r"});
        let mut made =
            node(json!({"WORKLOAD_NAME": "w", "NAMESPACE": "n", "CLUSTER_ID": "c", "LABELS": labels}));
        let own = Workload::of_node(&made);
        check(Workload::of_header(&own.to_header()), ["w", "n", "a", "v", "s", "r", "c"]);
        check(
            Workload::of_header(own.to_header().trim_end_matches('=')),
            ["w", "n", "a", "v", "s", "r", "c"],
        );
        assert_eq!(Workload::of_header("not base64"), None);
        assert_eq!(Workload::of_header("bm90IGEgc3RydWN0"), None);
        Workload::tell(&mut made);
        assert_eq!(made.metadata[PEER_METADATA], own.to_header());
        made.metadata.insert(PEER_METADATA.to_owned(), json!(""));
        Workload::tell(&mut made);
        assert_eq!(made.metadata[PEER_METADATA], "");
    }

    #[test]
    fn endpoints_say_whose_they_are() {
        check(Workload::of_endpoint("w;n;s;r;c"), ["w", "n", "s", "r", "s", "r", "c"]);
        check(Workload::of_endpoint(";;;;c"), ["", "", "", "", "", "", "c"]);
        assert_eq!(Workload::of_endpoint("w;n"), None);
        assert_eq!(Workload::of_endpoint(""), None);
    }
}
