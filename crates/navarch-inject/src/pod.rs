//! What a pod is made of, as far as we make it: types of Kubernetes' API (`core/v1`) that serialize as it has
//! them. Absent fields are left to the API server's defaults.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    pub name: String,
    pub image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<String>,
    /// Of an init container: `Always` makes it one that goes on beside the application ("sidecar container").
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<Env>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup_probe: Option<Probe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness_probe: Option<Probe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveness_probe: Option<Probe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<Lifecycle>,
    #[serde(skip_serializing_if = "ResourceNeeds::is_empty")]
    pub resources: ResourceNeeds,
    pub security_context: SecurityContext,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<VolumeMount>,
}

/// A variable of the environment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Env {
    pub name: String,
    #[serde(flatten)]
    pub says: Says,
}

/// What a variable says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Says {
    #[serde(rename = "value")]
    Text(String),
    #[serde(rename = "valueFrom")]
    From(Source),
}

/// Where Kubernetes takes the value of a variable from.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    FieldRef(FieldRef),
    ResourceFieldRef { resource: &'static str },
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldRef {
    pub field_path: &'static str,
}

impl Env {
    pub fn text(name: &str, value: impl Into<String>) -> Self {
        Env { name: name.to_owned(), says: Says::Text(value.into()) }
    }

    /// What the field of the pod says.
    pub fn field(name: &str, field_path: &'static str) -> Self {
        Env { name: name.to_owned(), says: Says::From(Source::FieldRef(FieldRef { field_path })) }
    }

    /// The limit or the request of the container, as `limits.cpu`.
    pub fn resource(name: &str, resource: &'static str) -> Self {
        Env { name: name.to_owned(), says: Says::From(Source::ResourceFieldRef { resource }) }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    pub container_port: u16,
    pub name: &'static str,
    pub protocol: &'static str,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    pub http_get: HttpGet,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_delay_seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period_seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_threshold: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HttpGet {
    pub path: String,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lifecycle {
    pub post_start: Hook,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hook {
    pub exec: Exec,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Exec {
    pub command: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ResourceNeeds {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, String>,
}

impl ResourceNeeds {
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.limits.is_empty()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecurityContext {
    pub allow_privilege_escalation: bool,
    pub privileged: bool,
    pub read_only_root_filesystem: bool,
    pub run_as_non_root: bool,
    pub run_as_user: u32,
    pub run_as_group: u32,
    pub capabilities: Capabilities,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp_profile: Option<Seccomp>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Capabilities {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<&'static str>,
    pub drop: Vec<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Seccomp {
    #[serde(rename = "type")]
    pub ty: &'static str,
}

impl SecurityContext {
    /// One who may do nothing but what its user may.
    pub fn unprivileged(user: u32) -> Self {
        SecurityContext {
            read_only_root_filesystem: true,
            run_as_non_root: user != 0,
            run_as_user: user,
            run_as_group: user,
            capabilities: Capabilities { add: Vec::new(), drop: vec!["ALL"] },
            ..SecurityContext::default()
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeMount {
    pub name: String,
    pub mount_path: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

impl VolumeMount {
    pub fn new(name: &str, mount_path: &str) -> Self {
        VolumeMount { name: name.to_owned(), mount_path: mount_path.to_owned(), read_only: false }
    }

    pub fn read_only(name: &str, mount_path: &str) -> Self {
        VolumeMount { read_only: true, ..VolumeMount::new(name, mount_path) }
    }
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Volume {
    pub name: String,
    #[serde(flatten)]
    pub from: VolumeSource,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum VolumeSource {
    EmptyDir(EmptyDir),
    #[serde(rename = "downwardAPI")]
    DownwardApi(DownwardApi),
    Projected(Projected),
    ConfigMap(Named),
    /// As the user wrote it.
    #[serde(untagged)]
    Stated(Value),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct EmptyDir {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub medium: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DownwardApi {
    pub items: Vec<PodField>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodField {
    pub path: &'static str,
    pub field_ref: FieldRef,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Projected {
    pub sources: Vec<ProjectedSource>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ProjectedSource {
    ServiceAccountToken(Token),
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    pub path: &'static str,
    pub expiration_seconds: u32,
    pub audience: &'static str,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Named {
    pub name: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}
