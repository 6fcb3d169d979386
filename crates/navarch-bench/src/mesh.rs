//! The configuration of a shape as a directory of YAML files, and edits of it.
//!
//! What is edited has a small file of its own, so that an edit costs what it touches. Every edit carries a
//! number that can be found again in the resources made from it (see [`crate::mark`]): that is how a client
//! knows which change it has been sent, with any server.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use navarch_envoy::XdsType;
use serde::Serialize;

use crate::mark;
use crate::pod::{self, Endpoint};
use crate::shape::Shape;

/// A kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One endpoint of one service is replaced.
    Endpoint,
    /// One route of a VirtualService, or of a gateway an HTTPRoute, is changed.
    Route,
    /// A subset of a DestinationRule is replaced.
    Subset,
    /// A service is added.
    Service,
    /// The AuthorizationPolicy of a namespace is changed.
    Policy,
}

impl Kind {
    /// All of them, in the order in which they are measured.
    pub const ALL: [Kind; 5] = [Kind::Endpoint, Kind::Route, Kind::Subset, Kind::Service, Kind::Policy];

    /// The name on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Endpoint => "endpoint",
            Kind::Route => "route",
            Kind::Subset => "subset",
            Kind::Service => "service",
            Kind::Policy => "policy",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The type of the resources in which the change shows.
    #[must_use]
    pub const fn shows_in(self) -> XdsType {
        match self {
            Kind::Endpoint => XdsType::Eds,
            Kind::Route => XdsType::Rds,
            Kind::Subset | Kind::Service => XdsType::Cds,
            Kind::Policy => XdsType::Lds,
        }
    }
}

/// A change of the configuration: the file that it writes, and who must notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    pub kind: Kind,
    /// Number of the change; each run counts them from 1.
    pub number: u32,
    /// Relative to the directory of the configuration.
    pub file: PathBuf,
    pub text: String,
    /// The name of the one resource in which the change shows, if it is the same for every edit of this
    /// place.
    pub resource: Option<String>,
    /// The namespace whose proxies must notice; `None` if all must.
    pub namespace: Option<usize>,
    /// Edits of one place replace each other.
    pub place: u32,
}

/// The Gateway of a shape with HTTPRoutes. (Its Service is called after it and its class: Istio, "Kubernetes
/// Gateway API", automated deployment.)
pub const GATEWAY: &str = "edge";
/// The namespace that is common to all (`rootNamespace`).
const ROOT: &str = "istio-system";

impl Edit {
    /// The edit with this number, in a namespace that has proxies.
    #[must_use]
    pub fn new(shape: &Shape, kind: Kind, namespace: usize, number: u32) -> Self {
        let name = shape.namespace(namespace);
        let service = shape.edited(namespace);
        let (file, text) = match kind {
            Kind::Endpoint => {
                let pods = shape.pods_of(service).into_iter();
                let mut endpoints: Vec<Endpoint> = pods.map(|pod| shape.endpoint(pod)).collect();
                // Before the first edit there is none: an address is that of one workload.
                endpoints.extend((number > 0).then(|| Endpoint::bare(mark::address(number))));
                (format!("endpoints/{name}.yaml"), slice(&format!("s{service}"), &name, &endpoints))
            }
            Kind::Route if shape.routes > 0 => (http_route_file(0), http_route(shape, 0, number)),
            Kind::Route => (format!("routes/{name}.yaml"), route(shape, service, number)),
            Kind::Subset => (format!("subsets/{name}.yaml"), subset(shape, service, number)),
            Kind::Service => {
                let added = mark::word(number);
                let address = Ipv4Addr::from(0x0afc_0000 + number);
                let text = format!(
                    "{}{}",
                    service_object(&added, &name, address),
                    slice(&added, &name, &[Endpoint::bare(Ipv4Addr::from(0x0afd_0000 + number))])
                );
                (format!("added/{name}-{added}.yaml"), text)
            }
            Kind::Policy => (format!("policies/{name}.yaml"), policy(&name, number)),
        };
        let own = shape.scoped || kind == Kind::Policy;
        Edit {
            kind,
            number,
            file: PathBuf::from(file),
            text,
            resource: (kind == Kind::Endpoint).then(|| format!("outbound|80||{}", shape.host(service))),
            namespace: own.then_some(namespace),
            place: u32::try_from(namespace).unwrap_or_default() * 8 + kind as u32,
        }
    }

