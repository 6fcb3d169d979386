//! The brake: a change that would take away most of what a client has is not believed at once.
//!
//! A source of configuration that is lost looks like a wish to delete everything. Additions and changes go on
//! as always; removals wait until somebody confirms them, until some time has passed, or until what was to go
//! is back. To keep resources that nothing refers to does no harm, to delete those that serve is an outage.
//!
//! Nothing here reads a clock: the time comes with each step of the stream.

use std::time::{Duration, Instant};

use navarch_envoy::XdsType;

/// Removals within this time are judged together: a directory does not vanish in one moment.
const WINDOW: Duration = Duration::from_secs(10);

/// The types whose removals are counted. Removals of all types are held together, or what is kept would lack
/// its parts.
pub const COUNTED: [XdsType; 2] = [XdsType::Cds, XdsType::Lds];

/// How much may go at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brake {
    /// Percent of its clusters, or of its listeners, that a client may lose within ten seconds.
    pub percent_max: u32,
    /// Fewer removals than this are never held, whatever part of the whole they are.
    pub removals_min: usize,
    /// After this time the removals are believed.
    pub hold: Duration,
}

impl Default for Brake {
    fn default() -> Self {
        Self { percent_max: 50, removals_min: 10, hold: Duration::from_secs(10 * 60) }
    }
}

/// What one stream does about removals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BrakeState {
    /// They go out, as long as they are not too many.
    #[default]
    Watching,
    /// They are held.
    Holding {
        /// Since when.
        since: Instant,
    },
    /// They were held and are believed now, until the last of them is gone.
    Released,
}

/// How many resources of one type a client held recently.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recent {
    start: Option<Instant>,
    /// The most since the start.
    peak: usize,
}

impl Recent {
    /// Whether it is too much to lose `lost` of the `size` resources that a client holds now.
    pub fn is_too_much(
        &mut self,
        lost: usize,
        size: usize,
        brake: &Brake,
        holding: bool,
        now: Instant,
    ) -> bool {
        let is_over = |start| now.saturating_duration_since(start) > WINDOW;
        if !holding && self.start.is_none_or(is_over) {
            *self = Self { start: Some(now), peak: size };
        }
        // What comes and goes again and again is not a loss, so the size counts and not the number of
        // removals.
        self.peak = self.peak.max(size);
        let gone = self.peak - size.saturating_sub(lost);
        gone >= brake.removals_min && gone * 100 > self.peak * brake.percent_max as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removals_are_judged_over_some_seconds() {
        let brake = Brake::default();
        let start = Instant::now();
        // Seconds, removals, size: whether it is too much. What is not is sent.
        let check = |steps: &[(u64, usize, usize, bool)]| {
            let mut recent = Recent::default();
            for (at, lost, size, expected) in steps {
                let now = start + Duration::from_secs(*at);
                assert_eq!(recent.is_too_much(*lost, *size, &brake, false, now), *expected, "{steps:?}");
            }
        };
        check(&[(0, 9, 9, false)]);
        check(&[(0, 10, 20, false)]);
        check(&[(0, 11, 20, true)]);
        check(&[(0, 40, 100, false), (3, 20, 60, true)]);
        check(&[(0, 40, 100, false), (20, 20, 60, false)]);
        // What was added meanwhile counts.
        check(&[(0, 40, 100, false), (3, 20, 90, false)]);
        // One resource of nine that comes and goes.
        check(&[(0, 1, 9, false); 30]);
    }
}
