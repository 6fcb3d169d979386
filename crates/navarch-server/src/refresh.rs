//! Asking the pipeline to look at its sources now, whatever was reported.

use tokio::sync::{mpsc, oneshot};

/// Requests that wait; more than these wait for room.
const REQUESTS_MAX: usize = 64;

/// What looking at all sources came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// The revision that holds everything that was written before the request.
    pub revision: u64,
    /// Sources that could not be read, and why. What they said before stays in force.
    pub errors: Vec<String>,
}

/// Who may ask.
#[derive(Clone, Debug)]
pub struct Refresh(mpsc::Sender<oneshot::Sender<Refreshed>>);

/// Where requests arrive.
pub type Requests = mpsc::Receiver<oneshot::Sender<Refreshed>>;

/// A way to ask, and where requests arrive.
pub fn channel() -> (Refresh, Requests) {
    let (sender, receiver) = mpsc::channel(REQUESTS_MAX);
    (Refresh(sender), receiver)
}

impl Refresh {
    /// Has everything looked at, and waits until that is done. `None` if changes are no longer followed.
    pub async fn now(&self) -> Option<Refreshed> {
        let (answer, answered) = oneshot::channel();
        self.0.send(answer).await.ok()?;
        answered.await.ok()
    }
}
