//! How far the client is: what it was sent last, what it accepted, what it rejected.

use std::time::Instant;

use crate::nack::Nack;

/// A response that was sent or accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResponseMark {
    pub number: u64,
    pub revision: u64,
    pub version: String,
    pub at: Instant,
}

/// Responses counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub sent: u64,
    pub rejected: u64,
}

/// What the status says of one type.
///
/// Invariant: the revision that was accepted never goes back.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    sent: Option<ResponseMark>,
    acked: Option<ResponseMark>,
    acked_revision: u64,
    /// The last rejection that has not been made good, with the number of its response.
    error: Option<(u64, Nack)>,
    /// The last response that was sent before the last bad resource was known: what is said about those up to
    /// it is judged already.
    judged_until: u64,
    totals: Totals,
}

impl Progress {
    /// The last response.
    pub fn sent(&self) -> Option<&ResponseMark> {
        self.sent.as_ref()
    }

    /// The last response that was accepted.
    pub fn acked(&self) -> Option<&ResponseMark> {
        self.acked.as_ref()
    }

    /// The newest revision that the client has fully accepted, as far as it concerns it.
    pub fn acked_revision(&self) -> u64 {
        self.acked_revision
    }

    /// The last rejection that has not been made good.
    pub fn error(&self) -> Option<&Nack> {
        self.error.as_ref().map(|(_, nack)| nack)
    }

    /// Responses counted.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// A response was sent.
    pub fn send(&mut self, mark: ResponseMark) {
        self.totals.sent += 1;
        self.sent = Some(mark);
    }

    /// Everything of `revision` is accepted.
    pub fn reach(&mut self, revision: u64) {
        self.acked_revision = self.acked_revision.max(revision);
    }

    /// The client came with what it would have been sent.
    pub fn resume(&mut self, mark: ResponseMark) {
        self.reach(mark.revision);
        self.sent = Some(mark.clone());
        self.acked = Some(mark);
    }

    /// A response was accepted.
    pub fn accept(&mut self, number: u64, revision: u64, at: Instant) {
        let version = match &self.sent {
            Some(sent) if sent.number == number => sent.version.clone(),
            _ => String::new(),
        };
        self.acked = Some(ResponseMark { number, revision, version, at });
    }

    /// A response was rejected.
    pub fn reject(&mut self, number: u64, nack: Nack) {
        self.totals.rejected += 1;
        self.error = Some((number, nack));
    }

    /// A rejection is made good by the acceptance of a later response. That of an older one says nothing
    /// about it.
    pub fn make_good(&mut self, number: u64) {
        if self.error.as_ref().is_some_and(|(rejected, _)| *rejected < number) {
            self.error = None;
        }
    }

    /// All responses so far are judged.
    pub fn judge(&mut self) {
        self.judged_until = self.sent.as_ref().map_or(0, |sent| sent.number);
    }

    /// Whether what is said about this response is judged already.
    pub fn is_judged(&self, number: u64) -> bool {
        number <= self.judged_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(number: u64, revision: u64) -> ResponseMark {
        ResponseMark { number, revision, version: format!("v{number}"), at: Instant::now() }
    }

    fn nack() -> Nack {
        let nonce = String::new();
        Nack { text: String::new(), code: 13, nonce, at: Instant::now(), names: Vec::new() }
    }

    #[test]
    fn the_version_of_a_response_is_known_as_long_as_it_is_the_last() {
        let mut progress = Progress::default();
        progress.send(mark(1, 1));
        progress.send(mark(2, 1));
        progress.accept(1, 1, Instant::now());
        assert_eq!(progress.acked().map(|mark| mark.version.as_str()), Some(""));
        progress.accept(2, 1, Instant::now());
        assert_eq!(progress.acked().map(|mark| mark.version.as_str()), Some("v2"));
        assert_eq!(progress.totals(), Totals { sent: 2, rejected: 0 });
    }

    #[test]
    fn an_error_is_made_good_by_a_later_response_only() {
        let mut progress = Progress::default();
        progress.send(mark(5, 1));
        progress.judge();
        progress.reject(5, nack());
        assert!(progress.is_judged(5) && !progress.is_judged(6));
        progress.make_good(4);
        assert!(progress.error().is_some());
        progress.make_good(6);
        assert!(progress.error().is_none());
    }

    #[test]
    fn a_revision_never_goes_back() {
        let mut progress = Progress::default();
        progress.reach(4);
        progress.resume(mark(0, 3));
        assert_eq!(progress.acked_revision(), 4);
    }
}
