//! Who writes: one of all replicas, which holds a Lease. The rules, without clock and API server.
//!
//! The times are those of client-go. A lease that nobody has renewed for its whole duration, by the
//! clock of who looks, may be taken. Who holds it stops a third earlier, by its own clock, if it
//! could not renew it: clocks are not compared, and need only run about equally fast.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long what takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// After which a lease that was not renewed may be taken.
    pub duration: Duration,
    /// For how long after its last renewal whoever holds it goes on.
    pub holds: Duration,
    /// Between two looks.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Timing { duration: seconds(15), holds: seconds(10), retry: seconds(2) }
    }
}

/// A `coordination.k8s.io/v1` Lease, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    #[serde(default)]
    pub metadata: Metadata,
    #[serde(default)]
    pub spec: Spec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Spec {
    #[serde(default)]
    pub holder_identity: Option<String>,
    #[serde(default)]
    pub lease_duration_seconds: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acquire_time: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_time: Option<String>,
    #[serde(default)]
    pub lease_transitions: Option<u32>,
}

impl Lease {
    /// Who holds it, if anybody does.
    pub(crate) fn holder(&self) -> Option<&str> {
        self.spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())
    }

    fn duration(&self) -> Duration {
        Duration::from_secs(self.spec.lease_duration_seconds.unwrap_or(0).max(1).into())
    }
}

/// What one candidate knows.
#[derive(Debug)]
pub(crate) struct Election {
    me: String,
    timing: Timing,
    /// The lease as it was seen last, and since when it has been like that.
    seen: Option<(Lease, Duration)>,
    /// Until when we may write.
    until: Option<Duration>,
}

impl Election {
    pub(crate) fn new(me: &str, timing: Timing) -> Self {
        Election { me: me.to_owned(), timing, seen: None, until: None }
    }

    /// Until when we may write, if we may.
    pub(crate) fn until(&self) -> Option<Duration> {
        self.until
    }

    /// What to write, given the lease that there is; nothing if somebody else holds it. `clock` is the time
    /// as people write it, which others only compare with what they saw before.
    pub(crate) fn bid(&mut self, now: Duration, clock: &str, found: Option<&Lease>) -> Option<Lease> {
        let Some(found) = found else {
            self.seen = None;
            return Some(self.lease(clock, &Lease::default(), true));
        };
        let since = match &self.seen {
            Some((seen, since)) if seen == found => *since,
            _ => now,
        };
        self.seen = Some((found.clone(), since));
        let mine = found.holder() == Some(self.me.as_str());
        if !mine {
            self.until = None;
        }
        let free = found.holder().is_none() || since.saturating_add(found.duration()) <= now;
        (mine || free).then(|| self.lease(clock, found, !mine))
    }

    /// Our bid, which was begun at a moment, has been accepted.
    pub(crate) fn holds(&mut self, since: Duration) {
        self.until = Some(since.saturating_add(self.timing.holds));
    }

    /// The lease for others to take, if we held it.
    pub(crate) fn resigns(&mut self, clock: &str, found: Option<&Lease>) -> Option<Lease> {
        self.until = None;
        let found = found.filter(|found| found.holder() == Some(self.me.as_str()))?;
        let mut lease = self.lease(clock, found, false);
        lease.spec.holder_identity = Some(String::new());
        lease.spec.lease_duration_seconds = Some(1);
        Some(lease)
    }

