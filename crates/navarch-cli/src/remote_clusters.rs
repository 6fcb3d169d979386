//! `navarch remote-clusters`: the other clusters that a control plane follows.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};
use navarch_agent_cli::output;
use navarch_kubernetes::remote::{Report, State};

use crate::admin::AdminArgs;
use crate::table;

/// Show the other clusters that the control plane follows, and how they are heard
///
/// What a cluster said last is in force until it says something else: one that is silent takes nothing away.
/// Exit status 1 if one is not in sync.
#[derive(Args)]
#[command(after_help = "Examples:\n  navarch remote-clusters\n  navarch remote-clusters -o json")]
pub struct RemoteClustersArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Print JSON, with all that is known
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
}

/// Prints a row per cluster.
pub async fn run(args: RemoteClustersArgs) -> Result<ExitCode> {
    let reports: Vec<Report> = args.admin.get("/debug/remote-clusters").await?;
    match args.output {
        Some(Format::Json) => output::json(&reports)?,
        None if reports.is_empty() => output::line("no other clusters are followed")?,
        None => output::print(&render(&reports))?,
    }
    let synced = reports.iter().all(|report| report.state == State::Synced && report.reason.is_empty());
    Ok(ExitCode::from(if synced { 0 } else { 1 }))
}

fn render(reports: &[Report]) -> String {
    let header = ["NAME", "STATE", "OBJECTS", "AGE", "SILENT FOR", "FROM", "REASON"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(reports.iter().map(|report| {
        let Report { name, state, from, server: _, objects, followed_ms, silent_ms, reason } = report;
        vec![
            name.clone(),
            state.as_str().to_uppercase(),
            objects.to_string(),
            if *state == State::Refused { "-".to_owned() } else { age(*followed_ms) },
            silent_ms.map_or("-".to_owned(), age),
            from.clone(),
            reason.clone(),
        ]
    }));
    table::render(&rows)
}

/// As kubectl has it: the largest unit that is not zero.
fn age(ms: u64) -> String {
    let seconds = Duration::from_millis(ms).as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_rows() {
        let report = Report {
            name: "west".to_owned(),
            state: State::Silent,
            from: "Secret istio-system/west".to_owned(),
            server: "https://west.example:6443/".to_owned(),
            objects: 12,
            followed_ms: 7_200_000,
            silent_ms: Some(61_000),
            reason: "the API server does not answer".to_owned(),
        };
        let refused = Report {
            name: "wrong".to_owned(),
            state: State::Refused,
            silent_ms: None,
            reason: "it is not a kubeconfig".to_owned(),
            ..report.clone()
        };
        let text = render(&[report, refused]);
        let rows: Vec<Vec<&str>> =
            text.lines().map(|line| line.split("     ").map(str::trim).collect()).collect();
        let row =
            |index: usize| rows[index].iter().filter(|cell| !cell.is_empty()).copied().collect::<Vec<_>>();
        assert_eq!(row(1)[..5], ["west", "SILENT", "12", "2h", "61s"]);
        assert_eq!(row(2)[3..], ["-", "-", "Secret istio-system/west", "it is not a kubeconfig"]);
    }
}
