//! Keys of the issuers of tokens, fetched beside the way of configuration and never on it.
//!
//! Which keys are needed follows from the RequestAuthentications in force. What was fetched is a fact
//! ([`Fact::Jwks`]) and goes the way of everything else; that it cannot be fetched is one too, and a finding
//! at the line that names the URL. The last good keys stay in use while an issuer does not answer, over
//! restarts as well if there is a state directory. Without any, every token is refused.

mod address;
mod document;
mod fetch;
mod kept;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use navarch_identity::Timestamp;
use navarch_identity::tokens::jwt::KEY_SET_BYTES_MAX;
use navarch_model::document::WrittenIn;
use navarch_model::fact::{Fact, FactKey};
use navarch_model::security::RequestAuthentication;
use navarch_model::{ClusterId, Kind, Name};
use navarch_snapshot::Snapshot;
use navarch_sources::Source;
use navarch_sources::memory::Memory;
use navarch_translate::security::jwt::key_source;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::address::Addresses;
use self::document::Document;
use self::fetch::Fetcher;
use self::kept::Kept;
use crate::fleet::Fleet;
use crate::identity::now;

/// How often somebody looks what is needed and what is due.
const LOOK: Duration = Duration::from_secs(1);

/// How long keys are good before they are fetched again, give or take a tenth.
const REFRESH: Duration = Duration::from_secs(20 * 60);

/// How long after the first attempt that fails the next one is made; then twice as long, and so on.
const RETRY: Duration = Duration::from_secs(2);

/// The longest time between attempts.
const RETRY_MAX: Duration = Duration::from_secs(10 * 60);

/// Documents that are fetched at once.
const FETCHES_MAX: usize = 8;

/// Issuers that keys are fetched of. Policies of others have no keys.
const ISSUERS_MAX: usize = 1000;

/// What is told of fetching.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Networks that may be asked although they are loopback, link-local or the like.
    pub allowed: Vec<IpNet>,
    /// A file with roots of servers, beside those of the system.
    pub roots: Option<PathBuf>,
    /// The state directory, for the last good keys.
    pub state: Option<PathBuf>,
    /// Where the keys of those are who may call the control plane itself (`JWT_RULE`).
    pub own: Option<String>,
}

/// The keys of all issuers that somebody needs.
pub struct Keys {
    fetcher: Fetcher,
    facts: Memory,
    kept: Option<Kept>,
    own: Option<String>,
    issuers: Mutex<BTreeMap<String, Issuer>>,
    fetching: Arc<Semaphore>,
}

/// What is known of one issuer, by where its keys are.
#[derive(Clone, Debug)]
struct Issuer {
    keys: Option<Arc<str>>,
    fetched: Option<Timestamp>,
    next: Instant,
    failures: u32,
    error: Option<Arc<str>>,
    under_way: bool,
}

impl Issuer {
    fn new() -> Self {
        Issuer { keys: None, fetched: None, next: Instant::now(), failures: 0, error: None, under_way: false }
    }

    /// What came of an attempt, and when to make the next one.
    fn take(&mut self, source: &str, fetched: Result<Arc<str>, Arc<str>>) {
        self.under_way = false;
        match fetched {
            Ok(keys) => {
                (self.keys, self.fetched, self.error, self.failures) = (Some(keys), Some(now()), None, 0);
                // Not all at once, if all began at once.
                let number =
                    source.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
                self.next = Instant::now() + REFRESH.mul_f64(0.9 + f64::from(number % 100) / 500.0);
            }
            Err(error) => {
                let wait = RETRY.saturating_mul(1 << self.failures.min(16)).min(RETRY_MAX);
                self.failures += 1;
                (self.error, self.next) = (Some(error), Instant::now() + wait);
            }
        }
    }
}

/// An issuer, for people and programs.
#[derive(Clone, Debug, Serialize)]
pub struct IssuerStatus {
    /// Where its keys are.
    pub source: String,
    /// Whether there are keys.
    pub has_keys: bool,
    /// When they were fetched.
    pub fetched: Option<Timestamp>,
    /// Why they could not be fetched the last time.
    pub error: Option<String>,
    /// Seconds until the next attempt.
    pub next_in: u64,
}

impl Keys {
    /// Nothing is fetched yet.
    #[must_use]
    pub fn new(options: Options) -> Arc<Self> {
        let Options { allowed, roots, state, own } = options;
        let name = "issuers of tokens";
        let facts = Memory::new(name, WrittenIn::Cluster { id: ClusterId::LOCAL, name: name.into() });
        facts.complete();
        Arc::new(Keys {
            fetcher: Fetcher::new(Addresses::allowing(allowed), roots),
            facts,
            kept: state.map(Kept::new),
            own,
            issuers: Mutex::default(),
            fetching: Arc::new(Semaphore::new(FETCHES_MAX)),
        })
    }

    /// For the pipeline.
    #[must_use]
    pub fn source(&self) -> Box<dyn Source> {
        Box::new(self.facts.clone())
    }

    /// States the keys that were kept from before, for the policies in force. Says whether there are any:
    /// then they should be in the world before it is served.
    pub fn restore(&self, snapshot: &Snapshot) -> bool {
        let Some(kept) = &self.kept else { return false };
        let mut restored = false;
        for source in self.wanted(snapshot) {
            let Some((keys, fetched)) = kept.read(&source) else { continue };
            self.state_keys(&source, &keys);
            let issuer = Issuer { keys: Some(keys), fetched: Some(fetched), ..Issuer::new() };
            self.issuers.lock().insert(source, issuer);
            restored = true;
        }
        restored
    }

