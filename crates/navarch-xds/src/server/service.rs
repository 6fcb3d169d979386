//! Services that others bring to the port: unary gRPC methods, found by their path.
//!
//! The server sees to what every such call needs: sizes, times, how many there are at once, and the framing.
//! What is asked and what it means is up to the [`Service`].

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use tokio::sync::Semaphore;

use super::call::{Call, End, Offer};
use super::grpc::{self, Code, Status, framed};
use super::{Peer, Settings};

/// One unary gRPC method. Closures from [`UnaryCall`] to a future are services too.
pub trait Service: Send + Sync + 'static {
    /// Answers a call with the bytes of a message.
    ///
    /// Calls run on the task of their connection, so the future must not block. It is dropped when the client
    /// gives up, when the time is over and when the connection ends: what must not be left half done belongs
    /// on a task of its own.
    fn answer(&self, call: UnaryCall) -> BoxFuture<'_, Result<Bytes, Status>>;

    /// What calls may take.
    fn limits(&self) -> Limits {
        Limits::default()
    }
}

impl<F, R> Service for F
where
    F: Fn(UnaryCall) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Bytes, Status>> + Send + 'static,
{
    fn answer(&self, call: UnaryCall) -> BoxFuture<'_, Result<Bytes, Status>> {
        Box::pin(self(call))
    }
}

/// What is asked, and by whom.
#[derive(Clone)]
pub struct UnaryCall {
    /// The message of the request, as it came.
    pub message: Bytes,
    /// The metadata of the call: the headers of the request. They may hold credentials.
    pub metadata: HeaderMap,
    /// Who asks, as far as the transport knows.
    pub peer: Arc<Peer>,
}

/// Tokens are in the metadata, and who knows what is in the message.
impl fmt::Debug for UnaryCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UnaryCall { message, metadata: _, peer } = self;
        f.debug_struct("UnaryCall")
            .field("message_bytes", &message.len())
            .field("peer", peer)
            .finish_non_exhaustive()
    }
}

/// What the calls of one service may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request.
    pub request_bytes_max: usize,
    /// Time from the head of a request to its answer. A client that states a shorter one (`grpc-timeout`)
    /// gets that.
    pub timeout: Duration,
    /// Calls at once; more are refused, and may be tried again.
    pub calls_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { request_bytes_max: 64 << 10, timeout: Duration::from_secs(10), calls_max: 256 }
    }
}

/// The services of a server, by path.
#[derive(Default)]
pub(super) struct Services(BTreeMap<String, Registered>);

pub(super) struct Registered {
    service: Box<dyn Service>,
    limits: Limits,
    places: Semaphore,
}

impl Services {
    pub fn add(&mut self, path: String, service: Box<dyn Service>) {
        let limits = service.limits();
        let places = Semaphore::new(limits.calls_max.min(Semaphore::MAX_PERMITS));
        self.0.insert(path, Registered { service, limits, places });
    }

    pub fn get(&self, path: &str) -> Option<&Registered> {
        self.0.get(path)
    }
}

impl Registered {
    /// Answers one call. It is not told of the end of its connection: that waits long enough for a call that
    /// is under way.
    pub async fn serve(&self, mut offer: Offer, peer: Arc<Peer>, settings: &Settings) -> Result<(), End> {
        // A place is taken before anything is read, so that what waiting requests hold is bounded.
        let Ok(_place) = self.places.try_acquire() else {
            let status = Status::new(Code::Unavailable, "too many calls at once, try again");
            // Who is gone does not listen.
            let _ = offer.respond.send_response(grpc::refuse(&status), true);
            return Ok(());
        };
        let metadata = std::mem::take(offer.request.headers_mut());
        let within =
            stated_timeout(&metadata).map_or(self.limits.timeout, |own| own.min(self.limits.timeout));
        let Ok(mut call) = Call::accept(offer, self.limits.request_bytes_max) else { return Ok(()) };
        let answered = tokio::time::timeout(within, self.answer(&mut call, metadata, peer)).await;
        let late = |_| Err(Status::new(Code::DeadlineExceeded, "no answer in time"));
        let status = match answered.unwrap_or_else(late) {
            Ok(message) => {
                call.send([framed(&message)]);
                Status::new(Code::Ok, "")
            }
            Err(status) => status,
        };
        tracing::debug!(code = ?status.code, message = %status.message, "call ended");
        call.end(&status, settings.grace).await
    }

    async fn answer(&self, call: &mut Call, metadata: HeaderMap, peer: Arc<Peer>) -> Result<Bytes, Status> {
        let missing = || Status::new(Code::InvalidArgument, "the call has no message");
        let message = call.message().await?.ok_or_else(missing)?;
        tokio::select! {
            biased;
            answer = self.service.answer(UnaryCall { message, metadata, peer }) => answer,
            () = call.given_up() => Err(Status::cancelled()),
        }
    }
}

/// `grpc-timeout` (gRPC over HTTP/2, "Timeout"): up to eight digits and a unit. What is not of that form is
/// not a timeout.
fn stated_timeout(metadata: &HeaderMap) -> Option<Duration> {
    let stated = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = stated.split_at_checked(stated.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_timeout_of_a_client_is_read() {
        let check = |text: &str, expected: Option<Duration>| {
            let mut metadata = HeaderMap::new();
            metadata.insert("grpc-timeout", HeaderValue::from_str(text).expect("a header"));
            assert_eq!(stated_timeout(&metadata), expected, "{text:?}");
        };
        check("2H", Some(Duration::from_secs(7200)));
        check("3M", Some(Duration::from_secs(180)));
        check("4S", Some(Duration::from_secs(4)));
        check("500m", Some(Duration::from_millis(500)));
        check("7u", Some(Duration::from_micros(7)));
        check("0n", Some(Duration::ZERO));
        check("99999999H", Some(Duration::from_secs(99_999_999 * 3600)));
        check("999999999S", None);
        for odd in ["", "S", "10", "10s", "-1S", "+1S", "1.5S", "1 S", " 1S"] {
            check(odd, None);
        }
        assert_eq!(stated_timeout(&HeaderMap::new()), None);
    }

    #[test]
    fn a_call_does_not_print_what_it_holds() {
        let mut metadata = HeaderMap::new();
        metadata.insert("authorization", HeaderValue::from_static("Bearer hunter2"));
        let peer = Arc::new(Peer::plaintext(([127, 0, 0, 1], 1).into()));
        let call = UnaryCall { message: Bytes::from_static(b"hunter2"), metadata, peer };
        assert!(!format!("{call:?}").contains("hunter2"));
    }
}
