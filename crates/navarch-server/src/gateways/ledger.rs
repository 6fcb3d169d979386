//! Which gateways have to be written, and when. No clock and no API server.

use std::collections::BTreeMap;
use std::time::Duration;

use navarch_model::ObjectKey;

use super::wanted::Wanted;

/// After the first attempt that was not all that it should be. Doubled each time.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// Where an object is: the path of its collection in all namespaces, its namespace and its name.
pub(super) type Where = (&'static str, String, String);

/// Objects that were found, by collection, namespace and name, with their versions.
pub(super) type Found = BTreeMap<Where, String>;

#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: BTreeMap<ObjectKey, Entry>,
}

#[derive(Debug)]
struct Entry {
    wanted: Wanted,
    /// Nobody has tried to make it so.
    is_new: bool,
    /// It is as it is wanted, as far as is known.
    done: bool,
    /// Its objects, in the versions that we have made.
    versions: Found,
    attempts: u32,
    not_before: Duration,
}

impl Ledger {
    /// Takes in all that is wanted. What is made for a gateway goes with it, and is forgotten.
    pub fn want(&mut self, wanted: Vec<Wanted>) {
        let mut before = std::mem::take(&mut self.entries);
        for wanted in wanted {
            let gateway = wanted.gateway.clone();
            let entry = match before.remove(&gateway) {
                Some(entry) if entry.wanted == wanted => entry,
                other => Entry {
                    wanted,
                    is_new: true,
                    done: false,
                    versions: other.map(|entry| entry.versions).unwrap_or_default(),
                    attempts: 0,
                    not_before: Duration::ZERO,
                },
            };
            self.entries.insert(gateway, entry);
        }
    }

    /// What is due, by gateway: what nobody has tried before what is tried or looked at again.
    pub fn due(&self, now: Duration) -> Vec<Wanted> {
        let is_due = |entry: &&Entry| !entry.done && entry.not_before <= now;
        let mut due: Vec<&Entry> = self.entries.values().filter(is_due).collect();
        due.sort_by_key(|entry| !entry.is_new);
        due.into_iter().map(|entry| entry.wanted.clone()).collect()
    }

    /// Gateways that are not as they are wanted, and will be due without anything else being wanted.
    pub fn pending(&self) -> usize {
        self.entries.values().filter(|entry| !entry.done).count()
    }

    /// A gateway was written; `whole` if all of it could be.
    pub fn written(&mut self, gateway: &ObjectKey, versions: Found, whole: bool, now: Duration) {
        let Some(entry) = self.entries.get_mut(gateway) else { return };
        entry.versions = versions;
        (entry.is_new, entry.done) = (false, whole);
        if whole {
            (entry.attempts, entry.not_before) = (0, Duration::ZERO);
        } else {
            let wait = AGAIN.saturating_mul(1 << entry.attempts.min(8)).min(AGAIN_MAX);
            entry.attempts = entry.attempts.saturating_add(1);
            entry.not_before = now.saturating_add(wait);
        }
    }

    /// Whether this is the first attempt of what is wanted.
    pub fn is_first(&self, gateway: &ObjectKey) -> bool {
        self.entries.get(gateway).is_none_or(|entry| entry.attempts == 0)
    }

    /// These are all the objects of a collection that there are. Gateways are due of which one is missing, or
    /// has become another.
    pub fn found(&mut self, collection: &str, found: &Found) {
        for entry in self.entries.values_mut() {
            let mut own = entry.versions.iter().filter(|((of, ..), _)| *of == collection);
            if own.any(|(place, version)| found.get(place) != Some(version)) {
                entry.done = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use navarch_model::Kind;
    use serde_json::json;

    use super::*;

    fn wanted(name: &str, says: &str) -> Wanted {
        let gateway = ObjectKey::new(Kind::KubernetesGateway, "shop", name);
        Wanted { gateway, uid: "1".into(), objects: Ok(Arc::new(vec![json!(says)])) }
    }

    fn found(version: &str) -> Found {
        [(("/apis/apps/v1/deployments", "shop".to_owned(), "a".to_owned()), version.to_owned())].into()
    }

    #[test]
    fn a_gateway_is_due_until_it_is_written_and_when_it_becomes_another() {
        let mut ledger = Ledger::default();
        let at = Duration::from_secs;
        let due = |ledger: &mut Ledger, wanted: &[Wanted], now| {
            ledger.want(wanted.to_vec());
            ledger.due(at(now)).len()
        };
        let (a, b) = (wanted("a", "x"), wanted("b", "x"));
        assert_eq!(due(&mut ledger, &[a.clone(), b.clone()], 0), 2);
        ledger.written(&a.gateway, found("5"), true, at(0));
        ledger.written(&b.gateway, Found::new(), false, at(0));
        assert_eq!(due(&mut ledger, &[a.clone(), b.clone()], 0), 0, "not again at once");
        assert!(ledger.pending() == 1 && !ledger.is_first(&b.gateway));
        assert_eq!(due(&mut ledger, &[a.clone(), b.clone()], 1), 1);
        ledger.written(&b.gateway, Found::new(), false, at(1));
        assert_eq!(due(&mut ledger, &[a.clone(), b.clone()], 2), 0, "longer each time");
        assert_eq!(due(&mut ledger, &[a.clone(), wanted("b", "y")], 2), 1, "something else is wanted");

        // What we have made ourselves is not another; what somebody else has made of it is.
        let deployments = "/apis/apps/v1/deployments";
        ledger.found(deployments, &found("5"));
        assert_eq!(due(&mut ledger, std::slice::from_ref(&a), 2), 0);
        ledger.found("/api/v1/services", &Found::new());
        assert_eq!(due(&mut ledger, std::slice::from_ref(&a), 2), 0, "of another collection");
        ledger.found(deployments, &found("6"));
        assert_eq!(due(&mut ledger, std::slice::from_ref(&a), 2), 1);
        ledger.written(&a.gateway, found("6"), true, at(2));
        ledger.found(deployments, &Found::new());
        assert_eq!(due(&mut ledger, std::slice::from_ref(&a), 2), 1, "it is gone");
        ledger.want(vec![a.clone(), b.clone()]);
        assert_eq!(ledger.due(at(2)), [b, a], "what is newly wanted comes first");
        ledger.want(Vec::new());
        assert_eq!(ledger.pending(), 0, "it goes with its gateway");
    }
}
