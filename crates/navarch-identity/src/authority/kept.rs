//! The authority of the state directory: self-signed roots that survive restarts, and the rotation between
//! them.
//!
//! | File | |
//! |---|---|
//! | `authority.json` | the [`Rotation`]: which root signs, which are trusted. Every step replaces it |
//! | `roots/<id>.pem` | a root with its key. Written before `authority.json` names it, removed after |

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::{Authority, Horizon, HorizonError, IssueError, LeafLife, Root, Signer, SignerError};
use crate::audit::{self, Event};
use crate::certificate::Facts;
use crate::pem::PemError;
use crate::rotation::{Fleet, Pace, Report, RootId, Rotation, RotationError, Waiting};
use crate::store::{Found, StateDirectory, StoreError};
use crate::time::Timestamp;

const STATE: &str = "authority.json";

/// Is there while the directory waits for its first authority.
const EXPECTED: &str = "authority.expected";
const ROOTS: &str = "roots";

/// How much further than asked it is written down until when leaves are valid, so that it is written once an
/// hour and not once a leaf; where leaves live shorter than a day, once in a part of their life.
const AHEAD: Duration = Duration::from_secs(60 * 60);
const AHEAD_OF_LIFE: u32 = 24;

/// What to do if the directory has no authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewAuthority {
    /// Make one only if the directory was not there either: that is the first start.
    OnFirstStart,
    /// Make one. An authority that is there is never replaced.
    IfAbsent,
}

/// Why the authority cannot be opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "{directory} is there and has no authority: a disk that is not mounted, or a state that was lost? Every proxy trusts the \
         roots of the authority it had. Restore the directory, or start once with --new-authority"
    )]
    Lost { directory: String },
    #[error(
        "{directory} has roots but no authority.json, which says which of them signs. Restore it; a new authority would not know them"
    )]
    NoState { directory: String },
    #[error("{path} cannot be understood: {reason}. Restore it from a copy")]
    Malformed { path: String, reason: String },
    #[error("{path} is missing, and authority.json names it. Restore it from a copy")]
    NoRoot { path: String },
    #[error("{path}: {problem}")]
    Pem { path: String, problem: PemError },
    #[error("the root {root} cannot sign")]
    Signer {
        root: RootId,
        #[source]
        problem: SignerError,
    },
    #[error("a new root cannot be made")]
    Make(#[from] IssueError),
    #[error(transparent)]
    Rotation(#[from] RotationError),
}

/// What `authority.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    version: u32,
    rotation: Rotation,
}

const VERSION: u32 = 1;

/// The authority of a state directory.
pub struct Kept {
    ledger: Arc<Ledger>,
    trust_domain: String,
    life: LeafLife,
    authorities: Mutex<Authorities>,
}

