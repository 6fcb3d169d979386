//! Metrics in Prometheus format, under the names that istiod's dashboards ask for where the meaning is the
//! same.

use navarch_envoy::XdsType;
use navarch_model::finding::Severity;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// Buckets for durations from a millisecond to a minute, in seconds.
const SECONDS: &[f64] =
    &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

/// Everything the control plane counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Revision of the configuration that is being served.
    pub revision: IntGauge,
    /// Connected streams by proxy version.
    pub streams: IntGaugeVec,
    /// Responses sent, by type (`cds`, `eds`, ...).
    pub pushes: IntCounterVec,
    /// Bytes sent, by type.
    pub push_bytes: IntCounterVec,
    /// Rejections, by type.
    pub rejects: IntCounterVec,
    /// Load reports of clients.
    pub load_reports: IntCounter,
    /// Requests that clients report, by cluster and result (`success`, `error`, `dropped`).
    pub load_requests: IntCounterVec,
    /// Proxies whose removals are held back, because too much would go at once.
    pub removals_held: IntGauge,
    /// From a committed revision to the acknowledgement of a proxy, in seconds.
    pub convergence: Histogram,
    /// From the first event of a change to the committed revision, in seconds.
    pub commit: Histogram,
    /// Planning every affected class, in seconds.
    pub plan: Histogram,
    /// Findings by severity.
    pub findings: IntGaugeVec,
    /// Scans of the configuration directory that failed.
    pub scan_errors: IntCounter,
    /// Parts of a source that are not heard, by source.
    pub source_unheard: IntGaugeVec,
    /// Seconds for which some part of a source has not been heard, by source.
    pub source_unheard_seconds: IntGaugeVec,
    /// Attempts to hear a source that failed, by source.
    pub source_failures: IntCounterVec,
    /// How often parts of a source were read again as a whole, by source.
    pub source_relists: IntCounterVec,
    /// The state of each other cluster that is followed.
    pub remote_clusters: IntGaugeVec,
    /// Objects of each that are in force.
    pub remote_cluster_objects: IntGaugeVec,
    /// Whether this replica writes to the cluster.
    pub writer: IntGauge,
    /// Objects whose status in the cluster is not what it should be.
    pub statuses_pending: IntGauge,
    /// Gateways that are not deployed as they are wanted.
    pub gateways_pending: IntGauge,
    /// Statuses written to the cluster (`written`), and writes that did not work (`failed`).
    pub statuses: IntCounterVec,
    /// Services in the world.
    pub services: IntGauge,
    /// Classes of proxies.
    pub classes: IntGauge,
    /// Translations that the memo had (`hit`), and that it had not (`miss`).
    pub memo: IntCounterVec,
    /// Answers to API servers, by webhook (`inject`, `validate`) and answer.
    pub webhooks: IntCounterVec,
    /// How often each gather has run.
    pub gathers: IntCounterVec,
}

