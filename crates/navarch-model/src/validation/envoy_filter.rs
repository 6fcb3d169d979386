//! EnvoyFilter. Whether a patch's value fits Envoy's API is for the translator to say, who knows that API.

use super::checks::missing;
use super::service_entry::workload_selector;
use super::{Report, Validate};
use crate::finding::Code;
use crate::networking::{
    ApplyTo, EnvoyConfigObjectMatch, EnvoyConfigObjectPatch, EnvoyFilter, ListenerMatch, ObjectTypes,
    PatchContext, PatchOperation,
};

/// Names of the HTTP connection manager, the only network filter with filters inside.
const HTTP_CONNECTION_MANAGERS: [&str; 2] =
    ["envoy.filters.network.http_connection_manager", "envoy.http_connection_manager"];
/// Longer patterns for the proxy's version are not matched.
const LONGEST_VERSION: usize = 1024;

impl Validate for EnvoyFilter {
    fn validate(&self, report: &mut Report<'_>) {
        report.each_set("workloadSelector", self.workload_selector.as_ref(), workload_selector);
        if self.workload_selector.is_some() && !self.target_refs.is_empty() {
            let message = "only one of workloadSelector and targetRefs may be set";
            report.error(Code::ExclusiveFields, message, "keep the one that is meant");
        }
        super::checks::policy_targets(report, None, None, &self.target_refs);
        report.each("configPatches", &self.config_patches, config_patch);
    }
}

fn config_patch(report: &mut Report<'_>, config: &EnvoyConfigObjectPatch) {
    if config.apply_to == ApplyTo::Invalid {
        missing(report, "applyTo", "say what the patch changes, for example HTTP_FILTER");
    }
    match &config.patch {
        None => missing(report, "patch", "say how to change it"),
        Some(patch) => report.within("patch", |report| {
            if patch.operation == PatchOperation::Invalid {
                missing(report, "operation", "use ADD, MERGE, REPLACE, REMOVE or one of INSERT_*");
            } else if patch.operation != PatchOperation::Remove && patch.value.is_none() {
                missing(report, "value", "only REMOVE has no value");
            }
        }),
    }
    report.each_set("match", config.match_.as_ref(), |report, rule| {
        object_match(report, rule, config.apply_to)
    });
}

fn object_match(report: &mut Report<'_>, rule: &EnvoyConfigObjectMatch, apply_to: ApplyTo) {
    if let Some(version) = rule.proxy.as_ref().map(|proxy| proxy.proxy_version.as_str())
        && !version.is_empty()
    {
        report.within("proxy.proxyVersion", |report| {
            if version.len() > LONGEST_VERSION {
                let message = "the pattern is too long and is not matched";
                report.warning(Code::NoEffect, message, format!("the limit is {LONGEST_VERSION} characters"));
            } else if let Some(problem) = navarch_re2::problem(version) {
                report.error(
                    Code::InvalidRegex,
                    format!("{version:?}: {problem}"),
                    "write a regular expression",
                );
            }
        });
    }
    let Some(object) = &rule.object_types else { return };
    if rule.context == PatchContext::Waypoint {
        return;
    }
    let (field, fits) = match object {
        ObjectTypes::Listener(_) => ("listener", listener_class(apply_to)),
        ObjectTypes::RouteConfiguration(_) => (
            "routeConfiguration",
            matches!(apply_to, ApplyTo::RouteConfiguration | ApplyTo::VirtualHost | ApplyTo::HttpRoute),
        ),
        ObjectTypes::Cluster(_) => ("cluster", apply_to == ApplyTo::Cluster),
        ObjectTypes::Waypoint(_) => ("waypoint", false),
    };
    let open = matches!(apply_to, ApplyTo::ExtensionConfig | ApplyTo::Bootstrap | ApplyTo::Invalid);
    if !fits && !open {
        report.within(field, |report| {
            let message = format!("applyTo {} cannot be matched by {field}", apply_to.as_str());
            report.error(Code::InvalidCombination, message, "match the kind of object that applyTo names");
        });
    } else if let ObjectTypes::Listener(listener) = object {
        report.within("listener", |report| listener_match(report, listener, apply_to));
    }
}

fn listener_class(apply_to: ApplyTo) -> bool {
    matches!(
        apply_to,
        ApplyTo::Listener
            | ApplyTo::FilterChain
            | ApplyTo::NetworkFilter
            | ApplyTo::HttpFilter
            | ApplyTo::ListenerFilter
    )
}

fn listener_match(report: &mut Report<'_>, listener: &ListenerMatch, apply_to: ApplyTo) {
    let Some(filter) = listener.filter_chain.as_ref().and_then(|chain| chain.filter.as_ref()) else { return };
    report.within("filterChain.filter", |report| {
        if matches!(apply_to, ApplyTo::Listener | ApplyTo::FilterChain) {
            let message = format!("has no effect with applyTo {}", apply_to.as_str());
            report.warning(Code::NoEffect, message, "remove the filter match");
        }
        if filter.name.is_empty() {
            missing(report, "name", "name the network filter");
            return;
        }
        let Some(inner) = &filter.sub_filter else { return };
        report.within("subFilter", |report| {
            if apply_to != ApplyTo::HttpFilter {
                let message = "only HTTP_FILTER patches can match a filter inside another";
                report.error(Code::InvalidCombination, message, "use applyTo: HTTP_FILTER");
            } else if !HTTP_CONNECTION_MANAGERS.contains(&filter.name.as_str()) {
                let message = format!("{:?} has no HTTP filters", filter.name);
                let hint = format!("match the filter {}", HTTP_CONNECTION_MANAGERS[0]);
                report.error(Code::InvalidCombination, message, hint);
            } else if inner.name.is_empty() {
                missing(report, "name", "name the HTTP filter");
            }
        });
    });
}
