//! The identity a proxy states when it connects.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A node as it stands in a bootstrap (`envoy.config.core.v3.Node`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// `type~ip~name.namespace~namespace.svc.suffix`; type is `sidecar` or `router`.
    pub id: String,
    /// Name of the workload's service, for telemetry.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// What Istio's agents state: NAMESPACE, LABELS, INTERCEPTION_MODE, CLUSTER_ID, INSTANCE_IPS...
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
}

/// Where the proxy runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Locality {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub region: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub zone: String,
    #[serde(alias = "subZone", skip_serializing_if = "String::is_empty")]
    pub sub_zone: String,
}

impl Locality {
    /// Parses `region/zone/sub-zone`; missing parts are empty.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Locality { region: next(), zone: next(), sub_zone: next() }
    }
}

/// What an agent knows of its workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// `sidecar` or `router`.
    pub kind: String,
    pub ip: IpAddr,
    pub name: String,
    pub namespace: String,
    pub service_account: String,
    /// Domain suffix of the mesh.
    pub domain: String,
    /// The service that the workload belongs to.
    pub service: Option<String>,
    pub locality: Option<Locality>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// More of it; what is here counts before what follows from the rest.
    pub metadata: Map<String, Value>,
}

impl Default for Description {
    fn default() -> Self {
        Description {
            kind: "sidecar".to_owned(),
            ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            name: String::new(),
            namespace: String::new(),
            service_account: String::new(),
            domain: String::new(),
            service: None,
            locality: None,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            metadata: Map::new(),
        }
    }
}

/// Variables that become metadata, as Istio's agent has it: the rest of the name is the key.
const TEXT: &str = "ISTIO_META_";
const JSON: &str = "ISTIO_METAJSON_";

impl Description {
    /// Takes metadata from environment variables: `ISTIO_META_<KEY>` as text, `ISTIO_METAJSON_<KEY>` as JSON;
    /// the fields of `ISTIO_METAJSON_METADATA` and its like are metadata themselves.
    pub fn take_environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        let variables: BTreeMap<String, String> = variables.into_iter().collect();
        for (name, value) in &variables {
            if let Some(key) = name.strip_prefix(TEXT) {
                self.metadata.insert(key.to_owned(), json!(value));
            } else if let Some(key) = name.strip_prefix(JSON) {
                match serde_json::from_str(value) {
                    Ok(Value::Object(fields)) if key.starts_with("METADATA") => self.metadata.extend(fields),
                    Ok(value) => _ = self.metadata.insert(key.to_owned(), value),
                    Err(error) => {
                        tracing::warn!(name, %error, "a variable does not hold JSON, and is left out")
                    }
                }
            }
        }
    }

    /// Takes the labels or annotations of a pod from the file that the downward API of Kubernetes makes: a
    /// line
    /// `key="value"` for each, the value escaped as in Go.
    pub fn take_pod_file(&mut self, text: &str, is_labels: bool) {
        let into = if is_labels { &mut self.labels } else { &mut self.annotations };
        for line in text.lines() {
            let Some((key, value)) = line.split_once('=') else { continue };
            // The escapes of Go that occur here are those of JSON.
            let value = serde_json::from_str(value).unwrap_or_else(|_| value.trim_matches('"').to_owned());
            into.insert(key.to_owned(), value);
        }
    }

    /// The node that all of it makes.
    #[must_use]
    pub fn node(self) -> Node {
        let Description {
            kind,
            ip,
            name,
            namespace,
            service_account,
            domain,
            service,
            locality,
            labels,
            annotations,
            metadata: stated,
        } = self;
        let mut metadata = Map::new();
        let mut put = |key: &str, value: Value| _ = metadata.insert(key.to_owned(), value);
        put("NAME", json!(name));
        put("NAMESPACE", json!(namespace));
        put("SERVICE_ACCOUNT", json!(service_account));
        put("INSTANCE_IPS", json!(ip.to_string()));
        put("CLUSTER_ID", json!("Kubernetes"));
        // Nothing redirects traffic unless somebody says so.
        put("INTERCEPTION_MODE", json!("NONE"));
        if let Some(service) = labels.get("app").or(service.as_ref()) {
            put("WORKLOAD_NAME", json!(service));
        }
        if !annotations.is_empty() {
            put("ANNOTATIONS", json!(annotations));
        }
        put("LABELS", json!(labels));
        metadata.extend(stated);
        let stated_locality = labels.get("istio-locality").map(|text| {
            // Labels cannot have slashes, so that dots are taken where there are none.
            if text.contains('/') { Locality::parse(text) } else { Locality::parse(&text.replace('.', "/")) }
        });
        Node {
            id: format!("{kind}~{ip}~{name}.{namespace}~{namespace}.svc.{domain}"),
            cluster: format!("{}.{namespace}", service.unwrap_or_else(|| name.clone())),
            metadata,
            locality: locality.or(stated_locality),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description() -> Description {
        Description {
            name: "web-1".to_owned(),
            namespace: "shop".to_owned(),
            service_account: "web".to_owned(),
            domain: "cluster.local".to_owned(),
            service: Some("web".to_owned()),
            ..Description::default()
        }
    }

    #[test]
    fn a_description_makes_a_node() {
        let node = description().node();
        assert_eq!(node.id, "sidecar~127.0.0.1~web-1.shop~shop.svc.cluster.local");
        assert_eq!(node.cluster, "web.shop");
        assert_eq!(node.metadata["SERVICE_ACCOUNT"], "web");
        assert_eq!(node.metadata["INTERCEPTION_MODE"], "NONE");
    }

    #[test]
    fn variables_of_the_environment_are_metadata() {
        let mut made = description();
        let variables = [
            ("ISTIO_META_CLUSTER_ID", "east"),
            ("ISTIO_METAJSON_PORTS", r#"[{"containerPort": 80}]"#),
            ("ISTIO_METAJSON_METADATA", r#"{"one": "1"}"#),
            ("ISTIO_METAJSON_BROKEN", "{"),
            ("HOME", "/nowhere"),
        ];
        made.take_environment(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let metadata = made.node().metadata;
        assert_eq!(metadata["CLUSTER_ID"], "east");
        assert_eq!(metadata["PORTS"][0]["containerPort"], 80);
        assert_eq!(metadata["one"], "1");
        assert!(!metadata.contains_key("BROKEN") && !metadata.contains_key("HOME"));
    }

    #[test]
    fn the_files_of_a_pod_are_read() {
        let mut made = description();
        made.take_pod_file("app=\"web\"\nistio-locality=\"r1.z1\"\nbroken\n", true);
        made.take_pod_file("note=\"a \\\"quoted\\\" one\\nwith a line\"\n", false);
        let node = made.node();
        assert_eq!(node.metadata["LABELS"]["app"], "web");
        assert_eq!(node.metadata["ANNOTATIONS"]["note"], "a \"quoted\" one\nwith a line");
        assert_eq!(node.locality, Some(Locality::parse("r1/z1")));
    }
}
