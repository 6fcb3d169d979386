//! The services that a rule sends traffic to, wherever it names them.

use super::backend::{ServiceBackend, StreamBackend};
use super::http::{Forward, HttpAction, HttpRule};
use super::stream::{TcpRule, TlsRule};
use crate::object::ObjectKey;
use crate::service::Name;

/// A service that a set sends traffic to.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    pub to: &'a ServiceBackend,
    /// The object that says so, which may be a delegate.
    pub key: &'a ObjectKey,
    /// The field that says so, for example `spec.http[0].route[1].destination`.
    pub field: &'a Name,
    /// The rule for requests that it belongs to; `None` for connections.
    pub http: Option<&'a HttpRule>,
}

impl HttpRule {
    /// The services that requests are sent to, mirrored ones included.
    pub fn destinations(&self) -> impl Iterator<Item = Destination<'_>> {
        let HttpRule { origin, name: _, matches: _, action, headers: _, fault: _, cors: _ } = self;
        let forward = match action {
            HttpAction::Forward(forward) => Some(forward),
            HttpAction::Redirect(_) | HttpAction::Respond(_) => None,
        };
        let named = forward.into_iter().flat_map(|forward| {
            let Forward { backends, missing: _, rewrite: _, timeout: _, retries: _, mirrors, session: _ } =
                forward;
            let backends = backends.iter().map(|to| (&to.backend, &origin.key, &to.field));
            backends.chain(mirrors.iter().map(|to| (&to.backend, &to.origin.key, &to.origin.field)))
        });
        named.filter_map(|(backend, key, field)| {
            Some(Destination { to: backend.service()?, key, field, http: Some(self) })
        })
    }
}

impl TlsRule {
    /// The services that connections are sent to.
    pub fn destinations(&self) -> impl Iterator<Item = Destination<'_>> {
        let TlsRule { origin, matches: _, backends } = self;
        of_backends(&origin.key, backends)
    }
}

impl TcpRule {
    /// The services that connections are sent to.
    pub fn destinations(&self) -> impl Iterator<Item = Destination<'_>> {
        let TcpRule { origin, matches: _, backends } = self;
        of_backends(&origin.key, backends)
    }
}

fn of_backends<'a>(
    key: &'a ObjectKey,
    backends: &'a [StreamBackend],
) -> impl Iterator<Item = Destination<'a>> {
    backends.iter().filter_map(move |to| {
        let StreamBackend { backend, weight: _, field } = to;
        Some(Destination { to: backend.service()?, key, field, http: None })
    })
}
