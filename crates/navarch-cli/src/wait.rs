//! `navarch wait`: until every proxy has what is configured.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use navarch_agent_cli::output;
use navarch_agent_cli::values::parse_duration;
use navarch_server::reach;
use navarch_server::status::{FleetStatus, ObjectReach, ProxyStatus, RefreshedSources, SyncState};

use crate::admin::{AdminArgs, encode};
use crate::named;
use crate::proxy_status::warming;

/// How often the control plane is asked.
const POLL: Duration = Duration::from_millis(50);

/// Wait until every connected proxy has acknowledged a revision
///
/// The control plane first looks at its sources, so that everything that is saved before the call is in the
/// revision. Exit status 0 when everything in the revision that concerns a proxy has been acknowledged by it,
/// for every proxy; 1 when the time is over, with the proxies that are behind. A proxy that asks for a secret
/// that is not there is behind, since what uses the secret does not work.
///
/// Revisions are numbered by each server anew; what comes after the number is a hash of everything that is
/// configured, and means the same to every replica and after every restart.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  navarch wait\n  navarch wait --active\n  navarch wait --revision 42-3fa9c1d2e4b0 --timeout 10s --proxies 3\n  navarch wait --for routes.yaml\n  \
                  navarch wait --for VirtualService/default/reviews"
)]
pub struct WaitArgs {
    /// The revision to wait for, as this command prints it; if not given, the one that holds everything that
    /// is saved. A number alone means that of this server since it was started
    #[arg(long, value_name = "REVISION", conflicts_with = "objects")]
    revision: Option<Target>,
    /// Wait until the objects in a file, or an object (KIND/NAMESPACE/NAME), are in force as they are there,
    /// and then for the proxies that they reach alone
    #[arg(long = "for", id = "objects", value_name = "FILE|OBJECT")]
    objects: Vec<String>,
    /// At least so many proxies must be connected, or be reached by what is waited for. With 0 a fleet
    /// without any proxy counts as live
    #[arg(long, default_value_t = 1, value_name = "N")]
    proxies: usize,
    /// Do not mind secrets that proxies ask for and that are not there
    #[arg(long)]
    ignore_secrets: bool,
    /// Wait until Envoys also use what they have acknowledged, as the agents beside them say: nothing warms
    /// any more. A proxy without such an agent does not say it, and is behind
    #[arg(long)]
    active: bool,
    /// How long to wait, such as 500ms, 30s, 2m
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    admin: AdminArgs,
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    /// A revision of the server that is asked.
    Number(u64),
    /// What is configured, by its hash.
    Content(String),
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.rsplit_once('-') {
            None => Ok(Target::Number(text.parse().with_context(|| format!("{text} is not a revision"))?)),
            Some((_, content)) => {
                let is_hash = content.len() == 12 && content.chars().all(|c| c.is_ascii_hexdigit());
                ensure!(is_hash, "{text} is not a revision such as 42-3fa9c1d2e4b0");
                Ok(Target::Content(content.to_lowercase()))
            }
        }
    }
}

impl Target {
    /// The number that the target has on the server; nothing if that has not been there yet.
    fn on(&self, status: &FleetStatus) -> Option<u64> {
        match self {
            Target::Number(number) => Some(*number).filter(|number| status.revision >= *number),
            Target::Content(content) => status.contents.get(content).copied(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Number(number) => number.fmt(f),
            Target::Content(content) => write!(f, "-{content}"),
        }
    }
}

/// Polls until the revision is live everywhere.
pub async fn run(args: WaitArgs) -> Result<ExitCode> {
    let started = Instant::now();
    let concerned = match args.objects.is_empty() {
        true => None,
        false => match args.concerned(started).await? {
            Some(names) => Some(names),
            None => return Ok(ExitCode::from(1)),
        },
    };
    let target = match &args.revision {
        Some(target) => target.clone(),
        None => Target::Number(newest(&args.admin).await?),
    };
    loop {
        let mut status: FleetStatus = args.admin.get("/debug/proxies").await?;
        if let Some(names) = &concerned {
            status.proxies.retain(|proxy| names.contains(&proxy.name));
        }
        let on_server = target.on(&status);
        let is_live = |proxy: &&ProxyStatus| on_server.is_some_and(|number| args.is_live(proxy, number));
        let live = status.proxies.iter().filter(is_live).count();
        let total = status.proxies.len();
        let shown = match (&target, on_server == Some(status.revision)) {
            (_, true) => status.revision_name(),
            (Target::Content(content), false) => {
                on_server.map_or_else(|| target.to_string(), |number| format!("{number}-{content}"))
            }
            (Target::Number(_), false) => target.to_string(),
        };
        if on_server.is_some() && live == total && total >= args.proxies {
            output::line(&format!("revision {shown} is live on {live} of {total} proxies"))?;
            if status.errors > 0 {
                output::note(&format!(
                    "note: the configuration has {} error(s): what these name is not in use as it is written; see /debug/findings",
                    status.errors
                ));
            }
            return Ok(ExitCode::SUCCESS);
        }
        if started.elapsed() >= args.timeout {
            output::note(&format!(
                "revision {shown} is live on {live} of {} proxies after {:?}",
                total.max(args.proxies),
                args.timeout
            ));
            args.say_who_is_behind(&status, on_server, concerned.is_some());
            return Ok(ExitCode::from(1));
        }
        tokio::time::sleep(POLL).await;
    }
}

impl WaitArgs {
    /// Whether a proxy has all of a revision that concerns it.
    fn is_live(&self, proxy: &ProxyStatus, revision: u64) -> bool {
        let has_secrets = proxy.missing_secrets().is_empty() && proxy.state("SDS") != SyncState::Error;
        proxy.is_live(revision) && (self.ignore_secrets || has_secrets) && (!self.active || proxy.is_active())
    }

