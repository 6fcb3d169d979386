//! Whether the application takes traffic, as the probe of its WorkloadGroup finds out: the control plane is
//! told, and sends nobody to one that does not.

use std::time::Duration;

use http::HeaderMap;
use navarch_model::networking::ReadinessProbe;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::status::probe::Probe;

/// What the application was found to be: why it takes no traffic, or that it does.
pub type Found = Result<(), String>;

/// Defaults of Kubernetes.
const PERIOD: u64 = 10;
const FAILURES: u32 = 3;

/// What the control plane is told of the application.
pub struct Readiness {
    found: watch::Sender<Option<Found>>,
    follower: JoinHandle<()>,
    /// Whether the workload has an object that says how it is.
    is_registered: bool,
}

impl Readiness {
    /// With a probe, what that finds out as soon as it is known.
    pub fn start(
        found: watch::Sender<Option<Found>>,
        probe: impl Future<Output = Option<ReadinessProbe>> + Send + 'static,
        is_registered: bool,
    ) -> Self {
        let finding = found.clone();
        let follower = tokio::spawn(async move {
            if let Some(probe) = probe.await {
                follow(probe, finding).await;
            }
        });
        Readiness { found, follower, is_registered }
    }

    /// The workload ends: nobody is sent here any more, and when it comes back, not before its probe has
    /// found it well. Its object outlives it for a time.
    pub fn leave(&self) {
        if !self.is_registered {
            return;
        }
        self.follower.abort();
        self.found.send_replace(Some(Err("the workload ends".to_owned())));
    }
}

/// Asks the application from time to time. `found` changes when it has been one or the other as often in a
/// row as the probe demands.
async fn follow(probe: ReadinessProbe, found: watch::Sender<Option<Found>>) {
    let Some(ask) = Probe::of_group(&probe) else { return };
    let at_least_one =
        |count: i32, default: u32| u32::try_from(count).ok().filter(|n| *n > 0).unwrap_or(default);
    let (successes, failures) =
        (at_least_one(probe.success_threshold, 1), at_least_one(probe.failure_threshold, FAILURES));
    let seconds = |seconds: i32| u64::try_from(seconds).unwrap_or_default();
    let period =
        Duration::from_secs(Some(seconds(probe.period_seconds)).filter(|n| *n > 0).unwrap_or(PERIOD));
    sleep(Duration::from_secs(seconds(probe.initial_delay_seconds))).await;
    let (mut good, mut bad) = (0, 0);
    loop {
        let reason = match ask.run(&HeaderMap::new()).await {
            Ok(status) if status.is_success() || status.is_redirection() => None,
            Ok(status) => Some(format!("the application answers with {status}")),
            Err(error) => Some(crate::Chain(&error).to_string()),
        };
        let news = match reason {
            None => {
                (good, bad) = (good + 1, 0);
                (good >= successes).then_some(Ok(()))
            }
            Some(reason) => {
                (good, bad) = (0, bad + 1);
                (bad >= failures).then_some(Err(reason))
            }
        };
        if let Some(news) = news {
            found.send_if_modified(|known| {
                let is_same = known.as_ref().is_some_and(|known| known.is_ok() == news.is_ok());
                if !is_same {
                    let reason = news.as_ref().err();
                    tracing::info!(healthy = news.is_ok(), reason, "the application");
                    *known = Some(news);
                }
                !is_same
            });
        }
        sleep(period).await;
    }
}
