//! How one root follows another without a handshake that fails.
//!
//! ```text
//!            begin                    everybody has it               the last leaf has gone
//!   Idle  ---------->  Distributing  ------------------>  Retiring  ----------------------->  Idle
//!   one root           the old root signs,               the new root signs,                 one root
//!                      both are trusted                  both are trusted
//!            <---------  undo                  <------>  undo (the two change places)
//! ```
//!
//! A root signs only when all proxies that are connected have acknowledged a bundle with it, and stays
//! trusted until nothing that it signed is valid any more. This file is arithmetic: it reads no clock, asks
//! no proxy and writes no file. A step is a new value, and whoever keeps the value
//! ([`crate::authority::Kept`]) writes it in one piece before it acts on it.

use std::collections::BTreeMap;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::certificate::fingerprint;
use crate::time::Timestamp;

/// Which root: the fingerprint of its certificate.
pub type RootId = String;

/// What a root is called.
#[must_use]
pub fn id_of_root(certificate: &CertificateDer<'_>) -> RootId {
    fingerprint([certificate.as_ref()])
}

/// Which root signs, which are trusted, and what comes next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    phase: Phase,
    /// Nothing goes on by itself.
    paused: bool,
    /// Per root, a moment after which no leaf that it signed is valid.
    issued_until: BTreeMap<RootId, Timestamp>,
}

/// Where a rotation is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum Phase {
    /// One root, and nothing going on.
    Idle { root: RootId },
    /// `next` is trusted beside `signing`, and signs nothing yet.
    Distributing { signing: RootId, next: RootId, since: Timestamp },
    /// `signing` has taken over; leaves of `old` are still out.
    Retiring { signing: RootId, old: RootId, since: Timestamp },
}

/// What the fleet is like, as the server sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// Since when this server serves. After a start everybody needs time to come back: before that, "all who
    /// are connected" are not all.
    pub serving_since: Timestamp,
    /// The roots that the acknowledgements are about.
    pub bundle: Vec<RootId>,
    /// Proxies that are connected.
    pub connected: usize,
    /// Those of them that have not acknowledged the bundle.
    pub missing: Vec<String>,
}

/// How long to wait where nothing else says when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Shortest time between the new root's first distribution, or the start of the server, and its first
    /// signature.
    pub settle: Duration,
    /// How far clocks may be apart: an old root is trusted so much longer than its last leaf.
    pub skew: Duration,
}

impl Pace {
    /// The usual pace, or a faster one where leaves live shorter than it takes.
    #[must_use]
    pub fn of_leaves(life: Duration) -> Self {
        let Pace { settle, skew } = Pace::default();
        Pace { settle: settle.min(life), skew: skew.min(life) }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Pace { settle: Duration::from_secs(60), skew: Duration::from_secs(5 * 60) }
    }
}

/// Why a rotation does not go on by itself, for now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "for", rename_all = "snake_case")]
pub enum Waiting {
    /// Nothing is going on.
    Begin,
    /// Somebody to resume it.
    Resume,
    /// Proxies to come back, until then.
    Settling { until: Timestamp },
    /// The server to distribute the roots of this phase.
    Distribution,
    /// Proxies to acknowledge.
    Acknowledgements { connected: usize, missing: Vec<String> },
    /// The last leaf of the old root.
    Leaves { until: Timestamp },
}

/// Why a rotation cannot be told to do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RotationError {
    #[error("a rotation is going on already; see `navarch ca status`, or undo it")]
    GoingOn,
    #[error("no rotation is going on")]
    NotGoingOn,
    #[error("the new root is the one that signs already")]
    SameRoot,
    #[error("the root {root} is not trusted any more and signs nothing")]
    Retired { root: RootId },
}

/// A rotation for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub phase: Phase,
    pub paused: bool,
    /// Roots in the bundle, the signing one first.
    pub trusted: Vec<RootId>,
    /// Per trusted root, a moment after which no leaf that it signed is valid; absent if it signed none.
    pub issued_until: BTreeMap<RootId, Timestamp>,
    /// What it waits for; `None` if the next step is due.
    pub waiting: Option<Waiting>,
}

impl Rotation {
    /// One root and nothing going on.
    #[must_use]
    pub fn new(root: RootId) -> Self {
        Rotation { phase: Phase::Idle { root }, paused: false, issued_until: BTreeMap::new() }
    }

    #[must_use]
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// The root that signs.
    #[must_use]
    pub fn signing(&self) -> &RootId {
        match &self.phase {
            Phase::Idle { root: signing }
            | Phase::Distributing { signing, .. }
            | Phase::Retiring { signing, .. } => signing,
        }
    }