    /// A policy of the root namespace, which every proxy notices.
    #[must_use]
    pub fn for_everyone(number: u32) -> Self {
        Edit {
            kind: Kind::Policy,
            number,
            file: PathBuf::from(format!("policies/{ROOT}.yaml")),
            text: policy(ROOT, number),
            resource: None,
            namespace: None,
            place: u32::MAX,
        }
    }

    /// How many proxies must notice.
    #[must_use]
    pub fn affected(&self, shape: &Shape) -> usize {
        self.namespace.map_or(shape.proxies, |namespace| shape.proxies_in(namespace))
    }

    /// Writes the file the way editors do: a temporary file, then a rename.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let path = directory.join(&self.file);
        let partial = path.with_extension("partial~");
        std::fs::write(&partial, &self.text).with_context(|| format!("writing {}", partial.display()))?;
        std::fs::rename(&partial, &path).with_context(|| format!("replacing {}", path.display()))
    }
}

/// What of a shape no edit replaces: files, and what is in them.
pub fn files(shape: &Shape) -> impl Iterator<Item = (PathBuf, String)> + '_ {
    let pods = shape.pods();
    let root = (PathBuf::from(format!("services/{ROOT}.yaml")), namespace_object(ROOT));
    let gateway = (shape.routes > 0).then(|| (PathBuf::from("gateway.yaml"), gateway(shape)));
    // The first one is that which edits replace.
    let routes = (1..shape.routes).map(|index| (http_route_file(index).into(), http_route(shape, index, 0)));
    let namespaces = (0..shape.namespaces).map(move |namespace| {
        let name = shape.namespace(namespace);
        let edited = shape.edited(namespace);
        let mut text = namespace_object(&name);
        if shape.scoped {
            let _ = write!(
                text,
                "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: default, namespace: {name}}}\nspec: {{egress: \
                 [{{hosts: ['./*']}}]}}\n---\n"
            );
        }
        for (service, pods) in pods.iter().enumerate().skip(namespace).step_by(shape.namespaces) {
            text.push_str(&service_object(&format!("s{service}"), &name, shape.service_address(service)));
            if service != edited {
                let endpoints: Vec<Endpoint> = pods.iter().map(|pod| shape.endpoint(*pod)).collect();
                text.push_str(&slice(&format!("s{service}"), &name, &endpoints));
            }
            if shape.pods {
                pods.iter().for_each(|pod| text.push_str(&pod::object(shape, service, *pod)));
            }
        }
        (PathBuf::from(format!("services/{name}.yaml")), text)
    });
    std::iter::once(root).chain(namespaces).chain(gateway).chain(routes)
}

/// What edits replace, as it is before the first one.
pub fn unedited(shape: &Shape) -> impl Iterator<Item = Edit> + '_ {
    let kinds = [Kind::Endpoint, Kind::Route, Kind::Subset, Kind::Policy];
    let of_namespace = move |namespace| kinds.map(|kind| Edit::new(shape, kind, namespace, 0));
    (0..shape.namespaces).flat_map(of_namespace).chain([Edit::for_everyone(0)])
}

/// Writes the configuration of a shape into an empty directory.
///
/// # Errors
/// If the directory cannot be written.
pub fn write(shape: &Shape, directory: &Path) -> Result<()> {
    for folder in ["services", "endpoints", "routes", "subsets", "added", "policies"] {
        std::fs::create_dir_all(directory.join(folder))
            .with_context(|| format!("creating {}", directory.join(folder).display()))?;
    }
    for (file, text) in files(shape) {
        let path = directory.join(file);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    unedited(shape).try_for_each(|edit| edit.write(directory))
}

impl Shape {
    fn pods_of(&self, service: usize) -> Vec<usize> {
        let proxies = (service < self.classes)
            .then(|| (service..self.proxies).step_by(self.classes))
            .into_iter()
            .flatten();
        proxies.chain((self.proxies + service..self.endpoints).step_by(self.services)).collect()
    }

    fn endpoint(&self, pod: usize) -> Endpoint {
        Endpoint { address: self.pod_address(pod), pod: self.pods.then_some(pod) }
    }
}

fn namespace_object(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n---\n")
}

/// A proxy is found to be an endpoint by its labels: see the metadata of its node.
fn service_object(name: &str, namespace: &str, address: Ipv4Addr) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  clusterIP: {address}\n  selector: \
         {{app: {name}}}\n  ports: [{{name: http, port: 80, targetPort: 8080, protocol: TCP}}]\n---\n"
    )
}

