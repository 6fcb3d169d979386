//! Admission of new streams: a token bucket.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets through so many streams per second, and as many at once after a quiet second. Others wait for their
/// turn if it comes soon.
#[derive(Debug)]
pub struct Admission {
    per_second: f64,
    wait_max: Duration,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// Below zero: turns that were given to streams that wait.
    tokens: f64,
    at: Instant,
}

impl Admission {
    pub fn new(per_second: f64, wait_max: Duration) -> Self {
        let tokens = per_second.max(1.0);
        Self { per_second: tokens, wait_max, bucket: Mutex::new(Bucket { tokens, at: Instant::now() }) }
    }

    /// How long a new stream has to wait; `None` if that would be too long.
    pub fn admit(&self) -> Option<Duration> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<Duration> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.tokens = (bucket.tokens + passed * self.per_second).min(self.per_second);
        bucket.at = now;
        let missing = (1.0 - bucket.tokens).max(0.0);
        let wait = Duration::from_secs_f64(missing / self.per_second);
        let admitted = wait <= self.wait_max;
        if admitted {
            bucket.tokens -= 1.0;
        }
        admitted.then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rec_11_new_streams_are_limited_per_second() {
        let admission = Admission::new(10.0, Duration::ZERO);
        let start = Instant::now();
        let count = |at| (0..100).filter(|_| admission.admit_at(at).is_some()).count();
        assert_eq!(count(start), 10);
        assert_eq!(count(start + Duration::from_millis(500)), 5);
        assert_eq!(count(start + Duration::from_secs(60)), 10);
    }

    #[test]
    fn rec_11_streams_wait_for_a_turn_that_comes_soon() {
        let admission = Admission::new(10.0, Duration::from_secs(1));
        let start = Instant::now();
        let waits = |at: u64| -> Vec<u128> {
            let at = start + Duration::from_secs(at);
            (0..100).filter_map(|_| admission.admit_at(at)).map(|wait| wait.as_millis()).collect()
        };
        // Ten at once, one each tenth of a second, and the others are refused.
        let expected: Vec<u128> = std::iter::repeat_n(0, 10).chain((1..=10).map(|turn| 100 * turn)).collect();
        assert_eq!(waits(0), expected);
        // The turns that were given away are not given again.
        assert_eq!(waits(1), expected[10..]);
        assert_eq!(waits(60), expected);
    }
}
