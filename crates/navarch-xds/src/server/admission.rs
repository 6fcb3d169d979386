//! Admission of new streams: a token bucket.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Lets through so many streams per second, and as many at once after a quiet second.
#[derive(Debug)]
pub struct Admission {
    per_second: f64,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Admission {
    pub fn new(per_second: f64) -> Self {
        let tokens = per_second.max(1.0);
        Self { per_second: tokens, bucket: Mutex::new(Bucket { tokens, at: Instant::now() }) }
    }

    pub fn admit(&self) -> bool {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> bool {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.tokens = (bucket.tokens + passed * self.per_second).min(self.per_second);
        bucket.at = now;
        let admitted = bucket.tokens >= 1.0;
        if admitted {
            bucket.tokens -= 1.0;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rec_11_new_streams_are_limited_per_second() {
        let admission = Admission::new(10.0);
        let start = Instant::now();
        let count = |at| (0..100).filter(|_| admission.admit_at(at)).count();
        assert_eq!(count(start), 10);
        assert_eq!(count(start + Duration::from_millis(500)), 5);
        assert_eq!(count(start + Duration::from_secs(60)), 10);
    }
}
