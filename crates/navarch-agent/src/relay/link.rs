//! A stream to the control plane that is opened again whenever it ends.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use navarch_xds::server::{Code, Status};
use tokio::time::{Instant, sleep_until};

use crate::backoff::Backoff;
use crate::grpc::Call;
use crate::upstream::{Upstream, UpstreamError};

/// The first wait after a failure, and the longest: an agent that has lost its control plane finds it again
/// soon after it is back, and a thousand agents do not do so at once.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// What happens on the way to the control plane.
pub enum Event {
    /// A new stream is open; nothing was said on it.
    Opened,
    Response(Bytes),
    /// A stream could not be opened, or broke.
    Failed,
    /// A stream ended as it should, to be opened again.
    Ended,
}

/// The stream, or the waiting for one.
pub struct Link {
    upstream: Arc<Upstream>,
    path: String,
    state: State,
    backoff: Backoff,
}

enum State {
    Idle,
    Waiting(Instant),
    Opening(BoxFuture<'static, Result<Call, UpstreamError>>),
    Open(Call),
}

impl Link {
    pub fn new(upstream: Arc<Upstream>, path: String) -> Self {
        Link { upstream, path, state: State::Idle, backoff: Backoff::new(FIRST, LONGEST) }
    }

    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Opens the stream, now that there is something to say.
    pub fn begin(&mut self) {
        let (upstream, path) = (self.upstream.clone(), self.path.clone());
        self.state = State::Opening(Box::pin(async move { upstream.open(&path).await }));
    }

    /// Tries again at once, if it waits.
    pub fn hurry(&mut self) {
        if let State::Waiting(_) = self.state {
            self.begin();
        }
    }

    /// Sends a message. If the stream has broken, that shows with [`Link::next`].
    pub fn send(&mut self, message: &[u8]) {
        if let State::Open(call) = &mut self.state {
            let _ = call.send(message);
        }
    }

    /// What happens next. Responses are taken only if they `may_come`. May be dropped without losing
    /// anything.
    pub async fn next(&mut self, may_come: bool) -> Event {
        loop {
            match &mut self.state {
                State::Idle => pending().await,
                State::Waiting(at) => {
                    sleep_until(*at).await;
                    self.begin();
                }
                State::Opening(opening) => match opening.await {
                    Ok(call) => {
                        self.state = State::Open(call);
                        return Event::Opened;
                    }
                    Err(error) => {
                        self.wait(&crate::Chain(&error).to_string());
                        return Event::Failed;
                    }
                },
                State::Open(_) if !may_come => pending().await,
                State::Open(call) => match call.message().await {
                    Ok(message) => {
                        self.backoff.reset();
                        return Event::Response(message);
                    }
                    // The connection is old enough, or the server moves its clients to another one.
                    Err(status) if status.code == Code::Ok => {
                        self.begin();
                        return Event::Ended;
                    }
                    Err(Status { code, message }) => {
                        self.wait(&format!("{code:?}: {message}"));
                        return Event::Failed;
                    }
                },
            }
        }
    }

    fn wait(&mut self, reason: &str) {
        let wait = self.backoff.next();
        // The first time, and then every ten times: about once in a minute.
        if self.backoff.failures() % 10 == 1 {
            let server = self.upstream.server();
            tracing::warn!(reason, server, retry_in = ?wait, "no stream to the control plane");
        }
        self.state = State::Waiting(Instant::now() + wait);
    }
}
