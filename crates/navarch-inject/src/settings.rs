//! What is the same for all pods of a mesh: images, addresses, and who is left out.

use std::collections::{BTreeMap, BTreeSet};

use navarch_model::mesh::{ProxyConfig, parse_proxy_config};
use navarch_model::values::Json;
use navarch_model::{Finding, Revision, Severity};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::json;

/// What all pods of a mesh get, unless their annotations wish something else. A file of it is YAML or JSON;
/// what it leaves out is as in [`Settings::default`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Settings {
    /// The revision of the control plane that the proxies belong to.
    pub revision: String,
    /// Names that stand for this revision (`navarch tag`). `default` is the one that labels
    /// without a revision mean.
    pub tags: BTreeSet<String>,
    /// The image with our agent and a stock Envoy.
    pub image: String,
    pub image_pull_policy: Option<String>,
    pub image_pull_secrets: Vec<String>,
    /// Host and port of the control plane over TLS.
    pub server: String,
    /// The ConfigMap in each namespace that has the roots of the mesh.
    pub root_config_map: String,
    pub cluster: String,
    pub network: String,
    pub mesh_id: String,
    /// Domain suffix of the cluster.
    pub domain: String,
    /// How the proxy runs beside the application.
    pub sidecar_form: SidecarForm,
    /// Traffic is redirected by something on the node; pods need no container for it.
    pub redirected_by_node: bool,
    /// Pods of the namespaces that the webhook is asked about are injected unless they say otherwise.
    pub enabled_by_default: bool,
    /// Pods that are left out, unless their label says otherwise. Comes before `always`.
    pub never: Vec<Selector>,
    /// Pods that are injected, unless their label says otherwise.
    pub always: Vec<Selector>,
    /// Namespaces of the cluster itself.
    pub ignored_namespaces: BTreeSet<String>,
    /// Probes of the application go through the agent, which asks it from within the pod.
    pub rewrite_probes: bool,
    /// Prometheus asks the agent, which merges what the application says.
    pub merge_metrics: bool,
    pub include_outbound_ranges: String,
    pub exclude_outbound_ranges: String,
    pub exclude_outbound_ports: String,
    pub exclude_inbound_ports: String,
    /// What a proxy needs of processor and memory.
    pub resources: Resources,
    /// What the agent answers probes and Prometheus on.
    pub status_port: u16,
    pub log_level: String,
    pub component_log_level: String,
    /// `defaultConfig` of the MeshConfig, as it is written.
    pub proxy_config: Map<String, Value>,
}

/// How the proxy runs beside the application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SidecarForm {
    /// As an init container that goes on running (Kubernetes 1.29 and newer): it starts before the
    /// application and its other init containers, ends after it, and lets Jobs complete.
    #[default]
    Native,
    /// As one more container.
    Container,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Resources {
    pub cpu: String,
    pub memory: String,
    pub cpu_limit: String,
    pub memory_limit: String,
}

impl Default for Resources {
    fn default() -> Self {
        Resources {
            cpu: "100m".to_owned(),
            memory: "128Mi".to_owned(),
            cpu_limit: "2".to_owned(),
            memory_limit: "1Gi".to_owned(),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        let ignored = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];
        Settings {
            revision: "default".to_owned(),
            tags: BTreeSet::new(),
            image: concat!("navarch:", env!("CARGO_PKG_VERSION")).to_owned(),
            image_pull_policy: None,
            image_pull_secrets: Vec::new(),
            server: "navarch.istio-system.svc:15012".to_owned(),
            root_config_map: "istio-ca-root-cert".to_owned(),
            cluster: "Kubernetes".to_owned(),
            network: String::new(),
            mesh_id: String::new(),
            domain: "cluster.local".to_owned(),
            sidecar_form: SidecarForm::Native,
            redirected_by_node: false,
            enabled_by_default: true,
            never: Vec::new(),
            always: Vec::new(),
            ignored_namespaces: ignored.map(str::to_owned).into(),
            rewrite_probes: true,
            merge_metrics: true,
            include_outbound_ranges: "*".to_owned(),
            exclude_outbound_ranges: String::new(),
            exclude_outbound_ports: String::new(),
            exclude_inbound_ports: String::new(),
            resources: Resources::default(),
            status_port: 15020,
            log_level: "warning".to_owned(),
            component_log_level: "misc:error".to_owned(),
            proxy_config: Map::new(),
        }
    }
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingsError {
    #[error("the settings are not YAML or JSON: {0}")]
    Syntax(String),
    #[error("the settings are not what can be set: {0}")]
    Fields(String),
    #[error("proxyConfig: {0}")]
    ProxyConfig(String),
}

impl Settings {
    /// Reads a file of settings.
    ///
    /// # Errors
    /// If it is not one.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let value = Json::parse(text).map_err(SettingsError::Syntax)?.to_serde();
        match value {
            Value::Null => return Ok(Settings::default()),
            Value::Object(_) => {}
            _ => return Err(SettingsError::Fields("a mapping is expected".to_owned())),
        }
        let settings: Settings =
            serde_json::from_value(value).map_err(|error| SettingsError::Fields(error.to_string()))?;
        settings.proxy(None).map_err(SettingsError::ProxyConfig)?;
        Ok(settings)
    }