/// Brings a counter to a total that is counted elsewhere.
pub fn bring_to(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// If two metrics have one name: a defect of this function.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let gauges = |name: &str, help: &str, label: &str| {
            let metric = IntGaugeVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let counters = |name: &str, help: &str, label: &str| {
            let metric = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let gauge = |name: &str, help: &str| {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let seconds = |name: &str, help: &str| {
            let metric = Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()))?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let scan_errors =
            IntCounter::new("navarch_scan_errors_total", "Scans of the configuration directory that failed")?;
        registry.register(Box::new(scan_errors.clone()))?;
        let load_reports = IntCounter::new("navarch_load_reports_total", "Load reports of clients")?;
        registry.register(Box::new(load_reports.clone()))?;
        let webhooks = IntCounterVec::new(
            Opts::new("navarch_webhook_answers_total", "Answers to API servers, by webhook and answer"),
            &["webhook", "answer"],
        )?;
        registry.register(Box::new(webhooks.clone()))?;
        let remote_clusters = IntGaugeVec::new(
            Opts::new("navarch_remote_clusters", "Other clusters that are followed; 1 for their state"),
            &["cluster", "state"],
        )?;
        registry.register(Box::new(remote_clusters.clone()))?;
        let load_requests = IntCounterVec::new(
            Opts::new(
                "navarch_load_requests_total",
                "Requests in load reports of clients, by cluster and result",
            ),
            &["cluster", "result"],
        )?;
        registry.register(Box::new(load_requests.clone()))?;
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let info = gauges("pilot_info", "Version of the control plane", "version")?;
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Metrics {
            revision: gauge("navarch_revision", "Revision of the configuration that is being served")?,
            streams: gauges("pilot_xds", "Connected proxies by version", "version")?,
            pushes: of_types(counters("pilot_xds_pushes", "Responses sent, by type", "type")?),
            push_bytes: of_types(counters(
                "navarch_xds_push_bytes_total",
                "Bytes of responses sent, by type",
                "type",
            )?),
            rejects: of_types(counters(
                "pilot_total_xds_rejects",
                "Responses rejected by proxies, by type",
                "type",
            )?),
            removals_held: gauge(
                "navarch_removals_held",
                "Proxies whose removals are held back, because too much would go at once",
            )?,
            convergence: seconds(
                "pilot_proxy_convergence_time",
                "Seconds from a committed revision to a proxy's ACK",
            )?,
            commit: seconds(
                "navarch_commit_seconds",
                "Seconds from the first event of a change to its revision",
            )?,
            plan: seconds("navarch_plan_seconds", "Seconds to plan every class that a revision affects")?,
            findings: of_severities(gauges(
                "navarch_findings",
                "Findings in the configuration, by severity",
                "severity",
            )?),
            source_unheard: gauges(
                "navarch_source_unheard",
                "Parts of a source that are not heard; what they said last stays in force",
                "source",
            )?,
            source_unheard_seconds: gauges(
                "navarch_source_unheard_seconds",
                "Seconds for which some part of a source has not been heard",
                "source",
            )?,
            source_failures: counters(
                "navarch_source_failures_total",
                "Attempts to hear a source that failed",
                "source",
            )?,
            source_relists: counters(
                "navarch_source_relists_total",
                "How often parts of a source were read again as a whole",
                "source",
            )?,
            writer: gauge("navarch_writer", "Whether this replica writes to the cluster")?,
            statuses_pending: gauge(
                "navarch_statuses_pending",
                "Objects of the cluster whose status is not what it should be",
            )?,
            statuses: counters(
                "navarch_status_writes_total",
                "Statuses written to the cluster, and writes that failed",
                "result",
            )?,
            scan_errors,
            load_reports,
            load_requests,
            webhooks,
            gateways_pending: gauge(
                "navarch_gateways_pending",
                "Gateways that are not deployed as they are wanted, where this replica writes",
            )?,
            remote_clusters,
            remote_cluster_objects: gauges(
                "navarch_remote_cluster_objects",
                "Objects of other clusters that are in force",
                "cluster",
            )?,
            services: gauge("pilot_services", "Services known")?,
            classes: gauge("navarch_classes", "Classes of proxies that get the same configuration")?,
            memo: counters(
                "navarch_memo_lookups_total",
                "Translations found in the memo, and made",
                "result",
            )?,
            gathers: counters("navarch_gather_runs_total", "How often each gather has run", "gather")?,
            registry,
        })
    }

    /// The text that Prometheus scrapes.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        let families = self.registry.gather();
        if TextEncoder::new().encode(&families, &mut text).is_err() {
            return String::new();
        }
        String::from_utf8(text).unwrap_or_default()
    }
}

/// Makes a series for each type, so that a rate does not miss the first event.
fn of_types(metric: IntCounterVec) -> IntCounterVec {
    for ty in XdsType::ALL {
        metric.with_label_values(&[label(ty).as_str()]);
    }
    metric
}

fn of_severities(metric: IntGaugeVec) -> IntGaugeVec {
    for severity in [Severity::Error, Severity::Warning, Severity::Info] {
        metric.with_label_values(&[severity.to_string().as_str()]);
    }
    metric
}

/// The value of the label `type`, as istiod writes it: `cds`, `eds`, ...
pub fn label(ty: XdsType) -> String {
    ty.short().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_istiods_dashboards() {
        let metrics = Metrics::new().expect("distinct names");
        metrics.pushes.with_label_values(&["cds"]).inc();
        metrics.rejects.with_label_values(&["lds"]).inc();
        let text = metrics.render();
        for line in [
            "pilot_xds_pushes{type=\"cds\"} 1",
            "pilot_total_xds_rejects{type=\"lds\"} 1",
            "pilot_services 0",
            "pilot_total_xds_rejects{type=\"rds\"} 0",
            "navarch_findings{severity=\"error\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
    }

    #[test]
    fn what_only_grows_is_a_counter_and_its_name_says_so() {
        let text = Metrics::new().expect("distinct names").render();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE navarch_")?.split_once(' '));
        for (name, ty) in types {
            assert_eq!(name.ends_with("_total"), ty == "counter", "navarch_{name} is a {ty}");
        }
    }
}