/// What signs now.
#[derive(Clone)]
struct Authorities {
    /// For workloads.
    workloads: Arc<Authority>,
    /// For the control plane's own port. Clients know it by a file that somebody brought to their machine, so
    /// the root that is trusted longest signs for it until it goes.
    port: Arc<Authority>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

/// The state in memory, equal to that on disk whenever the lock is free.
struct Ledger {
    directory: Arc<StateDirectory>,
    rotation: Mutex<Rotation>,
}

impl Ledger {
    fn write(&self, rotation: &Rotation) -> Result<(), KeptError> {
        let state = State { version: VERSION, rotation: rotation.clone() };
        let text = serde_json::to_vec_pretty(&state)
            .map_err(|error| KeptError::Malformed { path: STATE.to_owned(), reason: error.to_string() })?;
        Ok(self.directory.replace(STATE, &text)?)
    }
}

/// The state behind a lock is replaced as a whole, so one that a panic left is as good as any.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kept {
    /// Notes in a directory that has just been made that it waits for its authority. A start that
    /// breaks off before there is one, with other things in the directory, is followed by one that
    /// may make it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn announce(directory: &StateDirectory) -> Result<(), StoreError> {
        if directory.found() == Found::Created { directory.replace(EXPECTED, b"") } else { Ok(()) }
    }

    /// Opens the authority of a directory, or makes it.
    ///
    /// # Errors
    /// If there is none and none is to be made, or what is there cannot be used. Then nothing has been
    /// changed.
    pub fn open(
        directory: Arc<StateDirectory>,
        trust_domain: &str,
        life: LeafLife,
        new: NewAuthority,
        now: Timestamp,
    ) -> Result<Self, KeptError> {
        let rotation = match read_state(&directory)? {
            Some(rotation) => rotation,
            None => {
                let path = || directory.path().display().to_string();
                if !directory.list(ROOTS)?.is_empty() && new == NewAuthority::OnFirstStart {
                    return Err(KeptError::NoState { directory: path() });
                }
                let is_first = directory.found() == Found::Created || directory.has(EXPECTED);
                if !is_first && new == NewAuthority::OnFirstStart {
                    return Err(KeptError::Lost { directory: path() });
                }
                let rotation = Rotation::new(make_root(&directory, trust_domain, now)?);
                let ledger = Ledger { directory: directory.clone(), rotation: Mutex::new(rotation.clone()) };
                ledger.write(&rotation)?;
                note(&directory, &Event::AuthorityCreated { root: rotation.signing() }, now);
                rotation
            }
        };
        if directory.has(EXPECTED) {
            directory.remove(EXPECTED)?;
        }
        let ledger = Arc::new(Ledger { directory, rotation: Mutex::new(rotation.clone()) });
        let authorities = Mutex::new(authorities(&ledger, &rotation, life, now)?);
        let kept = Kept { ledger, trust_domain: trust_domain.to_owned(), life, authorities };
        kept.remove_others(&rotation);
        Ok(kept)
    }

    /// What signs and what is trusted now.
    #[must_use]
    pub fn authority(&self) -> Arc<Authority> {
        locked(&self.authorities).workloads.clone()
    }

    /// What signs for the control plane's own port, and what is trusted.
    #[must_use]
    pub fn port_authority(&self) -> Arc<Authority> {
        locked(&self.authorities).port.clone()
    }

    /// Which root signs, and what comes next.
    #[must_use]
    pub fn rotation(&self) -> Rotation {
        locked(&self.ledger.rotation).clone()
    }

    /// Where the rotation is, and what it waits for.
    #[must_use]
    pub fn report(&self, fleet: &Fleet, pace: Pace, now: Timestamp) -> Report {
        self.rotation().report(fleet, pace, now)
    }

    /// Makes a new root, and starts to distribute it.
    ///
    /// # Errors
    /// If a rotation is going on, or the root cannot be made or kept.
    pub fn begin(&self, now: Timestamp) -> Result<(), KeptError> {
        self.change(now, |rotation| {
            // Before a key is made for nothing.
            rotation.begin(RootId::new(), now)?;
            let next = make_root(&self.ledger.directory, &self.trust_domain, now)?;
            Ok(rotation.begin(next, now)?)
        })
    }

    /// Takes the next step if it may be taken; whether it was, or what it waits for.
    ///
    /// # Errors
    /// If the step cannot be kept. Then it has not been taken.
    pub fn advance(&self, fleet: &Fleet, pace: Pace, now: Timestamp) -> Result<Option<Waiting>, KeptError> {
        let mut waiting = None;
        self.change(now, |rotation| {
            Ok(rotation.advance(fleet, pace, now).unwrap_or_else(|waits| {
                waiting = Some(waits);
                rotation.clone()
            }))
        })?;
        Ok(waiting)
    }

    /// Nothing goes on until [`Self::resume`].
    ///
    /// # Errors
    /// If no rotation is going on, or that cannot be kept.
    pub fn pause(&self, now: Timestamp) -> Result<(), KeptError> {
        self.change(now, |rotation| Ok(rotation.pause()?))
    }

    /// Goes on after [`Self::pause`].
    ///
    /// # Errors
    /// If no rotation is going on, or that cannot be kept.
    pub fn resume(&self, now: Timestamp) -> Result<(), KeptError> {
        self.change(now, |rotation| Ok(rotation.resume()?))
    }

    /// Goes back to the root before.
    ///
    /// # Errors
    /// If no rotation is going on, or that cannot be kept.
    pub fn undo(&self, now: Timestamp) -> Result<(), KeptError> {
        self.change(now, |rotation| Ok(rotation.undo(now)?))
    }

    /// One step: decided, made ready, written, and only then in effect.
    fn change(
        &self,
        now: Timestamp,
        step: impl FnOnce(&Rotation) -> Result<Rotation, KeptError>,
    ) -> Result<(), KeptError> {
        let mut current = locked(&self.ledger.rotation);
        let next = step(&current)?;
        if next == *current {
            return Ok(());
        }
        let authorities = authorities(&self.ledger, &next, self.life, now)?;
        self.ledger.write(&next)?;
        *current = next.clone();
        drop(current);
        *locked(&self.authorities) = authorities;
        let (phase, paused) = (next.phase(), next.is_paused());
        note(&self.ledger.directory, &Event::RotationChanged { phase, paused }, now);
        self.remove_others(&next);
        Ok(())
    }

    /// Removes roots that are not trusted: of a rotation that is over, or that a crash left before it was
    /// one. If that fails, the next start tries again.
    fn remove_others(&self, rotation: &Rotation) {
        let trusted: Vec<String> = rotation.trusted().iter().map(file_name).collect();
        for name in self.ledger.directory.list(ROOTS).unwrap_or_default() {
            if !trusted.contains(&name)
                && let Err(error) = self.ledger.directory.remove(&format!("{ROOTS}/{name}"))
            {
                tracing::warn!(%error, "a root that is not used any more stays in the state directory");
            }
        }
    }
}

