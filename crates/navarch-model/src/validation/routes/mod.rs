//! Routes of the Gateway API. The rules are those of its CustomResourceDefinitions (patterns, limits and CEL
//! rules), which an API server enforces: an object that breaks one could not exist in a cluster.

mod filters;
mod grpc_route;
mod http_route;
mod references;
mod stream_routes;
mod text;

use super::Report;
use crate::finding::Code;
use crate::gateway_api::UseDefaultGateways;

/// Checks the length of a list.
fn at_most(report: &mut Report<'_>, field: &str, count: usize, most: usize) {
    if count > most {
        report.within(field, |report| {
            let message = format!("the list has {count} items");
            report.error(Code::OutOfRange, message, format!("the limit is {most}"));
        });
    }
}

/// Checks that names of rules are unique.
fn rule_names<'r>(report: &mut Report<'_>, names: impl Iterator<Item = Option<&'r str>>) {
    let mut seen = std::collections::BTreeSet::new();
    for (index, name) in names.enumerate() {
        let Some(name) = name else { continue };
        report.within(&format!("rules[{index}].name"), |report| {
            if !text::is_subdomain(name) {
                let message = format!("{name:?} is not a valid name");
                report.error(Code::InvalidName, message, text::SUBDOMAIN_HINT);
            } else if !seen.insert(name) {
                let message = format!("two rules have the name {name}");
                report.error(Code::DuplicateItem, message, "rename one of the two");
            }
        });
    }
}

fn default_gateways(report: &mut Report<'_>, use_default_gateways: UseDefaultGateways) {
    if use_default_gateways != UseDefaultGateways::None {
        report.within("useDefaultGateways", |report| {
            let message = "there are no default gateways";
            report.warning(Code::NoEffect, message, "name the gateways in parentRefs");
        });
    }
}
