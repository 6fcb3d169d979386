//! When changes are applied: at once after a quiet time, and at bounded intervals while they do not stop.

use std::future::Future;
use std::time::Duration;

use navarch_sources::Settled;
use tokio::time::Instant;

/// Quiet time after which one file that was written counts as the whole change. What one command writes
/// follows closer.
const SETTLE: Duration = Duration::from_millis(5);

/// Where changes come from.
pub trait Changes {
    /// Resolves when something may have changed. Changes since the last call count.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;

    /// What the changes that were not looked at yet look like.
    fn settled(&self) -> Settled;

    /// They are looked at now, but what is unfinished the next time.
    fn set_unfinished_aside(&mut self);
}

/// Decides when to look.
///
/// One file, written or moved into place after a quiet time, is the usual edit and is applied after
/// [`SETTLE`]. Several files, or something that was taken away, may be half of a larger edit and wait for
/// `debounce` without further events. Changes that do not stop are applied every `debounce`, or every one and
/// a half times what applying the last ones took, if that is longer: at most two thirds of the time of one
/// processor go into planning. With more than that for a pause, changes that cost half of the time already
/// make each pause, and with it the next time, longer than the one before.
///
/// Events that follow one another closer than [`SETTLE`] are one edit, for at most `longest`. If they have
/// not stopped then, nor been further apart than `debounce`, they are no edit but a stream, and to wait for
/// its end would only make each of them late: none waits longer than `debounce`, and what is being written at
/// that moment is left for the next time. It is over when nothing has changed for `longest`.
#[derive(Debug)]
pub struct Debounce {
    debounce: Duration,
    longest: Duration,
    /// Not before.
    next: Instant,
    /// When the first of the changes was reported that have not been applied.
    first: Option<Instant>,
    /// When something changed last, or was applied.
    last: Instant,
    /// Since when changes have not been further apart than `debounce`.
    since: Instant,
    /// They have been so for `longest`, and there was no such time without any since.
    is_stream: bool,
}

impl Debounce {
    /// One that may look at once.
    pub fn new(debounce: Duration, longest: Duration) -> Self {
        let now = Instant::now();
        Debounce {
            debounce,
            longest: longest.max(debounce),
            next: now,
            first: None,
            last: now,
            since: now,
            is_stream: false,
        }
    }

    /// Whether changes do not stop.
    pub fn is_stream(&self) -> bool {
        self.is_stream
    }

    /// Waits for a change, and until it is time to look at it. Gives when the first one was reported. May be
    /// cancelled and called again.
    pub async fn gather(&mut self, changes: &mut impl Changes) -> Instant {
        let first = match self.first {
            Some(first) => {
                // What was reported meanwhile is looked at together with the rest.
                if tokio::time::timeout(Duration::ZERO, changes.changed()).await.is_ok() {
                    self.noticed();
                }
                first
            }
            None => {
                changes.changed().await;
                self.noticed();
                *self.first.insert(self.last)
            }
        };
        loop {
            let settled = changes.settled();
            let (quiet, latest) = (self.quiet(first, settled), first + self.patience(settled));
            let due = quiet.min(latest).max(self.next);
            if Instant::now() >= due || tokio::time::timeout_at(due, changes.changed()).await.is_err() {
                if quiet > latest {
                    changes.set_unfinished_aside();
                }
                return first;
            }
            self.noticed();
        }
    }

    /// Something has changed.
    fn noticed(&mut self) {
        let now = Instant::now();
        let gap = now.saturating_duration_since(self.last);
        self.last = now;
        if gap > self.debounce {
            self.since = now;
        }
        // A short gap is no end of a stream: others may have had the processor meanwhile.
        let goes_on = self.is_stream && gap < self.longest;
        self.is_stream = goes_on || now.saturating_duration_since(self.since) >= self.longest;
    }

    /// How long changes may go on before they are looked at. Of a stream that is not long; but half of a list
    /// is still no list.
    fn patience(&self, settled: Settled) -> Duration {
        if self.is_stream && settled != Settled::Listing { self.debounce } else { self.longest }
    }