    fn say_who_is_behind(&self, status: &FleetStatus, revision: Option<u64>, of_objects: bool) {
        let Some(revision) = revision else {
            output::note(&format!("  the server has not been there; it is at {}", status.revision_name()));
            return;
        };
        let total = status.proxies.len();
        if total < self.proxies {
            let what = if of_objects { "reached by the objects" } else { "connected" };
            output::note(&format!("  {total} {what}, of at least {} (--proxies)", self.proxies));
        }
        for proxy in status.proxies.iter().filter(|proxy| !self.is_live(proxy, revision)) {
            let missing = proxy.missing_secrets();
            if proxy.is_live(revision) && !missing.is_empty() && !self.ignore_secrets {
                output::note(&format!("  {} lacks secrets: {}", proxy.name, missing.join(", ")));
                continue;
            }
            if proxy.is_live(revision) && proxy.state("SDS") != SyncState::Error {
                let what = match &proxy.running {
                    Some(running) if running.warming.is_empty() => {
                        "what Envoy runs is not known yet".to_owned()
                    }
                    Some(running) => format!("{} resource(s) warm", running.warming_count()),
                    None => "nobody says what Envoy runs: it has no agent that does".to_owned(),
                };
                output::note(&format!("  {}: {what}", proxy.name));
                if let Some(running) = &proxy.running {
                    warming(running).iter().for_each(|line| output::note(&format!("  {line}")));
                }
                continue;
            }
            let behind = proxy.types.iter().filter(|(_, ty)| ty.acked != ty.sent || ty.error.is_some());
            let types: Vec<String> =
                behind.map(|(name, ty)| format!("{name} {}", ty.state.as_str())).collect();
            output::note(&format!(
                "  {} is at revision {} ({})",
                proxy.name,
                proxy.revision,
                types.join(", ")
            ));
        }
    }

    /// The proxies that the objects reach, once these are in force; nothing if they are not in time.
    async fn concerned(&self, started: Instant) -> Result<Option<BTreeSet<String>>> {
        let mut wanted: Vec<(String, Option<String>)> = Vec::new();
        for text in &self.objects {
            let path = PathBuf::from(text);
            if text == "-" || path.exists() {
                let objects = named::objects_in(&[path])?;
                wanted.extend(objects.iter().map(|o| (reach::name_of(&o.key), Some(reach::content(o)))));
            } else {
                ensure!(
                    reach::key_named(text).is_some(),
                    "{text} is neither a file nor an object such as VirtualService/default/reviews"
                );
                wanted.push((text.clone(), None));
            }
        }
        newest(&self.admin).await?;
        let mut names = BTreeSet::new();
        for (name, content) in &wanted {
            let path = format!("/debug/object?object={}", encode(name));
            loop {
                let found: ObjectReach = self.admin.get(&path).await?;
                let is_right = content.as_ref().is_none_or(|content| *content == found.content);
                if !found.place.is_empty() && is_right {
                    break;
                }
                if started.elapsed() >= self.timeout {
                    let what = match found.place.as_str() {
                        "" => "is not in force".to_owned(),
                        place => format!("is in force with other contents, from {place}"),
                    };
                    output::note(&format!("{} {what} after {:?}", found.object, self.timeout));
                    return Ok(None);
                }
                tokio::time::sleep(POLL).await;
            }
            let reached: ObjectReach =
                self.admin.get(&format!("/debug/reach?object={}", encode(name))).await?;
            names.extend(reached.proxies.into_iter().flat_map(|group| group.names));
        }
        Ok(Some(names))
    }
}

/// The revision that holds everything that has been saved.
async fn newest(admin: &AdminArgs) -> Result<u64> {
    let refreshed: RefreshedSources = admin.post("/debug/refresh").await?;
    match refreshed.errors.first() {
        None => Ok(refreshed.revision),
        Some(error) => bail!("what is saved is not in effect: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_a_number_or_what_was_configured() {
        let contents = [("3fa9c1d2e4b0".to_owned(), 4)].into();
        let status = FleetStatus { revision: 7, contents, ..FleetStatus::default() };
        let check = |text: &str, expected: Option<Option<u64>>| {
            let target = text.parse::<Target>().ok();
            assert_eq!(target.map(|target| target.on(&status)), expected, "{text}");
        };
        check("7", Some(Some(7)));
        check("8", Some(None));
        check("12-3fa9c1d2e4b0", Some(Some(4)));
        check("-3FA9C1D2E4B0", Some(Some(4)));
        check("7-000000000000", Some(None));
        check("7-x", None);
        check("x", None);
    }
}
