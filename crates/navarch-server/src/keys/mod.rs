//! Keys that others publish, fetched beside the way of configuration and never on it: those that issuers sign
//! tokens with, and the roots of other trust domains.
//!
//! Which are needed follows from the RequestAuthentications and the mesh settings in force. What was fetched
//! is a fact ([`Fact::Jwks`], [`Fact::TrustBundle`]) and goes the way of everything else; that it cannot be
//! fetched is one too, and a finding at the line that names the URL. What was good last stays in use while
//! nobody answers, over restarts as well if there is a state directory. Without any, every token and every
//! certificate of the trust domain is refused.
//!
//! [`Fact::Jwks`]: navarch_model::fact::Fact::Jwks
//! [`Fact::TrustBundle`]: navarch_model::fact::Fact::TrustBundle

mod address;
mod document;
mod fetch;
mod kept;
mod published;
mod roots;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use navarch_identity::Timestamp;
use navarch_identity::pem::PEM_BYTES_MAX;
use navarch_identity::tokens::jwt::KEY_SET_BYTES_MAX;
use navarch_model::document::WrittenIn;
use navarch_model::security::RequestAuthentication;
use navarch_model::{ClusterId, Kind};
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
pub use self::published::What;
use self::published::{Fetched, Published};
use self::roots::Roots;
use crate::fleet::Fleet;
use crate::identity::now;

/// How often somebody looks what is needed and what is due.
const LOOK: Duration = Duration::from_secs(1);

/// How long after the first attempt that fails the next one is made; then twice as long, and so on.
const RETRY: Duration = Duration::from_secs(2);

/// The longest time between attempts.
const RETRY_MAX: Duration = Duration::from_secs(10 * 60);

/// Documents that are fetched at once.
const FETCHES_MAX: usize = 8;

/// Places that something is fetched from. What is at others is not known.
const PLACES_MAX: usize = 1000;

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

/// What others publish and somebody needs.
pub struct Keys {
    fetcher: Fetcher,
    facts: Memory,
    kept: Option<Kept>,
    own: Option<String>,
    places: Mutex<BTreeMap<Published, Place>>,
    fetching: Arc<Semaphore>,
}

/// What is known of one place.
#[derive(Clone, Debug)]
struct Place {
    known: Option<Fetched>,
    fetched: Option<Timestamp>,
    next: Instant,
    failures: u32,
    error: Option<Arc<str>>,
    under_way: bool,
}

impl Place {
    fn new() -> Self {
        Place { known: None, fetched: None, next: Instant::now(), failures: 0, error: None, under_way: false }
    }

    /// What came of an attempt, and when to make the next one.
    fn take(&mut self, url: &str, fetched: Result<Fetched, Arc<str>>) {
        self.under_way = false;
        match fetched {
            Ok(fetched) => {
                // Not all at once, if all began at once.
                let number =
                    url.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
                self.next = Instant::now() + fetched.refresh.mul_f64(0.9 + f64::from(number % 100) / 500.0);
                (self.known, self.fetched, self.error, self.failures) = (Some(fetched), Some(now()), None, 0);
            }
            Err(error) => {
                let wait = RETRY.saturating_mul(1 << self.failures.min(16)).min(RETRY_MAX);
                self.failures += 1;
                (self.error, self.next) = (Some(error), Instant::now() + wait);
            }
        }
    }
}

/// A place that something is fetched from, for people and programs.
#[derive(Clone, Debug, Serialize)]
pub struct PlaceStatus {
    /// What is there: the keys of an issuer of tokens, or the roots of a trust domain.
    pub what: What,
    /// Where it is.
    pub source: String,
    /// Whether it was fetched.
    pub has_keys: bool,
    /// When it was fetched.
    pub fetched: Option<Timestamp>,
    /// Why it could not be fetched the last time.
    pub error: Option<String>,
    /// Seconds until the next attempt.
    pub next_in: u64,
}

impl Keys {
    /// Nothing is fetched yet.
    #[must_use]
    pub fn new(options: Options) -> Arc<Self> {
        let Options { allowed, roots, state, own } = options;
        let name = "published keys";
        let facts = Memory::new(name, WrittenIn::Cluster { id: ClusterId::LOCAL, name: name.into() });
        facts.complete();
        Arc::new(Keys {
            fetcher: Fetcher::new(Addresses::allowing(allowed), roots),
            facts,
            kept: state.map(Kept::new),
            own,
            places: Mutex::default(),
            fetching: Arc::new(Semaphore::new(FETCHES_MAX)),
        })
    }

    /// For the pipeline.
    #[must_use]
    pub fn source(&self) -> Box<dyn Source> {
        Box::new(self.facts.clone())
    }

    /// States what was kept from before, as far as it is needed. Says whether there is any: then it should be
    /// in the world before that is served.
    pub fn restore(&self, snapshot: &Snapshot) -> bool {
        let Some(kept) = &self.kept else { return false };
        let mut restored = false;
        for published in self.wanted(snapshot) {
            let Some((known, fetched)) = kept.read(&published) else { continue };
            self.facts.state(published.fact(&known.text));
            let place = Place { known: Some(known), fetched: Some(fetched), ..Place::new() };
            self.places.lock().insert(published, place);
            restored = true;
        }
        restored
    }

    /// The keys of tokens at a place, if they are known.
    #[must_use]
    pub fn at(&self, url: &str) -> Option<Arc<str>> {
        let places = self.places.lock();
        let known = places.get(&Published::keys(url.to_owned()))?.known.as_ref()?;
        Some(known.text.clone())
    }

