//! Clients in a namespace that no configuration mentions.
//!
//! Most of what a client sees is the same in every namespace: of a thousand services, a few are visible to
//! some namespaces only, or have a DestinationRule that some namespace wrote for itself. So what a client
//! gets is computed for a client *elsewhere*, in none of the mesh's namespaces, and every question whether
//! the client is in some namespace is noted. For clients in all other namespaces the result is the same, and
//! they share it.

use navarch_model::Name;
use navarch_model::service::Visibility;

use super::Scope;
use crate::view::View;

impl Scope {
    /// The same scope in no namespace in particular. `None` if there is no such scope: this is one already,
    /// or what is imported names the client's namespace.
    pub fn elsewhere(&self) -> Option<Scope> {
        let own = |name: &Name| *name == self.namespace;
        let of_namespace = self.namespace.is_empty()
            || self.sidecar().is_some_and(|sidecar| own(&sidecar.namespace))
            || self.egress_listeners().iter().any(|listener| listener.hosts.names(&self.namespace));
        (!of_namespace).then(|| Scope { namespace: Name::from(""), ..self.clone() })
    }

    /// Whether this is the scope of a client elsewhere.
    pub fn is_elsewhere(&self) -> bool {
        self.namespace.is_empty()
    }

    /// Whether the client is in a namespace. For a client elsewhere it is not, and the question is noted: a
    /// client in a namespace that is not asked for gets the same answers, and so the same result. To be asked
    /// only where the answer matters.
    pub fn is_in(&self, view: &View<'_>, namespace: &Name) -> bool {
        if self.is_elsewhere() {
            view.ask(namespace);
        }
        self.namespace == *namespace
    }

    /// Notes that clients in a namespace get something else, whatever that is.
    pub fn ask(&self, view: &View<'_>, namespace: &str) {
        if self.is_elsewhere() {
            view.ask(&Name::from(namespace));
        }
    }

    /// Whether the client may use what is exported to these namespaces.
    pub fn may_use(&self, view: &View<'_>, export_to: &Visibility) -> bool {
        match export_to {
            Visibility::Public => true,
            Visibility::Nobody => false,
            Visibility::Namespaces(names) => names.iter().any(|name| self.is_in(view, name)),
        }
    }
}
