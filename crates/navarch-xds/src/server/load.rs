//! Load reports of clients: `envoy.service.load_stats.v3.LoadReportingService`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use navarch_envoy::proto::envoy::config::endpoint::v3::ClusterStats;

/// Clusters of which one node may have reports. A node that reports more loses the ones over the limit: it decides the
/// names, and the memory is ours.
const CLUSTERS_MAX: usize = 50_000;

/// Hears load reports. Called on the tasks of the streams; must be quick.
pub trait LoadReports: Send + Sync + 'static {
    /// A node reported. The numbers are those since its report before; after a reconnect counting starts again.
    fn report(&self, node: &str, clusters: &[ClusterStats]);

    /// The stream of a node ended.
    fn ended(&self, node: &str) {
        let _ = node;
    }
}

/// Hears nothing.
impl LoadReports for () {
    fn report(&self, _: &str, _: &[ClusterStats]) {}
}

/// What one node said last about one cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterLoad {
    /// Requests that succeeded, over all localities.
    pub succeeded: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests under way.
    pub in_progress: u64,
    /// Requests dropped by the client.
    pub dropped: u64,
    /// The time the numbers are about, as measured by the client.
    pub interval: Duration,
    /// When it was reported.
    pub at: Instant,
}

impl ClusterLoad {
    fn of(stats: &ClusterStats, at: Instant) -> Self {
        let sum = |field: fn(&_) -> u64| {
            stats.upstream_locality_stats.iter().map(field).fold(0u64, u64::saturating_add)
        };
        use navarch_envoy::proto::envoy::config::endpoint::v3::UpstreamLocalityStats as Locality;
        let interval = stats.load_report_interval.as_ref();
        let interval = interval.and_then(|interval| Duration::try_from(*interval).ok()).unwrap_or_default();
        Self {
            succeeded: sum(|locality: &Locality| locality.total_successful_requests),
            failed: sum(|locality: &Locality| locality.total_error_requests),
            in_progress: sum(|locality: &Locality| locality.total_requests_in_progress),
            dropped: stats.total_dropped_requests,
            interval,
            at,
        }
    }
}

/// The last report per node and cluster, of the nodes that are connected.
#[derive(Debug, Default)]
pub struct LastLoads {
    nodes: Mutex<BTreeMap<String, Node>>,
}

#[derive(Debug, Default)]
struct Node {
    clusters: BTreeMap<String, ClusterLoad>,
}

impl LastLoads {
    /// The last report of every node about every cluster.
    #[must_use]
    pub fn get(&self) -> BTreeMap<String, BTreeMap<String, ClusterLoad>> {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.iter().map(|(name, node)| (name.clone(), node.clusters.clone())).collect()
    }
}

impl LoadReports for LastLoads {
    fn report(&self, node: &str, clusters: &[ClusterStats]) {
        let now = Instant::now();
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = &mut nodes.entry(node.to_owned()).or_default().clusters;
        for stats in clusters {
            if known.len() < CLUSTERS_MAX || known.contains_key(&stats.cluster_name) {
                known.insert(stats.cluster_name.clone(), ClusterLoad::of(stats, now));
            }
        }
    }

    fn ended(&self, node: &str) {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).remove(node);
    }
}

impl<T: LoadReports> LoadReports for std::sync::Arc<T> {
    fn report(&self, node: &str, clusters: &[ClusterStats]) {
        (**self).report(node, clusters);
    }

    fn ended(&self, node: &str) {
        (**self).ended(node);
    }
}