/// A root as it is kept, without its key.
#[derive(Clone, Debug)]
pub struct KeptRoot {
    pub id: RootId,
    pub certificate: CertificateDer<'static>,
    pub facts: Facts,
}

/// What a directory holds, without changing or claiming it: where the rotation is, and the roots that are
/// trusted, the signing one first. `None`: there is no authority.
///
/// # Errors
/// If what is there cannot be read.
pub fn inspect(directory: &StateDirectory) -> Result<Option<(Rotation, Vec<KeptRoot>)>, KeptError> {
    let Some(rotation) = read_state(directory)? else { return Ok(None) };
    let mut roots = Vec::new();
    for id in rotation.trusted() {
        let Root { certificate, key: _ } = read_root(directory, &id)?;
        let facts = Facts::of(&certificate)
            .map_err(|problem| KeptError::Signer { root: id.clone(), problem: problem.into() })?;
        roots.push(KeptRoot { id, certificate, facts });
    }
    Ok(Some((rotation, roots)))
}

fn read_state(directory: &StateDirectory) -> Result<Option<Rotation>, KeptError> {
    let Some(text) = directory.read(STATE)? else { return Ok(None) };
    let malformed = |reason: String| KeptError::Malformed {
        path: directory.path().join(STATE).display().to_string(),
        reason,
    };
    let state: State = serde_json::from_slice(text.expose()).map_err(|error| malformed(error.to_string()))?;
    if state.version != VERSION {
        return Err(malformed(format!("its version is {}, and {VERSION} is known", state.version)));
    }
    Ok(Some(state.rotation))
}

/// What has been done is not undone because it cannot be written into the audit file.
fn note(directory: &StateDirectory, event: &Event<'_>, now: Timestamp) {
    if let Err(error) = audit::record(directory, event, now) {
        tracing::warn!(%error, "a change of the authority is not in the audit file");
    }
}

fn file_name(root: &RootId) -> String {
    format!("{root}.pem")
}

fn make_root(directory: &StateDirectory, trust_domain: &str, now: Timestamp) -> Result<RootId, KeptError> {
    let root = Root::generate(trust_domain, now)?;
    let id = root.id();
    directory.replace(&format!("{ROOTS}/{}", file_name(&id)), root.to_pem().expose())?;
    Ok(id)
}

fn read_root(directory: &StateDirectory, id: &RootId) -> Result<Root, KeptError> {
    let name = format!("{ROOTS}/{}", file_name(id));
    let path = || directory.path().join(&name).display().to_string();
    let text = directory.read(&name)?.ok_or_else(|| KeptError::NoRoot { path: path() })?;
    let root = Root::from_pem(text).map_err(|problem| KeptError::Pem { path: path(), problem })?;
    if root.id() != *id {
        let reason = "it is not the certificate that its name says".to_owned();
        return Err(KeptError::Malformed { path: path(), reason });
    }
    Ok(root)
}

