//! GRPCRoute.

use super::filters::{filters, session};
use super::http_route::header_matches;
use super::references::{backend, hostnames, parent_refs, weight};
use super::text::{is_grpc_method, is_grpc_service};
use super::{at_most, default_gateways, rule_names};
use crate::finding::Code;
use crate::gateway_api::{GrpcMethodMatch, GrpcRoute, GrpcRouteRule, MatchType};
use crate::validation::regex::regex;
use crate::validation::{Report, Validate};

const MOST_RULES: usize = 16;
const MOST_MATCHES: usize = 64;
/// In all rules of a route.
const MOST_MATCHES_IN_ALL: usize = 128;
const MOST_CONDITIONS: usize = 16;
const MOST_BACKENDS: usize = 16;
const MOST_HOSTS: usize = 16;
const LONGEST_NAME: usize = 1024;

impl Validate for GrpcRoute {
    fn validate(&self, report: &mut Report<'_>) {
        let GrpcRoute { parent_refs: parents, use_default_gateways, hostnames: hosts, rules } = self;
        parent_refs(report, parents);
        default_gateways(report, *use_default_gateways);
        hostnames(report, hosts, MOST_HOSTS);
        at_most(report, "rules", rules.len(), MOST_RULES);
        rule_names(report, rules.iter().map(|rule| rule.name.as_deref()));
        let matches: usize = rules.iter().map(|rule| rule.matches.len()).sum();
        if matches > MOST_MATCHES_IN_ALL {
            report.within("rules", |report| {
                let message = format!("the rules have {matches} matches");
                report.error(Code::OutOfRange, message, format!("the limit is {MOST_MATCHES_IN_ALL}"));
            });
        }
        report.each("rules", rules, self::rule);
    }
}

fn rule(report: &mut Report<'_>, rule: &GrpcRouteRule) {
    let GrpcRouteRule { name: _, matches, filters: own, backend_refs, session_persistence } = rule;
    at_most(report, "matches", matches.len(), MOST_MATCHES);
    report.each("matches", matches, |report, condition| {
        report.each_set("method", condition.method.as_ref(), self::method);
        at_most(report, "headers", condition.headers.len(), MOST_CONDITIONS);
        header_matches(report, &condition.headers, false);
    });
    filters(report, own);
    at_most(report, "backendRefs", backend_refs.len(), MOST_BACKENDS);
    report.each("backendRefs", backend_refs, |report, to| {
        backend(report, &to.target());
        weight(report, to.weight);
        filters(report, &to.filters);
    });
    report.each_set("sessionPersistence", session_persistence.as_ref(), session);
}

fn method(report: &mut Report<'_>, condition: &GrpcMethodMatch) {
    let GrpcMethodMatch { type_, service, method } = condition;
    if service.is_none() && method.is_none() {
        let message = "one of service and method must be set";
        report.error(Code::MissingField, message, "name the service, the method or both");
    }
    let is_service: fn(&str) -> bool = is_grpc_service;
    let parts = [("service", service, is_service), ("method", method, is_grpc_method)];
    for (field, text, is_name) in parts {
        let Some(text) = text else { continue };
        report.within(field, |report| {
            if text.len() > LONGEST_NAME {
                let message = format!("the name has {} characters", text.len());
                report.error(Code::OutOfRange, message, format!("the limit is {LONGEST_NAME}"));
            } else if *type_ == MatchType::RegularExpression {
                regex(report, text);
            } else if !is_name(text) {
                let message = format!("{text:?} is not the name of a gRPC {field}");
                report.error(Code::InvalidName, message, "write it as in the proto file");
            }
        });
    }
}
