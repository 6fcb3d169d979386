//! `navarch analyze`: what is wrong with the configuration.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};
use navarch_model::finding::{Finding, Severity};

use crate::output::{self, Format};
use crate::render::ConfigArgs;

/// Exit status when there are findings at or above the threshold, as with `istioctl analyze`.
const FOUND: u8 = 79;

/// Check a configuration directory without serving it
///
/// Exit status 79 if there are findings of the threshold's severity or worse.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  navarch analyze --config ./mesh\n  navarch analyze --config ./mesh --failure-threshold warning -o json"
)]
pub struct AnalyzeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Severity from which on the exit status says so
    #[arg(long, default_value = "error")]
    failure_threshold: Threshold,
    /// How to print: table or json
    #[arg(short, long, default_value = "table")]
    output: Format,
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

/// Prints the findings.
pub fn run(args: &AnalyzeArgs) -> Result<ExitCode> {
    let loaded = args.config.load()?;
    let findings: &[Finding] = &loaded.findings;
    match args.output {
        Format::Json => output::json(&findings)?,
        Format::Table => {
            for finding in findings {
                output::line(&finding.to_string())?;
            }
            let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
            output::line(&format!(
                "{} objects, {} errors, {} warnings, {} notes",
                loaded.snapshot.objects().count(),
                count(Severity::Error),
                count(Severity::Warning),
                count(Severity::Info)
            ))?;
        }
    }
    let found = findings.iter().any(|finding| args.failure_threshold.includes(finding.severity));
    Ok(if found { ExitCode::from(FOUND) } else { ExitCode::SUCCESS })
}
