//! Lists and watches, as bytes: one page, or one event after the other.
//!
//! The paragraphs that are cited are those of Kubernetes' "API Concepts".

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use kube::Client;
use kube::client::Body;
use navarch_model::timestamp::format_timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::protobuf::{self, List, Message};

/// Objects of one page of a list.
const PAGE: u32 = 500;

/// Bytes of one page. An object has at most three megabytes; nearly all have a few kilobytes.
const PAGE_BYTES_MAX: usize = 256 << 20;

/// Bytes of one event of a watch.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// Longest wait for an answer to anything but a list or a watch. What holds a Lease reckons with it.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(4);

/// Bytes of such an answer.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Who changes objects, in their `managedFields`.
pub(crate) const FIELD_MANAGER: &str = "navarch";

const JSON: &str = "application/json";

/// Seconds after which the API server ends a watch, so that connections spread over its replicas.
const WATCH_SECONDS: u32 = 290;

/// Why a list or a watch did not work.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The version to go on from is not kept any more (410; "Resource versions").
    #[error("the version is not kept any more")]
    Expired,
    /// There is no such kind (404).
    #[error("the API server has no such kind")]
    Absent,
    #[error("the API server says {status}: {message}")]
    Refused {
        status: u16,
        message: String,
        /// How long it wants us to wait.
        after: Option<Duration>,
    },
    #[error("the API server does not answer")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the answer of the API server is not what was asked for: {0}")]
    Nonsense(String),
}

/// One page of a list.
#[derive(Debug)]
pub(crate) struct Page {
    /// The version that all pages of a list are of ("Retrieving large results sets in chunks").
    pub version: String,
    /// Where the next page starts; empty after the last one.
    pub rest: String,
    pub items: Vec<Item>,
}

/// An object of a list: a part of the answer.
#[derive(Debug)]
pub(crate) enum Item {
    Json(Bytes),
    Protobuf(Bytes, &'static Message),
}

impl Item {
    /// The object in JSON, or of Protobuf what is read of it.
    pub(crate) fn json(&self) -> Result<Cow<'_, str>, Failure> {
        let nonsense = |error: &dyn std::error::Error| Failure::Nonsense(error.to_string());
        match self {
            // JSON is UTF-8 (RFC 8259, 8.1).
            Item::Json(bytes) => std::str::from_utf8(bytes).map(Cow::from).map_err(|error| nonsense(&error)),
            Item::Protobuf(bytes, message) => {
                message.to_json(bytes).map(Cow::from).map_err(|error| nonsense(&error))
            }
        }
    }
}

#[derive(Deserialize)]
struct RawPage<'a> {
    #[serde(default)]
    metadata: PageMetadata,
    /// Absent if there are none.
    #[serde(default, borrow)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMetadata {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    rest: String,
}

impl Page {
    /// Reads an answer: in Protobuf, if that was asked for and the API server can, or in JSON.
    fn read(bytes: &Bytes, message: Option<&'static Message>) -> Result<Page, Failure> {
        match message.filter(|_| bytes.starts_with(protobuf::MAGIC)) {
            Some(message) => {
                let List { version, rest, items } =
                    List::read(bytes).map_err(|error| Failure::Nonsense(error.to_string()))?;
                let items = items.into_iter().map(|item| Item::Protobuf(item, message)).collect();
                Ok(Page { version, rest, items })
            }
            None => {
                let RawPage { metadata, items } =
                    serde_json::from_slice(bytes).map_err(|error| Failure::Nonsense(error.to_string()))?;
                let items = items.unwrap_or_default().into_iter();
                let items = items.map(|item| Item::Json(bytes.slice_ref(item.get().as_bytes()))).collect();
                Ok(Page { version: metadata.resource_version, rest: metadata.rest, items })
            }
        }
    }
}

/// One event of a watch.
#[derive(Debug, Deserialize)]
pub(crate) struct Event {
    #[serde(rename = "type")]
    pub ty: String,
    pub object: Box<RawValue>,
}

/// What the API server says instead of an answer.
#[derive(Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: String,
}

impl Failure {
    /// The status of a refusal.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Failure::Refused { status, .. } => Some(*status),
            Failure::Absent => Some(404),
            Failure::Expired => Some(410),
            Failure::Unreachable(_) | Failure::Nonsense(_) => None,
        }
    }
}

/// The API server, for one collection.
#[derive(Clone)]
pub(crate) struct Collection {
    pub client: Client,
    /// `/api/v1/pods`, or `/apis/<group>/<version>/namespaces/<namespace>/<plural>`.
    pub path: String,
    /// What of it is wanted, as a field selector; empty for all.
    pub fields: &'static str,
    /// The same, as a label selector.
    pub labels: &'static str,
    /// How its objects are written in Protobuf, if lists are read in that.
    pub message: Option<&'static Message>,
}