    /// The roots of the bundle, the signing one first.
    #[must_use]
    pub fn trusted(&self) -> Vec<RootId> {
        match &self.phase {
            Phase::Idle { root } => vec![root.clone()],
            Phase::Distributing { signing, next: other, .. }
            | Phase::Retiring { signing, old: other, .. } => vec![signing.clone(), other.clone()],
        }
    }

    /// Starts to distribute another root.
    ///
    /// # Errors
    /// If another rotation is going on.
    pub fn begin(&self, next: RootId, now: Timestamp) -> Result<Self, RotationError> {
        match &self.phase {
            Phase::Idle { root } if *root == next => Err(RotationError::SameRoot),
            Phase::Idle { root } => {
                Ok(self.to(Phase::Distributing { signing: root.clone(), next, since: now }))
            }
            _ => Err(RotationError::GoingOn),
        }
    }

    /// The next step, if it may be taken now.
    ///
    /// # Errors
    /// What it has to wait for.
    pub fn advance(&self, fleet: &Fleet, pace: Pace, now: Timestamp) -> Result<Self, Waiting> {
        if self.paused && !matches!(self.phase, Phase::Idle { .. }) {
            return Err(Waiting::Resume);
        }
        match &self.phase {
            Phase::Idle { .. } => Err(Waiting::Begin),
            Phase::Distributing { signing, next, since } => {
                let until = (*since).max(fleet.serving_since).after(pace.settle);
                if now < until {
                    return Err(Waiting::Settling { until });
                }
                if fleet.bundle != self.trusted() {
                    return Err(Waiting::Distribution);
                }
                if !fleet.missing.is_empty() {
                    let (connected, missing) = (fleet.connected, fleet.missing.clone());
                    return Err(Waiting::Acknowledgements { connected, missing });
                }
                Ok(self.to(Phase::Retiring { signing: next.clone(), old: signing.clone(), since: now }))
            }
            Phase::Retiring { signing, old, .. } => {
                let until = self.issued_until.get(old).copied().unwrap_or_default().after(pace.skew);
                if now < until {
                    return Err(Waiting::Leaves { until });
                }
                Ok(self.to(Phase::Idle { root: signing.clone() }))
            }
        }
    }

    /// Nothing goes on until [`Self::resume`].
    ///
    /// # Errors
    /// If no rotation is going on.
    pub fn pause(&self) -> Result<Self, RotationError> {
        self.with_pause(true)
    }

    /// Goes on after [`Self::pause`].
    ///
    /// # Errors
    /// If no rotation is going on.
    pub fn resume(&self) -> Result<Self, RotationError> {
        self.with_pause(false)
    }

    fn with_pause(&self, paused: bool) -> Result<Self, RotationError> {
        match self.phase {
            Phase::Idle { .. } => Err(RotationError::NotGoingOn),
            _ => Ok(Rotation { paused, ..self.clone() }),
        }
    }

    /// Goes back to the root before. A root that has signed stays trusted until its last leaf has gone.
    ///
    /// # Errors
    /// If no rotation is going on: an old root that has been dropped is gone.
    pub fn undo(&self, now: Timestamp) -> Result<Self, RotationError> {
        match &self.phase {
            Phase::Idle { .. } => Err(RotationError::NotGoingOn),
            Phase::Distributing { signing, .. } => Ok(self.to(Phase::Idle { root: signing.clone() })),
            // All proxies trust both: they acknowledged that before the new one signed.
            Phase::Retiring { signing, old, .. } => {
                Ok(self.to(Phase::Retiring { signing: old.clone(), old: signing.clone(), since: now }))
            }
        }
    }

    /// A root is about to sign leaves that are valid until then. `None`: that is known already.
    ///
    /// # Errors
    /// If the root is not trusted any more.
    pub fn reserve(&self, root: &RootId, until: Timestamp) -> Result<Option<Self>, RotationError> {
        if !self.trusted().contains(root) {
            return Err(RotationError::Retired { root: root.clone() });
        }
        if self.issued_until.get(root).is_some_and(|known| *known >= until) {
            return Ok(None);
        }
        let mut reserved = self.clone();
        reserved.issued_until.insert(root.clone(), until);
        Ok(Some(reserved))
    }

    /// A moment after which no leaf of a root is valid.
    #[must_use]
    pub fn issued_until(&self, root: &RootId) -> Option<Timestamp> {
        self.issued_until.get(root).copied()
    }

