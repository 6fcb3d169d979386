//! The task of one stream. It alone changes the stream's state; what it adds to it is time and bytes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes};
use http::Response;
use navarch_envoy::XdsType;
use navarch_envoy::wire::{Fields, Value};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::body::{Body, Part};
use super::grpc::{self, Code, Messages, Status};
use super::{Connection, Method, Peer, Question, Shared, jitter};
use crate::class::Class;
use crate::client::Client;
use crate::node::Node;
use crate::request::{Request, Wish};
use crate::response;
use crate::status::Entry;
use crate::stream::Stream;

/// What nonces of answers start with that are not responses of the stream.
const ANSWER_NONCE: &str = "answer.";

pub(super) fn spawn<B>(
    shared: Arc<Shared>,
    id: u64,
    method: Method,
    body: B,
    peer: Arc<Peer>,
    close: CancellationToken,
) -> Response<Body>
where
    B: http_body::Body + Send + Unpin + 'static,
    B::Data: Buf + Send,
    B::Error: std::fmt::Display + Send,
{
    // One message and the end of the stream.
    let (parts, receiver) = mpsc::channel(2);
    let messages = Messages::new(body, shared.settings.request_bytes_max);
    let room = Arc::new(Semaphore::new(1));
    let task = Task { shared, id, method, messages, peer, parts, room, close };
    tokio::spawn(task.run());
    grpc::accept(Body::new(receiver))
}

/// Answers that are not part of the configuration.
#[derive(Default)]
struct Pending {
    given: u64,
    unsent: VecDeque<Bytes>,
}

struct Task<B> {
    shared: Arc<Shared>,
    id: u64,
    method: Method,
    messages: Messages<B>,
    peer: Arc<Peer>,
    parts: mpsc::Sender<Part>,
    /// One permit: a response is made when the transport has taken the one before, so it is made from the newest
    /// state.
    room: Arc<Semaphore>,
    close: CancellationToken,
}

/// Removes the stream from the registry whatever way the task ends.
struct Registered {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.shared.registry.remove(self.entry.id);
        self.shared.observer.disconnected(&self.entry.node);
    }
}

