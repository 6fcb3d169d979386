//! What takes the traffic of a rule.

use navarch_model::finding::{Code, Finding};
use navarch_model::gateway_api::{BackendObjectReference, GROUP};
use navarch_model::object::{Object, ObjectKey};
use navarch_model::route::{Backend, ServiceBackend};
use navarch_model::{Kind, Name, inference, multicluster};

use crate::bind::gateway_api::{Reference, Referent, granted};
use crate::registry::kubernetes_host;
use crate::registry::store::Reader;

/// Something that a rule refers to and cannot have.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    /// The reason of the condition `ResolvedRefs`.
    pub reason: &'static str,
    pub field: String,
    pub message: String,
    pub hint: &'static str,
    /// The whole route is out of use.
    pub fatal: bool,
}

/// The reason where a backend is not there. Destinations that are not there are found when all routes are
/// known, so nothing else is said about them here.
const NOT_FOUND: &str = "BackendNotFound";

impl Problem {
    /// An item that makes the route unusable.
    pub fn fatal(reason: &'static str, field: &str, message: String, hint: &'static str) -> Self {
        Problem { reason, field: field.to_owned(), message, hint, fatal: true }
    }

    pub fn finding(&self) -> Option<Finding> {
        let Problem { reason, field, message, hint, fatal } = self;
        if *reason == NOT_FOUND {
            return None;
        }
        let code = if *fatal { Code::InvalidExtension } else { Code::InvalidReference };
        let consequence = if *fatal { "the route is not used" } else { "its share of the traffic fails" };
        let message = format!("{message}; {consequence}");
        Some(Finding::warning(code, message).hint(*hint).path(field.clone()))
    }
}

/// The backends that a route may name.
pub(super) struct Backends<'a> {
    pub reader: &'a Reader<'a>,
    pub object: &'a Object,
    /// Those of other namespaces have to be granted.
    pub ask_grants: bool,
}

impl Backends<'_> {
    /// What a reference means. What is wrong with it goes to `problems`; what cannot be used is invalid.
    pub fn resolve(&self, to: &BackendObjectReference, field: &str, problems: &mut Vec<Problem>) -> Backend {
        match self.find(to, field) {
            Ok(backend) => {
                // Both are asked, so that the answer depends on both.
                let imported = backend.import.is_some_and(|key| self.reader.exists(&key));
                let gone = !self.reader.exists(&backend.key) && !imported;
                if gone {
                    problems.push(Problem {
                        reason: NOT_FOUND,
                        field: field.to_owned(),
                        message: format!("there is no {}", backend.key),
                        hint: "create it, or correct the reference",
                        fatal: false,
                    });
                }
                Backend::Service(backend.service)
            }
            Err(problem) => {
                problems.push(problem);
                Backend::Invalid
            }
        }
    }

    fn find(&self, to: &BackendObjectReference, field: &str) -> Result<Found, Problem> {
        let namespace = to.namespace.as_deref().unwrap_or(&self.object.key.namespace);
        let problem =
            |reason, message, hint| Problem { reason, field: field.to_owned(), message, hint, fatal: false };
        let reference = Reference {
            from: (GROUP, self.object.key.kind.as_str()),
            from_namespace: &self.object.key.namespace,
            to: Referent {
                group: to.group(),
                kind: to.kind(),
                namespace: &Name::from(namespace),
                name: &to.name,
            },
        };
        if self.ask_grants && !granted(self.reader, &reference) {
            let message = format!("namespace {namespace} does not grant the reference to {}", to.name);
            return Err(problem("RefNotPermitted", message, "add a ReferenceGrant there"));
        }
        let mut import = None;
        match (to.group(), to.kind()) {
            ("" | "core", "Service") => {}
            (multicluster::GROUP, "ServiceImport") => {
                import = Some(ObjectKey::new(Kind::ServiceImport, namespace, &to.name));
            }
            (inference::GROUP, "InferencePool") => {
                let message = "endpoint pickers are not asked".to_owned();
                return Err(problem("InvalidKind", message, "use a Service with the selector of the pool"));
            }
            (group, kind) => {
                let message = format!("a backend cannot be a {kind} of group {group:?}");
                return Err(problem("InvalidKind", message, "use a Service"));
            }
        }
        if to.name.contains('.') {
            let message = format!("{} is a host, not the name of a Service", to.name);
            return Err(Problem::fatal("InvalidDestination", field, message, "state name and namespace"));
        }
        let Some(port) = to.port.and_then(|port| u16::try_from(port).ok()) else {
            let message = "the port is missing".to_owned();
            return Err(Problem::fatal("InvalidDestination", field, message, "state the port"));
        };
        Ok(Found {
            key: ObjectKey::new(Kind::Service, namespace, &to.name),
            import,
            service: ServiceBackend {
                host: Name::from(kubernetes_host(&to.name, namespace, self.reader.domain())),
                port: Some(port),
                subset: Name::default(),
            },
        })
    }
}

/// A backend that may be used, whether it is there or not.
struct Found {
    key: ObjectKey,
    /// Where the service of several clusters is meant: it may be there without a Service.
    import: Option<ObjectKey>,
    service: ServiceBackend,
}
