//! `navarch ca`: the certificate authority of a server.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use navarch_agent_cli::output::{self, Format};
use navarch_identity::authority::{KeptRoot, inspect};
use navarch_identity::rotation::{Phase, Rotation, Waiting};
use navarch_identity::store::StateDirectory;
use navarch_identity::{Timestamp, pem};
use navarch_server::status::{AuthorityStatus, RootStatus, RotationStatus};

use crate::admin::{AdminArgs, OperatorArgs};
use crate::table;

/// The certificate authority of a server: its roots, and how one follows another
#[derive(Subcommand)]
pub enum CaCommand {
    /// Print the roots that are trusted, as PEM
    ///
    /// This is what proxies and other clients need to know the control plane by.
    #[command(after_help = "Examples:\n  navarch ca root --state /var/lib/navarch > root-cert.pem")]
    Root(StateArgs),
    /// Show the roots, which of them signs, how a rotation goes and until when everything is valid
    ///
    /// Asks the server; if none answers, --state shows what is on the disk, without what proxies have.
    Status(StatusArgs),
    /// Begin to replace the root
    ///
    /// A new root is made and trusted by every proxy beside the old one. When every proxy that is connected
    /// has acknowledged that, the new one signs. The old one is dropped when nothing that it signed is valid
    /// any more. Proxies that read the roots of the control plane from a file need the new file (navarch ca
    /// root) before that.
    #[command(after_help = "Examples:\n  navarch ca rotate --state /var/lib/navarch\n  navarch ca status")]
    Rotate(OperatorArgs),
    /// Let a rotation take no more steps by itself
    Pause(OperatorArgs),
    /// Let a rotation go on
    Resume(OperatorArgs),
    /// Go back to the root before
    ///
    /// A new root that has signed nothing is dropped. One that has stays trusted until nothing that it
    /// signed is valid any more.
    Undo(OperatorArgs),
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
    admin: AdminArgs,
    /// Directory of the authority's state, for when no server answers
    #[arg(long, value_name = "DIR", env = "NAVARCH_STATE")]
    state: Option<PathBuf>,
    /// How to print it
    #[arg(short, long, default_value = "table")]
    output: Format,
}

