//! What is known about connected streams, as plain values: for status commands, waiting and metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use navarch_envoy::XdsType;
use tokio::sync::Notify;

use crate::nack::Nack;
use crate::node::Node;
use crate::response::Dialect;
use crate::running::Running;
use crate::server::Peer;
use crate::stream::Stream;
use crate::subscription::Wildcard;

/// How far a client is with one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncState {
    /// Nothing has been sent: the client waits, or asked for what does not exist.
    NotSent,
    /// Something has been sent and not been answered. For clusters that is normal while one of them warms.
    Stale,
    /// All that has been sent has been accepted.
    Synced,
    /// Something is rejected.
    Error,
}

impl SyncState {
    /// The state of two types that count as one: the one that is less in sync.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let distance = |state| match state {
            SyncState::NotSent => 0,
            SyncState::Synced => 1,
            SyncState::Stale => 2,
            SyncState::Error => 3,
        };
        if distance(other) > distance(self) { other } else { self }
    }

    /// The name used by the client status service and by `istioctl`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            SyncState::NotSent => "NOT_SENT",
            SyncState::Stale => "STALE",
            SyncState::Synced => "SYNCED",
            SyncState::Error => "ERROR",
        }
    }
}

/// A response that was sent or accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its nonce.
    pub nonce: String,
    /// The version in it; empty if a newer one has been sent since.
    pub version: String,
    /// The revision it was made from.
    pub revision: u64,
    /// When.
    pub at: Instant,
}

/// The state of one type on one stream.
#[derive(Clone, Debug)]
pub struct TypeStatus {
    /// The type.
    pub ty: XdsType,
    /// Whether and how everything is wanted.
    pub wildcard: Wildcard,
    /// Number of names that are wanted.
    pub names: usize,
    /// Secrets that are wanted by name and do not exist for this client: whatever uses them does not work.
    pub missing: Vec<Arc<str>>,
    /// Summary.
    pub state: SyncState,
    /// The last response.
    pub sent: Option<Mark>,
    /// The last response that was accepted.
    pub acked: Option<Mark>,
    /// The newest revision that has been fully accepted. Revisions that changed nothing of this type
    /// for this client count.
    pub revision: u64,
    /// The last rejection that has not been made good.
    pub error: Option<Nack>,
    /// Resources that are no longer configured but stay with the client: until nothing refers to them, or as
    /// long as removals are held.
    pub leaving: usize,
    /// Resources that are not sent any more until they change, because the client rejected them.
    pub set_aside: Vec<Arc<str>>,
    /// Responses sent.
    pub sent_total: u64,
    /// Responses rejected.
    pub rejected_total: u64,
}

/// One connected stream.
#[derive(Clone, Debug)]
pub struct StreamStatus {
    /// Unique in this process.
    pub id: u64,
    /// Who is connected.
    pub node: Arc<Node>,
    /// From where.
    pub peer: Arc<Peer>,
    /// How they speak.
    pub dialect: Dialect,
    /// Since when.
    pub connected_at: SystemTime,
    /// Every type that was asked for.
    pub types: Vec<TypeStatus>,
    /// The newest revision that the client has fully accepted.
    pub watermark: u64,
    /// Whether removals are held back, because they would take too much at once.
    pub held_removals: Option<RemovalHold>,
    /// What the client's agent sees in it, if it has one that tells.
    pub running: Option<Arc<Running>>,
}

/// Removals that are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemovalHold {
    /// Since when.
    pub since: Instant,
    /// Until when, unless they are confirmed or what was to go comes back.
    pub until: Instant,
}

impl StreamStatus {
    /// The id used by `istioctl`: node id and number of the stream.
    #[must_use]
    pub fn connection_id(&self) -> String {
        format!("{}-{}", self.node.id, self.id)
    }

    /// The cluster the proxy runs in, `CLUSTER_ID` of its metadata.
    #[must_use]
    pub fn cluster_id(&self) -> Option<&str> {
        self.node.metadata_str("CLUSTER_ID")
    }

    /// The version of the proxy, `ISTIO_VERSION` of its metadata.
    #[must_use]
    pub fn proxy_version(&self) -> Option<&str> {
        self.node.metadata_str("ISTIO_VERSION")
    }
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub id: u64,
    pub node: Arc<Node>,
    pub peer: Arc<Peer>,
    pub dialect: Dialect,
    pub connected_at: SystemTime,
    pub stream: Mutex<Stream>,
    pub running: Mutex<Option<Arc<Running>>>,
    /// The stream has something to do that no request and no resources told it.
    pub wake: Notify,
}

impl Entry {
    pub fn lock(&self) -> std::sync::MutexGuard<'_, Stream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client's agent says what runs.
    pub fn set_running(&self, running: Running) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(running));
    }

    fn status(&self) -> StreamStatus {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let stream = self.lock();
        StreamStatus {
            id: self.id,
            node: self.node.clone(),
            peer: self.peer.clone(),
            dialect: self.dialect,
            connected_at: self.connected_at,
            types: stream.status(),
            watermark: stream.watermark(),
            held_removals: stream.held_removals(),
            running,
        }
    }
}

/// All connected streams of this process.
///
/// Reading asks each stream for its state, so that a push does not pay for a status that nobody reads.
#[derive(Debug, Default)]
pub struct Registry {
    streams: Mutex<BTreeMap<u64, Arc<Entry>>>,
    /// Removals up to this revision are meant.
    confirmed: Mutex<Option<u64>>,
}

impl Registry {
    /// The state of every stream, in the order in which they connected.
    #[must_use]
    pub fn streams(&self) -> Vec<StreamStatus> {
        self.entries().iter().map(|entry| entry.status()).collect()
    }

    /// Whether a stream wants a resource of this name. One that has ended wants nothing.
    #[must_use]
    pub fn is_subscribed(&self, stream: u64, ty: XdsType, name: &str) -> bool {
        let entry = self.streams.lock().unwrap_or_else(PoisonError::into_inner).get(&stream).cloned();
        entry.is_some_and(|entry| entry.lock().is_subscribed(ty, name))
    }

    /// Number of connected streams.
    #[must_use]
    pub fn len(&self) -> usize {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether no stream is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Says that all removals up to `revision` are meant, on the streams that are connected and on those to
    /// come. Returns the number of streams on which some were held back.
    pub fn confirm_removals(&self, revision: u64) -> usize {
        let mut confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        *confirmed = (*confirmed).max(Some(revision));
        drop(confirmed);
        let confirm = |entry: &Arc<Entry>| {
            let held = entry.lock().confirm_removals(revision);
            if held {
                entry.wake.notify_one();
            }
            held
        };
        self.entries().iter().filter(|entry| confirm(entry)).count()
    }

    /// Number of streams on which removals are held back.
    #[must_use]
    pub fn holding(&self) -> usize {
        self.entries().iter().filter(|entry| entry.lock().held_removals().is_some()).count()
    }

    /// Up to which revision removals are confirmed.
    pub(crate) fn confirmed(&self) -> Option<u64> {
        *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn insert(&self, entry: Arc<Entry>) {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).insert(entry.id, entry);
    }

    pub(crate) fn remove(&self, id: u64) {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}
