//! One kind, followed: listed as a whole, then watched from there on, for as long as the program
//! runs.
//!
//! What was told stays told until the API server says otherwise: a list counts when its last page
//! has come, and what a failure leaves open is not taken for a removal.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use kube::Client;
use navarch_model::Kind;
use navarch_sources::{PlaceId, Update};
use tokio::time::{Instant, sleep};

use crate::feed::Feed;
use crate::kept::{Change, Kept, Whole};
use crate::pool::Pool;
use crate::protobuf;
use crate::read::{Reader, Told};
use crate::request::{Collection, Event, Events, Failure, Item, Page, chain, is_ready};
use crate::status::{Shown, Statuses, is_heard};

/// How often the API server is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Time between two attempts: the first.
    pub wait: Duration,
    /// And the longest.
    pub wait_max: Duration,
    /// Time until it is asked again for a kind that it does not have.
    pub absent: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            wait: Duration::from_millis(100),
            wait_max: Duration::from_secs(10),
            absent: Duration::from_secs(5),
        }
    }
}

/// Longest that we let an API server tell us to wait.
const ASKED_WAIT_MAX: Duration = Duration::from_secs(30);

/// Attempts that fail from the start on before what is kept on disk is served.
pub(crate) const RECALL_AFTER: u32 = 5;

/// A watch that lasts this long has worked.
const WORKED: Duration = Duration::from_secs(5);

/// Follows one kind, in one namespace or in all.
pub(crate) struct Follower {
    pub client: Client,
    pub reader: Reader,
    /// The one namespace that is followed.
    pub namespace: Option<String>,
    /// What is followed, as a label selector; empty for everything.
    pub labels: &'static str,
    pub feed: Feed,
    /// What the feed and messages call it.
    pub part: String,
    /// Places that have something.
    pub known: BTreeSet<PlaceId>,
    /// Who writes statuses, if somebody does.
    pub statuses: Option<Statuses>,
    /// The version of the kind's group in which it was listed.
    pub version: &'static str,
    /// What was said last, on disk, if it is kept.
    pub kept: Option<Kept>,
    /// Attempts that fail from the start on before what is kept is told.
    pub recall_after: u32,
    /// Whether the API server, or what is kept of it, has been heard.
    pub began: bool,
    /// Attempts that failed one after the other.
    pub failures: u32,
    pub pace: Pace,
}

/// Where a watch starts.
struct Listed {
    collection: Collection,
    version: String,
}

