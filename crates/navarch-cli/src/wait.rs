//! `navarch wait`: until every proxy has what is configured.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use navarch_server::status::{FleetStatus, ProxyStatus, RefreshedSources};

use crate::admin::AdminArgs;
use crate::output;

/// How often the control plane is asked.
const POLL: Duration = Duration::from_millis(50);

/// Wait until every connected proxy has acknowledged a revision
///
/// The control plane first looks at its sources, so that everything that is saved before the call is in the
/// revision. Exit status 0 when everything in the revision that concerns a proxy has been acknowledged by it,
/// for every proxy; 1 when the time is over, with the proxies that are behind. A proxy that asks for a secret
/// that is not there is behind, since what uses the secret does not work.
#[derive(Args)]
#[command(after_help = "Examples:\n  navarch wait\n  navarch wait --revision 42 --timeout 10s --proxies 3")]
pub struct WaitArgs {
    /// The revision to wait for; if not given, the one that holds everything that is saved
    #[arg(long)]
    revision: Option<u64>,
    /// At least so many proxies must be connected. With 0 a fleet without any proxy counts as live
    #[arg(long, default_value_t = 1, value_name = "N")]
    proxies: usize,
    /// Do not mind secrets that proxies ask for and that are not there
    #[arg(long)]
    ignore_secrets: bool,
    /// How long to wait, such as 500ms, 30s, 2m
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Polls until the revision is live everywhere.
pub async fn run(args: WaitArgs) -> Result<ExitCode> {
    let started = Instant::now();
    let target = match args.revision {
        Some(revision) => revision,
        None => newest(&args.admin).await?,
    };
    loop {
        let status: FleetStatus = args.admin.get("/debug/proxies").await?;
        let revision = target;
        let is_live = |proxy: &&ProxyStatus| args.is_live(proxy, revision);
        let live = status.proxies.iter().filter(is_live).count();
        let total = status.proxies.len();
        if status.revision >= revision && live == total && total >= args.proxies {
            output::line(&format!("revision {revision} is live on {live} of {total} proxies"))?;
            if status.errors > 0 {
                output::note(&format!(
                    "note: the configuration has {} error(s); the last good version of those objects is in use",
                    status.errors
                ));
            }
            return Ok(ExitCode::SUCCESS);
        }
        if started.elapsed() >= args.timeout {
            output::note(&format!(
                "revision {revision} is live on {live} of {} proxies after {:?}",
                total.max(args.proxies),
                args.timeout
            ));
            if total < args.proxies {
                output::note(&format!("  {total} connected, of at least {} (--proxies)", args.proxies));
            }
            for proxy in status.proxies.iter().filter(|proxy| !is_live(proxy)) {
                let missing = proxy.missing_secrets();
                if proxy.is_live(revision) {
                    output::note(&format!("  {} lacks secrets: {}", proxy.name, missing.join(", ")));
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
            return Ok(ExitCode::from(1));
        }
        tokio::time::sleep(POLL).await;
    }
}

impl WaitArgs {
    /// Whether a proxy has all of a revision that concerns it.
    fn is_live(&self, proxy: &ProxyStatus, revision: u64) -> bool {
        proxy.is_live(revision) && (self.ignore_secrets || proxy.missing_secrets().is_empty())
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

/// Parses `500ms`, `30s`, `2m`, `1h`.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 =
        number.parse().with_context(|| format!("{text} is not a duration such as 500ms or 30s"))?;
    let millis = match unit {
        "ms" => number,
        "s" => number.saturating_mul(1000),
        "m" => number.saturating_mul(60_000),
        "h" => number.saturating_mul(3_600_000),
        _ => bail!("{text} needs a unit: ms, s, m or h"),
    };
    Ok(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in
            [("500ms", Some(500)), ("30s", Some(30_000)), ("2m", Some(120_000)), ("5", None), ("s", None)]
        {
            assert_eq!(parse_duration(text).ok().map(|d| d.as_millis()), millis, "{text}");
        }
    }
}
