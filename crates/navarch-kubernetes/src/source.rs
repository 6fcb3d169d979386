//! The API server of a cluster as a [`Source`].

use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use kube::Client;
use navarch_model::document::WrittenIn;
use navarch_model::kinds::Scope;
use navarch_model::{ClusterId, Kind, Name, Revision};
use navarch_sources::{Batch, Health, Settled, Source, SourceError, StatusWriter};
use tokio::task::JoinSet;

use crate::access::{Access, AccessError};
use crate::ask::Questions;
use crate::feed::Feed;
use crate::follow::{Follower, Pace, RECALL_AFTER};
use crate::kept::Kept;
use crate::leadership::{Candidate, Leadership, stand};
use crate::lease::Timing;
use crate::maker::Maker;
use crate::read::Reader;
use crate::status::{Report, Statuses};

/// What is followed, and where.
#[derive(Clone, Debug)]
pub struct Options {
    pub access: Access,
    /// What positions call the cluster.
    pub cluster: Name,
    /// Which revision of the control plane this is, which says whose objects are.
    pub revision: Arc<Revision>,
    /// The only namespaces that are followed; all if there are none. Objects without a namespace
    /// are followed as well.
    pub namespaces: BTreeSet<String>,
    /// Directory in which what the API server says is kept, Secrets included, for a start while it
    /// is away. Nothing is kept without it.
    pub kept: Option<PathBuf>,
    /// Who of us writes to the cluster. Nothing is written without it.
    pub candidate: Option<Candidate>,
}

/// Every kind of the kinds table in a cluster, followed.
///
/// It is complete when every kind has been listed, or the API server has said that it has no such
/// kind; it is asked for that kind again. From then on a kind that cannot be followed keeps what it
/// said, and [`Source::health`] says so.
pub struct Kubernetes {
    name: String,
    feed: Feed,
    writer: Option<Writer>,
    questions: Questions,
    /// Those who follow and those who write. Dropped, they end.
    _tasks: JoinSet<()>,
}

/// What is written to a cluster. Clones are the same.
#[derive(Clone, Debug)]
pub struct Writer {
    statuses: Statuses,
    leadership: Leadership,
    objects: Maker,
}

impl Writer {
    /// Whether we are the one who writes.
    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// Who makes objects.
    pub fn objects(&self) -> &Maker {
        &self.objects
    }

    /// How writing of statuses goes.
    pub fn statuses(&self) -> Report {
        self.statuses.report()
    }
}

impl Kubernetes {
    /// Begins to follow. Nothing is waited for.
    ///
    /// # Errors If it is not known how to reach the API server. That it cannot be reached is no
    /// error: it may be later.
    pub async fn follow(options: &Options) -> Result<Self, AccessError> {
        Self::follow_at(options, Timing::default()).await
    }

    pub(crate) async fn follow_at(options: &Options, timing: Timing) -> Result<Self, AccessError> {
        let client = options.access.client().await?;
        let parts: Vec<_> = Kind::ALL.iter().flat_map(|kind| parts(*kind, &options.namespaces)).collect();
        let feed = Feed::new(parts.iter().map(Part::name));
        let mut tasks = JoinSet::new();
        let writer = options.candidate.as_ref().map(|candidate| {
            let (statuses, leadership) = (Statuses::new(options.revision.clone()), Leadership::new());
            let objects = Maker::new(client.clone(), leadership.clone());
            let writer = Writer { statuses: statuses.clone(), leadership: leadership.clone(), objects };
            tasks.spawn(stand(client.clone(), candidate.clone(), timing, leadership.clone()));
            tasks.spawn(statuses.run(client.clone(), leadership));
            writer
        });
        let followed = Followed {
            client: client.clone(),
            id: ClusterId::LOCAL,
            cluster: options.cluster.clone(),
            revision: options.revision.clone(),
            kept: options.kept.clone(),
            feed: feed.clone(),
        };
        for part in parts {
            let mut follower = followed.follower(part);
            follower.statuses = writer.as_ref().map(|writer| writer.statuses.clone());
            tasks.spawn(follower.run());
        }
        let name = format!("the API server of cluster {}", options.cluster);
        Ok(Kubernetes { name, feed, writer, questions: Questions::new(client), _tasks: tasks })
    }

    /// Who asks its API server what it alone knows.
    pub fn questions(&self) -> Questions {
        self.questions.clone()
    }

    /// Who writes to the cluster, if anybody may.
    pub fn writer(&self) -> Option<Writer> {
        self.writer.clone()
    }
}

/// A cluster that is followed, for its followers.
pub(crate) struct Followed {
    pub client: Client,
    pub id: ClusterId,
    /// What positions call it.
    pub cluster: Name,
    pub revision: Arc<Revision>,
    pub kept: Option<PathBuf>,
    pub feed: Feed,
}

impl Followed {
    /// One that has heard nothing yet, and says nothing of statuses.
    pub fn follower(&self, part: Part) -> Follower {
        let Followed { client, id, cluster, revision, kept, feed } = self;
        let origin = WrittenIn::Cluster { id: *id, name: cluster.clone() };
        let name = part.name();
        Follower {
            kept: kept.as_ref().map(|directory| Kept::new(directory, cluster, &name)),
            recall_after: RECALL_AFTER,
            began: false,
            client: client.clone(),
            reader: Reader { kind: part.kind, origin, revision: revision.clone() },
            part: name,
            namespace: part.namespace,
            labels: "",
            feed: feed.clone(),
            known: BTreeSet::new(),
            statuses: None,
            version: "",
            failures: 0,
            pace: Pace::default(),
        }
    }
}

/// What one follower follows.
pub(crate) struct Part {
    pub kind: Kind,
    pub namespace: Option<String>,
}

impl Part {
    pub fn name(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{} in {namespace}", self.kind),
            None => self.kind.to_string(),
        }
    }
}

/// What is followed of a kind, if only these namespaces are; all if there are none.
pub(crate) fn parts(kind: Kind, namespaces: &BTreeSet<String>) -> Vec<Part> {
    match kind.scope() {
        Scope::Namespaced if !namespaces.is_empty() => {
            namespaces.iter().map(|namespace| Part { kind, namespace: Some(namespace.clone()) }).collect()
        }
        Scope::Namespaced | Scope::Cluster => vec![Part { kind, namespace: None }],
    }
}

impl Source for Kubernetes {
    fn name(&self) -> String {
        match self.feed.missing().as_slice() {
            [] => self.name.clone(),
            [part] => format!("{} ({part})", self.name),
            [part, others @ ..] => format!("{} ({part} and {} more)", self.name, others.len()),
        }
    }

    fn changed(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.feed.told())
    }

    fn settled(&self) -> Settled {
        self.feed.settled()
    }

    fn read(&mut self) -> Result<Batch, SourceError> {
        Ok(self.feed.take())
    }

    fn health(&self) -> Option<Health> {
        Some(self.feed.health().clone())
    }

    fn status_writer(&mut self) -> Option<&mut dyn StatusWriter> {
        self.writer.as_mut().map(|writer| &mut writer.statuses as &mut dyn StatusWriter)
    }
}
