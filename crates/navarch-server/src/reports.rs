//! Load reports of clients, as metrics and as a page.

use std::collections::BTreeSet;
use std::time::Instant;

use navarch_envoy::proto::envoy::config::endpoint::v3::ClusterStats;
use navarch_xds::{ClusterLoad, LastLoads, LoadReports};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::metrics::Metrics;

/// Clusters with metrics of their own; the names are the clients'. The others are counted together.
const CLUSTERS_MAX: usize = 10_000;

/// The label of what is counted together.
const OTHERS: &str = "(others)";

/// Counts what clients report.
pub struct Reports {
    last: LastLoads,
    metrics: Metrics,
    known: Mutex<BTreeSet<String>>,
}

impl Reports {
    /// Nothing has been reported yet.
    pub fn new(metrics: Metrics) -> Self {
        Reports { last: LastLoads::default(), metrics, known: Mutex::default() }
    }

    /// The last report of each connected node, by cluster.
    pub fn page(&self) -> Value {
        let shown = |load: &ClusterLoad| {
            json!({
                "succeeded": load.succeeded,
                "failed": load.failed,
                "dropped": load.dropped,
                "inProgress": load.in_progress,
                "intervalMs": load.interval.as_millis() as u64,
                "ageMs": load.at.elapsed().as_millis() as u64,
            })
        };
        let nodes = self.last.get().into_iter().map(|(node, clusters)| {
            let clusters = clusters.iter().map(|(cluster, load)| (cluster.clone(), shown(load)));
            (node, Value::Object(clusters.collect()))
        });
        Value::Object(nodes.collect())
    }

    fn is_known(&self, cluster: &str) -> bool {
        let mut known = self.known.lock();
        known.contains(cluster) || (known.len() < CLUSTERS_MAX && known.insert(cluster.to_owned()))
    }
}

impl LoadReports for Reports {
    fn report(&self, stream: u64, node: &str, clusters: &[ClusterStats]) {
        let now = Instant::now();
        self.metrics.load_reports.inc();
        for stats in clusters {
            let label = if self.is_known(&stats.cluster_name) { &stats.cluster_name } else { OTHERS };
            let load = ClusterLoad::of(stats, now);
            for (result, count) in
                [("success", load.succeeded), ("error", load.failed), ("dropped", load.dropped)]
            {
                // A cluster that nobody calls has no line.
                if count > 0 {
                    self.metrics.load_requests.with_label_values(&[label, result]).inc_by(count);
                }
            }
        }
        self.last.report(stream, node, clusters);
    }

    fn ended(&self, stream: u64, node: &str) {
        self.last.ended(stream, node);
    }
}

#[cfg(test)]
mod tests {
    use navarch_envoy::proto::envoy::config::endpoint::v3::UpstreamLocalityStats;

    use super::*;

    #[test]
    fn reports_are_summed_over_nodes_and_localities() {
        let metrics = Metrics::new().expect("distinct names");
        let reports = Reports::new(metrics.clone());
        let stats = |good, bad| ClusterStats {
            cluster_name: "outbound|80||a".into(),
            upstream_locality_stats: vec![
                UpstreamLocalityStats {
                    total_successful_requests: good,
                    total_error_requests: bad,
                    ..Default::default()
                };
                2
            ],
            ..Default::default()
        };
        reports.report(1, "n", &[stats(3, 1)]);
        reports.report(1, "n", &[stats(2, 0)]);
        reports.report(2, "m", &[stats(1, 0)]);
        let text = metrics.render();
        for line in [
            "navarch_load_reports_total 3",
            "navarch_load_requests_total{cluster=\"outbound|80||a\",result=\"success\"} 12",
            "navarch_load_requests_total{cluster=\"outbound|80||a\",result=\"error\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert_eq!(reports.page()["n"]["outbound|80||a"]["succeeded"], 4);
        reports.ended(1, "n");
        assert!(reports.page().get("n").is_none());
    }
}
