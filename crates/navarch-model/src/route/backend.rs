//! Where traffic goes.

use crate::networking::Headers;
use crate::service::Name;

/// Where a share of the traffic goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// A service.
    Service(ServiceBackend),
    /// The configuration names something that cannot take traffic. Its share fails, as [`MissingBackend`]
    /// says, instead of going to the other backends.
    Invalid,
}

/// A service, or a subset of its endpoints.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceBackend {
    /// Fully qualified.
    pub host: Name,
    /// Without one: the only port of the service, else the port of the listener.
    pub port: Option<u16>,
    /// A subset of a DestinationRule; empty for all endpoints.
    pub subset: Name,
}

impl ServiceBackend {
    /// The port that is meant for a service whose only port this is (`None` if it has several or is not
    /// known), on a listener.
    pub fn port_of(&self, only: Option<u16>, listener: u16) -> u16 {
        self.port.or(only).unwrap_or(listener)
    }
}

/// Which fields name the parts of a [`ServiceBackend`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BackendFields {
    /// `host`, `subset` and `port.number`. (Istio, Destination.)
    #[default]
    Destination,
    /// One reference by name, namespace and port. (Gateway API, BackendObjectReference; Kubernetes,
    /// IngressServiceBackend.)
    Reference,
}

impl BackendFields {
    /// The path of the field that states a part of a backend, below the field that names the backend.
    pub fn path(self, backend: &str, part: BackendPart) -> String {
        match self {
            BackendFields::Reference => backend.to_owned(),
            BackendFields::Destination => {
                let field = match part {
                    BackendPart::Host => "host",
                    BackendPart::Subset => "subset",
                    BackendPart::Port => "port.number",
                };
                format!("{backend}.{field}")
            }
        }
    }
}

/// A part of a [`ServiceBackend`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendPart {
    Host,
    Subset,
    Port,
}

/// How requests fail whose backend is invalid, or not known to the proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MissingBackend {
    /// 503, which callers may retry.
    #[default]
    Unavailable,
    /// 500. (Gateway API, HTTPRouteRule, backendRefs.)
    InternalError,
}

/// A backend of requests with its share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpBackend {
    pub backend: Backend,
    /// Relative to the others; a single backend takes everything, whatever its weight.
    pub weight: u32,
    pub headers: Option<Headers>,
    /// The field that names the backend, for example `spec.http[0].route[1].destination`.
    pub field: Name,
}

/// A backend of connections with its share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StreamBackend {
    pub backend: Backend,
    /// Relative to the others; a single backend takes everything, whatever its weight.
    pub weight: u32,
    /// The field that names the backend, for example `spec.tcp[0].route[1].destination`.
    pub field: Name,
}

impl Backend {
    /// The service, if there is one.
    pub fn service(&self) -> Option<&ServiceBackend> {
        match self {
            Backend::Service(service) => Some(service),
            Backend::Invalid => None,
        }
    }
}