fn authorities(
    ledger: &Arc<Ledger>,
    rotation: &Rotation,
    life: LeafLife,
    now: Timestamp,
) -> Result<Authorities, KeptError> {
    let signing = rotation.signing();
    let roots = rotation
        .trusted()
        .iter()
        .map(|id| read_root(&ledger.directory, id))
        .collect::<Result<Vec<_>, _>>()?;
    let certificates: Vec<_> = roots.iter().map(|root| root.certificate.clone()).collect();
    let signer = |root: &Root| {
        Signer::new(&root.certificate, &root.key, &[], &certificates, now)
            .map_err(|problem| KeptError::Signer { root: root.id(), problem })
    };
    let absent = || KeptError::NoRoot { path: ROOTS.to_owned() };
    let root = roots.first().ok_or_else(absent)?;
    let oldest =
        roots.iter().min_by_key(|root| Facts::of(&root.certificate).ok().map(|facts| facts.not_before));
    let port = Authority::new(signer(oldest.ok_or_else(absent)?)?, certificates.clone(), life, None);
    let known = rotation.issued_until(signing).unwrap_or_default();
    let horizon = RootHorizon {
        ledger: ledger.clone(),
        root: signing.clone(),
        known: AtomicU64::new(known.0),
        ahead: AHEAD.min(life.default / AHEAD_OF_LIFE),
    };
    let workloads = Authority::new(signer(root)?, certificates.clone(), life, Some(Arc::new(horizon)));
    Ok(Authorities { workloads: Arc::new(workloads), port: Arc::new(port) })
}

/// Until when leaves of one root are valid, written ahead.
struct RootHorizon {
    ledger: Arc<Ledger>,
    root: RootId,
    /// What is written, in seconds. Only grows.
    known: AtomicU64,
    ahead: Duration,
}

