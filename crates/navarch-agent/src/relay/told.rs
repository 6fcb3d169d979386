//! What the control plane is told of the Envoy behind a stream: what it runs, with the responses that it had
//! accepted before it was looked at, so that nobody takes what was seen before a change for what came of it.

use std::sync::Arc;

use bytes::Bytes;
use navarch_xds::proto::{DeltaDiscoveryRequest, DiscoveryRequest, Status};
use navarch_xds::running::{InUse, RUNNING, Running};
use prost::Message;
use tokio::sync::watch;

use super::followed::is_of;
use super::wire::Protocol;
use crate::running::{Look, Watcher};

/// The control plane that is told. Others would be asked for a type that they do not know.
const COMPONENT: &str = "navarch";

/// Of one stream.
pub struct Told {
    watcher: Arc<Watcher>,
    seen: watch::Receiver<Option<Arc<Look>>>,
    clusters: Accepted,
    listeners: Accepted,
    /// Whether the present control plane wants to know; it is not known before it has said anything.
    is_wanted: Option<bool>,
    /// What the present control plane was told last.
    last: Option<Running>,
}

/// The responses of a type that the proxy has accepted on the present stream.
#[derive(Default)]
struct Accepted {
    /// The newest, and the number of the last look that had begun by then.
    newest: Option<(String, u64)>,
    /// The newest that a look has come after.
    seen: String,
}

impl Accepted {
    /// What is said of the type by a look.
    fn in_use(&mut self, number: u64, found: &InUse) -> InUse {
        if let Some((nonce, _)) = self.newest.take_if(|(_, begun)| number > *begun) {
            self.seen = nonce;
        }
        InUse { nonce: self.seen.clone(), ..found.clone() }
    }
}

impl Told {
    pub fn new(watcher: Arc<Watcher>) -> Self {
        let seen = watcher.seen();
        let [clusters, listeners] = [(); 2].map(|()| Accepted::default());
        Told { watcher, seen, clusters, listeners, is_wanted: None, last: None }
    }

    /// A stream to a control plane is open.
    pub fn opened(&mut self) {
        (self.clusters, self.listeners) = (Accepted::default(), Accepted::default());
        (self.is_wanted, self.last) = (None, None);
        self.seen.mark_changed();
    }

    /// A response has come.
    pub fn heard(&mut self, protocol: Protocol, type_url: &str, response: &Bytes) {
        if self.is_wanted.is_none() {
            self.is_wanted = Some(is_of(COMPONENT, protocol, response));
            self.seen.mark_changed();
        }
        if type_url.ends_with(".Cluster") {
            self.watcher.set_unanswered(true);
        } else {
            self.watcher.look_if_warming();
        }
    }

    /// The proxy has accepted a response of the present control plane.
    pub fn accepted(&mut self, type_url: &str, nonce: String) {
        let of_type = match type_url.rsplit_once('.') {
            Some((_, "Cluster")) => &mut self.clusters,
            Some((_, "Listener")) => &mut self.listeners,
            _ => return,
        };
        of_type.newest = Some((nonce, self.watcher.look()));
    }

    /// The proxy has accepted or refused a response.
    pub fn answered(&mut self, type_url: &str) {
        if type_url.ends_with(".Cluster") {
            self.watcher.set_unanswered(false);
        }
    }

    /// Waits until something else was seen.
    pub async fn changed(&mut self) {
        if self.seen.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// What is to be said that was not said yet.
    pub fn news(&mut self, protocol: Protocol) -> Option<Vec<u8>> {
        let look = self.seen.borrow_and_update().clone()?;
        if self.is_wanted != Some(true) {
            return None;
        }
        let running = Running {
            clusters: self.clusters.in_use(look.number, &look.clusters),
            listeners: self.listeners.in_use(look.number, &look.listeners),
        };
        if self.last.as_ref() == Some(&running) {
            return None;
        }
        let error_detail = Some(Status { code: 0, message: running.to_text() });
        self.last = Some(running);
        let type_url = RUNNING.to_owned();
        Some(match protocol {
            Protocol::Sotw => {
                DiscoveryRequest { type_url, error_detail, ..DiscoveryRequest::default() }.encode_to_vec()
            }
            Protocol::Delta => {
                DeltaDiscoveryRequest { type_url, error_detail, ..DeltaDiscoveryRequest::default() }
                    .encode_to_vec()
            }
        })
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.watcher.set_unanswered(false);
    }
}

#[cfg(test)]
mod tests {
    use navarch_xds::running::Warming;

    use super::*;

    const LDS: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";

    /// What is said after a look that found so many listeners warming.
    fn said(told: &mut Told, number: u64, warming: usize) -> Option<(String, usize)> {
        let listeners = InUse::of(vec![Warming::default(); warming]);
        told.watcher.saw(Look { number, clusters: InUse::default(), listeners });
        let request = DeltaDiscoveryRequest::decode(&*told.news(Protocol::Delta)?).expect("a request");
        assert_eq!(request.type_url, RUNNING);
        let running = Running::parse(&request.error_detail.expect("a report").message).expect("a report");
        Some((running.listeners.nonce, running.listeners.warming))
    }

    /// A response of a control plane that names itself so.
    fn response(component: &str) -> Bytes {
        let identifier = format!("{{\"Component\": \"{component}\"}}");
        let mut control_plane = Vec::new();
        navarch_envoy::wire::put_field(&mut control_plane, 1 << 3 | 2, identifier.as_bytes());
        let mut out = Vec::new();
        navarch_envoy::wire::put_field(&mut out, 7 << 3 | 2, &control_plane);
        out.into()
    }

    #[test]
    fn what_was_seen_before_a_change_is_not_said_of_it() {
        let check = |found: Option<(String, usize)>, expected: Option<(&str, usize)>| {
            assert_eq!(found, expected.map(|(nonce, warming)| (nonce.to_owned(), warming)));
        };
        let mut told = Told::new(Arc::default());
        told.opened();
        // Nobody has said yet that they want to know.
        check(said(&mut told, 0, 0), None);
        told.heard(Protocol::Delta, LDS, &response(COMPONENT));
        check(said(&mut told, 0, 0), Some(("", 0)));
        check(said(&mut told, 0, 0), None);
        told.accepted(LDS, "7".to_owned());
        // This look had begun when it was accepted, the next one had not.
        check(said(&mut told, 0, 0), None);
        check(said(&mut told, 1, 2), Some(("7", 2)));
        check(said(&mut told, 2, 2), None);
        check(said(&mut told, 3, 0), Some(("7", 0)));
        // A new stream hears everything again, without what was accepted on another one.
        told.opened();
        told.heard(Protocol::Delta, LDS, &response(COMPONENT));
        check(said(&mut told, 4, 0), Some(("", 0)));
    }

    #[test]
    fn others_are_not_told() {
        let mut told = Told::new(Arc::default());
        told.opened();
        told.heard(Protocol::Delta, LDS, &response("istiod"));
        told.accepted(LDS, "7".to_owned());
        assert_eq!(said(&mut told, 1, 1), None);
    }
}
