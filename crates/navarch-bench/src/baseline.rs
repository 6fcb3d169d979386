//! A report beside a former one.

use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::report::{Report, cells, number, table};

/// Figures of a run: what they are called, where they are in the JSON, and what they are divided by.
const FIGURES: [(&str, &str, f64); 16] = [
    ("start, s", "/start/seconds", 1.0),
    ("start, CPU s", "/start/cpu_s", 1.0),
    ("cold start, s", "/cold/seconds", 1.0),
    ("cold start, CPU s", "/cold/cpu_s", 1.0),
    ("cold start, MB", "/cold/bytes", 1e6),
    ("reconnect, s", "/reconnect/seconds", 1.0),
    ("reconnect, CPU s", "/reconnect/cpu_s", 1.0),
    ("reconnect, MB", "/reconnect/bytes", 1e6),
    ("idle, MB", "/memory/idle", 1e6),
    ("idle peak, MB", "/memory/idle_peak", 1e6),
    ("loaded, MB", "/memory/loaded", 1e6),
    ("peak, MB", "/memory/peak", 1e6),
    ("churn, P50 ms", "/churn/to_ack/p50_ms", 1.0),
    ("churn, P99 ms", "/churn/to_ack/p99_ms", 1.0),
    ("churn, max ms", "/churn/to_ack/max_ms", 1.0),
    ("churn, CPU ms", "/churn/cpu_ms_per_change", 1.0),
];

/// The same for each kind of change.
const OF_CHANGES: [(&str, &str, f64); 4] = [
    ("P50 ms", "/to_ack/p50_ms", 1.0),
    ("P99 ms", "/to_ack/p99_ms", 1.0),
    ("CPU ms", "/cpu_ms_per_change", 1.0),
    ("kB", "/bytes", 1e3),
];

/// The figures of a report beside those of a former one, which is as `-o json` printed it, with the ratio of
/// each. Runs of one shape are compared, and what both have measured.
///
/// # Errors
/// If the former one is something else, or has no run of any shape of this one.
pub fn beside(report: &Report, former: &str) -> Result<String> {
    let former: Value = serde_json::from_str(former).context("a report is JSON, as `-o json` prints it")?;
    let runs = former.pointer("/runs").and_then(Value::as_array).context("there are no runs in it")?;
    let mut out = String::new();
    for run in
        &serde_json::to_value(report)?.pointer("/runs").and_then(Value::as_array).cloned().unwrap_or_default()
    {
        let same = |other: &&Value| {
            ["/shape", "/protocol", "/tls", "/kubernetes"]
                .iter()
                .all(|what| other.pointer(what) == run.pointer(what))
        };
        let Some(other) = runs.iter().find(same) else { continue };
        let mut rows = vec![cells(["", "BEFORE", "NOW", "RATIO"])];
        rows.extend(FIGURES.iter().filter_map(|figure| row("", other, run, figure)));
        for change in changes(run) {
            let kind = change.pointer("/kind").and_then(Value::as_str).unwrap_or_default();
            let Some(before) =
                changes(other).iter().find(|other| other.pointer("/kind") == change.pointer("/kind"))
            else {
                continue;
            };
            let prefix = format!("{kind}, ");
            rows.extend(OF_CHANGES.iter().filter_map(|figure| row(&prefix, before, change, figure)));
        }
        let name = run.pointer("/shape/name").and_then(Value::as_str).unwrap_or_default();
        let _ = write!(out, "{name} beside the baseline\n{}", table(&rows));
    }
    ensure!(!out.is_empty(), "it has no run of this shape, with this protocol and transport");
    Ok(out)
}

fn changes(run: &Value) -> &[Value] {
    run.pointer("/changes").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn row(
    prefix: &str,
    before: &Value,
    now: &Value,
    (name, path, unit): &(&str, &str, f64),
) -> Option<Vec<String>> {
    let figure = |of: &Value| Some(of.pointer(path)?.as_f64()? / unit);
    let (before, now) = (figure(before)?, figure(now)?);
    let ratio = if before > 0.0 { number(now / before) } else { "-".to_owned() };
    Some(cells([&format!("{prefix}{name}"), &number(before), &number(now), &ratio]))
}