    /// Every place, keys first.
    #[must_use]
    pub fn status(&self) -> Vec<PlaceStatus> {
        let now = Instant::now();
        let places = self.places.lock();
        let status = places.iter().map(|(published, place)| PlaceStatus {
            what: published.what,
            source: published.url.clone(),
            has_keys: place.known.is_some(),
            fetched: place.fetched,
            error: place.error.as_deref().map(str::to_owned),
            next_in: place.next.saturating_duration_since(now).as_secs(),
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
            for published in self.due() {
                let (keys, told) = (self.clone(), told.clone());
                tokio::spawn(async move {
                    if let Some(fetched) = keys.fetch_one(&published).await
                        && published.what == What::Keys
                        && keys.own.as_ref() == Some(&published.url)
                    {
                        told(&fetched);
                    }
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What somebody needs.
    fn wanted(&self, snapshot: &Snapshot) -> BTreeSet<Published> {
        let policies = snapshot.objects_of(Kind::RequestAuthentication);
        let policies = policies.filter_map(|object| object.spec::<RequestAuthentication>());
        let stated = policies.flat_map(|policy| policy.jwt_rules.iter().filter_map(key_source));
        let keys = self.own.iter().cloned().chain(stated).map(Published::keys);
        let view = snapshot.view();
        Published::roots_of(&view.mesh().config).chain(keys).take(PLACES_MAX).collect()
    }

    /// Forgets what nobody needs any more, and begins with what is new.
    fn want(&self, wanted: BTreeSet<Published>) {
        let mut places = self.places.lock();
        places.retain(|published, _| {
            let stays = wanted.contains(published);
            if !stays {
                self.facts.retract(published.fact_key());
                self.facts.retract(published.unfetched_key());
            }
            stays
        });
        for published in wanted {
            places.entry(published).or_insert_with(Place::new);
        }
    }

    fn due(&self) -> Vec<Published> {
        let now = Instant::now();
        let mut places = self.places.lock();
        let due = places.iter_mut().filter(|(_, place)| !place.under_way && place.next <= now);
        due.map(|(published, place)| {
            place.under_way = true;
            published.clone()
        })
        .collect()
    }

    /// One attempt; what is there, if it could be had.
    async fn fetch_one(&self, published: &Published) -> Option<Arc<str>> {
        let _permit = self.fetching.acquire().await;
        let fetched = self.fetch(published).await.and_then(|fetched| self.not_older(published, fetched));
        let url = &published.url;
        match &fetched {
            Err(reason) => tracing::warn!(url, %reason, "what is published cannot be fetched"),
            // Kept before anybody relies on it: a server that is killed then still has it.
            Ok(fetched) => self.keep(published, fetched),
        }
        let mut places = self.places.lock();
        // Nobody may need it any more.
        let place = places.get_mut(published)?;
        place.take(url, fetched.clone());
        drop(places);
        match fetched {
            Ok(fetched) => {
                self.facts.state(published.fact(&fetched.text));
                self.facts.retract(published.unfetched_key());
                Some(fetched.text)
            }
            Err(reason) => {
                self.facts.state(published.unfetched(reason));
                None
            }
        }
    }

    /// What has a smaller number than what is known was published before it.
    fn not_older(&self, published: &Published, fetched: Fetched) -> Result<Fetched, Arc<str>> {
        let places = self.places.lock();
        let known = places.get(published).and_then(|place| place.known.as_ref()?.sequence);
        match (known, fetched.sequence) {
            (Some(known), Some(number)) if number < known => {
                Err(format!("{}: number {number} is older than {known}, which is known", published.url)
                    .into())
            }
            _ => Ok(fetched),
        }
    }

    fn keep(&self, published: &Published, fetched: &Fetched) {
        if let Some(kept) = &self.kept
            && let Err(error) = kept.write(published, fetched, now())
        {
            tracing::warn!(url = published.url, %error, "what was fetched cannot be kept for the next start");
        }
    }

    async fn fetch(&self, published: &Published) -> Result<Fetched, Arc<str>> {
        match published.what {
            What::Keys => self.fetch_keys(&published.url).await,
            What::Roots => self.fetch_roots(&published.url).await,
        }
    }

    async fn fetch_keys(&self, source: &str) -> Result<Fetched, Arc<str>> {
        let mut url = source.to_owned();
        // The document of an issuer says where its keys are, and keys say nothing more.
        for _ in 0..2 {
            let body = self.fetcher.get(&url, KEY_SET_BYTES_MAX).await.map_err(|error| said(&error))?;
            match document::read(&body).map_err(|error| Arc::from(format!("{url}: {error}")))? {
                Document::Keys(keys) => return Ok(Fetched { text: keys.into(), ..Fetched::default() }),
                Document::KeysAt(next) => url = next,
            }
        }
        Err(Arc::from(format!("{url} says that the keys are elsewhere again")))
    }

    async fn fetch_roots(&self, url: &str) -> Result<Fetched, Arc<str>> {
        // SPIFFE Trust Domain and Bundle, 5.2: who can change what is on its way can be anybody.
        if !url.starts_with("https://") {
            return Err(Arc::from(format!("{url}: roots are fetched over HTTPS and in no other way")));
        }
        let body = self.fetcher.get(url, PEM_BYTES_MAX).await.map_err(|error| said(&error))?;
        let Roots { pem, sequence, refresh } =
            roots::read(&body).map_err(|error| Arc::from(format!("{url}: {error}")))?;
        Ok(Fetched { text: pem.into(), sequence, refresh })
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