    /// Where it is, and what it waits for.
    #[must_use]
    pub fn report(&self, fleet: &Fleet, pace: Pace, now: Timestamp) -> Report {
        let Rotation { phase, paused, issued_until } = self.clone();
        let waiting = self.advance(fleet, pace, now).err();
        Report { phase, paused, trusted: self.trusted(), issued_until, waiting }
    }

    /// Another phase; what is known of roots that are not trusted any more is forgotten.
    fn to(&self, phase: Phase) -> Self {
        let mut next = Rotation { phase, paused: false, issued_until: self.issued_until.clone() };
        let trusted = next.trusted();
        next.issued_until.retain(|root, _| trusted.contains(root));
        next
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NO_PACE: Pace = Pace { settle: Duration::ZERO, skew: Duration::ZERO };

    fn root(name: &str) -> RootId {
        name.to_owned()
    }

    /// A fleet that has acknowledged what a rotation trusts.
    fn willing(rotation: &Rotation) -> Fleet {
        Fleet { bundle: rotation.trusted(), connected: 3, ..Fleet::default() }
    }

    fn distributing() -> Rotation {
        Rotation::new(root("a")).begin(root("b"), Timestamp(100)).expect("begun")
    }

    fn retiring() -> Rotation {
        let reserved = distributing().reserve(&root("a"), Timestamp(500)).expect("trusted").expect("new");
        reserved.advance(&willing(&reserved), NO_PACE, Timestamp(200)).expect("advanced")
    }

    #[test]
    fn a_root_follows_another() {
        let idle = Rotation::new(root("a"));
        assert_eq!((idle.signing(), idle.trusted()), (&root("a"), vec![root("a")]));
        let distributing = distributing();
        assert_eq!(
            (distributing.signing(), distributing.trusted()),
            (&root("a"), vec![root("a"), root("b")])
        );
        let retiring = retiring();
        assert_eq!((retiring.signing(), retiring.trusted()), (&root("b"), vec![root("b"), root("a")]));
        let done = retiring.advance(&Fleet::default(), NO_PACE, Timestamp(500)).expect("advanced");
        assert_eq!((done.signing(), done.trusted()), (&root("b"), vec![root("b")]));
        assert_eq!(done, Rotation::new(root("b")), "nothing is left of the old root");
    }

    #[test]
    fn the_new_root_waits_for_everybody() {
        let rotation = distributing();
        let all = willing(&rotation);
        let check = |fleet: Fleet, pace: Pace, now: u64, expected: Option<Waiting>| {
            let waiting = rotation.advance(&fleet, pace, Timestamp(now)).err();
            assert_eq!(waiting, expected);
            assert_eq!(rotation.report(&fleet, pace, Timestamp(now)).waiting, expected);
        };
        let pace = Pace { settle: Duration::from_secs(60), ..NO_PACE };
        check(all.clone(), pace, 159, Some(Waiting::Settling { until: Timestamp(160) }));
        check(all.clone(), pace, 160, None);
        // A server that has just started does not know who belongs to "everybody" yet.
        let restarted = Fleet { serving_since: Timestamp(1000), ..all.clone() };
        check(restarted, pace, 1059, Some(Waiting::Settling { until: Timestamp(1060) }));
        let other = Fleet { bundle: vec![root("a")], ..all.clone() };
        check(other, NO_PACE, 1000, Some(Waiting::Distribution));
        let missing = vec!["router~web".to_owned()];
        let one = Fleet { missing: missing.clone(), ..all };
        check(one, NO_PACE, 1000, Some(Waiting::Acknowledgements { connected: 3, missing }));
    }

    #[test]
    fn the_old_root_stays_for_its_last_leaf() {
        let rotation = retiring();
        let pace = Pace { skew: Duration::from_secs(30), ..NO_PACE };
        let waiting = |now| rotation.advance(&Fleet::default(), pace, Timestamp(now)).err();
        assert_eq!(waiting(529), Some(Waiting::Leaves { until: Timestamp(530) }));
        assert_eq!(waiting(530), None);
        // A request that was under way when the new root took over.
        let late = rotation.reserve(&root("a"), Timestamp(900)).expect("trusted").expect("later than known");
        let waiting = late.advance(&Fleet::default(), NO_PACE, Timestamp(600)).err();
        assert_eq!(waiting, Some(Waiting::Leaves { until: Timestamp(900) }));
        let gone = rotation.advance(&Fleet::default(), NO_PACE, Timestamp(500)).expect("advanced");
        let error = gone.reserve(&root("a"), Timestamp(900)).expect_err("gone");
        assert_eq!(error, RotationError::Retired { root: root("a") });
    }

    #[test]
    fn a_rotation_is_paused_and_goes_on() {
        for rotation in [distributing(), retiring()] {
            let paused = rotation.pause().expect("going on");
            let late = Timestamp(10_000);
            assert_eq!(paused.advance(&willing(&paused), NO_PACE, late), Err(Waiting::Resume));
            assert_eq!(paused.resume(), Ok(rotation));
        }
        assert_eq!(Rotation::new(root("a")).pause(), Err(RotationError::NotGoingOn));
    }

    #[test]
    fn a_rotation_is_undone() {
        let now = Timestamp(300);
        assert_eq!(distributing().undo(now), Ok(Rotation::new(root("a"))));
        let back = retiring().undo(now).expect("undone");
        assert_eq!((back.signing(), back.trusted()), (&root("a"), vec![root("a"), root("b")]));
        let again = back.undo(now).expect("undone");
        assert_eq!((again.signing(), again.trusted()), (&root("b"), vec![root("b"), root("a")]));
        assert_eq!(Rotation::new(root("a")).undo(now), Err(RotationError::NotGoingOn));
    }

    #[test]
    fn one_rotation_at_a_time() {
        let now = Timestamp(300);
        assert_eq!(Rotation::new(root("a")).begin(root("a"), now), Err(RotationError::SameRoot));
        assert_eq!(distributing().begin(root("c"), now), Err(RotationError::GoingOn));
        assert_eq!(retiring().begin(root("c"), now), Err(RotationError::GoingOn));
    }

    #[test]
    fn it_is_kept_as_it_was() {
        for rotation in [Rotation::new(root("a")), distributing(), retiring()] {
            let text = serde_json::to_string(&rotation).expect("JSON");
            assert_eq!(serde_json::from_str::<Rotation>(&text).expect("a rotation"), rotation);
        }
        let unknown = r#"{"phase":{"name":"later"},"paused":false,"issued_until":{}}"#;
        assert!(serde_json::from_str::<Rotation>(unknown).is_err());
    }

    #[derive(Clone, Debug)]
    enum Act {
        Begin,
        Advance { ready: bool },
        Pause,
        Resume,
        Undo,
        Issue { life: u64 },
        Wait { seconds: u64 },
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            Just(Act::Begin),
            any::<bool>().prop_map(|ready| Act::Advance { ready }),
            Just(Act::Pause),
            Just(Act::Resume),
            Just(Act::Undo),
            (1..1000u64).prop_map(|life| Act::Issue { life }),
            (1..400u64).prop_map(|seconds| Act::Wait { seconds }),
        ];
        proptest::collection::vec(act, 0..60)
    }

