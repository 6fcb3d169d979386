//! Calls at a steady pace, each of which has to be answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use navarch_testkit::http::Call;
use tokio::task::JoinSet;

/// Calls all the time: 200 in a second, if the machine has as much to give.
pub struct Load {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    callers: JoinSet<Vec<String>>,
}

impl Load {
    pub fn start(url: &str, host: &str) -> Load {
        const CALLERS: u64 = 4;
        let (stop, calls) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (mut callers, started) = (JoinSet::new(), Instant::now());
        for _ in 0..CALLERS {
            let (stop, calls) = (stop.clone(), calls.clone());
            let call = Call::get(url).header("host", host);
            callers.spawn(async move {
                let mut lost = Vec::new();
                let mut pace = tokio::time::interval(Duration::from_millis(5 * CALLERS));
                pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
                while !stop.load(Ordering::Relaxed) {
                    pace.tick().await;
                    match call.clone().send().await {
                        Ok(answer) if answer.status == 200 => {}
                        Ok(answer) => {
                            lost.push(format!(
                                "{:?}: {} {}",
                                started.elapsed(),
                                answer.status,
                                answer.text()
                            ));
                        }
                        Err(error) => lost.push(format!("{:?}: {error:#}", started.elapsed())),
                    }
                    calls.fetch_add(1, Ordering::Relaxed);
                }
                lost
            });
        }
        Load { stop, calls, callers }
    }

    /// How many were made.
    pub async fn finish(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let lost: Vec<String> = self.callers.join_all().await.concat();
        let calls = self.calls.load(Ordering::Relaxed);
        let some = &lost[..lost.len().min(3)];
        ensure!(lost.is_empty(), "{} of {calls} calls were lost: {some:?}", lost.len());
        ensure!(calls > 0, "nobody called");
        Ok(calls)
    }
}
