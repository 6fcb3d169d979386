//! A load generator and benchmark for xDS servers.
//!
//! In: the size of a mesh. It writes the configuration as YAML, starts `navarch serve` on it (or uses a
//! server that runs), and connects thousands of simulated proxies from one process, each on a TCP connection
//! of its own. Then it changes the configuration, and measures what a change costs the server and how long it
//! takes until every proxy that it concerns has acknowledged it.
//!
//! Out: a [`Report`]. At the end what every proxy holds is compared with what the server plans from scratch.
//!
//! It knows xDS and nothing of how navarch works inside, so that any server can be measured.

mod baseline;
mod certificates;
mod check;
mod client;
mod cluster;
mod fleet;
mod known;
mod mark;
pub mod mesh;
pub mod message;
mod names;
mod pod;
mod progress;
mod proxy;
pub mod report;
mod run;
mod server;
mod settings;
pub mod shape;
mod shared;
mod svg;
mod tls;
mod unordered;

use anyhow::{Context, Result};
use tokio::task::LocalSet;

pub use baseline::beside;
pub use certificates::{CertificateReport, CertificateSettings, certificates};
pub use cluster::{Cluster, Doing, Mesh};
pub use mesh::{Edit, Kind};
pub use message::Protocol;
pub use names::{NameReport, NameSettings, names};
pub use report::{Report, Run};
pub use settings::{Axis, Settings, Target};
pub use shape::Shape;

/// Runs the benchmark.
///
/// # Errors
/// If the shape is impossible, the server does not start, or not all proxies come in sync. What is measured
/// but wrong is in the report: see [`Report::correct`].
pub fn run(settings: &Settings) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime")?;
    let shapes = match &settings.curve {
        Some((axis, sizes)) => sizes.iter().map(|size| axis.of(&settings.shape, *size)).collect(),
        None => vec![settings.shape.clone()],
    };
    let progress = progress::Progress::new();
    let mut runs = Vec::new();
    for shape in shapes {
        let local = LocalSet::new();
        runs.push(local.block_on(&runtime, run::run(settings, &shape, &progress))?);
    }
    Ok(Report { runs })
}

/// The curves of a report: time to acknowledgement and processor time of each kind of change against size.
#[must_use]
pub fn curves(report: &Report, axis: Axis) -> String {
    let size = |run: &Run| match axis {
        Axis::Services => run.shape.services as f64,
        Axis::Proxies => run.shape.proxies as f64,
    };
    let series = |value: fn(&report::Change) -> f64| -> Vec<svg::Series> {
        let of = |kind: Kind| svg::Series {
            name: kind.as_str().to_owned(),
            points: report
                .runs
                .iter()
                .flat_map(|run| run.changes.iter().map(move |change| (run, change)))
                .filter(|(_, change)| change.kind == kind)
                .map(|(run, change)| (size(run), value(change)))
                .collect(),
        };
        Kind::ALL.into_iter().map(of).filter(|series| !series.points.is_empty()).collect()
    };
    svg::draw(&[
        svg::Chart {
            title: "Server CPU per change",
            x: axis.name(),
            y: "CPU ms",
            series: series(|change| change.cpu_ms_per_change),
        },
        svg::Chart {
            title: "Change to ACK, 99th percentile of all affected proxies",
            x: axis.name(),
            y: "ms",
            series: series(|change| change.to_ack.p99_ms),
        },
    ])
}
