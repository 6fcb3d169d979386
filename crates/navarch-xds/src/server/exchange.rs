//! The exchange on one stream. It alone changes the stream's state; what it adds to it is time and bytes.
//!
//! What it waits for is kept from one round to the next: to begin and to drop a wait costs more than a push.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt;
use navarch_envoy::wire::{Fields, Value};
use navarch_envoy::{Layer, ProxyResources, XdsType};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, Sleep};
use tokio_stream::wrappers::WatchStream;

use super::admission::Place;
use super::call::{Call, End};
use super::grpc::{Code, Status};
use super::own::{Combined, OwnResources};
use super::{Connection, HEALTH, Method, Peer, Question, Shared};
use crate::class::Class;
use crate::client::ClientRules;
use crate::node::Node;
use crate::request::{Request, Wish};
use crate::response;
use crate::running::{RUNNING, Running};
use crate::status::Entry;
use crate::stream::Stream;

/// How long a new stream counts as one that costs much, whatever its client has by then: it may not read, or
/// wait for something else.
const PLACE_MAX: Duration = Duration::from_secs(1);

/// What nonces of answers start with that are not responses of the stream.
const ANSWER_NONCE: &str = "answer.";

/// Answers that are not part of the configuration.
#[derive(Default)]
struct Answered {
    given: u64,
    unsent: VecDeque<Bytes>,
}

/// Removes the stream from the registry whatever way it ends.
struct Registered<'a> {
    shared: &'a Shared,
    entry: Arc<Entry>,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.shared.registry.remove(self.entry.id);
        self.shared.observer.disconnected(&self.entry.node);
    }
}

/// Follows a client from its first request to its end.
pub(super) async fn serve(
    shared: &Shared,
    method: Method,
    call: &mut Call,
    peer: Arc<Peer>,
    place: Place,
) -> Result<(), End> {
    let first = tokio::time::timeout(shared.settings.first_timeout, call.message()).await;
    let late = |_| Status::new(Code::DeadlineExceeded, "no request");
    let Some(first) = first.map_err(late)?? else { return Ok(()) };
    let first = decode(method, first)?;
    let node = Arc::new(first_node(&first)?);
    let Connection { class: classes, own, guard } =
        shared.discovery.connect(&node, &peer, method.dialect()).map_err(Status::from)?;
    let entry = new_entry(shared, method, &node, peer, &classes.borrow());
    shared.registry.insert(entry.clone());
    shared.observer.connected(&node);
    let registered = Registered { shared, entry };
    let exchange = Exchange {
        shared,
        method,
        entry: &registered.entry,
        answers: Answered::default(),
        place: Some(place),
    };
    let result = exchange.run(call, first, (classes, own)).await;
    drop((registered, guard));
    result
}

/// A stream on which nothing has happened. Not part of the future that serves it, which would be larger by
/// it.
fn new_entry(
    shared: &Shared,
    method: Method,
    node: &Arc<Node>,
    peer: Arc<Peer>,
    class: &Class,
) -> Arc<Entry> {
    let id = shared.streams.fetch_add(1, Ordering::Relaxed) + 1;
    let stream = Stream::new(id, method.protocol, ClientRules::of(node), class.memory());
    let mut stream = stream.with_brake(shared.settings.brake);
    if let Some(revision) = shared.registry.confirmed() {
        stream.confirm_removals(revision);
    }
    Arc::new(Entry {
        id,
        node: node.clone(),
        peer,
        dialect: method.dialect(),
        connected_at: SystemTime::now(),
        stream: Mutex::new(stream),
        running: Mutex::new(None),
        wake: Notify::new(),
    })
}

