//! Waiting longer after each failure, and never all at once.

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// Times between attempts: a random part of an interval that doubles.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Starts at `first` and ends at `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Backoff { first, longest, failures: 0 }
    }

    /// How long to wait after one more failure: between half of the interval and all of it.
    pub fn next(&mut self) -> Duration {
        let interval = self.first.saturating_mul(1 << self.failures.min(16)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        interval.mul_f64(0.5 + 0.5 * random())
    }

    /// It has worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since it worked.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// A number between 0 and 1.
pub(crate) fn random() -> f64 {
    let random = std::hash::RandomState::new().build_hasher().finish();
    random as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_start_again() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, longest);
        for interval in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.next();
            let interval = Duration::from_millis(interval);
            assert!(wait >= interval / 2 && wait <= interval, "{wait:?} of {interval:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= first);
    }
}
