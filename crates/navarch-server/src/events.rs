//! Findings, told at the objects that they are about: as Events, which `kubectl describe` shows.
//!
//! An Event is named by what it says, so that the same finding is one Event, whoever tells it and however
//! often.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use navarch_kubernetes::{Event, Maker, WriteError};
use navarch_model::finding::{Finding, Severity};
use navarch_model::hashed::stable_hash;
use navarch_model::{ObjectKey, Position, Revision};
use navarch_snapshot::Snapshot;

use crate::whose;

/// Between two looks.
const POLL: Duration = Duration::from_secs(2);

/// Before what could not be told is tried again.
const AGAIN: Duration = Duration::from_secs(30);

/// Between two Events: ten a second.
const PACE: Duration = Duration::from_millis(100);

/// Findings that are told at most, the first in their order. A mesh with more has other means to read them.
const TOLD_MAX: usize = 1000;

/// The part of the name of an Event that is of the object.
const NAME_MAX: usize = 200;

/// Longest message (Kubernetes: `Event.note`).
const MESSAGE_MAX: usize = 1000;

/// What to tell of findings: of objects of the cluster that are ours to act upon, and not what is merely
/// worth knowing.
pub fn events(findings: &[Finding], snapshot: &Snapshot, revision: &Revision) -> Vec<Event> {
    let told = findings.iter().filter(|finding| {
        finding.severity != Severity::Info && matches!(finding.position, Some(Position::Cluster { .. }))
    });
    let events = told.filter_map(|finding| {
        let is_told =
            |key: &ObjectKey| key.cluster.remote_name().is_none() && whose::is_ours(snapshot, revision, key);
        let key = finding.object.clone().filter(is_told)?;
        let mut message = match finding.path.as_str() {
            "" => finding.message.clone(),
            path => format!("{path}: {}", finding.message),
        };
        if let Some(hint) = &finding.hint {
            message = format!("{message}; help: {hint}");
        }
        Some(event(snapshot, key, finding.code.as_str(), message))
    });
    events.take(TOLD_MAX).collect()
}

/// Something to tell of an object, in an Event that is the same as long as the same is told.
pub(crate) fn event(
    snapshot: &Snapshot,
    object: ObjectKey,
    reason: &'static str,
    mut message: String,
) -> Event {
    truncate(&mut message, MESSAGE_MAX);
    let said = (reason, &message, object.kind.as_str());
    let hash = stable_hash(|hasher| said.hash(hasher));
    let mut name = object.name.to_string();
    truncate(&mut name, NAME_MAX);
    // Where it was cut there may be no dot or dash (RFC 1123).
    name.truncate(name.trim_end_matches(['-', '.']).len());
    let uid = snapshot.object(&object).map(|object| object.metadata.uid.to_string()).unwrap_or_default();
    Event { name: format!("{name}.{hash:032x}"), object, uid, reason, message }
}

fn truncate(text: &mut String, bytes_max: usize) {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

/// Tells findings that are new, for as long as the program runs and whenever we are the one who writes.
pub async fn follow(
    objects: Maker,
    revision: Arc<Revision>,
    findings: Arc<ArcSwap<Vec<Finding>>>,
    latest: Arc<ArcSwap<Snapshot>>,
) {
    let mut told: BTreeSet<Event> = BTreeSet::new();
    let mut looked_at = None;
    let mut failing = false;
    loop {
        tokio::time::sleep(POLL).await;
        if !objects.may_write() {
            looked_at = None;
            continue;
        }
        let found = findings.load_full();
        if looked_at.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &found)) {
            continue;
        }
        let now: BTreeSet<Event> = events(&found, &latest.load(), &revision).into_iter().collect();
        told.retain(|event| now.contains(event));
        let mut whole = true;
        for event in now {
            if told.contains(&event) {
                continue;
            }
            match objects.apply_event(&event).await {
                Ok(()) => {
                    failing = false;
                    told.insert(event);
                }
                Err(WriteError::NotOurs) => {
                    whole = false;
                    break;
                }
                // The others are told all the same.
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(object = %event.object, %error, "a finding cannot be told as an Event; it is tried again");
                    }
                    whole = false;
                }
            }
            tokio::time::sleep(PACE).await;
        }
        if !whole {
            tokio::time::sleep(AGAIN).await;
        }
        looked_at = whole.then_some(found);
    }
}

#[cfg(test)]
mod tests {
    use navarch_model::Kind;
    use navarch_model::finding::Code;
    use navarch_snapshot::World;

    use super::*;

    #[test]
    fn a_finding_is_one_event_at_its_object_and_those_of_files_are_none() {
        let snapshot = World::new(Default::default()).snapshot().clone();
        let key = ObjectKey::new(Kind::VirtualService, "shop", "web");
        let position = Position::Cluster { cluster: "c".into(), object: key.clone() };
        let finding = |message: &str| {
            Finding::warning(Code::DuplicateItem, message)
                .of(key.clone())
                .at(position.clone())
                .hint("rename it")
        };
        let both =
            [finding("a"), finding("b"), Finding::warning(Code::DuplicateItem, "in a file").of(key.clone())];
        let [first, second]: [Event; 2] =
            events(&both, &snapshot, &Revision::default()).try_into().expect("two events");
        assert_eq!(
            (first.reason, first.message.as_str()),
            (Code::DuplicateItem.as_str(), "a; help: rename it")
        );
        assert!(first.name.starts_with("web.") && first.name != second.name);
        assert_eq!(
            events(&[finding("a")], &snapshot, &Revision::default()),
            [first],
            "the same finding is the same event"
        );
    }
}
