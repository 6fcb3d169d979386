//! TCPRoute, TLSRoute and UDPRoute.

use super::references::{backend, hostnames, parent_refs, weight};
use super::{at_most, default_gateways, rule_names};
use crate::finding::Code;
use crate::gateway_api::{
    ParentReference, StreamRouteRule, TcpRoute, TlsRoute, UdpRoute, UseDefaultGateways,
};
use crate::validation::checks::missing;
use crate::validation::{Report, Validate};

const MOST_RULES: usize = 1;
const MOST_BACKENDS: usize = 16;
const MOST_SERVER_NAMES: usize = 1024;

impl Validate for TcpRoute {
    fn validate(&self, report: &mut Report<'_>) {
        let TcpRoute { parent_refs, use_default_gateways, rules } = self;
        stream_route(report, parent_refs, *use_default_gateways, rules);
    }
}

impl Validate for UdpRoute {
    fn validate(&self, report: &mut Report<'_>) {
        let UdpRoute { parent_refs, use_default_gateways, rules } = self;
        stream_route(report, parent_refs, *use_default_gateways, rules);
    }
}

impl Validate for TlsRoute {
    fn validate(&self, report: &mut Report<'_>) {
        let TlsRoute { parent_refs, use_default_gateways, hostnames: hosts, rules } = self;
        stream_route(report, parent_refs, *use_default_gateways, rules);
        hostnames(report, hosts, MOST_SERVER_NAMES);
    }
}

fn stream_route(
    report: &mut Report<'_>,
    parents: &[ParentReference],
    use_default_gateways: UseDefaultGateways,
    rules: &[StreamRouteRule],
) {
    parent_refs(report, parents);
    default_gateways(report, use_default_gateways);
    if rules.is_empty() {
        missing(report, "rules", "add a rule with backends");
    }
    at_most(report, "rules", rules.len(), MOST_RULES);
    rule_names(report, rules.iter().map(|rule| rule.name.as_deref()));
    report.each("rules", rules, |report, rule| {
        if rule.backend_refs.is_empty() {
            let message = "is required";
            report.within("backendRefs", |report| report.error(Code::MissingField, message, "add a backend"));
        }
        at_most(report, "backendRefs", rule.backend_refs.len(), MOST_BACKENDS);
        report.each("backendRefs", &rule.backend_refs, |report, to| {
            backend(report, &to.target());
            weight(report, to.weight);
        });
    });
}