    proptest! {
        /// Whatever is done, in whatever order: every leaf that is valid has a root that is trusted, and a
        /// root that signs has been acknowledged by everybody.
        #[test]
        fn no_leaf_loses_its_root(acts in acts()) {
            let (mut rotation, mut now, mut made) = (Rotation::new("0".to_owned()), Timestamp(1000), 0);
            let mut leaves: Vec<(RootId, Timestamp)> = Vec::new();
            let mut acknowledged = vec!["0".to_owned()];
            for act in acts {
                match act {
                    Act::Begin => {
                        made += 1;
                        rotation = rotation.begin(made.to_string(), now).unwrap_or(rotation);
                    }
                    Act::Advance { ready } => {
                        let missing = if ready { vec![] } else { vec!["p".to_owned()] };
                        let fleet = Fleet { missing, ..willing(&rotation) };
                        if ready {
                            acknowledged.extend(rotation.trusted());
                        }
                        rotation = rotation.advance(&fleet, NO_PACE, now).unwrap_or(rotation);
                    }
                    Act::Pause => rotation = rotation.pause().unwrap_or(rotation),
                    Act::Resume => rotation = rotation.resume().unwrap_or(rotation),
                    Act::Undo => rotation = rotation.undo(now).unwrap_or(rotation),
                    Act::Issue { life } => {
                        let (root, until) = (rotation.signing().clone(), Timestamp(now.0 + life));
                        if let Some(reserved) = rotation.reserve(&root, until).expect("the signing root is trusted") {
                            rotation = reserved;
                        }
                        leaves.push((root, until));
                    }
                    Act::Wait { seconds } => now.0 += seconds,
                }
                prop_assert!(acknowledged.contains(rotation.signing()), "{rotation:?}");
                for (root, until) in &leaves {
                    prop_assert!(now >= *until || rotation.trusted().contains(root), "{root} {until}: {rotation:?}");
                }
            }
        }
    }
}
