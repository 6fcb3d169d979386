//! All simulated proxies: their connections, the changes that they are waited for, and what they count.
//!
//! Everything runs on one thread, so that the load generator takes one core and needs no locks.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use navarch_envoy::XdsType;
use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::client::{self, Target};
use crate::known::{Id, Known};
use crate::mesh::Edit;
use crate::message;
use crate::proxy::Proxy;
use crate::shape::Shape;

/// What the connections share.
#[derive(Debug)]
pub struct Shared {
    pub known: Known,
    pub proxies: Vec<Member>,
    pub counts: Counts,
    pending: Vec<Pending>,
    /// Changes that have reached everyone.
    delivered: Vec<Delivery>,
    synced: usize,
    /// The last error of a connection.
    pub last_error: Option<String>,
}

/// A proxy and what is kept about it.
#[derive(Debug)]
pub struct Member {
    pub proxy: Proxy,
    /// Connections in a row that broke before anything came.
    failures: u32,
    synced: bool,
    /// The last change seen, by the place that was edited.
    seen: HashMap<u32, u32>,
}

/// What all connections together have received.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub messages: u64,
    pub resources: u64,
    pub bytes: u64,
    pub connections: u64,
    /// Connections that ended without being told to.
    pub broken: u64,
}

impl Counts {
    /// What came since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Counts) -> Counts {
        Counts {
            messages: self.messages - earlier.messages,
            resources: self.resources - earlier.resources,
            bytes: self.bytes - earlier.bytes,
            connections: self.connections - earlier.connections,
            broken: self.broken - earlier.broken,
        }
    }
}

/// A change that proxies are waited for.
#[derive(Debug)]
struct Pending {
    ty: XdsType,
    /// The resource in which it shows, if that is known before.
    name: Option<Id>,
    number: u32,
    place: u32,
    at: Instant,
    expected: usize,
    delays: Vec<Duration>,
}

/// How long a change took to the proxies that it concerns.
#[derive(Debug)]
pub struct Delivery {
    pub number: u32,
    pub expected: usize,
    /// One for each proxy that has acknowledged it.
    pub delays: Vec<Duration>,
}

impl From<Pending> for Delivery {
    fn from(change: Pending) -> Self {
        Delivery { number: change.number, expected: change.expected, delays: change.delays }
    }
}

impl Shared {
    /// A connection opens: what is sent first.
    pub fn connect(&mut self, index: usize) -> Vec<bytes::Bytes> {
        self.counts.connections += 1;
        let Shared { known, proxies, .. } = self;
        proxies.get_mut(index).map(|member| member.proxy.connect(known)).unwrap_or_default()
    }

    /// A connection ended without being told to. Gives how many did before it on which nothing came either.
    pub fn broke(&mut self, index: usize, error: String) -> u32 {
        self.counts.broken += 1;
        self.last_error = Some(error);
        let Some(member) = self.proxies.get_mut(index) else { return 0 };
        member.failures += 1;
        member.failures - 1
    }

    /// A message came: what is sent back, and the changes that the acknowledgement is for.
    pub fn receive(&mut self, index: usize, message: &[u8]) -> crate::proxy::Outcome {
        let Shared { known, proxies, .. } = self;
        let Some(member) = proxies.get_mut(index) else { return crate::proxy::Outcome::default() };
        member.failures = 0;
        let outcome = member.proxy.receive(message, known);
        self.counts.messages += 1;
        self.counts.resources += outcome.resources as u64;
        self.counts.bytes += message.len() as u64;
        let synced = member.proxy.synced();
        if synced && !member.synced {
            member.synced = true;
            self.synced += 1;
        }
        outcome
    }

    /// How many proxies have had everything that they asked for.
    #[must_use]
    pub fn synced_count(&self) -> usize {
        self.synced
    }

    /// Whether the last proxy came in sync since there were `before` of them.
    #[must_use]
    pub fn all_synced_since(&self, before: usize) -> bool {
        self.synced > before && self.synced == self.proxies.len()
    }

    /// The acknowledgement of these changes has been handed to the connection. Says whether somebody may be
    /// waiting for that.
    pub fn acknowledged(&mut self, index: usize, marks: &[(XdsType, Id, u32)]) -> bool {
        let now = Instant::now();
        let Shared { proxies, pending, delivered, .. } = self;
        let Some(member) = proxies.get_mut(index) else { return false };
        let mut complete = false;
        for (ty, name, number) in marks {
            let mut places = Vec::new();
            for change in pending.iter_mut().filter(|change| {
                change.ty == *ty
                    && change.name.is_none_or(|wanted| wanted == *name)
                    && change.number <= *number
            }) {
                if member.seen.get(&change.place).is_some_and(|seen| *seen >= change.number) {
                    continue;
                }
                change.delays.push(now.saturating_duration_since(change.at));
                complete |= change.delays.len() >= change.expected;
                places.push(change.place);
            }
            for place in places {
                let seen = member.seen.entry(place).or_default();
                *seen = (*seen).max(*number);
            }
        }
        if complete {
            // Nobody looks through what has arrived for the changes that have not.
            let arrived = pending.extract_if(.., |change| change.delays.len() >= change.expected);
            delivered.extend(arrived.map(Delivery::from));
        }
        complete
    }
}

/// The proxies of a shape.
pub struct Fleet {
    pub shared: Rc<RefCell<Shared>>,
    /// Rung when a change has reached everyone, and when a proxy has all it asked for.
    bell: Rc<Notify>,
    tasks: Vec<JoinHandle<()>>,
    target: Rc<Target>,
}

