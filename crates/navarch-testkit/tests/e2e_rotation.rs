//! A root is replaced while calls are running: no call is lost, whatever happens to the control plane
//! meanwhile.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use common::{
    authority::Rig,
    pair::{Mesh, REVIEWS, SPY, WEB},
};
use navarch_testkit::{http::Call, wait};
use serde_json::Value;
use tokio::task::JoinSet;

/// How long a certificate lives here. A rotation takes some of these lives.
const LIFE: &str = "10s";

/// Longer than the steps of a rotation that wait for the clock.
const LIVES: Duration = Duration::from_secs(90);

/// Calls all the time: 200 in a second, if the machine has as much to give.
struct Load {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    callers: JoinSet<Vec<String>>,
}

impl Load {
    fn start(port: u16) -> Load {
        const CALLERS: u64 = 4;
        let (stop, calls) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (stop, calls) = (stop.clone(), calls.clone());
            callers.spawn(async move {
                let mut lost = Vec::new();
                let mut pace = tokio::time::interval(Duration::from_millis(5 * CALLERS));
                pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
                while !stop.load(Ordering::Relaxed) {
                    pace.tick().await;
                    let call = Call::get(format!("http://127.0.0.1:{port}/")).header("host", "reviews.test");
                    match call.send().await {
                        Ok(answer) if answer.status == 200 => {}
                        Ok(answer) => lost.push(format!("{} {}", answer.status, answer.text())),
                        Err(error) => lost.push(format!("{error:#}")),
                    }
                    calls.fetch_add(1, Ordering::Relaxed);
                }
                lost
            });
        }
        Load { stop, calls, callers }
    }

    async fn finish(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let lost: Vec<String> = self.callers.join_all().await.concat();
        let calls = self.calls.load(Ordering::Relaxed);
        ensure!(
            lost.is_empty(),
            "{} of {calls} calls were lost: {:?}",
            lost.len(),
            &lost[..lost.len().min(3)]
        );
        Ok(calls)
    }
}

fn status(rig: &Rig) -> Result<Value> {
    Ok(serde_json::from_str(&rig.server.command(&["ca", "status", "-o", "json"])?)?)
}

/// Waits for the phase of a rotation.
async fn reach(rig: &Rig, phase: &str) -> Result<()> {
    wait::until(phase, LIVES, || async {
        let status = status(rig)?;
        ensure!(status["rotation"]["phase"]["name"] == phase, "{status}");
        Ok(())
    })
    .await
}

fn count(roots: &str) -> usize {
    roots.matches("BEGIN CERTIFICATE").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_is_replaced_under_load_and_kill_9() -> Result<()> {
    let rig = Rig::with_channels("rotation", &["--cert-ttl", LIFE]).await?;
    let mut mesh = Mesh::start(rig).await?;
    let _reviews = mesh.rig.sidecar("rotation-reviews", &REVIEWS).await?;
    let _web = mesh.rig.sidecar("rotation-web", &WEB).await?;
    let mut spy = mesh.rig.sidecar("rotation-spy", &SPY).await?;
    mesh.expect([200, 200]).await?;
    let first = mesh.rig.roots()?;
    ensure!(count(&first) == 1, "{first}");
    // Without the token of the state directory nobody tells the server anything.
    ensure!(mesh.rig.server.command(&["ca", "rotate"]).is_err(), "anybody may replace the root");

    let load = Load::start(mesh.outbound[0]);
    // What has been distributed and has signed nothing is undone without a trace.
    mesh.rig.operate(&["ca", "rotate"])?;
    ensure!(count(&mesh.rig.roots()?) == 2, "the new root is not trusted");
    mesh.rig.operate(&["ca", "undo"])?;
    ensure!(mesh.rig.roots()? == first, "the old root is not alone");

    // One does not answer: the new root does not sign, and who is missing is said.
    spy.process().signal("STOP")?;
    mesh.rig.operate(&["ca", "rotate"])?;
    wait::until("somebody to be missing", LIVES, || async {
        let rotation = status(&mesh.rig)?["rotation"].clone();
        let waits = rotation["waiting"]["for"] == "acknowledgements";
        ensure!(waits && rotation["missing"] == serde_json::json!(["spy.back"]), "{rotation}");
        ensure!(rotation["phase"]["name"] == "distributing", "{rotation}");
        Ok(())
    })
    .await?;
    mesh.rig.operate(&["ca", "pause"])?;
    let both = mesh.rig.roots()?;
    mesh.rig.server.kill();
    mesh.rig.server.restart().await?;
    let after = status(&mesh.rig)?;
    ensure!(after["rotation"]["paused"] == true && mesh.rig.roots()? == both, "{after}");
    spy.process().signal("CONT")?;
    mesh.rig.operate(&["ca", "resume"])?;

    // Everybody has it: it signs. A crash then takes nothing back.
    reach(&mesh.rig, "retiring").await?;
    let signing = status(&mesh.rig)?["rotation"]["phase"]["signing"].clone();
    mesh.rig.server.kill();
    mesh.rig.server.restart().await?;
    let after = status(&mesh.rig)?;
    ensure!(after["rotation"]["phase"]["signing"] == signing, "{after}");
    ensure!(count(&mesh.rig.roots()?) == 2, "the old root went before its last certificate");

    // The last certificate of the old root has ended: it is not trusted any more, and nobody misses it.
    reach(&mesh.rig, "idle").await?;
    let last = mesh.rig.roots()?;
    ensure!(count(&last) == 1 && last != first, "{last}");
    wait::until("the proxies to trust the new root alone", LIVES, || async {
        let status = status(&mesh.rig)?;
        let rotation = &status["rotation"];
        ensure!(rotation["connected"] == 3 && rotation["missing"] == serde_json::json!([]), "{status}");
        Ok(())
    })
    .await?;
    mesh.expect([200, 200]).await?;
    let calls = load.finish().await?;
    ensure!(calls > 100, "{calls} calls are no load");
    Ok(())
}
