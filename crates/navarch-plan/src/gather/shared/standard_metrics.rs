//! Istio's standard metrics as Telemetry objects and default providers ask for them, for proxies whose agent
//! serves them.

use std::collections::BTreeSet;

use navarch_model::mesh::{MeshConfig, Provider};
use navarch_model::proxy::ProxyFacts;
use navarch_model::telemetry::{
    IstioMetric, MetricMatch, MetricSelector, Metrics, MetricsOverrides, TagOverride, TagOverrideOperation,
    WorkloadMode,
};
use navarch_translate::encoded::Encoded;
use navarch_translate::listeners::settings::ListenerSettings;
use navarch_translate::standard_metrics::{
    LabelChange, MetricChanges, MetricsInput, StandardMetrics, add_filters, at_end,
};

use super::telemetry::{applicable, find, mode};
use crate::engine::Cx;

/// Counts where nobody says anything: what Istio's charts state for their meshes.
const DEFAULT: &str = "prometheus";

/// All standard metrics that are made.
const METRICS: [IstioMetric; 8] = [
    IstioMetric::RequestCount,
    IstioMetric::RequestDuration,
    IstioMetric::RequestSize,
    IstioMetric::ResponseSize,
    IstioMetric::TcpOpenedConnections,
    IstioMetric::TcpClosedConnections,
    IstioMetric::TcpSentBytes,
    IstioMetric::TcpReceivedBytes,
];

/// Adds what counts to the settings of listeners, and what tells the peers of the workload.
pub fn apply(cx: &Cx<'_>, facts: &ProxyFacts, settings: &mut ListenerSettings) {
    if !facts.standard_metrics {
        return;
    }
    let direction = settings.http.direction;
    // Whether others count is theirs to say, and they want to know whom.
    add_filters(direction, &mut settings.http.filters);
    let mesh = &cx.view().mesh().config;
    let objects = applicable(cx, facts, mesh);
    let stated: Vec<&Metrics> = objects.iter().flat_map(|object| &object.spec.metrics).collect();
    let Some(changes) = merged(&stated, mesh, mode(direction)) else { return };
    let logs = cx.get::<StandardMetrics>(&MetricsInput { direction, changes });
    settings.http.access_log.extend(logs.http.iter().cloned());
    if logs.tcp.is_empty() {
        return;
    }
    // What others log is logged once, as without metrics.
    for log in &mut settings.tcp_access_log {
        *log = Encoded::new(at_end(log));
    }
    settings.tcp_access_log.extend(logs.tcp.iter().cloned());
    settings.counts_connections = true;
}

/// The providers that are asked for where nobody says anything.
fn defaults(mesh: &MeshConfig) -> Vec<String> {
    let stated = mesh.default_providers.as_ref().map(|providers| providers.metrics.clone());
    stated.filter(|stated| !stated.is_empty()).unwrap_or_else(|| vec![DEFAULT.to_owned()])
}

/// What differs from the standard metrics; nothing if none are made.
///
/// As istiod merges: providers that are stated last replace those before, changes of later ones go over
/// earlier ones, and a change of any metric makes up for all of them having been switched off before.
fn merged(stated: &[&Metrics], mesh: &MeshConfig, mode: WorkloadMode) -> Option<MetricChanges> {
    let defaults = defaults(mesh);
    let names = |metrics: &Metrics| -> Vec<String> {
        metrics.providers.iter().map(|provider| provider.name.clone()).collect()
    };
    let last = stated.iter().map(|metrics| names(metrics)).rfind(|names| !names.is_empty());
    let in_scope: BTreeSet<String> = last.unwrap_or_else(|| defaults.clone()).into_iter().collect();
    // Two that count the same would count everything twice.
    let ours = in_scope.iter().find(|name| {
        find(mesh, name).is_some_and(|found| matches!(found.provider, Some(Provider::Prometheus(_))))
    })?;
    let mut inherited = defaults;
    let mut is_off = false;
    let mut changes = MetricChanges::new();
    for metrics in stated {
        let own = names(metrics);
        if !own.is_empty() {
            inherited = own;
        }
        if !inherited.contains(ours) {
            continue;
        }
        for change in metrics.overrides.iter().filter(|change| is_for(change, mode)) {
            let metrics = matched(change.match_.as_ref());
            if metrics.len() == METRICS.len() && change.disabled == Some(true) {
                is_off = true;
                continue;
            }
            is_off = false;
            for metric in metrics {
                apply_change(change, metric, &mut changes);
            }
        }
    }
    (!is_off).then_some(changes)
}

fn is_for(change: &MetricsOverrides, mode: WorkloadMode) -> bool {
    let wanted = change.match_.as_ref().map_or(WorkloadMode::ClientAndServer, |selector| selector.mode);
    wanted == WorkloadMode::ClientAndServer || wanted == mode
}

/// The metrics that a selector means.
fn matched(selector: Option<&MetricSelector>) -> Vec<IstioMetric> {
    match selector.and_then(|selector| selector.metric_match.as_ref()) {
        Some(MetricMatch::CustomMetric(_)) => Vec::new(),
        Some(MetricMatch::Metric(metric)) if *metric != IstioMetric::AllMetrics => vec![*metric],
        _ => METRICS.to_vec(),
    }
}

