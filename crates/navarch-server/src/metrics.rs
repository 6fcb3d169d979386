//! Metrics in Prometheus format, under the names that istiod's dashboards ask for where the meaning is the same.

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
    /// Proxies of which removals are held back, because too much would go at once.
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
    /// Services in the world.
    pub services: IntGauge,
    /// Classes of proxies.
    pub classes: IntGauge,
    /// Translations that the memo had, and that it had not.
    pub memo: IntGaugeVec,
    /// How often each gather has run.
    pub gathers: IntGaugeVec,
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
        let counters = |name: &str, help: &str| {
            let metric = IntCounterVec::new(Opts::new(name, help), &["type"])?;
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
        let load_requests = IntCounterVec::new(
            Opts::new(
                "navarch_load_requests_total",
                "Requests in load reports of clients, by cluster and result",
            ),
            &["cluster", "result"],
        )?;
        registry.register(Box::new(load_requests.clone()))?;
        let info = gauges("pilot_info", "Version of the control plane", "version")?;
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Metrics {
            revision: gauge("navarch_revision", "Revision of the configuration that is being served")?,
            streams: gauges("pilot_xds", "Connected proxies by version", "version")?,
            pushes: counters("pilot_xds_pushes", "Responses sent, by type")?,
            push_bytes: counters("navarch_xds_push_bytes_total", "Bytes of responses sent, by type")?,
            rejects: counters("pilot_total_xds_rejects", "Responses rejected by proxies, by type")?,
            removals_held: gauge(
                "navarch_removals_held",
                "Proxies of which removals are held back, because too much would go at once",
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
            findings: gauges("navarch_findings", "Findings in the configuration, by severity", "severity")?,
            scan_errors,
            load_reports,
            load_requests,
            services: gauge("pilot_services", "Services known")?,
            classes: gauge("navarch_classes", "Classes of proxies that get the same configuration")?,
            memo: gauges("navarch_memo", "Translations found in the memo, and made", "result")?,
            gathers: gauges("navarch_gathers", "How often each gather has run", "gather")?,
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
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
