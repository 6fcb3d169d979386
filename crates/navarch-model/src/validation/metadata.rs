//! Names and labels, as the Kubernetes API server checks them.

use super::Report;
use crate::finding::Code;

/// Checks an object's own metadata.
pub(crate) fn validate_metadata(report: &mut Report<'_>) {
    let metadata = report.metadata;
    if let Some(problem) = subdomain_problem(&metadata.name) {
        report.within("metadata.name", |report| {
            report.error(
                Code::InvalidName,
                format!("{:?} is not a valid name: {problem}", metadata.name),
                "use lower-case letters, digits, `-` and `.`",
            );
        });
    }
    if !metadata.namespace.is_empty()
        && let Some(problem) = label_problem(&metadata.namespace)
    {
        report.within("metadata.namespace", |report| {
            report.error(
                Code::InvalidName,
                format!("{:?} is not a valid namespace: {problem}", metadata.namespace),
                "use lower-case letters, digits and `-`",
            );
        });
    }
}

/// What keeps `text` from being an RFC 1123 subdomain, Kubernetes' form of object names.
pub(crate) fn subdomain_problem(text: &str) -> Option<&'static str> {
    if text.len() > 253 {
        return Some("it is longer than 253 characters");
    }
    text.split('.').find_map(|part| match part {
        "" => Some("a part between dots is empty"),
        part => characters_problem(part),
    })
}

/// What keeps `text` from being an RFC 1123 label, Kubernetes' form of namespaces.
pub(crate) fn label_problem(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return Some("it is empty");
    }
    if text.len() > 63 {
        return Some("it is longer than 63 characters");
    }
    characters_problem(text)
}

fn characters_problem(text: &str) -> Option<&'static str> {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !text.chars().all(|c| alphanumeric(c) || c == '-') {
        return Some("it holds a character that is not allowed");
    }
    if !text.starts_with(alphanumeric) || !text.ends_with(alphanumeric) {
        return Some("it must start and end with a letter or digit");
    }
    None
}
