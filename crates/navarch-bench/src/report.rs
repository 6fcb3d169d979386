//! What was measured, and how it is shown.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::check::Check;
use crate::mesh::Kind;
use crate::message::Protocol;
use crate::shape::Shape;
use crate::shared::{Counts, Delivery};

/// All runs of a benchmark: one, or one for each point of a curve.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub runs: Vec<Run>,
}

/// One shape against one fresh server.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub shape: Shape,
    pub protocol: Protocol,
    /// Whether proxies connected over mutual TLS.
    pub tls: bool,
    /// Whether the configuration came through an API server.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub kubernetes: bool,
    pub start: Option<Start>,
    pub memory: Memory,
    pub cold: Load,
    pub changes: Vec<Change>,
    pub churn: Option<Churn>,
    pub reconnect: Option<Load>,
    pub check: Check,
    /// Processor seconds of the load generator.
    pub client_cpu_s: f64,
    /// Wall-clock seconds of the whole run.
    pub seconds: f64,
    /// Connections that broke without being told to.
    pub broken_connections: u64,
    /// Why the last of them broke.
    pub last_error: Option<String>,
}

/// From the start of the process until it is ready.
#[derive(Clone, Debug, Serialize)]
pub struct Start {
    pub seconds: f64,
    pub cpu_s: f64,
}

/// Resident memory of the server, in bytes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Memory {
    /// Configuration read, nobody connected.
    pub idle: u64,
    /// The most until then.
    pub idle_peak: u64,
    /// Every proxy in sync.
    pub loaded: u64,
    /// (loaded - idle) / proxies.
    pub per_proxy: u64,
    /// The most at any time.
    pub peak: u64,
}

/// All proxies connect at once.
#[derive(Clone, Debug, Serialize)]
pub struct Load {
    /// Until the last one is in sync.
    pub seconds: f64,
    pub cpu_s: f64,
    pub bytes: u64,
    pub resources: u64,
    pub responses: u64,
}

/// One kind of change, made again and again.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    pub kind: Kind,
    pub repeats: usize,
    /// Proxies that each change concerns.
    pub affected: usize,
    pub to_ack: Percentiles,
    pub cpu_ms_per_change: f64,
    pub cpu_ms_per_1000_pushes: f64,
    /// Per change.
    pub responses: f64,
    pub resources: f64,
    pub bytes: f64,
    /// Acknowledgements that did not come in time.
    pub lost: usize,
    /// What navarch says that it did, per change.
    pub work: BTreeMap<String, f64>,
}

/// Endpoints that change all the time.
#[derive(Clone, Debug, Serialize)]
pub struct Churn {
    pub changes: usize,
    pub per_second: f64,
    pub seconds: f64,
    pub to_ack: Percentiles,
    /// When changes were late.
    pub pauses: Vec<Pause>,
    pub cpu_ms_per_change: f64,
    pub cpu_share: f64,
    pub responses: u64,
    pub bytes: u64,
    pub lost: usize,
    /// The server at the start, after each minute, and when everything had arrived.
    pub samples: Vec<Sample>,
}

/// What the server had used at a time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// Since the churn began.
    pub seconds: f64,
    /// Resident memory in bytes.
    pub resident: u64,
    /// Processor seconds since the churn began.
    pub cpu_s: f64,
}

/// What is later than this is a pause.
const LATE: Duration = Duration::from_millis(250);

/// Changes in a row of which an acknowledgement was late.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Pause {
    /// When the first was about to be written, since the churn began.
    pub seconds: f64,
    pub changes: usize,
    /// The latest acknowledgement of them.
    pub longest_ms: f64,
    /// Of these changes the one that took longest to write. What that takes is the machine's, and not the
    /// server's.
    pub write_ms: f64,
}

impl Pause {
    /// The pauses, by what was written when and how long that took. Both are in the order of time.
    #[must_use]
    pub fn all(deliveries: &[Delivery], writes: &[(Instant, Duration)], begun: Instant) -> Vec<Self> {
        let slowest = |delivery: &Delivery| delivery.delays.iter().max().copied().unwrap_or_default();
        let by_time: BTreeMap<Instant, Duration> = deliveries.iter().map(|d| (d.at, slowest(d))).collect();
        let mut pauses: Vec<Pause> = Vec::new();
        let mut goes_on = false;
        for (at, write) in writes {
            let delay = by_time.get(at).copied().unwrap_or_default();
            let is_late = delay > LATE;
            if is_late && !goes_on {
                let seconds = at.saturating_duration_since(begun).as_secs_f64();
                pauses.push(Pause { seconds, changes: 0, longest_ms: 0.0, write_ms: 0.0 });
            }
            if let Some(pause) = pauses.last_mut().filter(|_| is_late) {
                pause.changes += 1;
                pause.longest_ms = pause.longest_ms.max(delay.as_secs_f64() * 1e3);
                pause.write_ms = pause.write_ms.max(write.as_secs_f64() * 1e3);
            }
            goes_on = is_late;
        }
        pauses
    }
}

