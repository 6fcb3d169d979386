//! `cargo xtask demo`: a mesh of stock Envoys on this machine, changed while it serves.

mod mesh;
mod shown;
mod traffic;

use crate::{check, progress};
use anyhow::{Context, Result, bail, ensure};
use mesh::Mesh;
use navarch_testkit::{wait, workspace};
use shown::shown;
use std::{
    path::Path,
    time::{Duration, Instant},
};
use tokio::signal::unix::{SignalKind, signal};
use traffic::{Caller, Tally};

/// One live change of the configuration, and how the answers must differ after it.
struct Edit {
    title: &'static str,
    /// The file in `examples/edits` that replaces `reviews-routes.yaml`.
    file: &'static str,
    caller: Caller,
    /// Whether answers to `caller` show the edit.
    shows: fn(&Tally) -> bool,
    promise: &'static str,
}

const EDITS: [Edit; 3] = [
    Edit {
        title: "weights: a quarter of the requests to version 3",
        file: "1-weights.yaml",
        caller: Caller::Anybody,
        shows: |tally| tally.share("v1").abs_diff(75) <= 15 && tally.share("v3").abs_diff(25) <= 15,
        promise: "about 75 % v1 and 25 % v3",
    },
    Edit {
        title: "a header match: beta users see version 2",
        file: "2-header-match.yaml",
        caller: Caller::User("beta"),
        shows: |tally| tally.share("v2") == 100,
        promise: "100 % v2",
    },
    Edit {
        title: "a fault: the tester gets no reviews",
        file: "3-fault.yaml",
        caller: Caller::User("tester"),
        shows: |tally| tally.share("status 418") == 100,
        promise: "100 % status 418",
    },
];

/// Requests per caller and step; enough that 75 : 25 stays within 15 points, practically always.
const REQUESTS: usize = 200;

/// One row of the final table.
struct Timing {
    title: &'static str,
    reached: Duration,
    in_effect: Duration,
}

pub fn run(keep: bool) -> Result<()> {
    check::obtain_envoy()?;
    check::build_binary()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            result = demo(keep) => result,
            // Dropping the demo stops all that it started.
            stopped = told_to_stop(keep) => stopped,
        }
    })
}

/// Ctrl-C is the way to end a demo that was kept, and a failure of any other.
async fn told_to_stop(keep: bool) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
    }
    println!();
    if keep { Ok(()) } else { bail!("interrupted; everything is stopped") }
}

async fn demo(keep: bool) -> Result<()> {
    let config = copy_of_examples()?;
    let mesh = tokio::select! {
        mesh = steps(&config) => mesh?,
        never = say_that_it_runs() => match never {},
    };
    if keep {
        mesh.print_where(&config);
        std::future::pending::<()>().await;
    }
    mesh.stop().await
}

/// A line now and then, for machines on which a step takes long.
async fn say_that_it_runs() -> std::convert::Infallible {
    let started = Instant::now();
    loop {
        tokio::time::sleep(progress::SILENCE_MAX).await;
        println!("    ... {} s so far", started.elapsed().as_secs());
    }
}

/// All that the demo shows; the mesh runs on.
async fn steps(config: &Path) -> Result<Mesh> {
    let started = Instant::now();
    let mesh = Mesh::start(config).await?;
    mesh.print_status()?;

    println!("\n== As configured: everybody sees version 1");
    let tally = mesh.traffic(&Caller::Anybody, REQUESTS).await?;
    println!("   anybody   {tally}");
    ensure!(tally.share("v1") == 100, "expected 100 % v1");

    let mut timings = Vec::new();
    for (number, edit) in EDITS.iter().enumerate() {
        timings.push(apply(&mesh, number + 1, edit).await.with_context(|| edit.title)?);
    }
    mesh.check_nothing_rejected().await?;

    println!("\n{:<50} {:>20} {:>12}", "EDIT", "REACHED EVERY PROXY", "IN EFFECT");
    for Timing { title, reached, in_effect } in &timings {
        println!("{title:<50} {:>17} ms {:>9} ms", reached.as_millis(), in_effect.as_millis());
    }
    println!(
        "\nDemo passed: {} edits in effect on {} proxies, nothing rejected, {:.1} s in all.",
        timings.len(),
        mesh.proxies().len(),
        started.elapsed().as_secs_f64()
    );
    Ok(mesh)
}

async fn apply(mesh: &Mesh, number: usize, edit: &Edit) -> Result<Timing> {
    println!("\n== Edit {number}, {}", edit.title);
    let file = workspace::root().join("examples/edits").join(edit.file);
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let before = mesh.traffic(&edit.caller, REQUESTS).await?;
    ensure!(!(edit.shows)(&before), "the answers were as promised before the edit: {before}");
    let revision = mesh.server().revision().await?;

    let edited = Instant::now();
    mesh.server().write("reviews-routes.yaml", &text)?;
    let (reached, in_effect) = tokio::try_join!(
        async {
            mesh.server().reached_since(revision).await?;
            Ok::<_, anyhow::Error>(edited.elapsed())
        },
        async {
            wait::until_true("the edit to be in effect", wait::STEP, || async {
                // The first answer that no earlier configuration could have given.
                let tally = mesh.traffic(&edit.caller, 1).await?;
                Ok(tally.outcomes().all(|outcome| !before.saw(outcome)))
            })
            .await?;
            Ok(edited.elapsed())
        }
    )?;
    let after = mesh.traffic(&edit.caller, REQUESTS).await?;
    println!("   examples/edits/{} -> reviews-routes.yaml", edit.file);
    println!("   {:<9} before: {before}", edit.caller.to_string());
    println!("   {:<9} after:  {after}", "");
    println!(
        "   reached every proxy after {} ms, in effect after {} ms",
        reached.as_millis(),
        in_effect.as_millis()
    );
    ensure!((edit.shows)(&after), "promised {}, but the answers are {after}", edit.promise);
    mesh.print_status()?;
    Ok(Timing { title: edit.title, reached, in_effect })
}

/// A fresh copy of `examples/bookinfo` in `target/demo/config`: edits never touch the original.
fn copy_of_examples() -> Result<std::path::PathBuf> {
    let (from, to) =
        (workspace::root().join("examples/bookinfo"), workspace::target_dir().join("demo/config"));
    if to.exists() {
        std::fs::remove_dir_all(&to)?;
    }
    std::fs::create_dir_all(&to)?;
    for entry in std::fs::read_dir(&from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    println!("config    {} (a copy of examples/bookinfo)", shown(&to));
    Ok(to)
}