impl<B> Task<B>
where
    B: http_body::Body + Unpin,
    B::Data: Buf,
    B::Error: std::fmt::Display,
{
    async fn run(mut self) {
        let status = match self.serve().await {
            Ok(()) => Status::new(Code::Ok, ""),
            Err(status) => status,
        };
        tracing::debug!(stream = self.id, code = ?status.code, message = %status.message, "stream ended");
        let grace = self.shared.settings.grace;
        // The last word waits for the transport like any other; a client that does not read is cut off.
        if tokio::time::timeout(grace, self.parts.send(Part::End(status))).await.is_err() {
            self.close.cancel();
        }
    }

    async fn serve(&mut self) -> Result<(), Status> {
        let timeout = self.shared.settings.first_timeout;
        let first = tokio::time::timeout(timeout, self.messages.next()).await;
        let Some(first) = first.map_err(|_| Status::new(Code::DeadlineExceeded, "no request"))?? else {
            return Ok(());
        };
        let first = self.decode(first)?;
        let node = Arc::new(first_node(&first)?);
        let Connection { class: mut classes, guard } = self.shared.discovery.connect(&node, &self.peer)?;
        let class = classes.borrow_and_update().clone();
        let stream = Stream::new(self.id, self.method.protocol, Client::of(&node), class.diffs());
        let mut stream = stream.with_brake(self.shared.settings.brake);
        if let Some(revision) = self.shared.registry.confirmed() {
            stream.confirm_removals(revision);
        }
        let entry = Arc::new(Entry {
            id: self.id,
            node: node.clone(),
            peer: self.peer.clone(),
            connected_at: SystemTime::now(),
            stream: Mutex::new(stream),
            wake: Notify::new(),
        });
        self.shared.registry.insert(entry.clone());
        self.shared.observer.connected(&node);
        let registered = Registered { shared: self.shared.clone(), entry };
        let result = self.exchange(&registered.entry, first, class, classes).await;
        drop((registered, guard));
        result
    }

    fn decode(&self, message: Bytes) -> Result<Request, Status> {
        let mut request = Request::decode(self.method.protocol, message)
            .map_err(|error| Status::new(Code::InvalidArgument, error.to_string()))?;
        match (self.method.only, request.type_url.is_empty()) {
            (None, true) => return Err(Status::new(Code::InvalidArgument, "type_url is missing")),
            (None, false) => {}
            (Some(only), true) => only.type_url().clone_into(&mut request.type_url),
            (Some(only), false) if request.type_url != only.type_url() => {
                let message = format!("{} is not served by this method", request.type_url);
                return Err(Status::new(Code::InvalidArgument, message));
            }
            (Some(_), false) => {}
        }
        Ok(request)
    }

    async fn exchange(
        &mut self,
        entry: &Entry,
        first: Request,
        class: Arc<Class>,
        mut classes: watch::Receiver<Arc<Class>>,
    ) -> Result<(), Status> {
        let mut resources = class.subscribe();
        let start = Instant::now();
        let settings = &self.shared.settings;
        let mut answers = Pending::default();
        self.take_request(entry, first, start, &mut answers)?;
        let mut shutdown = self.shared.shutdown.subscribe();
        shutdown.mark_changed();
        let mut end: Option<Instant> = None;
        let mut has_resources = false;
        // Room for one response, and when it was used last.
        let mut room: Option<OwnedSemaphorePermit> = None;
        let mut written = start;
        loop {
            let now = Instant::now();
            if room.is_some() && self.send_next(entry, &mut answers, &mut room, now)? {
                written = now;
            }
            let timer = entry.lock().timer(now.into_std()).map(Instant::from_std);
            let send_by = written + settings.send_timeout;
            let resources_by = start + settings.resources_timeout;
            tokio::select! {
                biased;
                () = self.close.cancelled() => return Ok(()),
                () = at(end) => return Err(Status::new(Code::Unavailable, "shutting down")),
                message = self.messages.next() => match message? {
                    None => return Ok(()),
                    Some(message) => {
                        let request = self.decode(message)?;
                        warn_of_other_node(&request, entry);
                        self.take_request(entry, request, now, &mut answers)?;
                    }
                },
                permit = self.room.clone().acquire_owned(), if room.is_none() => room = permit.ok(),
                () = self.parts.closed() => return Ok(()),
                changed = resources.changed() => {
                    if changed.is_err() {
                        return Err(Status::new(Code::Unavailable, "the configuration is gone"));
                    }
                    if let Some(newest) = resources.borrow_and_update().clone() {
                        entry.lock().resources(newest);
                        has_resources = true;
                    }
                },
                Ok(()) = classes.changed() => {
                    let class = classes.borrow_and_update().clone();
                    resources = class.subscribe();
                    entry.lock().follow(class.diffs());
                },
                Ok(()) = shutdown.changed() => {
                    if let Some(window) = *shutdown.borrow_and_update() {
                        end = Some(now + window.mul_f64(jitter()));
                    }
                },
                () = at(timer) => {},
                () = entry.wake.notified() => {},
                () = tokio::time::sleep_until(resources_by), if !has_resources && entry.lock().is_asked() => {
                    return Err(Status::new(Code::Unavailable, "the configuration is not ready"));
                }
                () = tokio::time::sleep_until(send_by), if room.is_none() => {
                    self.close.cancel();
                    return Err(Status::new(Code::Unavailable, "responses are not being read"));
                }
            }
            self.report(entry);
        }
    }

    /// Gives a request to the stream, or answers it at once if it does not ask for configuration.
    fn take_request(
        &self,
        entry: &Entry,
        request: Request,
        now: Instant,
        answers: &mut Pending,
    ) -> Result<(), Status> {
        if XdsType::from_type_url(&request.type_url).is_some() {
            entry.lock().request(request, now.into_std());
            return Ok(());
        }
        // What acknowledges the answer is not asked again.
        if request.nonce.starts_with(ANSWER_NONCE) {
            return Ok(());
        }
        let names = match &request.wish {
            Wish::Exactly { names, .. } => names,
            Wish::Change { subscribe, .. } => subscribe,
        };
        let (type_url, streams) = (request.type_url.as_str(), &*self.shared.registry);
        let question = Question { type_url, names, node: &entry.node, peer: &self.peer, streams };
        match self.shared.discovery.answer(&question)? {
            Some(found) => {
                answers.given += 1;
                let nonce = format!("{ANSWER_NONCE}{}", answers.given);
                let (protocol, encoder) = (self.method.protocol, &self.shared.encoder);
                answers.unsent.push_back(encoder.answer(protocol, type_url, nonce, found));
            }
            None => entry.lock().request(request, now.into_std()),
        }
        Ok(())
    }

    /// Sends one response if there is one.
    fn send_next(
        &self,
        entry: &Entry,
        answers: &mut Pending,
        room: &mut Option<OwnedSemaphorePermit>,
        now: Instant,
    ) -> Result<bool, Status> {
        if let Some(permit) = room.take_if(|_| !answers.unsent.is_empty()) {
            let answer = answers.unsent.pop_front().into_iter().collect();
            let sent = self.parts.try_send(Part::Message(answer, permit));
            return sent.map(|()| true).map_err(|_| Status::cancelled());
        }
        let response = entry.lock().poll(now.into_std());
        let Some(response) = response else {
            // Also that nothing is sent may be worth telling.
            self.report(entry);
            return Ok(false);
        };
        let Some(permit) = room.take() else { return Ok(false) };
        trace(entry, &response);
        let message = self.shared.encoder.grpc_message(self.method.protocol, &response);
        self.report(entry);
        let sent = self.parts.try_send(Part::Message(message, permit));
        sent.map(|()| true).map_err(|_| Status::cancelled())
    }

    fn report(&self, entry: &Entry) {
        let events = entry.lock().take_events();
        for event in events {
            self.shared.observer.event(&entry.node, &event);
        }
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

fn trace(entry: &Entry, response: &response::Response) {
    tracing::debug!(
        stream = entry.id,
        node = %entry.node.id,
        ty = response.ty.short(),
        nonce = %response.nonce,
        resources = response.resources.len(),
        removed = response.removed.len(),
        "response"
    );
}

/// The first request identifies the client; later ones need not.
fn first_node(request: &Request) -> Result<Node, Status> {
    let invalid = |message: String| Status::new(Code::InvalidArgument, message);
    let bytes = request.node.clone().ok_or_else(|| invalid("the first request has no node".into()))?;
    let node = Node::decode(bytes).map_err(|error| invalid(error.to_string()))?;
    if node.id.is_empty() { Err(invalid("node.id is missing".into())) } else { Ok(node) }
}

/// Envoy repeats its node, and sends it again when it changes. The identity stays the one that was checked.
fn warn_of_other_node(request: &Request, entry: &Entry) {
    const ID: u32 = 1;
    let Some(node) = &request.node else { return };
    let other = Fields::new(node).any(|field| match field {
        (ID, Value::Bytes(id)) => id != entry.node.id.as_bytes(),
        _ => false,
    });
    if other {
        tracing::warn!(stream = entry.id, node = %entry.node.id, "the node id changed on the stream; ignored");
    }
}

/// Time within which a connection is closed, give or take a tenth.
pub(super) fn jittered(age: Duration) -> Duration {
    age.mul_f64(0.9 + 0.2 * jitter())
}
