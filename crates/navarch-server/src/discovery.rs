//! The fleet as the xDS server sees it.

use std::sync::{Arc, OnceLock};

use navarch_sources::Registrations;
use navarch_xds::{Answers, Connection, Dialect, Discovery, Node, Peer, Question, Rejection, Visible};

use crate::admin::Admin;
use crate::client::Client;
use crate::debug::{self, Access};
use crate::fleet::Fleet;
use crate::identity::Identity;
use crate::registration;

/// The user agent of agents.
const AGENT: &str = "navarch-agent";

/// The fleet as the xDS server sees it.
pub struct FleetDiscovery {
    pub fleet: Arc<Fleet>,
    /// The pages of the admin port, once they are there: they are answered over xDS too.
    pub pages: Arc<OnceLock<Arc<Admin>>>,
    /// Who makes certificates, if somebody does.
    pub identity: Option<Arc<Identity>>,
    /// Workloads that have registered themselves.
    pub registrations: Registrations,
}

impl Discovery for FleetDiscovery {
    fn connect(&self, node: &Arc<Node>, peer: &Arc<Peer>, dialect: Dialect) -> Result<Connection, Rejection> {
        let client =
            self.fleet.client(node, peer, dialect).inspect_err(|error| refused(node, peer, error))?;
        if !Client::is_of_mesh(peer, &self.fleet.snapshot()) {
            let message = format!("{} is not of this mesh's trust domain", peer.identities.join(", "));
            let rejection = Rejection::PermissionDenied(message);
            refused(node, peer, &rejection);
            return Err(rejection);
        }
        tracing::info!(node = %node.id, peer = %peer.address, "connected");
        for problem in &client.problems {
            tracing::warn!(node = %node.id, peer = %peer.address, "{problem}");
        }
        let own = self.identity.as_ref().and_then(|identity| identity.own(peer));
        // An agent that asks what to start Envoy with is not a workload that takes traffic.
        if node.user_agent_name == AGENT {
            return Ok(Connection { own, ..self.fleet.join(client) });
        }
        let registered = registration::join(&self.registrations, &client.facts, peer, &self.fleet.snapshot())
            .inspect_err(|error| refused(node, peer, error))?;
        let joined = self.fleet.join(client);
        Ok(Connection { own, guard: Box::new((joined.guard, registered)), ..joined })
    }

    fn health(&self, node: &Arc<Node>, peer: &Arc<Peer>, unhealthy: Option<&str>) {
        let Ok(client) = Client::of(node, peer) else { return };
        // Only those who may have registered: see `connect`.
        if client.facts.group.is_empty() || node.user_agent_name == AGENT {
            return;
        }
        let place = registration::place(&client.facts);
        if self.registrations.report(&place, unhealthy.is_none()) {
            let reason = unhealthy.unwrap_or_default();
            tracing::info!(entry = %place, healthy = unhealthy.is_none(), reason, "a workload says how it is");
        }
    }

    fn answer(&self, question: &Question<'_>) -> Result<Option<Answers>, Rejection> {
        debug::answer(&self.fleet, self.pages.get().map(|pages| &**pages), question)
    }

    fn visible(&self, peer: &Arc<Peer>) -> Result<Visible, Rejection> {
        let access = Access::of(peer, &self.fleet)?;
        Ok(Box::new(move |stream| access.covers(stream)))
    }
}

fn refused(node: &Node, peer: &Peer, error: &Rejection) {
    tracing::warn!(node = %node.id, peer = %peer.address, %error, "refused");
}
