//! Which day it is, as a fact: nothing that makes findings reads the clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use navarch_model::ClusterId;
use navarch_model::document::WrittenIn;
use navarch_model::fact::Fact;
use navarch_sources::Source;
use navarch_sources::memory::Memory;

const DAY: u64 = 86_400;

/// States the day, once a day.
pub struct Calendar(Memory);

impl Calendar {
    /// A calendar that shows today.
    #[must_use]
    pub fn new() -> Self {
        let facts =
            Memory::new("calendar", WrittenIn::Cluster { id: ClusterId::LOCAL, name: "calendar".into() });
        facts.state(Fact::Day(seconds() / DAY));
        facts.complete();
        Calendar(facts)
    }

    /// For the pipeline.
    #[must_use]
    pub fn source(&self) -> Box<dyn Source> {
        Box::new(self.0.clone())
    }

    /// Turns a leaf whenever a day is over, for ever.
    pub async fn run(self) {
        loop {
            let now = seconds();
            // A clock that is set back makes this shorter than it should be, and a day too many does no harm.
            tokio::time::sleep(Duration::from_secs(DAY - now % DAY)).await;
            self.0.state(Fact::Day(seconds() / DAY));
        }
    }
}

impl Default for Calendar {
    fn default() -> Self {
        Self::new()
    }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