impl Fleet {
    /// Proxies that are not connected yet. `metadata` is added to that of every node.
    #[must_use]
    pub fn new(shape: &Shape, target: Target, metadata: &Map<String, Value>) -> Self {
        let protocol = target.protocol;
        let proxies = (0..shape.proxies).map(|index| Member {
            proxy: Proxy::new(protocol, node(shape, index, metadata)),
            failures: 0,
            synced: false,
            seen: HashMap::new(),
        });
        let shared = Shared {
            known: Known::default(),
            proxies: proxies.collect(),
            counts: Counts::default(),
            pending: Vec::new(),
            delivered: Vec::new(),
            synced: 0,
            last_error: None,
        };
        Fleet {
            shared: Rc::new(RefCell::new(shared)),
            bell: Rc::default(),
            tasks: Vec::new(),
            target: Rc::new(target),
        }
    }

    /// Opens every connection at once. Connections that break are opened again.
    pub fn connect(&mut self) {
        let count = self.shared.borrow().proxies.len();
        self.tasks = (0..count)
            .map(|index| {
                let (shared, bell) = (self.shared.clone(), self.bell.clone());
                tokio::task::spawn_local(client::run(index, self.target.clone(), shared, bell))
            })
            .collect();
    }

    /// Closes every connection at once.
    pub async fn disconnect(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        for task in self.tasks.drain(..) {
            // Aborted, or ended before.
            let _ = task.await;
        }
    }

    /// How many proxies have had everything that they asked for.
    #[must_use]
    pub fn synced(&self) -> usize {
        self.shared.borrow().synced
    }

    /// What has been received so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.borrow().counts
    }

    /// Waits until every proxy has everything, calling `progress` now and then.
    ///
    /// # Errors
    /// If that takes longer than `within`; says what is lacking.
    pub async fn all_synced(&self, within: Duration, progress: impl Fn(usize)) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let (synced, total) = (self.synced(), self.shared.borrow().proxies.len());
            progress(synced);
            if synced == total {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("after {within:?} {synced} of {total} proxies are in sync; {}", self.complaint());
            }
            let _ = tokio::time::timeout(Duration::from_millis(200), self.bell.notified()).await;
        }
    }

    /// Why a proxy is not in sync.
    fn complaint(&self) -> String {
        let shared = self.shared.borrow();
        let lacking = shared.proxies.iter().enumerate().find(|(_, member)| !member.synced);
        let lacking = lacking.map_or(String::new(), |(index, member)| {
            format!("proxy {index} lacks {}", member.proxy.lacks(&shared.known))
        });
        let error =
            shared.last_error.as_deref().map(|error| format!("; last error of a connection: {error}"));
        lacking + &error.unwrap_or_default()
    }

    /// From now on, acknowledgements of this edit are measured from `at`.
    pub fn expect(&self, edit: &Edit, expected: usize, at: Instant) {
        let mut shared = self.shared.borrow_mut();
        let name = edit.resource.as_deref().map(|name| shared.known.texts.id(name));
        shared.pending.push(Pending {
            ty: edit.kind.shows_in(),
            name,
            number: edit.number,
            place: edit.place,
            at,
            expected,
            delays: Vec::with_capacity(expected),
        });
    }

    /// Waits until every expected change has reached everyone, or `within` has passed, and gives what was
    /// measured.
    pub async fn delivered(&self, within: Duration) -> Vec<Delivery> {
        let deadline = Instant::now() + within;
        loop {
            let complete = self.shared.borrow().pending.is_empty();
            let now = Instant::now();
            if complete || now >= deadline {
                let mut shared = self.shared.borrow_mut();
                let late = std::mem::take(&mut shared.pending);
                let mut deliveries = std::mem::take(&mut shared.delivered);
                deliveries.extend(late.into_iter().map(Delivery::from));
                return deliveries;
            }
            let _ = tokio::time::timeout(deadline - now, self.bell.notified()).await;
        }
    }

    /// Waits until nothing has been received for `quiet`, but not longer than `within`.
    pub async fn settle(&self, quiet: Duration, within: Duration) {
        let deadline = Instant::now() + within;
        let mut before = self.counts().messages;
        loop {
            tokio::time::sleep(quiet).await;
            let now = self.counts().messages;
            if now == before || Instant::now() >= deadline {
                return;
            }
            before = now;
        }
    }
}

/// The name of a proxy, as `<pod>.<namespace>`.
#[must_use]
pub fn proxy_name(shape: &Shape, index: usize) -> String {
    format!("p{index}.{}", shape.namespace(shape.namespace_of(shape.class_of(index))))
}

/// The node of a proxy, as an agent in a pod of a Deployment states it.
fn node(shape: &Shape, index: usize, extra: &Map<String, Value>) -> Vec<u8> {
    let class = shape.class_of(index);
    let namespace = shape.namespace(shape.namespace_of(class));
    let address = shape.pod_address(index).to_string();
    let id = format!("sidecar~{address}~{}~{namespace}.svc.cluster.local", proxy_name(shape, index));
    let app = format!("s{class}");
    let Value::Object(mut metadata) = serde_json::json!({
        "NAME": format!("p{index}"),
        "NAMESPACE": namespace,
        "INSTANCE_IPS": address,
        "CLUSTER_ID": "Kubernetes",
        "MESH_ID": "cluster.local",
        "ISTIO_VERSION": "1.32.0",
        "SERVICE_ACCOUNT": "default",
        "WORKLOAD_NAME": app,
        "LABELS": { "app": app, "version": "v1" },
    }) else {
        return Vec::new();
    };
    metadata.extend(extra.clone());
    message::node(&id, &format!("{app}.{namespace}"), &metadata)
}