impl Collection {
    /// A page of the newest list ("Get and List semantics": without a version, the most recent).
    pub(crate) async fn page(&self, rest: &str) -> Result<Page, Failure> {
        let mut query = vec![("limit", PAGE.to_string())];
        if !rest.is_empty() {
            query.push(("continue", rest.to_owned()));
        }
        let accept = if self.message.is_some() { protobuf::ACCEPT } else { JSON };
        let body = Limited::new(self.send(&query, accept).await?, PAGE_BYTES_MAX);
        let bytes = body.collect().await.map_err(Failure::Unreachable)?.to_bytes();
        let message = self.message;
        // Megabytes of JSON are nothing for a thread that others wait for.
        let page = tokio::task::spawn_blocking(move || Page::read(&bytes, message)).await;
        page.unwrap_or_else(|error| Err(Failure::Nonsense(error.to_string())))
    }

    /// What happens after a version ("Efficient detection of changes").
    pub(crate) async fn watch(&self, version: &str) -> Result<Events, Failure> {
        let query = [
            ("watch", "true".to_owned()),
            ("allowWatchBookmarks", "true".to_owned()),
            ("resourceVersion", version.to_owned()),
            ("timeoutSeconds", WATCH_SECONDS.to_string()),
        ];
        Ok(Events::new(self.send(&query, JSON).await?))
    }

    async fn send(&self, query: &[(&'static str, String)], accept: &'static str) -> Result<Body, Failure> {
        let mut uri = format!("{}?", self.path);
        let selectors = [("fieldSelector", self.fields), ("labelSelector", self.labels)];
        let selectors = selectors.into_iter().filter(|(_, selector)| !selector.is_empty());
        let selectors: Vec<_> = selectors.map(|(name, selector)| (name, selector.to_owned())).collect();
        for (name, value) in query.iter().chain(&selectors) {
            uri.push_str(&format!("{name}={}&", escaped(value)));
        }
        get(&self.client, uri.trim_end_matches('&'), accept).await
    }
}

/// Whether the API server has everything that it needs to answer; kinds defined by
/// CustomResourceDefinitions may be missing before.
pub(crate) async fn is_ready(client: &Client) -> bool {
    get(client, "/readyz", JSON).await.is_ok()
}

/// How an object is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is new.
    Create,
    /// It is replaced as a whole.
    Replace,
    /// These fields are ours ("Server-Side Apply"), whoever had them before.
    Apply,
    /// These fields are put in place of those that are there (RFC 7396).
    Merge,
    /// It is changed step by step (RFC 6902).
    Steps,
}

impl Change {
    fn parts(self) -> (Method, &'static str) {
        match self {
            Change::Create => (Method::POST, JSON),
            Change::Replace => (Method::PUT, JSON),
            Change::Apply => (Method::PATCH, "application/apply-patch+yaml"),
            Change::Merge => (Method::PATCH, "application/merge-patch+json"),
            Change::Steps => (Method::PATCH, "application/json-patch+json"),
        }
    }
}

/// An object, read once.
pub(crate) async fn read(client: &Client, uri: &str) -> Result<Bytes, Failure> {
    bounded(async { whole(get(client, uri, JSON).await?).await }).await
}

/// Changes an object; gives it as it is then.
pub(crate) async fn change(
    client: &Client,
    change: Change,
    uri: &str,
    object: &impl Serialize,
) -> Result<Bytes, Failure> {
    change_as(client, FIELD_MANAGER, change, uri, object).await
}

/// The same, in another name. The address may already have a question mark.
pub(crate) async fn change_as(
    client: &Client,
    manager: &str,
    change: Change,
    uri: &str,
    object: &impl Serialize,
) -> Result<Bytes, Failure> {
    let (method, content) = change.parts();
    let force = if change == Change::Apply { "&force=true" } else { "" };
    let mark = if uri.contains('?') { '&' } else { '?' };
    let uri = format!("{uri}{mark}fieldManager={manager}{force}");
    let object = serde_json::to_vec(object).map_err(|error| Failure::Nonsense(error.to_string()))?;
    let request = Request::builder().method(method).uri(uri).header(header::CONTENT_TYPE, content);
    let request = request.header(header::ACCEPT, JSON).body(Body::from(object));
    bounded(async { whole(answer(client, request).await?).await }).await
}

/// Removes an object; with a version, only that one.
pub(crate) async fn remove(client: &Client, uri: &str, version: Option<&str>) -> Result<(), Failure> {
    let body = version.map(|version| json!({"preconditions": {"resourceVersion": version}}).to_string());
    let request = Request::delete(uri)
        .header(header::ACCEPT, JSON)
        .header(header::CONTENT_TYPE, JSON)
        .body(body.map_or_else(Body::empty, |body| Body::from(body.into_bytes())));
    bounded(async { whole(answer(client, request).await?).await }).await.map(|_| ())
}

async fn bounded<T>(asking: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    timeout(ANSWER_MAX, asking).await.unwrap_or_else(|elapsed| Err(Failure::Unreachable(elapsed.into())))
}

async fn whole(body: Body) -> Result<Bytes, Failure> {
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(Failure::Unreachable)?;
    Ok(body.to_bytes())
}

async fn get(client: &Client, uri: &str, accept: &'static str) -> Result<Body, Failure> {
    answer(client, Request::get(uri).header(header::ACCEPT, accept).body(Body::empty())).await
}

async fn answer(client: &Client, request: http::Result<Request<Body>>) -> Result<Body, Failure> {
    let request = request.map_err(|error| Failure::Nonsense(error.to_string()))?;
    let answer = client.send(request).await.map_err(|error| Failure::Unreachable(error.into()))?;
    let (parts, body) = answer.into_parts();
    if parts.status.is_success() {
        return Ok(body);
    }
    let said = Limited::new(body, 1 << 20).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Err(refused(parts.status, &parts.headers, &said))
}

fn refused(status: StatusCode, headers: &HeaderMap, body: &Bytes) -> Failure {
    // It is written as the answer would have been.
    let message = protobuf::message_of_status(body).unwrap_or_else(|| {
        let said: Status = serde_json::from_slice(body).unwrap_or_default();
        said.message
    });
    let after = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    of_status(status.as_u16(), message, after.map(Duration::from_secs))
}

fn of_status(status: u16, message: String, after: Option<Duration>) -> Failure {
    match status {
        404 => Failure::Absent,
        410 => Failure::Expired,
        status => Failure::Refused { status, message, after },
    }
}

/// The events of a watch.
pub(crate) struct Events {
    body: Body,
    /// What has come and is not a whole line yet.
    read: BytesMut,
    /// How much of that has been searched for the end of a line.
    searched: usize,
    /// What ends the watch, after the events that came before it.
    failed: Option<Failure>,
}

impl Events {
    fn new(body: Body) -> Self {
        Events { body, read: BytesMut::new(), searched: 0, failed: None }
    }

