//! How often one caller may ask.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

/// Callers that are told apart. Beyond that, those who are new share one allowance.
const CALLERS_MAX: usize = 100_000;

/// How much one caller may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Requests at once.
    pub burst: u32,
    /// Time after which another one is allowed.
    pub every: Duration,
}

/// Counts requests per caller: a bucket of tokens each. The time is an argument, as everywhere, and any clock
/// will do.
#[derive(Debug)]
pub struct RateLimit<K> {
    allowance: Allowance,
    /// When the bucket of a caller will be full again. A caller without an entry has a full one.
    full_at: HashMap<K, Duration>,
    /// The same for all callers beyond the number that is told apart.
    others_full_at: Duration,
    callers_max: usize,
}

/// The caller has to wait so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests; the next one is allowed in {} ms", retry_after.as_millis())]
pub struct TooMany {
    pub retry_after: Duration,
}

impl<K: Hash + Eq> RateLimit<K> {
    /// Everybody has their whole allowance.
    #[must_use]
    pub fn new(allowance: Allowance) -> Self {
        let full_at = HashMap::new();
        RateLimit { allowance, full_at, others_full_at: Duration::ZERO, callers_max: CALLERS_MAX }
    }

    /// Counts a request of a caller at `now`, if it is allowed.
    ///
    /// # Errors
    /// If it is not, and then it is not counted.
    pub fn take(&mut self, caller: K, now: Duration) -> Result<(), TooMany> {
        let Allowance { burst, every } = self.allowance;
        let is_new = !self.full_at.contains_key(&caller);
        if is_new && self.full_at.len() >= self.callers_max {
            // A full bucket is as good as none.
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        let is_counted = !is_new || self.full_at.len() < self.callers_max;
        let known = self.full_at.get(&caller).copied().unwrap_or_default();
        let before = if is_counted { known } else { self.others_full_at };
        let latest = now + every * burst;
        // As many tokens are missing as there are intervals until the bucket is full. A clock that was set
        // back must not shut a caller out: nobody's bucket is emptier than empty.
        let before = before.clamp(now, latest);
        let taken = if before + every > latest {
            Err(TooMany { retry_after: before + every - latest })
        } else {
            Ok(())
        };
        let full_at = if taken.is_ok() { before + every } else { before };
        if is_counted {
            self.full_at.insert(caller, full_at);
        } else {
            self.others_full_at = full_at;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWANCE: Allowance = Allowance { burst: 3, every: Duration::from_millis(100) };

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_burst_is_allowed_and_then_a_rate() {
        let mut limit = RateLimit::new(ALLOWANCE);
        for (now, retry_after) in [
            (0, None),
            (0, None),
            (0, None),
            (0, Some(100)),
            (60, Some(40)),
            (100, None),
            (100, Some(100)),
            (1000, None),
            (1000, None),
            (1000, None),
            (1000, Some(100)),
        ] {
            let taken = limit.take("a", at(now)).err().map(|error| error.retry_after.as_millis() as u64);
            assert_eq!(taken, retry_after, "{now}");
        }
    }

    #[test]
    fn a_clock_that_is_set_back_shuts_nobody_out() {
        let mut limit = RateLimit::new(ALLOWANCE);
        assert!(limit.take("a", at(1_000_000)).is_ok());
        assert_eq!(limit.take("a", at(0)), Err(TooMany { retry_after: at(100) }));
        assert!(limit.take("a", at(100)).is_ok());
    }

    #[test]
    fn callers_do_not_share() {
        let mut limit = RateLimit::new(Allowance { burst: 1, ..ALLOWANCE });
        assert!(limit.take("a", at(0)).is_ok());
        assert!(limit.take("b", at(0)).is_ok());
        assert!(limit.take("a", at(0)).is_err());
    }

    #[test]
    fn many_callers_take_no_more_memory_than_a_limit() {
        let mut limit = RateLimit { callers_max: 2, ..RateLimit::new(Allowance { burst: 1, ..ALLOWANCE }) };
        assert!(limit.take(1, at(0)).is_ok() && limit.take(2, at(0)).is_ok());
        assert!(limit.take(3, at(0)).is_ok(), "the others have one together");
        assert!(limit.take(4, at(0)).is_err());
        assert!(limit.take(1, at(0)).is_err(), "who is known is still told apart");
        assert!(limit.take(4, at(100)).is_ok(), "who has waited needs no place");
        assert_eq!(limit.full_at.len(), 1);
    }
}