    /// When it has been quiet for long enough.
    fn quiet(&self, first: Instant, settled: Settled) -> Instant {
        let last = self.last;
        let soon = last + SETTLE.min(self.debounce);
        match settled {
            Settled::Edit => soon,
            Settled::Batch => soon.max(first + self.debounce).min(last + self.debounce),
            Settled::Unfinished | Settled::Listing => last + self.debounce,
        }
    }

    /// What was gathered has been applied, from then until then.
    pub fn applied(&mut self, began: Instant, ended: Instant) {
        let pause = ended.saturating_duration_since(began).min(self.longest) / 2;
        self.next = (began + self.debounce).max(ended + pause);
        self.first = None;
        self.is_stream &= began.saturating_duration_since(self.last) < self.longest;
        // That nothing was noticed in this time says nothing, nor that the next is noticed right after it.
        self.last = self.last.max(ended);
        self.since += ended.saturating_duration_since(began);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    const DEBOUNCE: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(1);

    /// Changes at given times after the start, in milliseconds, with how far they have come from then on.
    struct Script {
        start: Instant,
        events: Vec<(u64, Settled)>,
        seen: usize,
        /// How often what is unfinished was left.
        aside: usize,
    }

    impl Script {
        fn new(events: impl IntoIterator<Item = (u64, Settled)>) -> Self {
            Script { start: Instant::now(), events: events.into_iter().collect(), seen: 0, aside: 0 }
        }
    }

    impl Changes for Script {
        async fn changed(&mut self) {
            let Some((at, _)) = self.events.get(self.seen) else { return std::future::pending().await };
            tokio::time::sleep_until(self.start + Duration::from_millis(*at)).await;
            let now = self.start.elapsed().as_millis() as u64;
            self.seen = self.events.iter().take_while(|(at, _)| *at <= now).count();
        }

        fn settled(&self) -> Settled {
            self.events[self.seen - 1].1
        }

        fn set_unfinished_aside(&mut self) {
            self.aside += 1;
        }
    }

    const ONE: Settled = Settled::Edit;
    const MANY: Settled = Settled::Batch;
    const HALF: Settled = Settled::Unfinished;
    const LIST: Settled = Settled::Listing;

    /// When each of the changes is looked at, in milliseconds, if applying takes `cost`.
    async fn looks(events: impl IntoIterator<Item = (u64, Settled)>, cost: u64) -> Vec<u64> {
        looks_at(&mut Script::new(events), cost).await
    }

    async fn looks_at(script: &mut Script, cost: u64) -> Vec<u64> {
        let mut debounce = Debounce::new(DEBOUNCE, LONGEST);
        let mut looks = Vec::new();
        while script.seen < script.events.len() {
            debounce.gather(script).await;
            looks.push(script.start.elapsed().as_millis() as u64);
            let began = Instant::now();
            sleep(Duration::from_millis(cost)).await;
            debounce.applied(began, Instant::now());
        }
        looks
    }

    #[tokio::test(start_paused = true)]
    async fn one_edit_after_a_quiet_time_goes_at_once() {
        assert_eq!(looks([(0, ONE), (1000, ONE), (2000, ONE)], 10).await, [5, 1005, 2005]);
        // Its events come one after the other.
        assert_eq!(looks([(0, HALF), (1, HALF), (2, ONE)], 10).await, [7]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_be_half_an_edit_waits_for_quiet() {
        assert_eq!(looks([(0, HALF)], 1).await, [50]);
        assert_eq!(looks([(0, HALF), (40, HALF), (80, ONE)], 1).await, [85]);
        assert_eq!(looks([(0, ONE), (3, MANY)], 1).await, [50]);
        // Two hundred files, a millisecond apart.
        assert_eq!(looks((0..200).map(|at| (at, if at == 0 { ONE } else { MANY })), 1).await, [204]);
        // Not forever.
        assert_eq!(looks((0..2000).map(|at| (at, LIST)), 0).await, [1000, 2001]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_stop_is_not_waited_for_any_more() {
        let burst = |from: u64, count: u64| (from..from + count).map(|at| (at, MANY));
        let steady = looks(burst(0, 3000), 10).await;
        let gaps: Vec<_> = steady.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steady[0] == 1000 && gaps.iter().all(|gap| (50..=62).contains(gap)), "{steady:?}");
        // Nor does one that is not that close wait longer than that for a quiet moment.
        let steady = looks((0..300).map(|index| (index * 10, MANY)), 1).await;
        assert!(steady.iter().filter(|at| **at > 1100).all(|at| at % 10 == 0), "{steady:?}");
        // Something is always being written, and left for the next time.
        let mut script = Script::new((0..3000).map(|at| (at, HALF)));
        let steady = looks_at(&mut script, 10).await;
        assert!(steady[0] == 1000 && steady.len() > 30 && script.aside == steady.len(), "{steady:?}");
        // A pause does not end it.
        let steady = looks(burst(0, 1500).chain(burst(1700, 500)), 10).await;
        assert!(steady.iter().filter(|at| **at >= 1700).count() > 5, "{steady:?}");
        // After a quiet time what comes may be one edit again.
        let looks = looks(burst(0, 1500).chain(burst(5000, 200)), 10).await;
        assert_eq!(looks.last(), Some(&5204), "{looks:?}");
        assert!(looks.iter().filter(|at| **at >= 5000).count() == 1, "{looks:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_steady_stream_is_applied_once_per_interval() {
        let stream = || (0..100).map(|index| (index * 10, ONE));
        let steady = looks(stream(), 1).await;
        let gaps: Vec<_> = steady.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steady[0] == 5 && gaps.iter().all(|gap| (50..=60).contains(gap)), "{steady:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_not_forgotten_by_who_turns_to_something_else() {
        let mut script = Script::new([(0, ONE), (500, ONE)]);
        let mut debounce = Debounce::new(DEBOUNCE, LONGEST);
        for _ in 0..4 {
            let gathered = tokio::time::timeout(Duration::from_millis(1), debounce.gather(&mut script)).await;
            assert!(gathered.is_err());
        }
        let first = debounce.gather(&mut script).await;
        assert_eq!((first - script.start).as_millis(), 0);
        assert_eq!(script.start.elapsed().as_millis(), 5);

        // Nor is what went on meanwhile half of what was meant.
        let mut script = Script::new((0..30).map(|index| (index * 10, HALF)));
        let mut debounce = Debounce::new(DEBOUNCE, LONGEST);
        let gathered = tokio::time::timeout(Duration::from_millis(5), debounce.gather(&mut script)).await;
        assert!(gathered.is_err());
        sleep(Duration::from_millis(200)).await;
        debounce.gather(&mut script).await;
        assert_eq!(script.start.elapsed().as_millis(), 290 + 50);
    }

    #[tokio::test(start_paused = true)]
    async fn edits_far_apart_are_no_stream_because_applying_is_slow() {
        let second = (0..400).map(|index| (1100 + index * 2, HALF));
        assert_eq!(looks([(0, ONE)].into_iter().chain(second), 1200).await, [5, 1898 + 50]);
    }

    #[tokio::test(start_paused = true)]
    async fn applying_takes_two_thirds_of_the_time_at_most() {
        for cost in [40, 100, 400] {
            let steady = looks((0..300).map(|index| (index * 10, ONE)), cost).await;
            let gaps: Vec<_> = steady.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(
                gaps.iter().all(|gap| (3 * cost / 2..=3 * cost / 2 + 10).contains(gap)),
                "{cost}: {steady:?}"
            );
        }
        // But nothing is held back longer than it may be.
        let steady = looks((0..1000).map(|index| (index * 10, ONE)), 3000).await;
        assert!(steady.windows(2).all(|pair| pair[1] - pair[0] <= 3510), "{steady:?}");
    }
}