impl Follower {
    /// Follows until it is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            self.feed.lists(&self.part);
            let listed = self.list().await;
            self.feed.listed(&self.part, listed.is_ok());
            match listed {
                Ok(Some(listed)) => {
                    self.began = true;
                    self.failures = 0;
                    self.heard();
                    self.watch(listed).await;
                    self.feed.health().relisted();
                }
                Ok(None) => {
                    self.began = true;
                    self.failures = 0;
                    self.heard();
                    sleep(self.pace.absent).await;
                }
                Err(failure) => {
                    self.recall(&failure).await;
                    self.fails(&failure).await;
                }
            }
        }
    }

    /// Tells what is kept on disk, if the API server has been away since the start.
    async fn recall(&mut self, failure: &Failure) {
        let away = match failure {
            Failure::Unreachable(_) => true,
            Failure::Refused { status, .. } => *status == 429 || *status >= 500,
            Failure::Expired | Failure::Absent | Failure::Nonsense(_) => false,
        };
        // Who is not waited for may also refuse us: its endpoints are still where they were.
        let away = away || (self.recall_after == 0 && !matches!(failure, Failure::Expired));
        if self.began || !away || self.failures < self.recall_after {
            return;
        }
        let Some(kept) = self.kept.take() else { return };
        let reader = self.reader.clone();
        let read = tokio::task::spawn_blocking(move || (kept.read(&reader), kept)).await;
        let Ok((read, kept)) = read else { return };
        self.kept = Some(kept);
        match read {
            Ok(Some(told)) => {
                self.began = true;
                tracing::info!(part = %self.part, objects = told.len(), "what the API server said last is served");
                self.tell_all(told);
                self.feed.listed(&self.part, true);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(part = %self.part, %error, "what the API server said last is not known")
            }
        }
    }

    /// Lists everything and tells how it differs from what was told before. `None` if there is no
    /// such kind.
    async fn list(&mut self) -> Result<Option<Listed>, Failure> {
        let kind = self.reader.kind;
        for version in kind.versions() {
            let collection = self.collection(version);
            self.version = version;
            match self.list_all(&collection).await {
                Ok(version) => return Ok(Some(Listed { collection, version })),
                Err(Failure::Absent) => {}
                Err(failure) => return Err(failure),
            }
        }
        let changes = !self.began || !self.known.is_empty();
        // An API server that is starting may not know all kinds yet.
        if changes && !is_ready(&self.client).await {
            return Err(Failure::Absent);
        }
        self.tell_all(Vec::new());
        if changes || self.kept.as_ref().is_some_and(|kept| !kept.is_whole()) {
            let none = self.begin_keeping().await;
            self.keep(none).await;
        }
        Ok(None)
    }

    async fn list_all(&mut self, collection: &Collection) -> Result<String, Failure> {
        let (mut told, mut pool) = (Vec::new(), Pool::default());
        let mut page = collection.page("").await?;
        let mut whole = self.begin_keeping().await;
        loop {
            let Page { version, rest, items } = page;
            if version.is_empty() {
                return Err(Failure::Nonsense("a list has no version".to_owned()));
            }
            let reader = self.reader.clone();
            let reading =
                tokio::task::spawn_blocking(move || (read_page(&reader, &items, &mut pool, whole), pool));
            // Meanwhile the API server makes the next one.
            let next = async {
                match rest.is_empty() {
                    true => Ok(None),
                    false => collection.page(&rest).await.map(Some),
                }
            };
            let (read, next) = tokio::join!(reading, next);
            let (read, shared) = read.map_err(|error| Failure::Nonsense(error.to_string()))?;
            let (some, written) = read?;
            told.extend(some);
            (whole, pool) = (written, shared);
            match next? {
                Some(next) => page = next,
                None => {
                    self.tell_all(told);
                    self.keep(whole).await;
                    return Ok(version);
                }
            }
        }
    }

    /// A list on disk that is not whole yet; `None` if nothing is kept.
    async fn begin_keeping(&mut self) -> Option<Whole> {
        self.write(|kept| kept.begin()).await
    }

    /// Keeps a list that is whole.
    async fn keep(&mut self, whole: Option<Whole>) {
        if let Some(whole) = whole {
            self.write(move |kept| kept.finish(whole)).await;
        }
    }

    /// Writes to what is kept, where that may wait for the disk. `None` if nothing is kept, or it
    /// does not work.
    async fn write<T: Send + 'static>(
        &mut self,
        write: impl FnOnce(&mut Kept) -> io::Result<T> + Send + 'static,
    ) -> Option<T> {
        let mut kept = self.kept.take()?;
        let written = tokio::task::spawn_blocking(move || (write(&mut kept), kept)).await;
        let (written, kept) = written.ok()?;
        self.kept = Some(kept);
        written.map_err(|error| not_kept(&self.part, &error)).ok()
    }

    /// Tells everything that there is, and that nothing else is.
    fn tell_all(&mut self, told: Vec<Told>) {
        let now: BTreeSet<PlaceId> = told.iter().map(|told| told.place.clone()).collect();
        let gone: Vec<_> = self.known.difference(&now).cloned().collect();
        gone.iter().for_each(|place| self.hides(place));
        let gone = gone.into_iter().map(|place| (place, Update::Gone));
        let told = told.into_iter().map(|told| {
            self.shows(told.shown);
            (told.place, told.update)
        });
        self.feed.tell(gone.chain(told));
        self.known = now;
    }

    /// An object shows this in its status.
    fn shows(&self, shown: Option<Shown>) {
        if let (Some(statuses), Some(shown)) = (&self.statuses, shown) {
            statuses.shown(shown, self.version);
        }
    }

    /// An object is gone.
    fn hides(&self, place: &PlaceId) {
        if let Some(statuses) = self.statuses.as_ref().filter(|_| is_heard(self.reader.kind)) {
            statuses.gone(&self.reader.key(place));
        }
    }

    /// Watches until everything has to be read again.
    async fn watch(&mut self, listed: Listed) {
        let Listed { collection, mut version } = listed;
        loop {
            let events = match collection.watch(&version).await {
                Ok(events) => events,
                // There may be one of another version of the kind, or none: the list decides.
                Err(Failure::Expired | Failure::Absent) => return,
                Err(failure) => {
                    self.fails(&failure).await;
                    continue;
                }
            };
            self.heard();
            let began = Instant::now();
            let ended = self.take(events, &mut version).await;
            if began.elapsed() >= WORKED {
                self.failures = 0;
            }
            match ended {
                // The API server ends every watch after a while, and connections are cut. Whether
                // it is out of reach shows when it is asked for the next one.
                Ok(()) | Err(Failure::Unreachable(_)) => {
                    let again = self.failures > 0;
                    self.failures = self.failures.saturating_add(1);
                    if again {
                        self.pause(None).await;
                    }
                }
                Err(Failure::Expired | Failure::Absent) => return,
                Err(failure) => {
                    self.fails(&failure).await;
                    return;
                }
            }
        }
    }

    /// Tells events until there are no more. `version` is where to go on.
    async fn take(&mut self, mut events: Events, version: &mut String) -> Result<(), Failure> {
        while let Some(events) = events.next().await? {
            self.failures = 0;
            let (mut updates, mut changes, mut failed) = (Vec::new(), Vec::new(), None);
            for event in events {
                match self.event(event, &mut updates, &mut changes) {
                    Ok(newer) => *version = newer,
                    Err(failure) => {
                        failed = Some(failure);
                        break;
                    }
                }
            }
            if !updates.is_empty() {
                self.feed.tell(updates);
                self.write(move |kept| kept.change(&changes)).await;
            }
            if let Some(failure) = failed {
                return Err(failure);
            }
        }
        Ok(())
    }

    /// What an event tells, and the version to go on from.
    fn event(
        &mut self,
        event: Event,
        updates: &mut Vec<(PlaceId, Update)>,
        changes: &mut Vec<Change>,
    ) -> Result<String, Failure> {
        let Event { ty, object } = event;
        let nonsense = || Failure::Nonsense(format!("an event {ty} without a version"));
        if ty == "BOOKMARK" {
            return Reader::bookmark(object.get()).ok_or_else(nonsense);
        }
        let Told { place, version, update, shown } = self.reader.read(object.get()).ok_or_else(nonsense)?;
        if version.is_empty() {
            return Err(nonsense());
        }
        match ty.as_str() {
            "ADDED" | "MODIFIED" => {
                self.shows(shown);
                self.known.insert(place.clone());
                changes.push((place.clone(), Some(object)));
                updates.push((place, update));
            }
            "DELETED" => {
                self.hides(&place);
                self.known.remove(&place);
                changes.push((place.clone(), None));
                updates.push((place, Update::Gone));
            }
            other => return Err(Failure::Nonsense(format!("an event {other}"))),
        }
        Ok(version)
    }

    /// The collection, in a version of the kind's group.
    fn collection(&self, version: &str) -> Collection {
        let kind = self.reader.kind;
        let group = match kind.group() {
            "" => format!("/api/{version}"),
            group => format!("/apis/{group}/{version}"),
        };
        let path = match &self.namespace {
            Some(namespace) => format!("{group}/namespaces/{namespace}/{}", kind.plural()),
            None => format!("{group}/{}", kind.plural()),
        };
        let (client, message) = (self.client.clone(), protobuf::message(kind));
        Collection { client, path, fields: fields(kind), labels: self.labels, message }
    }

    /// The API server answers.
    fn heard(&self) {
        if let Some(silence) = self.feed.health().heard(&self.part) {
            tracing::info!(part = %self.part, seconds = silence.as_secs(), "the API server is heard again");
        }
    }

    /// Something did not work: says so, and waits.
    async fn fails(&mut self, failure: &Failure) {
        let reason = chain(failure);
        let refused = matches!(failure, Failure::Refused { .. });
        let before = self.feed.health().failed(&self.part, &reason);
        // When the API server is away, one line says so.
        if before.failed || before.others_failed && !refused {
            tracing::debug!(part = %self.part, reason, "not heard");
        } else if before.heard {
            tracing::warn!(part = %self.part, reason, "the API server is not heard; what it said last stays in force");
        } else {
            tracing::warn!(part = %self.part, reason, "the API server has not been heard yet; it is asked again");
        }
        self.failures = self.failures.saturating_add(1);
        let asked = match failure {
            Failure::Refused { after, .. } => *after,
            _ => None,
        };
        self.pause(asked).await;
    }

    /// Waits longer after each failure, and followers not all for equally long.
    async fn pause(&self, asked: Option<Duration>) {
        let spread = f64::from(self.reader.kind as u8 % 16) / 16.0;
        sleep(waiting_time(&self.pace, self.failures, spread, asked)).await;
    }
}