/// From a change to its acknowledgement, over all changes and all affected proxies, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    pub samples: usize,
}

impl Percentiles {
    /// The percentiles of all delays, and how many are missing.
    #[must_use]
    pub fn of(deliveries: &[Delivery]) -> (Self, usize) {
        let mut delays: Vec<Duration> = deliveries.iter().flat_map(|d| d.delays.iter().copied()).collect();
        delays.sort_unstable();
        let expected: usize = deliveries.iter().map(|delivery| delivery.expected).sum();
        // Nearest rank: the smallest delay that this share of all does not exceed.
        let rank = |share: f64| {
            let index = ((delays.len() as f64 * share).ceil() as usize).saturating_sub(1);
            delays.get(index).map_or(0.0, |delay| delay.as_secs_f64() * 1e3)
        };
        let found =
            Percentiles { p50_ms: rank(0.5), p99_ms: rank(0.99), max_ms: rank(1.0), samples: delays.len() };
        (found, expected.saturating_sub(delays.len()))
    }
}

impl Load {
    /// What a connection of everyone took.
    #[must_use]
    pub fn new(took: Duration, cpu_s: f64, counts: Counts) -> Self {
        Load {
            seconds: took.as_secs_f64(),
            cpu_s,
            bytes: counts.bytes,
            resources: counts.resources,
            responses: counts.messages,
        }
    }
}

impl Report {
    /// Whether every proxy held what it should and nothing was lost.
    #[must_use]
    pub fn correct(&self) -> bool {
        self.runs.iter().all(|run| {
            let lost = run.changes.iter().map(|change| change.lost).sum::<usize>()
                + run.churn.as_ref().map_or(0, |churn| churn.lost);
            run.check.mismatches == 0 && lost == 0
        })
    }

    /// The report for people.
    #[must_use]
    pub fn text(&self) -> String {
        self.runs.iter().map(Run::text).collect::<Vec<_>>().join("\n")
    }
}

impl Run {
    fn text(&self) -> String {
        let mut out = String::new();
        let shape = &self.shape;
        let _ = writeln!(
            out,
            "{}: {} services, {} endpoints, {} proxies of {} classes, {} namespaces, {}, {:?}{}{}",
            shape.name,
            shape.services,
            shape.endpoints,
            shape.proxies,
            shape.classes,
            shape.namespaces,
            match (shape.routes, shape.scoped) {
                (0, true) => "each proxy sees its namespace".to_owned(),
                (0, false) => "each proxy sees everything".to_owned(),
                (routes, _) => format!("a gateway with {routes} HTTPRoutes"),
            },
            self.protocol,
            if self.tls { ", mutual TLS" } else { "" },
            if self.kubernetes { ", from an API server" } else { "" },
        );
        let mut rows = vec![cells(["", "SECONDS", "CPU S", "RESPONSES", "RESOURCES", "MB SENT"])];
        if let Some(start) = &self.start {
            rows.push(cells(["start", &number(start.seconds), &number(start.cpu_s), "-", "-", "-"]));
        }
        for (name, load) in [("cold start", Some(&self.cold)), ("reconnect", self.reconnect.as_ref())] {
            let Some(load) = load else { continue };
            rows.push(cells([
                name,
                &number(load.seconds),
                &number(load.cpu_s),
                &load.responses.to_string(),
                &load.resources.to_string(),
                &number(load.bytes as f64 / 1e6),
            ]));
        }
        out.push_str(&table(&rows));
        out.push('\n');
        out.push_str(&self.changes_text());
        let megabytes = |bytes: u64| number(bytes as f64 / 1e6);
        let _ = writeln!(
            out,
            "\nmemory: idle {} MB (peak {} MB), loaded {} MB, {} kB per proxy, peak {} MB",
            megabytes(self.memory.idle),
            megabytes(self.memory.idle_peak),
            megabytes(self.memory.loaded),
            number(self.memory.per_proxy as f64 / 1e3),
            megabytes(self.memory.peak)
        );
        if let Some(churn) = &self.churn {
            let samples = churn.samples.iter();
            let samples: Vec<_> =
                samples.map(|s| format!("{} s {} MB", number(s.seconds), megabytes(s.resident))).collect();
            let _ = writeln!(out, "memory during churn: {}", samples.join(", "));
            let _ = writeln!(out, "pauses over {} ms: {}", LATE.as_millis(), churn.pauses.len());
            for pause in &churn.pauses {
                let _ = writeln!(
                    out,
                    "  after {} s: {} changes, up to {} ms, of which writing one took up to {} ms",
                    number(pause.seconds),
                    pause.changes,
                    number(pause.longest_ms),
                    number(pause.write_ms)
                );
            }
        }
        let _ = writeln!(
            out,
            "load generator: {} s of CPU in {} s; {} connections broke{}",
            number(self.client_cpu_s),
            number(self.seconds),
            self.broken_connections,
            self.last_error.as_deref().map(|error| format!(", the last one: {error}")).unwrap_or_default()
        );
        let _ = writeln!(
            out,
            "check: {} proxies compared within their class, {} with a plan from scratch; {}",
            self.check.proxies,
            self.check.planned,
            match self.check.mismatches {
                0 => "all hold what they should".to_owned(),
                count => format!("{count} DIFFERENCES"),
            }
        );
        for example in &self.check.examples {
            let _ = writeln!(out, "  {example}");
        }
        out
    }

