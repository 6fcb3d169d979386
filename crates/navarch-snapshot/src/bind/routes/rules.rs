//! What the rules of a route are lowered to.

use navarch_model::Name;
use navarch_model::route::{HttpMatch, HttpRule, TcpMatch, TcpRule, TlsRule};
use navarch_model::status::{Condition, ConditionType};

use super::attach::{Place, common_host};
use super::backend::Problem;

/// The server names of a route that states none.
pub(super) const EVERY_NAME: &str = "*";

/// What the rules of a route are lowered to, and what is wrong with them. Nothing is left of rules of which
/// one is beyond use.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub http: Vec<HttpRule>,
    pub tls: Vec<TlsRule>,
    pub tcp: Vec<TcpRule>,
    pub problems: Vec<Problem>,
}

impl Rules {
    pub fn is_empty(&self) -> bool {
        self.http.is_empty() && self.tls.is_empty() && self.tcp.is_empty()
    }

    /// The condition on what they refer to: of several problems the one that makes the rules unusable, else
    /// the last.
    pub fn resolved(&self) -> Condition {
        let fatal = self.problems.iter().find(|problem| problem.fatal);
        match fatal.or(self.problems.last()) {
            Some(Problem { reason, field, message, .. }) => {
                Condition::new(ConditionType::ResolvedRefs, false, reason, format!("{field}: {message}"))
            }
            None => Condition::new(ConditionType::ResolvedRefs, true, "ResolvedRefs", ""),
        }
    }

    /// The rules as they are at a place: of the mesh, for the port that the route states.
    pub fn at(&self, place: &Place, host: &Name) -> Rules {
        let mut http = self.http.clone();
        let mut tls = self.tls.clone();
        let mut tcp = self.tcp.clone();
        let port = match place {
            Place::Listener { listener, .. } => {
                at_listener(&mut tls, listener.hostname());
                return Rules { http, tls, tcp, problems: Vec::new() };
            }
            Place::Mesh { port, .. } => port,
        };
        if let Some(port) = port {
            for rule in &mut http {
                if rule.matches.is_empty() {
                    rule.matches.push(HttpMatch::default());
                }
                rule.matches.iter_mut().for_each(|condition| condition.client.port = Some(*port));
            }
            on_port(&mut tls, &mut tcp, *port);
        }
        for_service(&mut tls, host);
        Rules { http, tls, tcp, problems: Vec::new() }
    }
}

/// Hosts and server names as they are stated.
pub(super) fn names(texts: &[String]) -> Vec<Name> {
    texts.iter().map(|text| Name::from(text.as_str())).collect()
}

/// Limits rules to a port.
fn on_port(tls: &mut [TlsRule], tcp: &mut [TcpRule], port: u16) {
    for condition in tls.iter_mut().flat_map(|rule| &mut rule.matches) {
        condition.client.port = Some(port);
    }
    for rule in tcp {
        if rule.matches.is_empty() {
            rule.matches.push(TcpMatch::default());
        }
        rule.matches.iter_mut().for_each(|condition| condition.client.port = Some(port));
    }
}

/// Leaves the server names that a listener has too.
fn at_listener(tls: &mut [TlsRule], listener: &str) {
    for condition in tls.iter_mut().flat_map(|rule| &mut rule.matches) {
        let names = condition.server_names.iter();
        condition.server_names = names.filter_map(|name| common_host(listener, name)).collect();
    }
}

/// Rules for every server name are, for clients of a service, for its host.
fn for_service(tls: &mut [TlsRule], host: &Name) {
    for condition in tls.iter_mut().flat_map(|rule| &mut rule.matches) {
        if matches!(condition.server_names.as_slice(), [name] if &**name == EVERY_NAME) {
            condition.server_names = vec![host.clone()];
        }
    }
}
