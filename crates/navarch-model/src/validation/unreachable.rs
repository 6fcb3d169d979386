//! Routes and matches that an earlier one always takes the traffic of.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use super::Report;
use crate::finding::Code;
use crate::networking::{HttpMatchRequest, HttpRoute, StringMatch};

/// Longer prefixes are not looked into.
const LONGEST_PATH: usize = 2048;

/// Warns about HTTP routes that can never match.
pub(crate) fn http(report: &mut Report<'_>, routes: &[HttpRoute]) {
    let matches: Vec<Vec<HttpMatchRequest>> = routes
        .iter()
        .map(|route| {
            let unnamed = |rule: &HttpMatchRequest| HttpMatchRequest { name: String::new(), ..rule.clone() };
            route.match_.iter().map(unnamed).collect()
        })
        .collect();
    by_match(report, "http", matches.iter().map(Vec::as_slice));
    shadowed_prefixes(report, &matches);
}

/// Warns about routes after one that matches everything, and about matches that an earlier route has too.
pub(crate) fn by_match<'r, M: Eq + Hash + 'r>(
    report: &mut Report<'_>,
    field: &str,
    routes: impl Iterator<Item = &'r [M]>,
) {
    let mut seen: HashMap<&M, usize> = HashMap::new();
    let mut catch_all: Option<usize> = None;
    for (number, matches) in routes.enumerate() {
        if let Some(earlier) = catch_all {
            report.within(&format!("{field}[{number}]"), |report| {
                let message = format!("the route is never used: {field}[{earlier}] matches everything");
                report.warning(Code::Unreachable, message, "put the route without conditions last");
            });
            continue;
        }
        if matches.is_empty() {
            catch_all = Some(number);
        }
        for (index, rule) in matches.iter().enumerate() {
            match seen.get(rule).copied() {
                Some(earlier) => report.within(&format!("{field}[{number}].match[{index}]"), |report| {
                    let message = format!("the match is never used: {field}[{earlier}] has the same");
                    report.warning(Code::Unreachable, message, "remove one of the two");
                }),
                None => {
                    seen.insert(rule, number);
                }
            }
        }
    }
}

/// Warns about matches on a path below a prefix that an earlier route takes completely.
fn shadowed_prefixes(report: &mut Report<'_>, routes: &[Vec<HttpMatchRequest>]) {
    // Only plain prefixes shadow, so they are looked up by their text: quadratic work would let one object
    // stall the control plane.
    let mut plain: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, matches) in routes.iter().enumerate() {
        for (index, rule) in matches.iter().enumerate() {
            let Some(StringMatch::Prefix(prefix)) = &rule.uri else { continue };
            if rule.ignore_uri_case {
                continue;
            }
            let shadow = (0..prefix.len().min(LONGEST_PATH))
                .filter_map(|end| prefix.get(..end))
                .find_map(|shorter| plain.get_key_value(shorter));
            if let Some((shorter, earlier)) = shadow {
                report.within(&format!("http[{number}].match[{index}].uri"), |report| {
                    let message = format!(
                        "the prefix {prefix:?} is never used: http[{earlier}] takes {shorter:?} before"
                    );
                    report.warning(Code::Unreachable, message, "put the longer prefix first");
                });
            }
        }
        for rule in matches {
            if let Some(StringMatch::Prefix(prefix)) = &rule.uri
                && is_only_prefix(rule)
            {
                plain.entry(prefix).or_insert(number);
            }
        }
    }
}

/// Whether a match looks at nothing but the path.
fn is_only_prefix(rule: &HttpMatchRequest) -> bool {
    let prefix_only = HttpMatchRequest {
        uri: rule.uri.clone(),
        stat_prefix: rule.stat_prefix.clone(),
        ..HttpMatchRequest::default()
    };
    *rule == prefix_only
}