    fn changes_text(&self) -> String {
        let mut rows = vec![cells([
            "CHANGE",
            "TIMES",
            "PROXIES",
            "P50 MS",
            "P99 MS",
            "MAX MS",
            "CPU MS",
            "CPU MS/1000 PUSHES",
            "RESOURCES",
            "KB SENT",
            "LOST",
        ])];
        for change in &self.changes {
            rows.push(cells([
                change.kind.as_str(),
                &change.repeats.to_string(),
                &change.affected.to_string(),
                &number(change.to_ack.p50_ms),
                &number(change.to_ack.p99_ms),
                &number(change.to_ack.max_ms),
                &number(change.cpu_ms_per_change),
                &number(change.cpu_ms_per_1000_pushes),
                &number(change.resources),
                &number(change.bytes / 1e3),
                &change.lost.to_string(),
            ]));
        }
        if let Some(churn) = &self.churn {
            rows.push(cells([
                &format!("churn {}/s", number(churn.per_second)),
                &churn.changes.to_string(),
                "-",
                &number(churn.to_ack.p50_ms),
                &number(churn.to_ack.p99_ms),
                &number(churn.to_ack.max_ms),
                &number(churn.cpu_ms_per_change),
                &number(churn.cpu_ms_per_change * churn.changes as f64 * 1e3 / churn.responses.max(1) as f64),
                "-",
                &number(churn.bytes as f64 / churn.changes.max(1) as f64 / 1e3),
                &churn.lost.to_string(),
            ]));
        }
        if rows.len() > 1 { table(&rows) } else { String::new() }
    }
}

pub(crate) fn cells<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

/// Three significant digits.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Rows with aligned columns; the first column to the left, figures to the right.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = match column {
                0 => write!(out, "{cell:<width$}"),
                _ => write!(out, "   {cell:>width$}"),
            };
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(expected: usize, delays: Vec<Duration>) -> Delivery {
        Delivery { number: 1, at: Instant::now(), expected, delays }
    }

    #[test]
    fn late_changes_in_a_row_are_one_pause() {
        let begun = Instant::now();
        let ms = Duration::from_millis;
        // When each is written, how long that takes, and when it has arrived.
        let changes = [(0, 1, 20), (1000, 900, 930), (1910, 2, 300), (1920, 1, 20), (2000, 1, 400)];
        let at = |millis| begun + ms(millis);
        let writes: Vec<_> = changes.iter().map(|(millis, write, _)| (at(*millis), ms(*write))).collect();
        let delivered = |(millis, _, delay): &(u64, u64, u64)| Delivery {
            at: at(*millis),
            ..delivery(2, vec![ms(1), ms(*delay)])
        };
        let deliveries: Vec<_> = changes.iter().map(delivered).collect();
        let pause = |seconds, changes, longest_ms, write_ms| Pause { seconds, changes, longest_ms, write_ms };
        let expected = [pause(1.0, 2, 930.0, 900.0), pause(2.0, 1, 400.0, 1.0)];
        assert_eq!(Pause::all(&deliveries, &writes, begun), expected);
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let delays = |millis: std::ops::RangeInclusive<u64>| millis.map(Duration::from_millis).collect();
        for (deliveries, p50, p99, max, lost) in [
            (vec![delivery(100, delays(1..=100))], 50.0, 99.0, 100.0, 0),
            (vec![delivery(3, delays(7..=7))], 7.0, 7.0, 7.0, 2),
            (vec![], 0.0, 0.0, 0.0, 0),
        ] {
            let (found, missing) = Percentiles::of(&deliveries);
            assert_eq!((found.p50_ms, found.p99_ms, found.max_ms, missing), (p50, p99, max, lost));
        }
    }

    #[test]
    fn figures_have_three_digits() {
        for (value, expected) in
            [(0.0, "0"), (0.01234, "0.012"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1234")]
        {
            assert_eq!(number(value), expected);
        }
    }
}
