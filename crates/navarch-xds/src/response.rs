//! What a stream sends, before it is bytes.

use std::sync::Arc;
use std::time::Instant;

use navarch_envoy::{Resource, ResourceSet, SetDelta, XdsType};

/// The two ways of speaking xDS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// State of the world: requests name everything that is wanted, responses of root types are the whole
    /// state.
    Sotw,
    /// Incremental: requests and responses say what is different.
    Delta,
}

/// How a client speaks on one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// The protocol.
    pub protocol: Protocol,
    /// All types come over this one stream (ADS).
    pub aggregated: bool,
}

/// A list of resources. Most responses are the same for many streams, and then so is the list.
#[derive(Clone, Debug)]
pub enum Batch {
    /// All of a set.
    Set(ResourceSet),
    /// What changed between two sets.
    Changed(Arc<SetDelta>),
    /// Chosen for one stream.
    List(Arc<[Arc<Resource>]>),
}

impl Batch {
    /// Nothing.
    #[must_use]
    pub fn empty() -> Self {
        Batch::List(Arc::from([]))
    }

    /// Number of resources.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Batch::Set(set) => set.len(),
            Batch::Changed(delta) => delta.changed.len(),
            Batch::List(list) => list.len(),
        }
    }

    /// Whether there are no resources.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The resources.
    pub fn iter(&self) -> Box<dyn Iterator<Item = &Arc<Resource>> + '_> {
        match self {
            Batch::Set(set) => Box::new(set.iter()),
            Batch::Changed(delta) => Box::new(delta.changed.iter()),
            Batch::List(list) => Box::new(list.iter()),
        }
    }
}

/// What made a response necessary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The client asked for something, at this time.
    Asked(Instant),
    /// The revision, which is new to the client.
    Revision,
    /// What was held back or refused before.
    Rest,
}

/// One response, in either protocol.
#[derive(Clone, Debug)]
pub struct Response {
    /// The type of everything in it.
    pub ty: XdsType,
    /// Unique on its stream.
    pub nonce: String,
    /// `version_info` or `system_version_info`: hash of what the client holds of this type afterwards.
    pub version: String,
    /// The resources.
    pub resources: Batch,
    /// Delta: resources that live on as they are (TTL).
    pub heartbeats: Vec<Arc<Resource>>,
    /// Delta: names that are gone, or were asked for and do not exist.
    pub removed: Vec<Arc<str>>,
    /// Names that were asked for and do not exist, for clients that understand `resource_errors`.
    pub missing: Vec<Arc<str>>,
}