/// Shows the authority, or has something done about it.
pub async fn run(command: CaCommand) -> Result<ExitCode> {
    let tell = async |args: &OperatorArgs, what: &str| {
        let status: AuthorityStatus = args.post(&format!("/debug/ca/{what}")).await?;
        output::print(&table(&status, now()))
    };
    match &command {
        CaCommand::Root(args) => {
            output::print(&args.roots()?)?;
        }
        CaCommand::Status(args) => {
            let status = args.status().await?;
            match args.output {
                Format::Json => output::json(&status)?,
                Format::Table => output::print(&table(&status, now()))?,
            }
        }
        CaCommand::Rotate(args) => tell(args, "rotate").await?,
        CaCommand::Pause(args) => tell(args, "pause").await?,
        CaCommand::Resume(args) => tell(args, "resume").await?,
        CaCommand::Undo(args) => tell(args, "undo").await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

impl StatusArgs {
    async fn status(&self) -> Result<AuthorityStatus> {
        let asked = self.admin.get("/debug/ca").await;
        let Some(state) = self.state.clone().filter(|_| asked.is_err()) else { return asked };
        let (rotation, roots) = StateArgs { state }.read()?;
        output::note("no server answers; this is what the state directory says");
        Ok(kept(&rotation, &roots))
    }
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

    /// The roots that are trusted, PEM.
    pub fn roots(&self) -> Result<String> {
        let (_, roots) = self.read()?;
        Ok(pem::of_certificates(roots.iter().map(|root| &root.certificate)))
    }

    /// The trust domain that the authority was made for.
    pub fn trust_domain(&self) -> Result<Option<String>> {
        let Some((_, roots)) = inspect(&self.open()?)? else { return Ok(None) };
        let names = roots.iter().flat_map(|root| &root.facts.uris);
        Ok(names.filter_map(|uri| uri.strip_prefix("spiffe://")).map(str::to_owned).next())
    }
}

/// What files say, without the proxies.
fn kept(rotation: &Rotation, roots: &[KeptRoot]) -> AuthorityStatus {
    let roots = roots.iter().map(|KeptRoot { id, certificate: _, facts }| RootStatus {
        id: id.clone(),
        subject: facts.subject.clone(),
        signs: id == rotation.signing(),
        not_after: facts.not_after,
        leaves_until: rotation.issued_until(id),
    });
    let (phase, paused) = (rotation.phase().clone(), rotation.is_paused());
    let rotation = RotationStatus { phase, paused, waiting: None, connected: 0, missing: Vec::new() };
    AuthorityStatus {
        roots: roots.collect(),
        rotation: Some(rotation),
        signer_until: None,
        port_until: None,
        lists_until: None,
    }
}

fn table(status: &AuthorityStatus, now: Timestamp) -> String {
    let AuthorityStatus { roots, rotation, signer_until, port_until, lists_until } = status;
    let days = |until: Timestamp| (now.until(until).as_secs() / 86_400).to_string();
    let header = ["CERTIFICATE", "SUBJECT", "SIGNS", "VALID UNTIL", "DAYS LEFT", "LEAVES UNTIL"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for RootStatus { id, subject, signs, not_after, leaves_until } in roots {
        rows.push(vec![
            id.chars().take(12).collect(),
            subject.clone(),
            if *signs { "yes" } else { "no" }.to_owned(),
            not_after.to_string(),
            days(*not_after),
            leaves_until.map_or_else(|| "-".to_owned(), |until| until.to_string()),
        ]);
    }
    for (what, until) in [
        ("what signs, with its chain", signer_until),
        ("port of the server", port_until),
        ("revocation lists", lists_until),
    ] {
        let Some(until) = until else { continue };
        let (dash, what) = ("-".to_owned(), what.to_owned());
        rows.push(vec![dash.clone(), what, dash.clone(), until.to_string(), days(*until), dash]);
    }
    let said = rotation.as_ref().map_or_else(
        || "the authority is that of --ca-dir; its files are what rotates\n".to_owned(),
        said_of,
    );
    format!("{}{said}", table::render(&rows))
}

/// Where a rotation is, and what it waits for.
fn said_of(rotation: &RotationStatus) -> String {
    let RotationStatus { phase, paused, waiting, connected, missing } = rotation;
    let step = match phase {
        Phase::Idle { .. } => return "no rotation is going on\n".to_owned(),
        Phase::Distributing { .. } => "step 1 of 2: the new root is being distributed; the old one signs",
        Phase::Retiring { .. } => {
            "step 2 of 2: the new root signs; the old one stays until its last leaf has gone"
        }
    };
    let mut said = format!("{step}{}\n", if *paused { " (paused)" } else { "" });
    let have = connected.saturating_sub(missing.len());
    match waiting {
        Some(Waiting::Settling { until }) => {
            said += &format!("waits until {until}, so that everybody has come back\n");
        }
        Some(Waiting::Distribution) => said += "waits for the server to plan with the new root\n",
        Some(Waiting::Leaves { until }) => said += &format!("waits until {until}\n"),
        Some(Waiting::Resume) => said += "waits for navarch ca resume\n",
        Some(Waiting::Acknowledgements { .. }) => said += "waits for proxies\n",
        Some(Waiting::Begin) | None => {}
    }
    if *connected > 0 {
        said += &format!("{have} of {connected} proxies have acknowledged the roots\n");
    }
    missing.iter().for_each(|name| said += &format!("  missing: {name}\n"));
    said
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
        let text = table(&super::kept(&rotation, &roots), now);
        assert_eq!(text.matches("O=example.org").count(), 2, "{text}");
        assert!(
            text.contains("  3650  ") && text.ends_with("is being distributed; the old one signs\n"),
            "{text}"
        );
        assert_eq!(state.trust_domain().expect("read").as_deref(), Some("example.org"));
    }

    #[test]
    fn a_rotation_says_what_it_waits_for_and_who_is_missing() {
        let until = Timestamp(1_800_000_000);
        let (a, b) = ("a".to_owned(), "b".to_owned());
        let distributing = Phase::Distributing { signing: a.clone(), next: b.clone(), since: until };
        let check = |phase: &Phase, paused, waiting, missing: &[&str], expected: &[&str]| {
            let missing = missing.iter().map(|name| (*name).to_owned()).collect();
            let said =
                said_of(&RotationStatus { phase: phase.clone(), paused, waiting, connected: 3, missing });
            for text in expected {
                assert!(said.contains(text), "{said}");
            }
        };
        let waiting = Waiting::Acknowledgements { connected: 3, missing: vec!["web.shop".to_owned()] };
        check(
            &distributing,
            false,
            Some(waiting),
            &["web.shop"],
            &["step 1 of 2", "waits for proxies", "2 of 3 proxies", "missing: web.shop"],
        );
        check(&distributing, true, Some(Waiting::Resume), &[], &["(paused)", "navarch ca resume", "3 of 3"]);
        check(
            &Phase::Retiring { signing: b, old: a, since: until },
            false,
            Some(Waiting::Leaves { until }),
            &[],
            &["step 2 of 2", "waits until 2027-01-15T08:00:00Z"],
        );
        check(
            &Phase::Idle { root: "a".to_owned() },
            false,
            Some(Waiting::Begin),
            &[],
            &["no rotation is going on"],
        );
    }
}