/// How long to wait after as many failures, `spread` of 1 for twice as long as 0, and at least as long as
/// the server has asked for.
fn waiting_time(pace: &Pace, failures: u32, spread: f64, asked: Option<Duration>) -> Duration {
    let doubled = failures.saturating_sub(1).min(16);
    let longest = pace.wait.saturating_mul(1 << doubled).min(pace.wait_max);
    let wait = longest.mul_f64(0.5 + 0.5 * spread);
    asked.map_or(wait, |asked| wait.max(asked.min(ASKED_WAIT_MAX)))
}

/// Reads a page, and writes it to what is kept.
fn read_page(
    reader: &Reader,
    items: &[Item],
    pool: &mut Pool,
    mut whole: Option<Whole>,
) -> Result<(Vec<Told>, Option<Whole>), Failure> {
    let mut told = Vec::with_capacity(items.len());
    for item in items {
        let item = item.json()?;
        let Some(mut one) = reader.read(&item) else { continue };
        if let Update::Says(parsed) = &mut one.update {
            parsed.objects.iter_mut().for_each(|object| pool.share(object));
        }
        if let Some(Err(error)) = whole.as_mut().map(|whole| whole.add(&one.place, &item)) {
            not_kept(&reader.kind.to_string(), &error);
            whole = None;
        }
        told.push(one);
    }
    Ok((told, whole))
}

fn not_kept(part: &str, error: &io::Error) {
    tracing::warn!(part, %error, "what the API server says cannot be kept for a start without it");
}

/// What of a kind is followed, as a field selector.
fn fields(kind: Kind) -> &'static str {
    match kind {
        // Nobody's certificates: releases of Helm, which may have a megabyte each, and tokens of
        // service accounts.
        Kind::Secret => "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