fn slice(service: &str, namespace: &str, endpoints: &[Endpoint]) -> String {
    let mut text = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {service}, namespace: {namespace}, labels: \
         {{kubernetes.io/service-name: {service}}}}}\naddressType: IPv4\nports: [{{name: http, port: 8080, protocol: TCP}}]\nendpoints:"
    );
    if endpoints.is_empty() {
        text.push_str(" []");
    }
    for Endpoint { address, pod } in endpoints {
        let _ = write!(text, "\n- {{addresses: [{address}], conditions: {{ready: true}}");
        if let Some(pod) = pod {
            let _ = write!(text, ", targetRef: {{kind: Pod, name: p{pod}, namespace: {namespace}}}");
        }
        text.push('}');
    }
    text.push_str("\n---\n");
    text
}

fn route(shape: &Shape, service: usize, number: u32) -> String {
    let (namespace, host) = (shape.namespace(shape.namespace_of(service)), shape.host(service));
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: bench, namespace: {namespace}}}\nspec:\n  hosts: \
         [{host}]\n  http:\n  - match: [{{uri: {{prefix: /{word}}}}}]\n    timeout: 5s\n    route: [{{destination: {{host: {host}}}}}]\n  \
         - route: [{{destination: {{host: {host}}}}}]\n",
        word = mark::word(number)
    )
}

/// The Gateway, and the Service that its proxies are behind.
fn gateway(shape: &Shape) -> String {
    let (namespace, address) = (shape.namespace(0), shape.service_address(shape.services));
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {GATEWAY}, namespace: {namespace}}}\nspec:\n  \
         gatewayClassName: istio\n  listeners: [{{name: http, port: 80, protocol: HTTP}}]\n---\napiVersion: v1\nkind: \
         Service\nmetadata: {{name: {GATEWAY}-istio, namespace: {namespace}}}\nspec:\n  clusterIP: {address}\n  selector: {{app: \
         s0}}\n  ports: [{{name: http, port: 80, targetPort: 8080, protocol: TCP}}]\n"
    )
}

fn http_route_file(index: usize) -> String {
    format!("routes/h{index}.yaml")
}

fn http_route(shape: &Shape, index: usize, number: u32) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: h{index}, namespace: {namespace}}}\nspec:\n  \
         parentRefs: [{{name: {GATEWAY}}}]\n  hostnames: [h{index}.example.com]\n  rules:\n  - matches: [{{path: {{value: \
         /{word}}}}}]\n    backendRefs: [{{name: s{service}, port: 80}}]\n",
        namespace = shape.namespace(0),
        word = mark::word(number),
        service = index % shape.services
    )
}

fn subset(shape: &Shape, service: usize, number: u32) -> String {
    let (namespace, host) = (shape.namespace(shape.namespace_of(service)), shape.host(service));
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: bench, namespace: {namespace}}}\nspec:\n  host: \
         {host}\n  subsets: [{{name: {}, labels: {{version: v1}}}}]\n",
        mark::word(number)
    )
}

fn policy(namespace: &str, number: u32) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: bench, namespace: {namespace}}}\nspec:\n  action: \
         DENY\n  rules: [{{to: [{{operation: {{paths: [/{}]}}}}]}}]\n",
        mark::word(number)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_of_one_service_are_those_of_all() {
        for shape in [Shape::small(), Shape::medium()] {
            for (service, pods) in shape.pods().into_iter().enumerate() {
                assert_eq!(shape.pods_of(service), pods, "{} s{service}", shape.name);
            }
        }
    }

    #[test]
    fn who_must_notice_an_edit() {
        let (wide, scoped) = (Shape::medium(), Shape { scoped: true, ..Shape::medium() });
        for (shape, kind, expected) in [
            (&wide, Kind::Endpoint, 1_000),
            (&wide, Kind::Policy, 100),
            (&scoped, Kind::Endpoint, 100),
            (&scoped, Kind::Policy, 100),
        ] {
            assert_eq!(Edit::new(shape, kind, 3, 1).affected(shape), expected, "{kind:?}");
        }
        assert_eq!(Edit::for_everyone(1).affected(&scoped), 1_000);
    }
}
