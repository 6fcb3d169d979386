//! What the parts of an injection have in common: names, what a pod is an instance of, and why a pod cannot
//! be injected.

/// The names that everybody knows the containers by.
pub(crate) const PROXY: &str = "istio-proxy";
pub(crate) const INIT: &str = "istio-init";

/// The annotation that tells what was injected.
pub(crate) const STATUS: &str = "sidecar.istio.io/status";
/// The annotation that keeps what the user wrote of the proxy's container.
pub(crate) const OVERRIDES: &str = "proxy.istio.io/overrides";
/// Where the injector keeps what the pod said about its own metrics.
pub(crate) const PROMETHEUS: &str = "ISTIO_PROMETHEUS_ANNOTATIONS";

/// Why a pod cannot be injected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("{path} is not {wanted}")]
    Shape { path: String, wanted: &'static str },
    #[error("the annotation {name}: {value:?} is not {wanted}")]
    Annotation { name: String, value: String, wanted: String },
    #[error("the pod has no container that the proxy could stand beside")]
    NoContainers,
    #[error("the pod is to be a gateway, and has no container istio-proxy")]
    NoProxy,
}

impl Fault {
    pub(crate) fn annotation(name: &str, value: &str, wanted: impl Into<String>) -> Self {
        let value = value.chars().take(200).collect();
        Fault::Annotation { name: name.to_owned(), value, wanted: wanted.into() }
    }

    pub(crate) fn list(path: &str) -> Self {
        Fault::Shape { path: path.to_owned(), wanted: "a list of objects" }
    }

    pub(crate) fn object(path: &str) -> Self {
        Fault::Shape { path: path.to_owned(), wanted: "an object" }
    }
}

/// What a pod is an instance of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    pub api_version: String,
    pub kind: String,
    pub name: String,
}
