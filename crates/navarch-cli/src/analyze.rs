//! `navarch analyze`: what is wrong with the configuration.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use annotate_snippets::Renderer;
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use navarch_agent_cli::output;
use navarch_model::finding::{Finding, Severity};
use navarch_model::status::Status;
use navarch_server::inputs::of_paths;
use navarch_server::load::{Loaded, load_from};
use navarch_server::object_status::{self, ObjectStatus};
use serde::Serialize;

use crate::findings::{self, Lines};
use crate::table;

/// Exit status when there are findings at or above the threshold, as with `istioctl analyze`.
const FOUND: u8 = 79;

/// Check configuration without serving it
///
/// Directories, files and standard input (`-`) are read as one configuration. Exit status 79 if there are
/// findings of the threshold's severity or worse.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  navarch analyze ./mesh\n  navarch analyze ./mesh change.yaml --failure-threshold warning\n  kubectl kustomize . | navarch analyze -\n  \
                  navarch analyze ./mesh -o sarif > findings.sarif"
)]
pub struct AnalyzeArgs {
    /// Directories and files with Kubernetes and Istio objects; `-` is standard input
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// A directory with Kubernetes and Istio objects, as `navarch serve` has it
    #[arg(long, value_name = "DIR", env = "NAVARCH_CONFIG", required_unless_present_any = ["paths", "file"])]
    config: Option<PathBuf>,
    /// As a path without this option; as kubectl has it
    #[arg(short, long = "filename", id = "file", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// File with the MeshConfig
    #[arg(long, value_name = "FILE", env = "NAVARCH_MESH_CONFIG")]
    mesh_config: Option<PathBuf>,
    /// Severity from which on the exit status says so
    #[arg(long, default_value = "error")]
    failure_threshold: Threshold,
    /// Also list the objects of kinds that a mesh does not read
    #[arg(short, long)]
    verbose: bool,
    /// How to print
    #[arg(short, long, default_value = "table")]
    output: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// For people: with the lines that the findings are about
    Table,
    /// One line each
    Lines,
    /// For programs: findings, and the status of each object
    Json,
    /// For code scanning: SARIF 2.1.0
    Sarif,
    /// For GitHub Actions: annotations of changed files
    Github,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Threshold {
    Info,
    Warning,
    Error,
}

impl Threshold {
    fn includes(self, severity: Severity) -> bool {
        match self {
            Threshold::Info => true,
            Threshold::Warning => severity != Severity::Info,
            Threshold::Error => severity == Severity::Error,
        }
    }
}

/// The conditions of an object that its author would not want, one a row.
fn rows_of(object: &ObjectStatus) -> Vec<Vec<String>> {
    let Status { conditions, parents, listeners, .. } = &object.status;
    let own = conditions.iter().map(|condition| (object.object.to_string(), condition));
    let at_parents = parents.iter().flat_map(|parent| {
        let name = format!("{} at {}", object.object, parent.parent);
        parent.conditions.iter().map(move |condition| (name.clone(), condition))
    });
    let of_listeners = listeners.iter().flat_map(|listener| {
        let name = format!("{} listener {}", object.object, listener.name);
        listener.conditions.iter().map(move |condition| (name.clone(), condition))
    });
    let all = own.chain(at_parents).chain(of_listeners);
    let bad = all.filter(|(_, condition)| !condition.is_good());
    bad.map(|(name, condition)| {
        let what = format!("{}={}", condition.ty, condition.status);
        vec![name, what, condition.reason.to_owned(), condition.message.clone()]
    })
    .collect()
}

/// Everything, for programs.
#[derive(Serialize)]
struct Report<'a> {
    findings: &'a [Finding],
    /// What became of each object that configures the mesh, as on `/debug/status`.
    statuses: Vec<ObjectStatus>,
}

impl<'a> Report<'a> {
    fn of(loaded: &'a Loaded) -> Self {
        Report { findings: &loaded.findings, statuses: object_status::of_all(&loaded.snapshot) }
    }
}

/// Prints the findings, and what became of objects.
pub fn run(args: &AnalyzeArgs) -> Result<ExitCode> {
    let loaded = args.load()?;
    let all: &[Finding] = &loaded.findings;
    match args.output {
        Format::Json => output::json(&Report::of(&loaded))?,
        Format::Sarif => output::json(&findings::sarif(all))?,
        Format::Github => output::print(&each_line(all.iter().map(findings::workflow_command)))?,
        Format::Lines => output::print(&each_line(all.iter().map(ToString::to_string)))?,
        Format::Table => args.print_table(&loaded)?,
    }
    let found = all.iter().any(|finding| args.failure_threshold.includes(finding.severity));
    Ok(if found { ExitCode::from(FOUND) } else { ExitCode::SUCCESS })
}

fn each_line(lines: impl Iterator<Item = String>) -> String {
    lines.map(|line| line + "\n").collect()
}

impl AnalyzeArgs {
    /// What is analyzed, in the order in which it is named: of two versions of an object the first counts.
    fn load(&self) -> Result<Loaded> {
        let paths: Vec<PathBuf> = self.config.iter().chain(&self.paths).chain(&self.files).cloned().collect();
        let sources = of_paths(&paths, self.mesh_config.as_deref());
        let sources = sources.context("there is nothing to analyze")?;
        load_from(sources).context("the configuration cannot be read")
    }

    fn print_table(&self, loaded: &Loaded) -> Result<()> {
        let (shown, left_out) = match self.verbose {
            true => (loaded.findings.iter().collect(), None),
            false => findings::without_foreign_kinds(&loaded.findings),
        };
        let is_coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let renderer = if is_coloured { Renderer::styled() } else { Renderer::plain() };
        let mut lines = Lines::default();
        for finding in &shown {
            output::line(&format!("{}\n", findings::report(finding, &mut lines, &renderer)))?;
        }
        if let Some(left_out) = left_out {
            output::line(&left_out)?;
        }
        let statuses = object_status::of_all(&loaded.snapshot);
        let rows: Vec<Vec<String>> = statuses.iter().flat_map(rows_of).collect();
        if !rows.is_empty() {
            let header = ["OBJECT", "CONDITION", "REASON", "MESSAGE"].map(str::to_owned).to_vec();
            let table = table::render(&[vec![header], rows].concat());
            output::line(&format!("Not in use as they are written:\n\n{table}"))?;
        }
        let count = |severity| loaded.findings.iter().filter(|finding| finding.severity == severity).count();
        output::line(&format!(
            "{} objects, {} errors, {} warnings, {} notes",
            loaded.snapshot.objects().count(),
            count(Severity::Error),
            count(Severity::Warning),
            count(Severity::Info)
        ))
    }
}
