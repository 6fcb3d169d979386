//! The static way of configuring Envoy: everything a control plane would send, written into one file.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::hosts::joined;
use crate::json::to_json;
use crate::set::ProxyResources;
use crate::types::XdsType;

/// A complete configuration for `envoy -c`, and what could not be expressed in it.
#[derive(Clone, Debug, PartialEq)]
pub struct StaticConfig {
    /// `static_resources` of a bootstrap.
    pub resources: Value,
    /// What is less than a control plane would send though it works, one sentence each, sorted.
    pub notes: Vec<String>,
    /// What does not work because it had to be left out, and why, one sentence each, sorted.
    pub left_out: Vec<String>,
}

/// Writes all discovered resources into each other: endpoints into clusters, routes and extensions into
/// listeners.
///
/// Secrets that are not among the resources belong to an agent that a static configuration does not have.
/// What needs them is left out and noted, never replaced by something less secure.
#[must_use]
pub fn static_config(resources: &ProxyResources) -> StaticConfig {
    let resources = &*joined(resources);
    let by_name = |ty: XdsType| -> BTreeMap<String, Value> {
        let set = resources.set(ty);
        set.iter().map(|r| (r.name().to_string(), to_json(ty.type_url(), &r.body()))).collect()
    };
    let mut writer = Writer {
        endpoints: by_name(XdsType::Eds),
        routes: by_name(XdsType::Rds),
        extensions: by_name(XdsType::Ecds),
        secrets: by_name(XdsType::Sds),
        notes: BTreeSet::new(),
        left_out: BTreeSet::new(),
    };
    let clusters: Vec<Value> =
        by_name(XdsType::Cds).into_values().filter_map(|cluster| writer.cluster(cluster)).collect();
    let listeners: Vec<Value> =
        by_name(XdsType::Lds).into_values().filter_map(|listener| writer.listener(listener)).collect();
    let secrets: Vec<Value> = writer.secrets.into_values().collect();
    StaticConfig {
        resources: json!({ "clusters": clusters, "listeners": listeners, "secrets": secrets }),
        notes: writer.notes.into_iter().collect(),
        left_out: writer.left_out.into_iter().collect(),
    }
}

struct Writer {
    endpoints: BTreeMap<String, Value>,
    routes: BTreeMap<String, Value>,
    extensions: BTreeMap<String, Value>,
    secrets: BTreeMap<String, Value>,
    notes: BTreeSet<String>,
    left_out: BTreeSet<String>,
}

impl Writer {
    fn cluster(&mut self, mut cluster: Value) -> Option<Value> {
        let name = text(&cluster, "name");
        let fields = cluster.as_object_mut()?;
        if fields.get("type").and_then(Value::as_str) == Some("EDS") {
            let service = fields.remove("edsClusterConfig").map(|config| text(&config, "serviceName"));
            let service = service.filter(|service| !service.is_empty()).unwrap_or_else(|| name.clone());
            let assignment = self.endpoints.get(&service).cloned();
            fields.insert("type".to_owned(), json!("STATIC"));
            fields.insert(
                "loadAssignment".to_owned(),
                assignment.unwrap_or_else(|| json!({ "clusterName": name })),
            );
        }
        if let Some(matches) = fields.get_mut("transportSocketMatches").and_then(Value::as_array_mut) {
            matches.retain(|entry| {
                let missing = missing_secret(entry, &self.secrets);
                if let Some(secret) = &missing {
                    self.notes
                        .insert(format!("mutual TLS to the mesh is left out: there is no secret `{secret}`"));
                }
                missing.is_none()
            });
        }
        if let Some(secret) = missing_secret(&cluster, &self.secrets) {
            self.left_out.insert(format!("cluster `{name}` is left out: there is no secret `{secret}`"));
            return None;
        }
        remove_secret_sources(&mut cluster);
        Some(cluster)
    }

    fn listener(&mut self, mut listener: Value) -> Option<Value> {
        let name = text(&listener, "name");
        let fields = listener.as_object_mut()?;
        if let Some(chains) = fields.get_mut("filterChains").and_then(Value::as_array_mut) {
            chains.retain(|chain| {
                let missing = missing_secret(chain, &self.secrets);
                if let Some(secret) = &missing {
                    self.left_out.insert(format!(
                        "filter chains of listener `{name}` with TLS are left out: there is no secret `{secret}`"
                    ));
                }
                missing.is_none()
            });
            if chains.is_empty() && !fields.contains_key("defaultFilterChain") {
                self.left_out
                    .insert(format!("listener `{name}` is left out: it has no filter chain without TLS"));
                return None;
            }
        }
        self.inline(&mut listener);
        remove_secret_sources(&mut listener);
        Some(listener)
    }

