//! Moments, in whole seconds.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::UnixTime;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// A moment, in whole seconds since 1970-01-01 UTC. Certificates and tokens know no smaller unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

/// The last moment that a certificate can say: 9999-12-31T23:59:59Z (RFC 5280, 4.1.2.5).
const LAST: u64 = 253_402_300_799;

impl Timestamp {
    /// This moment and a while; never later than a certificate can say.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Timestamp(self.0.saturating_add(span.as_secs()).min(LAST))
    }

    /// This moment less a while.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Timestamp(self.0.saturating_sub(span.as_secs()))
    }

    /// How long it is until `later`; nothing if that has passed.
    #[must_use]
    pub fn until(self, later: Timestamp) -> Duration {
        Duration::from_secs(later.0.saturating_sub(self.0))
    }

    /// From the seconds of a certificate. Times before 1970 are 1970: both have passed.
    #[must_use]
    pub fn from_seconds(seconds: i64) -> Self {
        Timestamp(u64::try_from(seconds).unwrap_or_default().min(LAST))
    }

    pub(crate) fn date_time(self) -> OffsetDateTime {
        let seconds = i64::try_from(self.0.min(LAST)).unwrap_or_default();
        OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    pub(crate) fn unix(self) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(self.0))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Timestamp(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    }
}

/// As RFC 3339 writes it, in UTC: `2026-01-31T12:00:00Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.date_time();
        let (date, (hour, minute, second)) = (time.date(), time.to_hms());
        let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_796_000_461, "2026-11-30T01:01:01Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Timestamp(seconds).to_string(), text);
        }
    }

    #[test]
    fn arithmetic_stays_within_what_certificates_can_say() {
        let hour = Duration::from_secs(3600);
        assert_eq!(Timestamp(10).before(hour), Timestamp(0));
        assert_eq!(Timestamp(u64::MAX).after(hour), Timestamp(LAST));
        assert_eq!(Timestamp(7200).until(Timestamp(3600)), Duration::ZERO);
        assert_eq!(Timestamp(3600).until(Timestamp(7200)), hour);
        assert_eq!(Timestamp::from_seconds(-1), Timestamp(0));
    }
}