fn decode(method: Method, message: Bytes) -> Result<Request, Status> {
    let mut request = Request::decode(method.protocol, message)
        .map_err(|error| Status::new(Code::InvalidArgument, error.to_string()))?;
    match (method.only, request.type_url.is_empty()) {
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

/// What happens to a stream.
enum Happened {
    /// A request, or the end of them.
    Request(Option<Bytes>),
    /// The transport has taken the last response and has room for one more.
    Room,
    /// The class has other resources; `None` if there will be none any more.
    Resources(Option<Option<Arc<ProxyResources>>>),
    /// The client belongs to another class.
    Class(Arc<Class>),
    /// The client has other resources of its own.
    Own(Arc<Layer>),
    /// Something else is different, or it is time.
    Look,
}

/// What a stream waits for besides its client.
struct Waits<'a> {
    entry: &'a Entry,
    classes: WatchStream<Arc<Class>>,
    resources: Option<WatchStream<Option<Arc<ProxyResources>>>>,
    combined: Box<Combined>,
    woken: Pin<Box<Notified<'a>>>,
    alarm: Pin<Box<Sleep>>,
}

impl<'a> Waits<'a> {
    fn new(
        entry: &'a Entry,
        (classes, own): (watch::Receiver<Arc<Class>>, Option<OwnResources>),
        now: Instant,
    ) -> Self {
        Self {
            entry,
            classes: WatchStream::new(classes),
            resources: None,
            combined: Box::new(Combined::new(own)),
            woken: Box::pin(entry.wake.notified()),
            alarm: Box::pin(tokio::time::sleep_until(now)),
        }
    }

    /// The client comes first: what it says may change what it is sent.
    fn poll(
        &mut self,
        call: &mut Call,
        room: bool,
        deadline: Option<Instant>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Happened, Status>> {
        if let Poll::Ready(message) = call.poll_message(cx) {
            return Poll::Ready(message.map(Happened::Request));
        }
        if !room && let Poll::Ready(taken) = call.poll_room(cx) {
            return Poll::Ready(taken.map(|()| Happened::Room));
        }
        if let Poll::Ready(Some(class)) = self.classes.poll_next_unpin(cx) {
            return Poll::Ready(Ok(Happened::Class(class)));
        }
        if let Some(resources) = &mut self.resources
            && let Poll::Ready(newest) = resources.poll_next_unpin(cx)
        {
            return Poll::Ready(Ok(Happened::Resources(newest)));
        }
        if let Poll::Ready(layer) = self.combined.poll(cx) {
            return Poll::Ready(Ok(Happened::Own(layer)));
        }
        if self.woken.as_mut().poll(cx).is_ready() {
            self.woken.set(self.entry.wake.notified());
            return Poll::Ready(Ok(Happened::Look));
        }
        let Some(deadline) = deadline else { return Poll::Pending };
        if deadline != self.alarm.deadline() {
            self.alarm.as_mut().reset(deadline);
        }
        self.alarm.as_mut().poll(cx).map(|()| Ok(Happened::Look))
    }
}

/// An exchange of requests and responses.
struct Exchange<'a> {
    shared: &'a Shared,
    method: Method,
    entry: &'a Entry,
    answers: Answered,
    /// Until the client has everything.
    place: Option<Place>,
}

impl Exchange<'_> {
    async fn run(
        mut self,
        call: &mut Call,
        first: Request,
        follows: (watch::Receiver<Arc<Class>>, Option<OwnResources>),
    ) -> Result<(), End> {
        let start = Instant::now();
        let settings = &self.shared.settings;
        let mut waits = Waits::new(self.entry, follows, start);
        let mut has_resources = false;
        // Whether there is room for a response, and when it was used last.
        let mut room = false;
        let mut written = start;
        if let Some(first) = waits.combined.admit(first) {
            self.take_request(first, start)?;
        }
        loop {
            let now = Instant::now();
            if room && self.send_next(call, now) {
                (room, written) = (false, now);
            }
            self.report();
            let (timer, is_asked) = {
                let stream = self.entry.lock();
                self.place = self.place.take().filter(|_| now < start + PLACE_MAX && !stream.has_started());
                (stream.timer(now.into_std()).map(Instant::from_std), stream.is_asked())
            };
            let place_by = self.place.is_some().then(|| start + PLACE_MAX);
            let send_by = (!room).then(|| written + settings.send_timeout);
            let resources_by = (!has_resources && is_asked).then(|| start + settings.resources_timeout);
            let deadline = timer.into_iter().chain(send_by).chain(resources_by).chain(place_by).min();
            match poll_fn(|cx| waits.poll(call, room, deadline, cx)).await? {
                Happened::Request(None) => return Ok(()),
                Happened::Request(Some(message)) => {
                    let request = decode(self.method, message)?;
                    warn_of_other_node(&request, self.entry);
                    if let Some(request) = waits.combined.admit(request) {
                        self.take_request(request, now)?;
                    }
                }
                Happened::Room => room = true,
                Happened::Resources(None) => {
                    return Err(Status::new(Code::Unavailable, "the configuration is gone").into());
                }
                Happened::Resources(Some(None)) => {}
                Happened::Resources(Some(Some(newest))) => {
                    self.entry.lock().resources(waits.combined.of_class(newest));
                    has_resources = true;
                }
                Happened::Own(layer) => {
                    let (resources, requests) = waits.combined.own(layer);
                    if let Some(resources) = resources {
                        self.entry.lock().resources(resources);
                    }
                    requests.into_iter().try_for_each(|request| self.take_request(request, now))?;
                }
                Happened::Class(class) => {
                    waits.resources = Some(class.subscribe());
                    self.entry.lock().follow(class.memory());
                }
                Happened::Look => {
                    let now = Instant::now();
                    if resources_by.is_some_and(|at| at <= now) {
                        return Err(Status::new(Code::Unavailable, "the configuration is not ready").into());
                    }
                    if send_by.is_some_and(|at| at <= now) {
                        return Err(End::NotRead);
                    }
                }
            }
        }
    }

    /// Gives a request to the stream, or answers it at once if it does not ask for configuration.
    fn take_request(&mut self, request: Request, now: Instant) -> Result<(), Status> {
        if XdsType::from_type_url(&request.type_url).is_some() {
            self.entry.lock().request(request, now.into_std());
            return Ok(());
        }
        if request.type_url == HEALTH {
            let unhealthy = request.error.as_ref().map(|error| error.text.as_str());
            self.shared.discovery.health(&self.entry.node, &self.entry.peer, unhealthy);
            return Ok(());
        }
        if request.type_url == RUNNING {
            if let Some(running) = request.error.as_ref().and_then(|error| Running::parse(&error.text)) {
                self.entry.set_running(running);
            }
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
        let question = Question { type_url, names, node: &self.entry.node, peer: &self.entry.peer, streams };
        match self.shared.discovery.answer(&question)? {
            Some(found) => {
                self.answers.given += 1;
                let nonce = format!("{ANSWER_NONCE}{}", self.answers.given);
                let (protocol, encoder) = (self.method.protocol, &self.shared.encoder);
                self.answers.unsent.push_back(encoder.answer(protocol, type_url, nonce, found));
            }
            None => self.entry.lock().request(request, now.into_std()),
        }
        Ok(())
    }

    /// Sends one response if there is one.
    fn send_next(&mut self, call: &mut Call, now: Instant) -> bool {
        if let Some(answer) = self.answers.unsent.pop_front() {
            call.send([answer]);
            return true;
        }
        let Some(response) = self.entry.lock().poll(now.into_std()) else { return false };
        trace(self.entry, &response);
        let message = self.shared.encoder.grpc_message(self.method.protocol, &response);
        let bytes = message.iter().map(Bytes::len).sum();
        self.shared.observer.sending(response.ty, bytes);
        call.send(message);
        true
    }

    fn report(&self) {
        let events = self.entry.lock().take_events();
        for event in events {
            self.shared.observer.event(&self.entry.node, &event);
        }
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
