//! What the parts of the agent say of themselves.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::certificate::Leaf;
use crate::dns;
use crate::envoy::Admin;
use crate::relay::Observed;
use crate::running::Watcher;

/// What the parts of the agent say of themselves.
#[derive(Debug)]
pub struct Health {
    pub observed: Arc<Observed>,
    pub leaf: watch::Receiver<Option<Arc<Leaf>>>,
    /// Questions for names.
    pub names: Arc<dns::server::Counted>,
    /// Envoy has said that it is ready, and has not ended since.
    pub is_ready: AtomicBool,
    /// Nobody should come any more.
    pub is_draining: AtomicBool,
    /// One Envoy hands over to the next: the admin port of neither may be there, but both take traffic.
    pub is_handing_over: AtomicBool,
    /// Times that Envoy was started again.
    pub restarts: AtomicU64,
    /// Times that one Envoy has begun to hand over to the next.
    pub hot_restarts: AtomicU64,
    /// What is seen of Envoy once it is ready.
    pub running: Arc<Watcher>,
    admin: Mutex<Option<Admin>>,
}

impl Health {
    /// Nothing is there yet.
    #[must_use]
    pub fn new(
        observed: Arc<Observed>,
        leaf: watch::Receiver<Option<Arc<Leaf>>>,
        running: Arc<Watcher>,
    ) -> Arc<Self> {
        Arc::new(Health {
            observed,
            leaf,
            names: Arc::default(),
            is_ready: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
            is_handing_over: AtomicBool::new(false),
            restarts: AtomicU64::new(0),
            hot_restarts: AtomicU64::new(0),
            running,
            admin: Mutex::new(None),
        })
    }

    /// Envoy's admin port, once it is there.
    #[must_use]
    pub fn admin(&self) -> Option<Admin> {
        *self.admin.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Envoy is ready, or has ended.
    pub fn set_ready(&self, admin: Option<Admin>) {
        *self.admin.lock().unwrap_or_else(PoisonError::into_inner) = admin;
        self.is_ready.store(admin.is_some(), Ordering::Relaxed);
        self.running.set_envoy(admin);
    }

    /// Why the workload is not ready; nothing if it is.
    pub async fn unready(&self) -> Option<&'static str> {
        let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        if is(&self.is_draining) {
            return Some("it is ending");
        }
        if !is(&self.observed.clusters) {
            return Some("the proxy has not accepted clusters yet");
        }
        if !is(&self.observed.listeners) {
            return Some("the proxy has not accepted listeners yet");
        }
        if is(&self.is_handing_over) {
            return None;
        }
        match self.admin() {
            Some(admin) if admin.is_ready().await => None,
            _ => Some("Envoy is not live"),
        }
    }
}
