//! Whether a regular expression is one that Envoy's engine, RE2, accepts and understands as its author does.
//!
//! Patterns are only passed on. They are checked here because Envoy refuses a whole route configuration for
//! one bad pattern.

use super::Report;
use crate::finding::Code;

/// The longest pattern that is accepted, as in Istio.
const LONGEST: usize = 1024;

const HINT: &str = "patterns are in RE2 syntax: https://github.com/google/re2/wiki/Syntax";

/// Checks a pattern at the current place of `report`.
pub(crate) fn regex(report: &mut Report<'_>, pattern: &str) {
    if pattern.is_empty() {
        report.error(Code::InvalidRegex, "the pattern is empty", "remove it, or use `.*` for any text");
    } else if pattern.len() > LONGEST {
        let message = format!("the pattern has {} characters", pattern.len());
        report.error(Code::InvalidRegex, message, format!("the limit is {LONGEST}"));
    } else if let Some(problem) = navarch_re2::problem(pattern) {
        report.error(Code::InvalidRegex, format!("{pattern:?}: {problem}"), HINT);
    }
}