    fn lease(&self, clock: &str, found: &Lease, taken: bool) -> Lease {
        let Spec { acquire_time, lease_transitions, .. } = &found.spec;
        let transitions = lease_transitions.unwrap_or(0);
        let acquired = acquire_time.clone().filter(|_| !taken);
        let seconds = u32::try_from(self.timing.duration.as_secs()).unwrap_or(u32::MAX);
        Lease {
            metadata: found.metadata.clone(),
            spec: Spec {
                holder_identity: Some(self.me.clone()),
                lease_duration_seconds: Some(seconds.max(1)),
                acquire_time: Some(acquired.unwrap_or_else(|| clock.to_owned())),
                renew_time: Some(clock.to_owned()),
                lease_transitions: Some(transitions.saturating_add(taken.into())),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    /// An API server with one lease, which refuses bids on versions that are old.
    #[derive(Default)]
    struct Store {
        lease: Option<Lease>,
        version: u64,
    }

    impl Store {
        fn write(&mut self, bid: Lease) -> bool {
            let version = self.lease.as_ref().map(|lease| lease.metadata.resource_version.clone());
            if bid.metadata.resource_version != version.unwrap_or_default() {
                return false;
            }
            self.version += 1;
            let metadata = Metadata { resource_version: self.version.to_string() };
            self.lease = Some(Lease { metadata, ..bid });
            true
        }
    }

    fn look(one: &mut Election, store: &mut Store, now: Duration) {
        if let Some(bid) = one.bid(now, &format!("{now:?}"), store.lease.as_ref())
            && store.write(bid)
        {
            one.holds(now);
        }
    }

    fn leads(one: &Election, now: Duration) -> bool {
        one.until().is_some_and(|until| now < until)
    }

    #[test]
    fn a_lease_is_taken_when_it_has_not_been_renewed_for_its_duration() {
        let mut store = Store::default();
        let [mut one, mut other] = ["one", "other"].map(|name| Election::new(name, Timing::default()));
        look(&mut one, &mut store, S);
        look(&mut other, &mut store, S * 2);
        assert!(leads(&one, S * 2) && !leads(&other, S * 2));
        look(&mut one, &mut store, S * 10);
        look(&mut other, &mut store, S * 16);
        look(&mut other, &mut store, S * 30);
        assert!(!leads(&other, S * 30), "it was renewed after it was seen first");
        assert!(!leads(&one, S * 20), "it stops before others may start");
        look(&mut other, &mut store, S * 31);
        assert!(leads(&other, S * 31));
        look(&mut one, &mut store, S * 32);
        assert!(!leads(&one, S * 32));
        let spec = store.lease.map(|lease| lease.spec).expect("a lease");
        assert_eq!((spec.lease_transitions, spec.acquire_time), (Some(2), Some("31s".to_owned())));
    }

    #[test]
    fn who_resigns_leaves_it_to_others_at_once() {
        let mut store = Store::default();
        let [mut one, mut other] = ["one", "other"].map(|name| Election::new(name, Timing::default()));
        look(&mut one, &mut store, S);
        assert_eq!(other.resigns("", store.lease.as_ref()), None, "not theirs");
        let left = one.resigns("2s", store.lease.as_ref()).expect("a lease to leave");
        assert!(store.write(left) && !leads(&one, S * 2));
        look(&mut other, &mut store, S * 2);
        assert!(leads(&other, S * 2));
    }

    /// Candidates that look at any time, and of whose writes some are lost: before the API server has them,
    /// or after it.
    #[test]
    fn there_are_never_two_leaders() {
        let mut random = 7_u64;
        let mut draw = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let mut store = Store::default();
        let mut all = ["a", "b", "c"].map(|name| Election::new(name, Timing::default()));
        let (mut led, mut changes, mut last) = (0, 0, None);
        for tenth in 0..200_000_u64 {
            let now = Duration::from_millis(tenth * 100);
            let one = usize::try_from(draw(3)).expect("small");
            // Each is cut off for minutes now and then.
            let away = tenth / 400 % 5 == one as u64;
            if draw(20) == 0 && !away {
                let found = store.lease.clone();
                if let Some(bid) = all[one].bid(now, &now.as_millis().to_string(), found.as_ref()) {
                    match draw(10) {
                        0 => {}
                        1 => {
                            store.write(bid);
                        }
                        _ => {
                            if store.write(bid) {
                                all[one].holds(now);
                            }
                        }
                    }
                }
            }
            let leaders: Vec<usize> = (0..3).filter(|index| leads(&all[*index], now)).collect();
            assert!(leaders.len() <= 1, "{leaders:?} at {now:?}");
            if let [leader] = leaders[..] {
                led += 1;
                changes += usize::from(last.replace(leader) != Some(leader));
            }
        }
        assert!(led > 100_000 && changes > 50, "{led} {changes}");
    }
}