    /// The next events, as many as have come together; `None` after the last one.
    ///
    /// It may be dropped while it waits, without a loss.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Event>>, Failure> {
        loop {
            let events = self.lines();
            if !events.is_empty() {
                return Ok(Some(events));
            }
            if let Some(failure) = self.failed.take() {
                return Err(failure);
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(Failure::Unreachable(error.into())),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.read.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    /// The events of all whole lines, up to what ends the watch.
    fn lines(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while self.failed.is_none() {
            let unsearched = self.read.get(self.searched..).unwrap_or_default();
            let Some(end) = unsearched.iter().position(|byte| *byte == b'\n') else {
                self.searched = self.read.len();
                if self.searched > EVENT_BYTES_MAX {
                    let message = format!("an event has more than {EVENT_BYTES_MAX} bytes");
                    self.failed = Some(Failure::Nonsense(message));
                }
                break;
            };
            let line = self.read.split_to(self.searched + end);
            self.read.advance(1);
            self.searched = 0;
            match event(&line) {
                Ok(event) => events.push(event),
                Err(failure) => self.failed = Some(failure),
            }
        }
        events
    }
}

fn event(line: &[u8]) -> Result<Event, Failure> {
    let event: Event = serde_json::from_slice(line).map_err(|error| Failure::Nonsense(error.to_string()))?;
    if event.ty == "ERROR" {
        let said: Status = serde_json::from_str(event.object.get()).unwrap_or_default();
        return Err(of_status(said.code, said.message, None));
    }
    Ok(event)
}

/// An answer as JSON.
pub(crate) fn understood(bytes: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(bytes).map_err(|error| Failure::Nonsense(error.to_string()))
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// The time, as Kubernetes writes it.
pub(crate) fn clock() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format_timestamp(i64::try_from(now.as_secs()).unwrap_or_default())
}

/// A value in a query: everything but what never needs to be escaped is.
pub(crate) fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_how_long_to_wait() {
        let check = |stated: Option<&'static str>, expected: Option<u64>| {
            let value = stated.map(http::HeaderValue::from_static);
            let headers = value.into_iter().map(|value| (header::RETRY_AFTER, value)).collect();
            let failure = refused(StatusCode::TOO_MANY_REQUESTS, &headers, &Bytes::new());
            let Failure::Refused { status: 429, after, .. } = failure else { panic!("{failure:?}") };
            assert_eq!(after, expected.map(Duration::from_secs), "{stated:?}");
        };
        check(None, None);
        check(Some("1"), Some(1));
        check(Some("-1"), None);
        // A date (RFC 9110, 10.2.3) is not what an API server sends.
        check(Some("Wed, 21 Oct 2015 07:28:00 GMT"), None);
    }

    #[test]
    fn a_refusal_says_why() {
        let check = |body: &[u8], expected: &str| {
            let failure = refused(StatusCode::FORBIDDEN, &HeaderMap::new(), &Bytes::copy_from_slice(body));
            let Failure::Refused { status: 403, message, .. } = failure else { panic!("{failure:?}") };
            assert_eq!(message, expected);
        };
        check(br#"{"kind":"Status","status":"Failure","message":"not you"}"#, "not you");
        // Of `runtime.Unknown`, what is in it (2); of `metav1.Status`, the message (3).
        check(b"k8s\0\x12\x12\x12\x07Failure\x1a\x07not you", "not you");
        check(b"a proxy's page", "");
        check(b"k8s\0\x12\x7f", "");
    }
}