fn apply_change(change: &MetricsOverrides, metric: IstioMetric, changes: &mut MetricChanges) {
    let found = changes.entry(metric).or_default();
    found.disabled = change.disabled.unwrap_or(found.disabled);
    for (name, TagOverride { operation, value }) in &change.tag_overrides {
        let label = match operation {
            TagOverrideOperation::Remove => LabelChange::Removed,
            TagOverrideOperation::Upsert => LabelChange::Expression(value.clone()),
        };
        found.labels.insert(name.clone(), label);
    }
}

#[cfg(test)]
mod tests {
    use navarch_model::mesh::MeshConfig;
    use navarch_model::telemetry::ProviderRef;

    use super::*;

    fn metrics(providers: &[&str], overrides: &[MetricsOverrides]) -> Metrics {
        Metrics {
            providers: providers.iter().map(|name| ProviderRef { name: (*name).to_owned() }).collect(),
            overrides: overrides.to_vec(),
            reporting_interval: None,
        }
    }

    /// A change of the metric (none: of all) with a label and its expression (empty: removed).
    fn change(mode: WorkloadMode, metric: Option<IstioMetric>, off: Option<bool>) -> MetricsOverrides {
        MetricsOverrides {
            match_: Some(MetricSelector { mode, metric_match: metric.map(MetricMatch::Metric) }),
            disabled: off,
            tag_overrides: Default::default(),
        }
    }

    fn label(name: &str, value: &str) -> MetricsOverrides {
        let operation =
            if value.is_empty() { TagOverrideOperation::Remove } else { TagOverrideOperation::Upsert };
        let tag = TagOverride { operation, value: value.to_owned() };
        let mut made = change(WorkloadMode::ClientAndServer, Some(IstioMetric::RequestCount), None);
        made.tag_overrides.insert(name.to_owned(), tag);
        made
    }

    /// What a client counts.
    #[track_caller]
    fn check(stated: &[Metrics], defaults: &[&str], expected: Option<&[&str]>) {
        let mut mesh = MeshConfig::default();
        let providers = mesh.default_providers.get_or_insert_default();
        providers.metrics = defaults.iter().map(|name| (*name).to_owned()).collect();
        let stated: Vec<&Metrics> = stated.iter().collect();
        let found = merged(&stated, &mesh, WorkloadMode::Client).map(|changes| {
            let lines = changes.into_iter().filter(|(metric, _)| *metric == IstioMetric::RequestCount);
            let lines = lines.flat_map(|(_, change)| {
                let labels = change.labels.into_iter().map(|(name, change)| match change {
                    LabelChange::Removed => format!("-{name}"),
                    LabelChange::Expression(value) => format!("{name}={value}"),
                });
                let off = change.disabled.then(|| "off".to_owned());
                off.into_iter().chain(labels).collect::<Vec<_>>()
            });
            lines.collect::<Vec<_>>()
        });
        let expected = expected.map(|lines| lines.iter().map(|line| (*line).to_owned()).collect());
        assert_eq!(found, expected);
    }

    #[test]
    fn all_is_counted_unless_somebody_says_otherwise() {
        use WorkloadMode::{Client, ClientAndServer, Server};
        let all_off = |mode| metrics(&[], &[change(mode, None, Some(true))]);
        check(&[], &[], Some(&[]));
        check(&[], &["prometheus"], Some(&[]));
        check(&[], &["stackdriver"], None);
        check(&[metrics(&["stackdriver"], &[])], &[], None);
        check(&[metrics(&["stackdriver"], &[]), metrics(&["prometheus"], &[])], &[], Some(&[]));
        check(&[metrics(&["prometheus"], &[]), metrics(&["nobody"], &[])], &[], None);
        check(&[all_off(ClientAndServer)], &[], None);
        check(&[all_off(Client)], &[], None);
        check(&[all_off(Server)], &[], Some(&[]));
        let count_off = change(Client, Some(IstioMetric::RequestCount), Some(true));
        check(&[metrics(&[], &[count_off])], &[], Some(&["off"]));
    }

    #[test]
    fn later_changes_go_over_earlier_ones() {
        use WorkloadMode::ClientAndServer;
        check(
            &[metrics(&[], &[label("a", "1"), label("b", "2")]), metrics(&[], &[label("a", "")])],
            &[],
            Some(&["-a", "b=2"]),
        );
        // All were off; the change of one brings them back, as in istiod.
        let off = metrics(&[], &[change(ClientAndServer, None, Some(true))]);
        check(&[off, metrics(&[], &[label("a", "1")])], &[], Some(&["a=1"]));
        let custom = MetricSelector {
            metric_match: Some(MetricMatch::CustomMetric("mine".into())),
            ..MetricSelector::default()
        };
        let custom = MetricsOverrides { match_: Some(custom), ..label("a", "1") };
        check(&[metrics(&[], &[custom])], &[], Some(&[]));
    }
}
