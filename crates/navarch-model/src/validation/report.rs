//! Collects findings while walking an object, and knows where in the object the walk is.

use std::fmt::Write as _;

use crate::finding::{Code, Finding, Severity};
use crate::object::Metadata;
use crate::place::Position;
use crate::yaml::{Node, locate};

/// The findings of one object.
pub struct Report<'a> {
    root: &'a Node,
    position: &'a dyn Fn(u32, u32) -> Option<Position>,
    /// The object's metadata, which some rules look at.
    pub metadata: &'a Metadata,
    path: String,
    findings: Vec<Finding>,
    /// Findings beyond [`MOST_FINDINGS`], and the worst of them.
    dropped: usize,
    dropped_severity: Option<Severity>,
}

/// Findings of one object that are described. A broken object can have as many as it has fields, and nobody
/// reads them all.
const MOST_FINDINGS: usize = 100;

impl<'a> Report<'a> {
    /// A report on the object at `root`. `position` gives the position of a line and column.
    pub fn new(
        root: &'a Node,
        metadata: &'a Metadata,
        position: &'a dyn Fn(u32, u32) -> Option<Position>,
    ) -> Self {
        Self {
            root,
            position,
            metadata,
            path: String::new(),
            findings: Vec::new(),
            dropped: 0,
            dropped_severity: None,
        }
    }

    pub fn into_findings(mut self) -> Vec<Finding> {
        if let (Some(severity), Some(last)) = (self.dropped_severity, self.findings.last().cloned()) {
            let message = format!("{} more findings are not shown", self.dropped);
            self.findings.push(Finding { severity, message, hint: None, ..last });
        }
        self.findings
    }

    /// Walks into `field`, which may be a path of several fields.
    pub fn within<T>(&mut self, field: &str, walk: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        if length > 0 && !field.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(field);
        let result = walk(self);
        self.path.truncate(length);
        result
    }

    /// Walks to `path` from the object's root, wherever the walk is.
    pub fn at_root<T>(&mut self, path: &str, walk: impl FnOnce(&mut Self) -> T) -> T {
        let here = std::mem::replace(&mut self.path, path.to_owned());
        let result = walk(self);
        self.path = here;
        result
    }

    /// Walks into the value under `key` of the mapping `field`.
    pub fn within_key<T>(&mut self, field: &str, key: &str, walk: impl FnOnce(&mut Self) -> T) -> T {
        let plain =
            !key.is_empty() && key.chars().all(|c| !matches!(c, '.' | '[' | ']' | '"') && !c.is_whitespace());
        let path = if plain { format!("{field}.{key}") } else { format!("{field}[{key:?}]") };
        self.within(&path, walk)
    }

    /// Walks into each item of the list `field`.
    pub fn each<'i, I>(&mut self, field: &str, items: &'i [I], mut walk: impl FnMut(&mut Self, &'i I)) {
        for (index, item) in items.iter().enumerate() {
            let length = self.path.len();
            if length > 0 {
                self.path.push('.');
            }
            let _ = write!(self.path, "{field}[{index}]");
            walk(self, item);
            self.path.truncate(length);
        }
    }

    /// Walks into the message `field` if it is set.
    pub fn each_set<'i, I>(&mut self, field: &str, item: Option<&'i I>, walk: impl FnOnce(&mut Self, &'i I)) {
        if let Some(item) = item {
            self.within(field, |report| walk(report, item));
        }
    }

    pub fn error(&mut self, code: Code, message: impl Into<String>, hint: impl Into<String>) {
        self.add(Severity::Error, code, message.into(), hint.into());
    }

    pub fn warning(&mut self, code: Code, message: impl Into<String>, hint: impl Into<String>) {
        self.add(Severity::Warning, code, message.into(), hint.into());
    }

    fn add(&mut self, severity: Severity, code: Code, message: String, hint: String) {
        if self.findings.len() >= MOST_FINDINGS {
            self.dropped += 1;
            // Lower is worse.
            self.dropped_severity = Some(self.dropped_severity.map_or(severity, |worst| worst.min(severity)));
            return;
        }
        let (line, column) = locate(self.root, &self.path).unwrap_or((self.root.line, self.root.column));
        let position = (self.position)(line, column);
        let mut finding = Finding::new(severity, code, message).at(position).path(self.path.clone());
        if !hint.is_empty() {
            finding.hint = Some(hint);
        }
        self.findings.push(finding);
    }
}
