//! What the streams report, as metrics and logs.

use std::sync::Arc;
use std::time::Instant;

use navarch_envoy::XdsType;
use navarch_xds::{Cause, Event, Node, Observer};

use crate::fleet::Fleet;
use crate::metrics::{Metrics, label};
use crate::rejections::{Refusal, Rejections};

/// Counts what streams do, and passes on what is refused.
pub struct Observed {
    metrics: Metrics,
    fleet: Arc<Fleet>,
    rejections: Arc<Rejections>,
}

impl Observed {
    pub fn new(metrics: Metrics, fleet: Arc<Fleet>, rejections: Arc<Rejections>) -> Self {
        Observed { metrics, fleet, rejections }
    }

    /// When it became necessary to send something; nothing if it was sent for the second time.
    fn since(&self, revision: u64, cause: Cause) -> Option<Instant> {
        match cause {
            Cause::Asked(at) => Some(at),
            Cause::Revision => self.fleet.noticed(revision),
            Cause::Rest => None,
        }
    }
}

impl Observer for Observed {
    fn event(&self, node: &Arc<Node>, event: &Event) {
        match event {
            Event::Sent { ty, .. } => self.metrics.pushes.with_label_values(&[label(*ty).as_str()]).inc(),
            Event::Accepted { revision, cause, .. } => {
                if let Some(since) = self.since(*revision, *cause) {
                    self.metrics.convergence.observe(since.elapsed().as_secs_f64());
                }
            }
            Event::Rejected { ty, names, aside, text, .. } => {
                self.metrics.rejects.with_label_values(&[label(*ty).as_str()]).inc();
                tracing::error!(node = %node.id, ty = ty.short(), resources = ?names, revision = self.fleet.planned_revision(), "rejected: {text}");
                for (name, version) in aside.iter().filter(|_| *ty != XdsType::Sds) {
                    self.rejections.hear(Refusal {
                        node: node.id.clone(),
                        ty: *ty,
                        name: name.clone(),
                        version: *version,
                        words: text.clone(),
                    });
                }
            }
            Event::RemovalsHeld { ty, revision, removals, of } => {
                tracing::error!(
                    node = %node.id,
                    ty = ty.short(),
                    removals,
                    of,
                    revision,
                    "the configuration would take most of what the proxy has; removals are held, see /debug/removals"
                );
            }
            Event::RemovalsReleased { removed } => {
                tracing::warn!(node = %node.id, removed, "removals are no longer held");
            }
            Event::HoldsWholeRoutes => {
                tracing::info!(node = %node.id, "keeps its routes whole: it runs with whole ones");
                self.fleet.keep_routes_whole(&node.id);
            }
            Event::UnknownType(url) => {
                tracing::warn!(node = %node.id, url, "asked for a type that is not served");
            }
        }
    }

    fn sending(&self, ty: XdsType, bytes: usize) {
        self.metrics.push_bytes.with_label_values(&[label(ty).as_str()]).inc_by(bytes as u64);
    }

    fn connected(&self, node: &Arc<Node>) {
        let version = node.metadata_str("ISTIO_VERSION").unwrap_or(&node.user_agent_version);
        self.metrics.streams.with_label_values(&[version]).inc();
    }

    fn disconnected(&self, node: &Arc<Node>) {
        let version = node.metadata_str("ISTIO_VERSION").unwrap_or(&node.user_agent_version);
        self.metrics.streams.with_label_values(&[version]).dec();
        tracing::info!(node = %node.id, "disconnected");
    }
}