    /// Takes over what the MeshConfig says, `text` as it is written, for what proxies are started with.
    ///
    /// # Errors
    /// If its `defaultConfig` cannot be read.
    pub fn with_mesh_config(mut self, text: &str) -> Result<Self, SettingsError> {
        let mesh = Json::parse(text).map_err(SettingsError::Syntax)?;
        if let Some(Value::Object(mut stated)) = mesh.get("defaultConfig").map(Json::to_serde) {
            // That of whoever else reads this MeshConfig, such as an istiod beside us; ours is `server`.
            stated.shift_remove("discoveryAddress");
            self.proxy_config = stated;
        }
        if let Some(Json::Bool(merge)) = mesh.get("enablePrometheusMerge") {
            self.merge_metrics = *merge;
        }
        self.proxy(None).map_err(SettingsError::ProxyConfig)?;
        Ok(self)
    }

    /// The configuration of a proxy, as it is written and as it is read: that of the mesh, and over it what
    /// the annotation of its pod says.
    pub(crate) fn proxy(
        &self,
        annotation: Option<&str>,
    ) -> Result<(Map<String, Value>, ProxyConfig), String> {
        let mut written = Value::Object(self.proxy_config.clone());
        if let Some(text) = annotation {
            match Json::parse(text)?.to_serde() {
                over @ Value::Object(_) => json::merge(&mut written, &over),
                Value::Null => {}
                _ => return Err("it is not a mapping".to_owned()),
            }
        }
        let text = written.to_string();
        let (read, findings) = parse_proxy_config(&ProxyConfig::default(), &text, "", 1);
        match findings.into_iter().find(|finding: &Finding| finding.severity == Severity::Error) {
            Some(Finding { path, message, .. }) => Err(format!("{path}: {message}")),
            None => Ok((written.as_object().cloned().unwrap_or_default(), read)),
        }
    }

    /// The revision, with its tags.
    pub fn called(&self) -> Revision {
        let tags = self.tags.iter().map(|tag| tag.as_str().into()).collect();
        Revision { name: self.revision.as_str().into(), tags }
    }
}

/// A selector of labels (`meta/v1` LabelSelector). One that says nothing selects nothing here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Selector {
    pub match_labels: BTreeMap<String, String>,
    pub match_expressions: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    #[serde(default)]
    pub values: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Selector {
    /// Whether labels are selected.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        let Selector { match_labels, match_expressions } = self;
        let says_something = !match_labels.is_empty() || !match_expressions.is_empty();
        says_something
            && match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && match_expressions.iter().all(|requirement| requirement.holds(labels))
    }
}

impl Requirement {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let is_among = value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            Operator::In => is_among,
            Operator::NotIn => !is_among,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_settings_is_read_over_the_defaults() {
        let check = |text: &str, expected: Result<(&str, &str), &str>| {
            let read = Settings::parse(text);
            let got = match &read {
                Ok(settings) => Ok((settings.revision.as_str(), settings.image.as_str())),
                Err(error) => Err(error.to_string()),
            };
            match (got, expected) {
                (Err(said), Err(part)) => assert!(said.contains(part), "{said}"),
                (got, expected) => assert_eq!(got, expected.map_err(str::to_owned), "{text}"),
            }
        };
        let usual = Settings::default();
        check("", Ok(("default", &usual.image)));
        check("revision: canary", Ok(("canary", &usual.image)));
        check("{\"image\": \"r/n:1\"}", Ok(("default", "r/n:1")));
        check("imag: x", Err("unknown field `imag`"));
        check("revision: [", Err("not YAML"));
        check("[]", Err("not what can be set"));
        check("proxyConfig: {concurrency: many}", Err("proxyConfig: concurrency"));
    }

    #[test]
    fn selectors_select() {
        let labels: BTreeMap<String, String> = [("app".to_owned(), "web".to_owned())].into();
        let check = |text: &str, expected: bool| {
            let selector: Selector = serde_json::from_str(text).unwrap();
            assert_eq!(selector.selects(&labels), expected, "{text}");
        };
        check("{}", false);
        check(r#"{"matchLabels": {"app": "web"}}"#, true);
        check(r#"{"matchLabels": {"app": "api"}}"#, false);
        check(r#"{"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}"#, true);
        check(r#"{"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}"#, false);
        check(r#"{"matchExpressions": [{"key": "job", "operator": "NotIn", "values": ["web"]}]}"#, true);
        check(r#"{"matchExpressions": [{"key": "job", "operator": "Exists"}]}"#, false);
        check(r#"{"matchExpressions": [{"key": "job", "operator": "DoesNotExist"}]}"#, true);
    }
}