impl Horizon for RootHorizon {
    fn reserve(&self, until: Timestamp) -> Result<(), HorizonError> {
        if until.0 <= self.known.load(Ordering::Acquire) {
            return Ok(());
        }
        let ahead = until.after(self.ahead);
        let mut rotation = locked(&self.ledger.rotation);
        let Some(reserved) = rotation.reserve(&self.root, until)? else {
            // Another thread was faster.
            let known = rotation.issued_until(&self.root).unwrap_or_default();
            self.known.fetch_max(known.0, Ordering::AcqRel);
            return Ok(());
        };
        let reserved = reserved.reserve(&self.root, ahead)?.unwrap_or(reserved);
        match self.ledger.write(&reserved) {
            Ok(()) => {}
            Err(KeptError::Store(error)) => return Err(HorizonError::Store(error)),
            // Only writing can fail in writing.
            Err(error) => {
                let (doing, path) = ("write", self.ledger.directory.path().join(STATE));
                let source = std::io::Error::other(error);
                return Err(HorizonError::Store(StoreError::Io { doing, path, source }));
            }
        }
        *rotation = reserved;
        self.known.fetch_max(ahead.0, Ordering::AcqRel);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use navarch_model::identity::SpiffeId;
    use rcgen::KeyPair;

    use super::*;
    use crate::request::PublicKey;

    const NOW: Timestamp = Timestamp(1_800_000_000);
    const PACE: Pace = Pace { settle: Duration::ZERO, skew: Duration::ZERO };

    fn open_with(path: &Path, new: NewAuthority) -> Result<Kept, KeptError> {
        let directory = Arc::new(StateDirectory::open(path)?);
        Kept::open(directory, "cluster.local", LeafLife::default(), new, NOW)
    }

    fn open(path: &Path) -> Kept {
        open_with(path, NewAuthority::OnFirstStart).expect("an authority")
    }

    fn issue(kept: &Kept, now: Timestamp) -> Result<super::super::Issued, IssueError> {
        let key = PublicKey::of(&KeyPair::generate().expect("a key"));
        let id = SpiffeId::new("cluster.local", "shop", "web").expect("an id");
        kept.authority().issue(&id, &key, Duration::ZERO, now)
    }

    fn willing(kept: &Kept) -> Fleet {
        Fleet { bundle: kept.rotation().trusted(), ..Fleet::default() }
    }

    #[test]
    fn the_authority_survives_a_restart() {
        let temp = tempfile::tempdir().expect("a directory");
        let path = temp.path().join("state");
        let roots = open(&path).authority().roots_pem().to_owned();
        let (rotation, found) =
            inspect(&StateDirectory::open(&path).expect("open")).expect("read").expect("an authority");
        assert_eq!((rotation.signing(), found.len()), (&found[0].id, 1));
        assert_eq!(found[0].facts.uris, ["spiffe://cluster.local"]);
        assert_eq!(open(&path).authority().roots_pem(), roots);
        let kept = open_with(&path, NewAuthority::IfAbsent).expect("an authority");
        assert_eq!(kept.authority().roots_pem(), roots, "one that is there is not replaced");
    }

    #[test]
    fn a_lost_state_is_an_error_or_a_decision() {
        let temp = tempfile::tempdir().expect("a directory");
        let path = temp.path().join("state");
        let check = |expected: &str| {
            let error = open_with(&path, NewAuthority::OnFirstStart).expect_err("lost");
            assert!(error.to_string().contains(expected), "{error}");
        };
        drop(StateDirectory::open(&path).expect("made"));
        check("start once with --new-authority");
        let kept = open_with(&path, NewAuthority::IfAbsent).expect("an authority");
        let root = path.join(ROOTS).join(file_name(kept.rotation().signing()));
        let state = path.join(STATE);
        let text = std::fs::read(&state).expect("read");
        std::fs::remove_file(&state).expect("removed");
        check("has roots but no authority.json");
        StateDirectory::open(&path).expect("open").replace(STATE, b"{}").expect("written");
        check("authority.json cannot be understood");
        StateDirectory::open(&path).expect("open").replace(STATE, &text).expect("written");
        let key = std::fs::read(&root).expect("read");
        std::fs::remove_file(&root).expect("removed");
        check("is missing, and authority.json names it");
        let name = format!("{ROOTS}/{}", file_name(kept.rotation().signing()));
        let other = Root::generate("other", NOW).expect("a root");
        StateDirectory::open(&path).expect("open").replace(&name, other.to_pem().expose()).expect("written");
        check("not the certificate that its name says");
        StateDirectory::open(&path).expect("open").replace(&name, &key).expect("written");
        open(&path);
    }

    #[test]
    fn a_first_start_that_broke_off_may_be_repeated() {
        let temp = tempfile::tempdir().expect("a directory");
        let path = temp.path().join("state");
        let expect = || {
            let directory = StateDirectory::open(&path).expect("open");
            Kept::announce(&directory).expect("noted");
            directory
        };
        expect().replace("kubernetes/Secret", b"").expect("written");
        let roots = open(&path).authority().roots_pem().to_owned();
        expect();
        assert_eq!(open(&path).authority().roots_pem(), roots, "it is made once");
        std::fs::remove_dir_all(path.join(ROOTS)).expect("removed");
        std::fs::remove_file(path.join(STATE)).expect("removed");
        expect();
        let error = open_with(&path, NewAuthority::OnFirstStart).expect_err("lost");
        assert!(matches!(error, KeptError::Lost { .. }), "{error}");
    }

    #[test]
    fn a_rotation_keeps_what_is_needed_and_no_more() {
        let temp = tempfile::tempdir().expect("a directory");
        let path = temp.path().join("state");
        let kept = open(&path);
        let roots = || StateDirectory::open(&path).expect("open").list(ROOTS).expect("listed").len();
        let old = kept.rotation().signing().clone();
        let first = kept.authority().signer().subject().to_owned();
        let leaf = issue(&kept, NOW).expect("a leaf");
        let begun = NOW.after(AHEAD);
        kept.begin(begun).expect("begun");
        assert_eq!((kept.authority().roots().len(), roots()), (2, 2));
        assert_eq!(kept.rotation().signing(), &old);
        assert_eq!(kept.advance(&willing(&kept), PACE, begun).expect("written"), None);
        assert_ne!(kept.rotation().signing(), &old);
        assert_ne!(kept.authority().signer().subject(), first);
        assert_eq!(
            kept.port_authority().signer().subject(),
            first,
            "who knows only the first root is served"
        );
        let chain = issue(&kept, NOW).expect("a leaf").chain;
        assert_eq!(chain.len(), 2, "leaf, and both roots in one text");
        assert_eq!(chain[1].matches("BEGIN CERTIFICATE").count(), 2);
        let waiting = kept.advance(&willing(&kept), PACE, leaf.not_after).expect("written");
        assert!(matches!(waiting, Some(Waiting::Leaves { .. })), "{waiting:?}");
        let later = leaf.not_after.after(AHEAD);
        assert_eq!(kept.advance(&willing(&kept), PACE, later).expect("written"), None);
        assert_eq!((kept.authority().roots().len(), roots()), (1, 1));
        assert_ne!(kept.port_authority().signer().subject(), first);
    }

    #[test]
    fn a_leaf_is_refused_if_its_end_cannot_be_written_down() {
        let temp = tempfile::tempdir().expect("a directory");
        let kept = open(&temp.path().join("state"));
        kept.ledger.directory.power.lasts(0);
        assert!(matches!(issue(&kept, NOW), Err(IssueError::Horizon(HorizonError::Store(_)))));
        kept.ledger.directory.power.lasts(usize::MAX);
        issue(&kept, NOW).expect("a leaf");
        kept.ledger.directory.power.lasts(0);
        issue(&kept, NOW.after(AHEAD / 2)).expect("written ahead");
        assert!(issue(&kept, NOW.after(AHEAD * 2)).is_err());
    }

    #[test]
    fn an_authority_that_was_replaced_signs_no_more() {
        let temp = tempfile::tempdir().expect("a directory");
        let kept = open(&temp.path().join("state"));
        let old = kept.authority();
        kept.begin(NOW).expect("begun");
        kept.advance(&willing(&kept), PACE, NOW).expect("written");
        kept.advance(&willing(&kept), PACE, NOW).expect("written");
        assert_eq!(kept.authority().roots().len(), 1);
        let key = PublicKey::of(&KeyPair::generate().expect("a key"));
        let id = SpiffeId::new("cluster.local", "shop", "web").expect("an id");
        let refused = old.issue(&id, &key, Duration::ZERO, NOW);
        assert!(matches!(refused, Err(IssueError::Horizon(HorizonError::Rotation(_)))));
    }

    /// The power goes out at every step of every change. Afterwards the directory holds the rotation before
    /// the change or after it, with every root that it trusts; what was said to be done is done, and the
    /// change can be tried again.
    #[test]
    fn a_crash_at_any_step_loses_nothing() {
        type Change = fn(&Kept) -> Result<(), KeptError>;
        let changes: [(&str, Change); 7] = [
            ("begin", |kept| kept.begin(NOW)),
            ("pause", |kept| kept.pause(NOW)),
            ("resume", |kept| kept.resume(NOW)),
            ("sign with the new root", |kept| kept.advance(&willing(kept), PACE, NOW).map(drop)),
            ("issue", |kept| match issue(kept, NOW) {
                Err(IssueError::Horizon(HorizonError::Store(error))) => Err(error.into()),
                issued => issued.map(drop).map_err(KeptError::from),
            }),
            ("undo", |kept| kept.undo(NOW)),
            ("retire", |kept| {
                kept.advance(&willing(kept), PACE, NOW.after(Duration::from_secs(1 << 20))).map(drop)
            }),
        ];
        let temp = tempfile::tempdir().expect("a directory");
        let path = temp.path().join("state");
        drop(open(&path));
        let mut crashes = 0;
        for (name, change) in changes {
            let before = open(&path).rotation();
            for steps in 0.. {
                let kept = open(&path);
                kept.ledger.directory.power.lasts(steps);
                let done = change(&kept);
                let in_memory = kept.rotation();
                drop(kept);
                let reopened = open(&path);
                let after = reopened.rotation();
                if done.is_ok() {
                    assert_eq!(after, in_memory, "{name}: what was done is kept");
                    assert_ne!(after, before, "{name}: something was done");
                    break;
                }
                crashes += 1;
                assert_eq!(in_memory, before, "{name}, {steps}: what was not written is not in effect");
                // Opening has read every root that is trusted and signed with the one that signs. It also
                // removes what the crash left.
                let kept_roots = reopened.ledger.directory.list(ROOTS).expect("listed");
                let mut trusted: Vec<_> = after.trusted().iter().map(file_name).collect();
                trusted.sort();
                assert_eq!(kept_roots, trusted, "{name}, {steps}");
                if after != before {
                    // It had reached the disk, and the caller was not told so. Trying it again may then be
                    // refused; the test goes on.
                    break;
                }
            }
        }
        assert!(crashes > 20, "{crashes} crashes");
        assert_eq!(open(&path).rotation().trusted().len(), 1);
    }
}
