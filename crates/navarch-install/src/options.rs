//! What is asked for.

use navarch_inject::Settings;
use serde_json::{Map, Value, json};

/// What is installed.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    pub namespace: String,
    /// Of the control plane; several may run side by side.
    pub revision: String,
    /// Names that stand for the revision. `default` is what labels without a revision mean.
    pub tags: Vec<String>,
    pub image: String,
    pub image_pull_policy: Option<String>,
    pub image_pull_secrets: Vec<String>,
    /// Replicas: that many at least, and at most.
    pub replicas: (String, String),
    /// What one replica asks for.
    pub cpu: String,
    pub memory: String,
    pub log_level: String,
    /// What the cluster is called.
    pub cluster: String,
    pub network: String,
    /// A ServiceMonitor, for a cluster that has Prometheus' operator, and a board for Grafana.
    pub monitor: bool,
    /// A NetworkPolicy that lets nobody in but on the ports that are served.
    pub network_policy: bool,
    /// The webhooks.
    pub injection: bool,
    pub validation: bool,
    /// Gateways that name no host to be reached at are deployed.
    pub gateways: bool,
    /// More of the settings of injection.
    pub settings: Settings,
}

impl Default for Options {
    fn default() -> Self {
        let settings = Settings::default();
        Options {
            namespace: "istio-system".to_owned(),
            revision: settings.revision.clone(),
            tags: Vec::new(),
            image: settings.image.clone(),
            image_pull_policy: None,
            image_pull_secrets: Vec::new(),
            replicas: ("2".to_owned(), "5".to_owned()),
            cpu: "500m".to_owned(),
            memory: "512Mi".to_owned(),
            log_level: "info".to_owned(),
            cluster: settings.cluster.clone(),
            network: String::new(),
            monitor: false,
            network_policy: true,
            injection: true,
            validation: true,
            gateways: true,
            settings,
        }
    }
}

/// Why something cannot be installed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    #[error(
        "the {what} {name:?} is not a name of Kubernetes: lower-case letters, digits and dashes, 40 at most"
    )]
    Name { what: &'static str, name: String },
    #[error("there is no image")]
    Image,
}

/// Something that the control plane may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub group: String,
    pub resource: String,
    /// The only objects that it is about; all if there are none.
    pub names: Vec<String>,
    pub verbs: Vec<String>,
    /// In the namespace of the control plane alone.
    pub own_namespace: bool,
}

impl Options {
    /// Whether the names make names of objects.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), OptionsError> {
        let names = [("namespace", &self.namespace), ("revision", &self.revision)];
        let tags = self.tags.iter().map(|tag| ("tag", tag));
        for (what, name) in names.into_iter().chain(tags) {
            let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            let ends = !name.starts_with('-') && !name.ends_with('-');
            if name.is_empty() || name.len() > 40 || !ends || !name.bytes().all(is_inner) {
                return Err(OptionsError::Name { what, name: name.clone() });
            }
        }
        if self.image.trim().is_empty() { Err(OptionsError::Image) } else { Ok(()) }
    }

    /// The name of everything that is there once for each revision.
    pub fn name(&self) -> String {
        match self.revision.as_str() {
            "default" => "navarch".to_owned(),
            revision => format!("navarch-{revision}"),
        }
    }

    /// The same, of what has no namespace.
    pub fn cluster_name(&self) -> String {
        format!("{}-{}", self.name(), self.namespace)
    }

    /// Labels of all objects of the installation.
    pub fn labels(&self) -> Map<String, Value> {
        Map::from_iter([
            ("app.kubernetes.io/name".to_owned(), json!("navarch")),
            ("app.kubernetes.io/instance".to_owned(), json!(self.name())),
            // What has no namespace is told apart from that of another installation by this.
            ("app.kubernetes.io/part-of".to_owned(), json!(self.namespace)),
            ("app.kubernetes.io/managed-by".to_owned(), json!("navarch")),
        ])
    }

    /// A selector of the objects of the installation.
    pub fn selector(&self) -> String {
        let (name, namespace) = (self.name(), &self.namespace);
        format!(
            "app.kubernetes.io/managed-by=navarch,app.kubernetes.io/instance={name},app.kubernetes.io/part-of={namespace}"
        )
    }

    /// The settings of injection that follow from what is installed.
    pub fn injection_settings(&self) -> Settings {
        Settings {
            revision: self.revision.clone(),
            tags: self.tags.iter().cloned().collect(),
            image: self.image.clone(),
            image_pull_policy: self.image_pull_policy.clone(),
            image_pull_secrets: self.image_pull_secrets.clone(),
            server: format!("{}.{}.svc:15012", self.name(), self.namespace),
            cluster: self.cluster.clone(),
            network: self.network.clone(),
            ..self.settings.clone()
        }
    }

    /// Whether labels without a revision mean this one.
    pub fn is_default(&self) -> bool {
        self.revision == "default" || self.tags.iter().any(|tag| tag == "default")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_kubernetes() {
        let check = |revision: &str, tags: &[&str], expected: bool| {
            let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
            let options = Options { revision: revision.to_owned(), tags, ..Options::default() };
            assert_eq!(options.check().is_ok(), expected, "{revision} {tags:?}", tags = options.tags);
        };
        check("default", &[], true);
        check("1-2-3", &["prod"], true);
        check("", &[], false);
        check("1.2", &[], false);
        check("Canary", &[], false);
        check("-a", &[], false);
        check("a", &["b_c"], false);
        check(&"a".repeat(41), &[], false);
    }
}
