//! A ProxyConfig as it is stated in several places, each over the one before. What nobody states has the
//! default of whoever reads it: an agent has others than a control plane.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;

use crate::networking::{
    self, ExecHealthCheckConfig, GrpcHealthCheckConfig, HealthCheckMethod, HttpHealthCheckConfig,
    ProbeHttpHeader, ReadinessProbe, TcpHealthCheckConfig,
};
use crate::values::Json;
use crate::yaml::json_name;

/// Fields whose entries add up; of others the last one counts.
const ADD_UP: [&str; 2] = ["proxyMetadata", "proxyHeaders"];
/// Fields of which there can be one.
const CLUSTER_NAME: [&str; 2] = ["serviceCluster", "tracingServiceName"];

/// The fields that are stated, by their names in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct StatedProxyConfig(BTreeMap<String, Json>);

impl StatedProxyConfig {
    /// What a MeshConfig states as `defaultConfig`; nothing if it cannot be read.
    pub fn of_mesh(text: &str) -> Self {
        let mesh = Json::parse(text).unwrap_or_default();
        let stated = mesh.get("defaultConfig").or_else(|| mesh.get("default_config"));
        let mut config = Self::default();
        config.put(stated.unwrap_or(&Json::Null));
        config
    }

    /// What an object of the kind ProxyConfig states.
    pub fn of_object(object: &networking::ProxyConfig) -> Self {
        let networking::ProxyConfig { selector: _, concurrency, environment_variables, image } = object;
        let mut config = BTreeMap::new();
        if let Some(threads) = concurrency {
            config.insert("concurrency".to_owned(), Json::Number(threads.to_string()));
        }
        if !environment_variables.is_empty() {
            let text = |(key, value): (&String, &String)| (key.clone(), Json::String(value.clone()));
            let variables = environment_variables.iter().map(text).collect();
            config.insert("proxyMetadata".to_owned(), Json::Object(variables));
        }
        if let Some(image) = image {
            let kind = ("imageType".to_owned(), Json::String(image.image_type.clone()));
            config.insert("image".to_owned(), Json::Object(BTreeMap::from([kind])));
        }
        StatedProxyConfig(config)
    }

    /// Whether nothing is stated.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a field is stated, by its name in JSON.
    pub fn states(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }

    /// States what YAML or JSON says over what was stated before.
    ///
    /// # Errors
    /// A message with the line and column of what cannot be read. Nothing is stated then.
    pub fn put_text(&mut self, text: &str) -> Result<(), String> {
        self.put(&Json::parse(text)?);
        Ok(())
    }

    /// States an object over what was stated before. What is not an object states nothing.
    pub fn put(&mut self, over: &Json) {
        let Json::Object(fields) = over else { return };
        for (name, value) in fields.iter().filter(|(_, value)| **value != Json::Null) {
            let name = json_name(name);
            if CLUSTER_NAME.contains(&name.as_str()) {
                self.0.retain(|key, _| !CLUSTER_NAME.contains(&key.as_str()));
            }
            match (self.0.get_mut(&name), value) {
                (Some(Json::Object(known)), Json::Object(more)) if ADD_UP.contains(&name.as_str()) => {
                    known.extend(more.iter().map(|(key, value)| (key.clone(), value.clone())));
                }
                _ => _ = self.0.insert(name, value.clone()),
            }
        }
    }

    /// States all of another one over what was stated before.
    pub fn put_all(&mut self, over: &Self) {
        self.put(&over.to_json());
    }

    /// States how the workload is found to be ready, as a WorkloadGroup says it.
    pub fn put_probe(&mut self, probe: &ReadinessProbe) {
        let ReadinessProbe {
            initial_delay_seconds,
            timeout_seconds,
            period_seconds,
            success_threshold,
            failure_threshold,
            health_check_method,
        } = probe;
        let mut stated = json!({
            "initialDelaySeconds": initial_delay_seconds,
            "timeoutSeconds": timeout_seconds,
            "periodSeconds": period_seconds,
            "successThreshold": success_threshold,
            "failureThreshold": failure_threshold,
        });
        let (method, how) = match health_check_method {
            None => return,
            Some(HealthCheckMethod::HttpGet(HttpHealthCheckConfig {
                path,
                port,
                host,
                scheme,
                http_headers,
            })) => {
                let header = |header: &ProbeHttpHeader| json!({ "name": header.name, "value": header.value });
                let headers: Vec<_> = http_headers.iter().map(header).collect();
                let how = json!({ "path": path, "port": port, "host": host, "scheme": scheme, "httpHeaders": headers });
                ("httpGet", how)
            }
            Some(HealthCheckMethod::TcpSocket(TcpHealthCheckConfig { host, port })) => {
                ("tcpSocket", json!({ "host": host, "port": port }))
            }
            Some(HealthCheckMethod::Exec(ExecHealthCheckConfig { command })) => {
                ("exec", json!({ "command": command }))
            }
            Some(HealthCheckMethod::Grpc(GrpcHealthCheckConfig { port, service })) => {
                ("grpc", json!({ "port": port, "service": service }))
            }
        };
        stated[method] = how;
        self.put(&Json::from(&json!({ "readinessProbe": stated })));
    }

    /// The fields as an object.
    pub fn to_json(&self) -> Json {
        Json::Object(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_places_count_and_metadata_adds_up() {
        let check = |layers: &[&str], expected: &str| {
            let mut stated = StatedProxyConfig::default();
            for layer in layers {
                stated.put_text(layer).unwrap();
            }
            assert_eq!(stated.to_json(), Json::parse(expected).unwrap(), "{layers:?}");
        };
        check(&["{}", "", "- 1"], "{}");
        check(&["concurrency: 2", "concurrency: 0"], "concurrency: 0");
        check(&["drain_duration: 1s", "drainDuration: null"], "drainDuration: 1s");
        check(
            &["proxyMetadata: {a: '1', b: '1'}", "proxyMetadata: {b: '2'}"],
            "proxyMetadata: {a: '1', b: '2'}",
        );
        check(&["runtimeValues: {a: '1'}", "runtimeValues: {b: '2'}"], "runtimeValues: {b: '2'}");
        check(
            &["serviceCluster: a", "tracingServiceName: CANONICAL_NAME_ONLY"],
            "tracingServiceName: CANONICAL_NAME_ONLY",
        );
    }
}
