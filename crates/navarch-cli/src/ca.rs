//! `navarch ca`: the certificate authority of a state directory.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use navarch_identity::authority::{KeptRoot, inspect};
use navarch_identity::rotation::{Phase, Rotation};
use navarch_identity::store::StateDirectory;
use navarch_identity::{Timestamp, pem};
use serde::Serialize;

use crate::output::{self, Format};
use crate::table;

/// The certificate authority of a state directory
#[derive(Subcommand)]
pub enum CaCommand {
    /// Print the roots that are trusted, as PEM
    ///
    /// This is what proxies and other clients need to know the control plane by.
    #[command(after_help = "Examples:\n  navarch ca root --state /var/lib/navarch > root-cert.pem")]
    Root(StateArgs),
    /// Show the roots, which of them signs, and until when they are valid
    Status(StatusArgs),
}

#[derive(Args)]
pub struct StateArgs {
    /// Directory of the authority's state, as of `navarch serve --state`
    #[arg(long, value_name = "DIR", env = "NAVARCH_STATE")]
    state: PathBuf,
}

#[derive(Args)]
pub struct StatusArgs {
    #[command(flatten)]
    state: StateArgs,
    /// How to print it
    #[arg(short, long, default_value = "table")]
    output: Format,
}

/// Shows what the directory holds.
pub fn run(command: &CaCommand) -> Result<ExitCode> {
    match command {
        CaCommand::Root(args) => {
            let (_, roots) = args.read()?;
            output::print(&pem::of_certificates(roots.iter().map(|root| &root.certificate)))?;
        }
        CaCommand::Status(args) => {
            let (rotation, roots) = args.state.read()?;
            let status = Status::of(&rotation, &roots);
            match args.output {
                Format::Json => output::json(&status)?,
                Format::Table => output::print(&status.table(Timestamp::from(SystemTime::now())))?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl StateArgs {
    pub fn open(&self) -> Result<StateDirectory> {
        Ok(StateDirectory::open_existing(&self.state)?)
    }

    fn read(&self) -> Result<(Rotation, Vec<KeptRoot>)> {
        inspect(&self.open()?)?.with_context(|| {
            format!(
                "{} has no authority of its own; with `navarch serve --ca-dir` the roots are in that directory",
                self.state.display()
            )
        })
    }

    /// The trust domain that the authority was made for.
    pub fn trust_domain(&self) -> Result<Option<String>> {
        let Some((_, roots)) = inspect(&self.open()?)? else { return Ok(None) };
        let names = roots.iter().flat_map(|root| &root.facts.uris);
        Ok(names.filter_map(|uri| uri.strip_prefix("spiffe://")).map(str::to_owned).next())
    }
}

/// The authority for people and programs.
#[derive(Serialize)]
struct Status<'a> {
    phase: &'a Phase,
    paused: bool,
    roots: Vec<RootStatus>,
}

#[derive(Serialize)]
struct RootStatus {
    id: String,
    subject: String,
    signs: bool,
    not_after: Timestamp,
    /// No leaf of it is valid after that; absent if it has signed none.
    leaves_until: Option<Timestamp>,
}

impl<'a> Status<'a> {
    fn of(rotation: &'a Rotation, roots: &[KeptRoot]) -> Self {
        let roots = roots.iter().map(|KeptRoot { id, certificate: _, facts }| RootStatus {
            id: id.clone(),
            subject: facts.subject.clone(),
            signs: id == rotation.signing(),
            not_after: facts.not_after,
            leaves_until: rotation.issued_until(id),
        });
        Status { phase: rotation.phase(), paused: rotation.is_paused(), roots: roots.collect() }
    }

    fn table(&self, now: Timestamp) -> String {
        let header = ["ROOT", "SUBJECT", "SIGNS", "VALID UNTIL", "DAYS LEFT", "LEAVES UNTIL"];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        for RootStatus { id, subject, signs, not_after, leaves_until } in &self.roots {
            rows.push(vec![
                id.chars().take(12).collect(),
                subject.clone(),
                if *signs { "yes" } else { "no" }.to_owned(),
                not_after.to_string(),
                (now.until(*not_after).as_secs() / 86_400).to_string(),
                leaves_until.map_or_else(|| "-".to_owned(), |until| until.to_string()),
            ]);
        }
        let phase = match self.phase {
            Phase::Idle { .. } => "no rotation is going on",
            Phase::Distributing { .. } => "a new root is being distributed",
            Phase::Retiring { .. } => "the new root signs; the old one stays until its last leaf has gone",
        };
        let paused = if self.paused { " (paused)" } else { "" };
        format!("{}{phase}{paused}\n", table::render(&rows))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use navarch_identity::authority::{Kept, LeafLife, NewAuthority};

    use super::*;

    #[test]
    fn a_status_has_a_row_for_each_root() {
        let temp = tempfile::tempdir().expect("a directory");
        let state = StateArgs { state: temp.path().join("state") };
        assert!(state.read().is_err() && !state.state.exists(), "looking makes nothing");
        let now = Timestamp(1_800_000_000);
        let directory = Arc::new(StateDirectory::open(&state.state).expect("a directory"));
        let new = NewAuthority::OnFirstStart;
        let kept = Kept::open(directory, "example.org", LeafLife::default(), new, now).expect("an authority");
        kept.begin(now).expect("begun");
        let (rotation, roots) = state.read().expect("read");
        let text = Status::of(&rotation, &roots).table(now);
        assert_eq!(text.matches("O=example.org").count(), 2, "{text}");
        assert!(text.contains("  3650  ") && text.ends_with("a new root is being distributed\n"), "{text}");
        assert_eq!(state.trust_domain().expect("read").as_deref(), Some("example.org"));
    }
}