    /// The keys at a place, if they are known.
    #[must_use]
    pub fn at(&self, source: &str) -> Option<Arc<str>> {
        self.issuers.lock().get(source)?.keys.clone()
    }

    /// Every issuer, in the order of where the keys are.
    #[must_use]
    pub fn status(&self) -> Vec<IssuerStatus> {
        let now = Instant::now();
        let issuers = self.issuers.lock();
        let status = issuers.iter().map(|(source, issuer)| IssuerStatus {
            source: source.clone(),
            has_keys: issuer.keys.is_some(),
            fetched: issuer.fetched,
            error: issuer.error.as_deref().map(str::to_owned),
            next_in: issuer.next.saturating_duration_since(now).as_secs(),
        });
        status.collect()
    }

    /// Fetches what is needed when it is due, for ever. `told` hears of the keys of the control plane's own
    /// issuer.
    pub async fn run(self: Arc<Self>, fleet: Arc<Fleet>, told: impl Fn(&str) + Send + Sync + 'static) {
        let told = Arc::new(told);
        let mut seen = 0;
        loop {
            let snapshot = fleet.snapshot();
            if seen != snapshot.revision() || seen == 0 {
                self.want(self.wanted(&snapshot));
                seen = snapshot.revision().max(1);
            }
            for source in self.due() {
                let (keys, told) = (self.clone(), told.clone());
                tokio::spawn(async move {
                    if let Some(fetched) = keys.fetch_one(&source).await
                        && keys.own.as_ref() == Some(&source)
                    {
                        told(&fetched);
                    }
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Where the keys are that somebody needs.
    fn wanted(&self, snapshot: &Snapshot) -> BTreeSet<String> {
        let policies = snapshot.objects_of(Kind::RequestAuthentication);
        let policies = policies.filter_map(|object| object.spec::<RequestAuthentication>());
        let stated = policies.flat_map(|policy| policy.jwt_rules.iter().filter_map(key_source));
        self.own.iter().cloned().chain(stated).take(ISSUERS_MAX).collect()
    }

    /// Forgets what nobody needs any more, and begins with what is new.
    fn want(&self, wanted: BTreeSet<String>) {
        let mut issuers = self.issuers.lock();
        issuers.retain(|source, _| {
            let stays = wanted.contains(source);
            if !stays {
                let name = Name::from(source.as_str());
                self.facts.retract(FactKey::Jwks(name.clone()));
                self.facts.retract(FactKey::Unfetched(name));
            }
            stays
        });
        for source in wanted {
            issuers.entry(source).or_insert_with(Issuer::new);
        }
    }

    fn due(&self) -> Vec<String> {
        let now = Instant::now();
        let mut issuers = self.issuers.lock();
        let due = issuers.iter_mut().filter(|(_, issuer)| !issuer.under_way && issuer.next <= now);
        due.map(|(source, issuer)| {
            issuer.under_way = true;
            source.clone()
        })
        .collect()
    }

    /// One attempt; the keys, if there are any.
    async fn fetch_one(&self, source: &str) -> Option<Arc<str>> {
        let _permit = self.fetching.acquire().await;
        let fetched = self.fetch(source).await;
        match &fetched {
            Err(reason) => tracing::warn!(source, %reason, "keys of an issuer cannot be fetched"),
            // Kept before anybody relies on them: a server that is killed then still has them.
            Ok(keys) => self.keep(source, keys),
        }
        let mut issuers = self.issuers.lock();
        // Nobody may need it any more.
        let issuer = issuers.get_mut(source)?;
        issuer.take(source, fetched.clone());
        drop(issuers);
        let name = Name::from(source);
        match fetched {
            Ok(keys) => {
                self.state_keys(source, &keys);
                self.facts.retract(FactKey::Unfetched(name));
                Some(keys)
            }
            Err(reason) => {
                self.facts.state(Fact::Unfetched { source: name, reason });
                None
            }
        }
    }

    fn keep(&self, source: &str, keys: &str) {
        if let Some(kept) = &self.kept
            && let Err(error) = kept.write(source, keys, now())
        {
            tracing::warn!(source, %error, "keys of an issuer cannot be kept for the next start");
        }
    }

    async fn fetch(&self, source: &str) -> Result<Arc<str>, Arc<str>> {
        let mut url = source.to_owned();
        // The document of an issuer says where its keys are, and keys say nothing more.
        for _ in 0..2 {
            let body = self.fetcher.get(&url, KEY_SET_BYTES_MAX).await.map_err(|error| said(&error))?;
            match document::read(&body).map_err(|error| Arc::from(format!("{url}: {error}")))? {
                Document::Keys(keys) => return Ok(keys.into()),
                Document::KeysAt(next) => url = next,
            }
        }
        Err(Arc::from(format!("{url} says that the keys are elsewhere again")))
    }

    fn state_keys(&self, source: &str, keys: &Arc<str>) {
        self.facts.state(Fact::Jwks { source: source.into(), keys: keys.clone() });
    }
}

/// An error with its causes.
fn said(error: &dyn std::error::Error) -> Arc<str> {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text.into()
}

#[cfg(test)]
mod tests;