    /// Replaces references to routes and extensions anywhere below.
    fn inline(&mut self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.inline(item)),
            Value::Object(fields) => {
                if let Some(rds) = fields.remove("rds") {
                    let name = text(&rds, "routeConfigName");
                    let mut routes =
                        self.routes.get(&name).cloned().unwrap_or_else(|| json!({ "name": name }));
                    if let Some(routes) = routes.as_object_mut() {
                        // A route to a cluster that is not there answers 503 over xDS; it must not reject a
                        // static file.
                        routes.insert("validateClusters".to_owned(), json!(false));
                    }
                    fields.insert("routeConfig".to_owned(), routes);
                }
                if fields.contains_key("configDiscovery") {
                    self.extension(fields);
                }
                fields.values_mut().for_each(|item| self.inline(item));
            }
            _ => {}
        }
    }

    fn extension(&mut self, filter: &mut Map<String, Value>) {
        let name = filter.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let discovery = filter.remove("configDiscovery").unwrap_or_default();
        let known = self.extensions.get(&name).and_then(|extension| extension.get("typedConfig"));
        match known.or_else(|| discovery.get("defaultConfig")) {
            Some(config) => {
                filter.insert("typedConfig".to_owned(), config.clone());
            }
            None => {
                self.left_out
                    .insert(format!("extension `{name}` has no configuration; Envoy will reject its filter"));
            }
        }
    }
}

fn text(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Visits every object below that names a secret: `{name, sdsConfig}`.
fn each_secret_reference(value: &mut Value, visit: &mut impl FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| each_secret_reference(item, visit)),
        Value::Object(fields) => {
            if fields.contains_key("sdsConfig") {
                visit(fields);
            }
            fields.values_mut().for_each(|item| each_secret_reference(item, visit));
        }
        _ => {}
    }
}

/// A secret that something below refers to and that is not known.
fn missing_secret(value: &Value, secrets: &BTreeMap<String, Value>) -> Option<String> {
    match value {
        Value::Array(items) => items.iter().find_map(|item| missing_secret(item, secrets)),
        Value::Object(fields) => {
            let name = fields.get("name").and_then(Value::as_str).unwrap_or_default();
            if fields.contains_key("sdsConfig") && !secrets.contains_key(name) {
                return Some(name.to_owned());
            }
            fields.values().find_map(|item| missing_secret(item, secrets))
        }
        _ => None,
    }
}

/// A secret reference without a source refers to `static_resources.secrets`.
fn remove_secret_sources(value: &mut Value) {
    each_secret_reference(value, &mut |reference| {
        reference.remove("sdsConfig");
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::from_json;
    use crate::resource::Resource;
    use crate::set::ResourceSet;
    use std::sync::Arc;

    fn set(ty: XdsType, resources: &[(&str, Value)]) -> ResourceSet {
        ResourceSet::of(resources.iter().map(|(name, body)| {
            let message = from_json(ty.type_url(), body).expect("a message");
            Arc::new(Resource::of(ty, *name, &crate::dynamic::encode(&message)))
        }))
    }

    fn sds(name: &str) -> Value {
        json!({ "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "commonTlsContext": { "tlsCertificateSdsSecretConfigs": [{ "name": name, "sdsConfig": { "ads": {} } }] } })
    }

    #[test]
    fn endpoints_and_routes_are_written_into_their_users() {
        let resources = ProxyResources::new(1)
            .with(XdsType::Cds, set(XdsType::Cds, &[("c", json!({ "name": "c", "type": "EDS" }))]))
            .with(
                XdsType::Eds,
                set(XdsType::Eds, &[("c", json!({ "clusterName": "c", "endpoints": [{ "priority": 1 }] }))]),
            )
            .with(XdsType::Rds, set(XdsType::Rds, &[("80", json!({ "name": "80" }))]))
            .with(
                XdsType::Lds,
                set(
                    XdsType::Lds,
                    &[(
                        "l",
                        json!({ "name": "l", "filterChains": [{ "filters": [{ "name": "hcm", "typedConfig": {
                            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                            "rds": { "routeConfigName": "80" } } }] }] }),
                    )],
                ),
            );
        let made = static_config(&resources);
        assert_eq!((made.notes, made.left_out), (Vec::new(), Vec::new()));
        let cluster = &made.resources["clusters"][0];
        assert_eq!(cluster["type"], "STATIC");
        assert_eq!(cluster["loadAssignment"]["endpoints"][0]["priority"], 1);
        let hcm = &made.resources["listeners"][0]["filterChains"][0]["filters"][0]["typedConfig"];
        assert_eq!(hcm["routeConfig"], json!({ "name": "80", "validateClusters": false }));
    }

    #[test]
    fn what_needs_a_missing_secret_is_left_out_and_noted() {
        let socket = json!({ "name": "tls", "typedConfig": sds("default") });
        let matches = json!([{ "name": "tlsMode-istio", "transportSocket": socket }]);
        let resources = ProxyResources::new(1).with(
            XdsType::Cds,
            set(
                XdsType::Cds,
                &[
                    ("auto", json!({ "name": "auto", "transportSocketMatches": matches })),
                    ("strict", json!({ "name": "strict", "transportSocket": socket })),
                ],
            ),
        );
        let made = static_config(&resources);
        assert_eq!(made.resources["clusters"], json!([{ "name": "auto", "transportSocketMatches": [] }]));
        assert_eq!(made.notes, ["mutual TLS to the mesh is left out: there is no secret `default`"]);
        assert_eq!(made.left_out, ["cluster `strict` is left out: there is no secret `default`"]);
    }
}
