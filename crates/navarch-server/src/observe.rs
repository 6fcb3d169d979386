//! What the streams report, as metrics and logs.

use std::sync::Arc;
use std::time::Instant;

use navarch_xds::{Event, Node, Observer};
use parking_lot::Mutex;

use crate::fleet::Fleet;
use crate::metrics::{Metrics, label};

/// Revisions whose time of publication is remembered; older ones are not news.
const REVISIONS: usize = 64;

/// Counts what streams do.
pub struct Observed {
    metrics: Metrics,
    fleet: Arc<Fleet>,
    published: Mutex<Vec<(u64, Instant)>>,
}

impl Observed {
    pub fn new(metrics: Metrics, fleet: Arc<Fleet>) -> Self {
        Observed { metrics, fleet, published: Mutex::default() }
    }

    /// When a revision was first seen on its way to a proxy.
    fn first_seen(&self, revision: u64) -> Instant {
        let mut published = self.published.lock();
        if let Some((_, at)) = published.iter().find(|(known, _)| *known == revision) {
            return *at;
        }
        let now = Instant::now();
        if published.len() == REVISIONS {
            published.remove(0);
        }
        published.push((revision, now));
        now
    }
}

impl Observer for Observed {
    fn event(&self, node: &Arc<Node>, event: &Event) {
        match event {
            Event::Sent { ty, revision, .. } => {
                self.first_seen(*revision);
                self.metrics.pushes.with_label_values(&[label(*ty).as_str()]).inc();
            }
            Event::Accepted { revision, .. } => {
                let at = self.first_seen(*revision);
                self.metrics.convergence.observe(at.elapsed().as_secs_f64());
            }
            Event::Rejected { ty, names, text, .. } => {
                self.metrics.rejects.with_label_values(&[label(*ty).as_str()]).inc();
                tracing::error!(node = %node.id, ty = ty.short(), resources = ?names, revision = self.fleet.planned_revision(), "rejected: {text}");
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
