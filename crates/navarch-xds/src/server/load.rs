//! Load reports of clients: `envoy.service.load_stats.v3.LoadReportingService`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use navarch_envoy::proto::envoy::config::endpoint::v3::ClusterStats;

/// Clusters that one node may have reports on. A node that reports more loses the ones over the limit: it
/// decides the names, and the memory is ours.
const CLUSTERS_MAX: usize = 50_000;

/// Hears load reports. Called on the tasks of the streams; must be quick.
pub trait LoadReports: Send + Sync + 'static {
    /// A node reported on one of its streams. The numbers are those since the report before on that stream.
    fn report(&self, stream: u64, node: &str, clusters: &[ClusterStats]);

    /// A stream of a node ended. Another one may go on: a hot restart has two.
    fn ended(&self, stream: u64, node: &str) {
        let _ = (stream, node);
    }
}

/// Hears nothing.
impl LoadReports for () {
    fn report(&self, _: u64, _: &str, _: &[ClusterStats]) {}
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
    /// The sums of one report over its localities.
    #[must_use]
    pub fn of(stats: &ClusterStats, at: Instant) -> Self {
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

/// The last report per node and cluster, of the streams that are connected.
#[derive(Debug, Default)]
pub struct LastLoads {
    /// By node and stream.
    streams: Mutex<BTreeMap<(String, u64), BTreeMap<String, ClusterLoad>>>,
}

impl LastLoads {
    /// The last report of every node about every cluster: the newest one if the node has several streams.
    #[must_use]
    pub fn get(&self) -> BTreeMap<String, BTreeMap<String, ClusterLoad>> {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let mut nodes: BTreeMap<String, BTreeMap<String, ClusterLoad>> = BTreeMap::new();
        for ((node, _), clusters) in streams.iter() {
            let known = nodes.entry(node.clone()).or_default();
            for (cluster, load) in clusters {
                if known.get(cluster).is_none_or(|other| other.at <= load.at) {
                    known.insert(cluster.clone(), load.clone());
                }
            }
        }
        nodes
    }
}

impl LoadReports for LastLoads {
    fn report(&self, stream: u64, node: &str, clusters: &[ClusterStats]) {
        let now = Instant::now();
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let known = streams.entry((node.to_owned(), stream)).or_default();
        for stats in clusters {
            if known.len() < CLUSTERS_MAX || known.contains_key(&stats.cluster_name) {
                known.insert(stats.cluster_name.clone(), ClusterLoad::of(stats, now));
            }
        }
    }

    fn ended(&self, stream: u64, node: &str) {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).remove(&(node.to_owned(), stream));
    }
}

impl<T: LoadReports> LoadReports for std::sync::Arc<T> {
    fn report(&self, stream: u64, node: &str, clusters: &[ClusterStats]) {
        (**self).report(stream, node, clusters);
    }

    fn ended(&self, stream: u64, node: &str) {
        (**self).ended(stream, node);
    }
}
