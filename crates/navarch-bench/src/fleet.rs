//! All simulated proxies: their connections, the changes that they are waited for, and what they count.
//!
//! Everything runs on one thread, so that the load generator takes one core and needs no locks.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::client::{self, Target};
use crate::known::Known;
use crate::mesh::{Edit, GATEWAY};
use crate::message;
use crate::proxy::Proxy;
use crate::shape::Shape;
use crate::shared::{Counts, Delivery, Member, Pending, Shared};

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
    let role = if shape.routes > 0 { "router" } else { "sidecar" };
    let id = format!("{role}~{address}~{}~{namespace}.svc.cluster.local", proxy_name(shape, index));
    let app = format!("s{class}");
    let labels = match shape.routes {
        0 => serde_json::json!({ "app": app, "version": "v1" }),
        _ => serde_json::json!({ "app": app, "gateway.networking.k8s.io/gateway-name": GATEWAY }),
    };
    let Value::Object(mut metadata) = serde_json::json!({
        "NAME": format!("p{index}"),
        "NAMESPACE": namespace,
        "INSTANCE_IPS": address,
        "CLUSTER_ID": "Kubernetes",
        "MESH_ID": "cluster.local",
        "ISTIO_VERSION": "1.32.0",
        "SERVICE_ACCOUNT": "default",
        "WORKLOAD_NAME": app,
        "LABELS": labels,
    }) else {
        return Vec::new();
    };
    metadata.extend(extra.clone());
    message::node(&id, &format!("{app}.{namespace}"), &metadata)
}
