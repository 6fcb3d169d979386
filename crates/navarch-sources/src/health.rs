//! Whether sources are heard, for people and for metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How well a source is heard. Clones are the same; the source tells it, and whoever shows it reads
/// it.
#[derive(Clone, Debug, Default)]
pub struct Health {
    shared: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    parts: BTreeMap<String, Part>,
    failures: u64,
    relists: u64,
}

/// One of the things that a source follows apart from the others.
#[derive(Debug, Default)]
struct Part {
    heard: bool,
    failing: Option<(Instant, String)>,
}

/// How it was before a part failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    /// Whether the part has ever been heard.
    pub heard: bool,
    /// Whether the part was failing already.
    pub failed: bool,
    /// Whether another part was failing.
    pub others_failed: bool,
}

/// How a source is heard at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Parts that are followed.
    pub parts: usize,
    /// Parts that are not heard, by name. What they said last stays in force.
    pub unheard: Vec<String>,
    /// How long the first of them has not been heard.
    pub since: Option<Duration>,
    /// Why, of the first of them.
    pub reason: String,
    /// Attempts that failed, since the start.
    pub failures: u64,
    /// How often a part was read again as a whole, since the start.
    pub relists: u64,
}

impl Health {
    /// A part is heard: what it said last is what it says now. Gives for how long it was not.
    pub fn heard(&self, part: &str) -> Option<Duration> {
        let mut state = self.lock();
        let part = state.part(part);
        part.heard = true;
        part.failing.take().map(|(since, _)| since.elapsed())
    }

    /// A part could not be heard. Gives how it was before.
    pub fn failed(&self, part: &str, reason: &str) -> Before {
        let mut state = self.lock();
        state.failures += 1;
        let others_failed = state.parts.iter().any(|(name, other)| name != part && other.failing.is_some());
        let part = state.part(part);
        let since = part.failing.take().map(|(since, _)| since);
        part.failing = Some((since.unwrap_or_else(Instant::now), reason.to_owned()));
        Before { heard: part.heard, failed: since.is_some(), others_failed }
    }

    /// A part is read as a whole once more.
    pub fn relisted(&self) {
        self.lock().relists += 1;
    }

    /// How it is now.
    pub fn report(&self) -> Report {
        let state = self.lock();
        let failing = state.parts.iter().filter_map(|(name, part)| Some((name, part.failing.as_ref()?)));
        let failing: Vec<_> = failing.collect();
        let first = failing.iter().min_by_key(|(_, (since, _))| *since);
        Report {
            parts: state.parts.len(),
            unheard: failing.iter().map(|(name, _)| (*name).clone()).collect(),
            since: first.map(|(_, (since, _))| since.elapsed()),
            reason: first.map(|(_, (_, reason))| reason.clone()).unwrap_or_default(),
            failures: state.failures,
            relists: state.relists,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn part(&mut self, name: &str) -> &mut Part {
        self.parts.entry(name.to_owned()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_that_is_silent_for_longest_says_why() {
        let health = Health::default();
        assert_eq!(health.heard("a"), None);
        let before = |heard, failed, others_failed| Before { heard, failed, others_failed };
        assert_eq!(health.failed("b", "first"), before(false, false, false), "nobody was ever heard");
        assert_eq!(health.failed("a", "second"), before(true, false, true));
        assert_eq!(health.failed("b", "still"), before(false, true, true));
        let report = health.report();
        assert_eq!((report.parts, report.failures, report.relists), (2, 3, 0));
        assert_eq!((report.unheard.join(" "), report.reason), ("a b".to_owned(), "still".to_owned()));
        assert!(health.heard("b").is_some());
        assert_eq!(health.report().reason, "second");
        assert!(health.heard("a").is_some());
        assert_eq!(health.report().unheard, Vec::<String>::new());
        assert_eq!(health.failed("b", "again"), before(true, false, false));
    }
}
