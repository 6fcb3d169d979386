//! What Telemetry objects say of metrics and is not done.

use navarch_model::Config;
use navarch_model::finding::{Code, Finding};
use navarch_model::kinds::Kind;
use navarch_model::mesh::Provider;
use navarch_model::telemetry::{
    IstioMetric, MetricMatch, Metrics, MetricsOverrides, TagOverrideOperation, Telemetry,
};
use navarch_snapshot::View;
use navarch_translate::standard_metrics::for_envoy;

use super::Found;
use crate::gather::shared::telemetry::find;

impl Found {
    pub(super) fn metrics(&mut self, view: &View<'_>, telemetry: &Config<Telemetry>) {
        for (index, metrics) in telemetry.spec.metrics.iter().enumerate() {
            let path = format!("spec.metrics[{index}]");
            self.metric_providers(view, telemetry, metrics, &path);
            if metrics.reporting_interval.is_some() {
                let message =
                    "reportingInterval has no effect: the bytes of a connection are counted when it ends";
                let path = format!("{path}.reportingInterval");
                self.of_metrics(telemetry, path, Code::NoEffect, message, "remove it, or keep it for istiod");
            }
            for (index, change) in metrics.overrides.iter().enumerate() {
                self.metric_change(telemetry, change, &format!("{path}.overrides[{index}]"));
            }
        }
    }

    fn metric_providers(
        &mut self,
        view: &View<'_>,
        telemetry: &Config<Telemetry>,
        metrics: &Metrics,
        path: &str,
    ) {
        for (index, provider) in metrics.providers.iter().enumerate() {
            let found = find(&view.mesh().config, &provider.name).map(|found| &found.provider);
            let (code, message, hint) = match found {
                Some(Some(Provider::Prometheus(_))) => continue,
                Some(_) => (
                    Code::NoEffect,
                    format!(
                        "nothing is counted for {:?}: only providers of kind prometheus are served",
                        provider.name
                    ),
                    "name a provider of kind prometheus",
                ),
                None => (
                    Code::InvalidReference,
                    format!("there is no extension provider {:?}; nothing is counted for it", provider.name),
                    "name a provider in extensionProviders of the mesh settings",
                ),
            };
            self.of_metrics(telemetry, format!("{path}.providers[{index}].name"), code, &message, hint);
        }
    }

    fn metric_change(&mut self, telemetry: &Config<Telemetry>, change: &MetricsOverrides, path: &str) {
        let selected = change.match_.as_ref().and_then(|selector| selector.metric_match.as_ref());
        let what = match selected {
            Some(MetricMatch::CustomMetric(name)) => {
                Some(("customMetric", format!("{name:?} is not a standard metric, and nobody counts it")))
            }
            Some(MetricMatch::Metric(
                IstioMetric::GrpcRequestMessages | IstioMetric::GrpcResponseMessages,
            )) => Some(("metric", "stock Envoy does not count messages by peer".to_owned())),
            _ => None,
        };
        if let Some((field, message)) = what {
            let hint = "remove it, or keep it for istiod";
            self.of_metrics(telemetry, format!("{path}.match.{field}"), Code::NoEffect, &message, hint);
        }
        for (name, tag) in &change.tag_overrides {
            if tag.operation != TagOverrideOperation::Upsert {
                continue;
            }
            let Err(reason) = for_envoy(&tag.value) else { continue };
            let message = format!("{reason}; label {name:?} stays as it is");
            let hint = "use the attributes that Envoy has, alone or compared";
            let path = format!("{path}.tagOverrides.{name}.value");
            self.of_metrics(telemetry, path, Code::NoEffect, &message, hint);
        }
    }

    fn of_metrics(
        &mut self,
        telemetry: &Config<Telemetry>,
        path: String,
        code: Code,
        message: &str,
        hint: &str,
    ) {
        self.add(Kind::Telemetry, telemetry, path, Finding::warning(code, message).hint(hint));
    }
}
