//! What does not fit: findings at the fields that have no counterpart, or one that means something else.

use std::collections::BTreeSet;

use navarch_model::Origin;
use navarch_model::finding::{Code, Finding};
use navarch_snapshot::Snapshot;

/// How many destinations a rule of any kind of route may have.
const BACKENDS_MAX: usize = 16;

/// Collects what does not fit.
pub struct Report<'s> {
    snapshot: &'s Snapshot,
    findings: BTreeSet<Finding>,
}

impl<'s> Report<'s> {
    pub fn new(snapshot: &'s Snapshot) -> Self {
        Report { snapshot, findings: BTreeSet::new() }
    }

    /// Something is not in the result.
    pub fn lost(&mut self, origin: &Origin, message: impl Into<String>, hint: &'static str) {
        self.add(origin, Finding::error(Code::NotConverted, message.into()).hint(hint));
    }

    /// A rule with more destinations than it may have is not in the result, and gives nothing.
    pub fn limit_backends(&mut self, backends: usize, origin: &Origin) -> Option<()> {
        if backends > BACKENDS_MAX {
            let message = format!("a rule has at most {BACKENDS_MAX} destinations; the rule is left out");
            self.lost(origin, message, "split the rule, or use fewer destinations");
            return None;
        }
        Some(())
    }

    /// Something is in the result and means something else.
    pub fn differs(&mut self, origin: &Origin, message: impl Into<String>, hint: &'static str) {
        self.add(origin, Finding::warning(Code::NotConverted, message.into()).hint(hint));
    }

    fn add(&mut self, origin: &Origin, finding: Finding) {
        let Origin { key, field } = origin;
        let position = self.snapshot.object(key).and_then(|object| object.locate(field));
        self.findings.insert(finding.of(key.clone()).at(position).path(field.to_string()));
    }

    pub fn into_findings(self) -> Vec<Finding> {
        self.findings.into_iter().collect()
    }
}

/// A field of the object that an origin is about, beside or below it.
pub fn below(origin: &Origin, field: &str) -> Origin {
    match origin.field.is_empty() {
        true => Origin::field(origin.key.clone(), field),
        false => Origin::field(origin.key.clone(), &format!("{}.{field}", origin.field)),
    }
}
