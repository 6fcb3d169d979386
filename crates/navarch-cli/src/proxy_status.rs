//! `navarch proxy-status`: how far each proxy is in sync.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use navarch_agent_cli::output::{self, Format};
use navarch_server::status::{FleetStatus, ProxyStatus, RunningStatus, SyncState, WarmingStatus};

use crate::admin::AdminArgs;
use crate::table;

/// The types that have a column whether or not anybody asks for them.
const COLUMNS: &[&str] = &["CDS", "LDS", "EDS", "RDS", "ECDS", "SDS"];

/// Show how far each proxy is in sync
///
/// A cell is SYNCED (acknowledged), STALE (sent, not yet acknowledged), NOT SENT (never asked for, or nothing
/// to send) or ERROR (rejected; the reason, the resource and the file it comes from follow the table). RDS
/// stands for virtual hosts too, where they are resources of their own (`navarch serve --routes`). SDS says
/// how many secrets the proxy asks for that are missing; which ones follows the table.
///
/// RUNNING is what the agent beside the proxy sees in Envoy: ACTIVE (everything that is acknowledged is in
/// use), WARMING with the number of clusters and listeners that are not, because something that they need has
/// not come (which, and what they wait for, follows the table), LOOKING (the agent has not looked since the
/// last acknowledgement), or - if nobody tells: a proxy without such an agent, or one whose Envoy starts.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  navarch proxy-status\n  navarch proxy-status -o json | jq '.proxies[] | select(.lag > 0)'"
)]
pub struct ProxyStatusArgs {
    /// Only proxies whose name contains this text
    name: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
    /// How to print: table or json
    #[arg(short, long, default_value = "table")]
    output: Format,
}

/// Prints the table. Exit status 1 if a proxy rejects something, 2 if no proxy has the name that was asked
/// for.
pub async fn run(args: ProxyStatusArgs) -> Result<ExitCode> {
    let mut status: FleetStatus = args.admin.get("/debug/proxies").await?;
    if let Some(name) = &args.name {
        let connected = status.proxies.len();
        status.proxies.retain(|proxy| proxy.name.contains(name.as_str()));
        if status.proxies.is_empty() {
            bail!(
                "none of the {connected} proxies connected to this replica has a name that contains {name}"
            );
        }
    }
    match args.output {
        Format::Json => output::json(&status)?,
        Format::Table => output::print(&render(&status))?,
    }
    let rejects =
        status.proxies.iter().any(|proxy| proxy.types.values().any(|t| t.state == SyncState::Error));
    Ok(if rejects { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// The table and what is wrong, as text.
pub fn render(status: &FleetStatus) -> String {
    if status.proxies.is_empty() {
        let nobody =
            format!("No proxies are connected. The newest revision is {}.\n", status.revision_name());
        return nobody + &unheard(status);
    }
    let mut rows = vec![header()];
    rows.extend(status.proxies.iter().map(|proxy| row(status, proxy)));
    let mut text = table::render(&rows);
    for proxy in &status.proxies {
        if let Some(held) = &proxy.held_removals {
            let resources = held.resources.iter().map(|(ty, count)| format!("{count} {ty}"));
            text.push_str(&format!(
                "\n{} would lose most of what it has: {}. Removals are held for {} s; {} s are left.\n  \
                 They go now with `navarch confirm-removals`, and stay if what was removed comes back.\n",
                proxy.name,
                resources.collect::<Vec<_>>().join(", "),
                held.for_ms / 1000,
                held.left_ms / 1000,
            ));
        }
        if let Some(running) = proxy.running.as_ref().filter(|running| !running.warming.is_empty()) {
            text.push_str(&format!("\n{} has accepted what it does not use yet:\n", proxy.name));
            warming(running).iter().for_each(|line| text.push_str(&format!("{line}\n")));
        }
        if !proxy.missing_secrets().is_empty() {
            text.push_str(&format!("\n{} lacks secrets, and what uses them does not work:\n", proxy.name));
            for name in proxy.missing_secrets() {
                text.push_str(&format!("  {name}\n"));
            }
            if !proxy.withheld().is_empty() {
                text.push_str(&format!("  Keys are withheld: {}.\n", proxy.withheld()));
            }
        }
        for (ty, state) in &proxy.types {
            if let Some(error) = &state.error {
                text.push_str(&format!("\n{} rejects {ty}: {}\n", proxy.name, error.message));
                for resource in &error.resources {
                    text.push_str(&format!("  {}\n", resource.name));
                    for source in &resource.sources {
                        text.push_str(&format!("    from {source}\n"));
                    }
                }
            }
        }
    }
    text.push_str(&unheard(status));
    if status.errors > 0 {
        text.push_str(&format!(
            "\nThe configuration has {} error(s): what these name is not in use as it is written. See `navarch analyze`.\n",
            status.errors
        ));
    }
    text
}

/// Sources of configuration that are not heard.
fn unheard(status: &FleetStatus) -> String {
    let lines = status.sources.iter().filter_map(|source| {
        let seconds = source.unheard_for_ms? / 1000;
        let (name, reason) = (&source.name, &source.reason);
        let unheard = match source.unheard.as_slice() {
            all if all.len() == source.parts => String::new(),
            some => format!(" ({})", some.join(", ")),
        };
        Some(format!(
            "\nNot heard for {seconds} s: {name}{unheard}: {reason}\n  Proxies keep what it said last. It is asked again all the time.\n"
        ))
    });
    lines.collect()
}

fn header() -> Vec<String> {
    let names =
        ["NAME", "CLUSTER"].iter().chain(COLUMNS).chain(&["ISTIOD", "VERSION", "REVISION", "LAG", "RUNNING"]);
    names.map(|name| (*name).to_owned()).collect()
}

fn row(status: &FleetStatus, proxy: &ProxyStatus) -> Vec<String> {
    let mut cells = vec![proxy.name.clone(), proxy.cluster.clone()];
    cells.extend(COLUMNS.iter().map(|ty| {
        let state = proxy.state(ty).as_str();
        match proxy.types.get(*ty).map_or(0, |status| status.missing.len()) {
            0 => state.to_owned(),
            missing => format!("{state} ({missing} missing)"),
        }
    }));
    cells.push(status.replica.clone());
    cells.push(proxy.version.clone());
    cells.push(proxy.revision.to_string());
    cells.push(proxy.lag.to_string());
    cells.push(match &proxy.running {
        None => "-".to_owned(),
        Some(running) if !running.warming.is_empty() => format!("WARMING ({})", running.warming_count()),
        Some(running) if !running.current => "LOOKING".to_owned(),
        Some(_) => "ACTIVE".to_owned(),
    });
    cells
}

/// What warms in a proxy, a line for each.
pub fn warming(running: &RunningStatus) -> Vec<String> {
    let mut lines = Vec::new();
    for (ty, WarmingStatus { count, resources }) in &running.warming {
        for resource in resources {
            let waits = match resource.waits_for.as_slice() {
                [] => String::new(),
                waits => format!(" waits for {}", waits.join(", ")),
            };
            lines.push(format!("  {ty} {}{waits}", resource.name));
        }
        if let Some(more @ 1..) = count.checked_sub(resources.len()) {
            lines.push(format!("  {ty}: {more} more"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use navarch_server::status::{HeldRemovals, RejectedResource, Rejection, TypeStatus};
    use serde_json::json;

    fn proxy(name: &str, states: &[(&str, SyncState)]) -> ProxyStatus {
        ProxyStatus {
            name: name.to_owned(),
            cluster: "Kubernetes".to_owned(),
            version: "1.32.0".to_owned(),
            revision: 7,
            types: states
                .iter()
                .map(|(ty, state)| ((*ty).to_owned(), TypeStatus { state: *state, ..TypeStatus::default() }))
                .collect(),
            ..ProxyStatus::default()
        }
    }

    #[test]
    fn the_table_of_istioctl_users_and_the_reason_of_a_rejection() {
        let states = [("CDS", SyncState::Stale), ("LDS", SyncState::Error), ("SDS", SyncState::NotSent)];
        let mut sick = proxy("b.default", &states);
        sick.lag = 2;
        if let Some(secrets) = sick.types.get_mut("SDS") {
            secrets.missing = vec!["kubernetes://web".to_owned(), "kubernetes://web-cacert".to_owned()];
        }
        if let Some(lds) = sick.types.get_mut("LDS") {
            lds.error = Some(Rejection {
                message: "no such filter".to_owned(),
                resources: vec![RejectedResource {
                    name: "0.0.0.0_80".to_owned(),
                    sources: vec!["mesh.yaml:3:1 Gateway default/web".to_owned()],
                }],
            });
        }
        let status = FleetStatus {
            replica: "navarch-1".to_owned(),
            revision: 9,
            proxies: vec![proxy("a.default", &[("CDS", SyncState::Synced)]), sick],
            ..FleetStatus::default()
        };
        let expected = "\
NAME          CLUSTER        CDS        LDS          EDS          RDS          ECDS         SDS                      ISTIOD        VERSION     REVISION     LAG     RUNNING
a.default     Kubernetes     SYNCED     NOT SENT     NOT SENT     NOT SENT     NOT SENT     NOT SENT                 navarch-1     1.32.0      7            0       -
b.default     Kubernetes     STALE      ERROR        NOT SENT     NOT SENT     NOT SENT     NOT SENT (2 missing)     navarch-1     1.32.0      7            2       -

b.default lacks secrets, and what uses them does not work:
  kubernetes://web
  kubernetes://web-cacert

b.default rejects LDS: no such filter
  0.0.0.0_80
    from mesh.yaml:3:1 Gateway default/web
";
        assert_eq!(render(&status), expected);
    }

    #[test]
    fn what_warms_is_shown_with_what_it_waits_for() {
        let check = |running: serde_json::Value, cell: &str, below: &str| {
            let mut proxy = proxy("a.default", &[("LDS", SyncState::Synced)]);
            proxy.running = serde_json::from_value(running).expect("a status");
            let text = render(&FleetStatus { proxies: vec![proxy], ..FleetStatus::default() });
            assert!(text.lines().nth(1).is_some_and(|row| row.ends_with(cell)), "{text}");
            assert!(text.ends_with(below), "{text}");
        };
        check(json!(null), "     -", "");
        check(json!({"current": true}), "     ACTIVE", "");
        check(json!({"current": false}), "     LOOKING", "");
        let listeners = json!({"count": 12, "resources": [
            {"name": "0.0.0.0_443", "waits_for": ["SDS kubernetes://web", "RDS https.443"]},
            {"name": "0.0.0.0_80"},
        ]});
        check(
            json!({"current": true, "warming": {"LDS": listeners}}),
            "     WARMING (12)",
            "\na.default has accepted what it does not use yet:\n  \
             LDS 0.0.0.0_443 waits for SDS kubernetes://web, RDS https.443\n  LDS 0.0.0.0_80\n  LDS: 10 more\n",
        );
    }

    #[test]
    fn held_removals_are_shown_with_the_way_out() {
        let mut proxy = proxy("a.default", &[]);
        proxy.held_removals = Some(HeldRemovals {
            for_ms: 5000,
            left_ms: 595_000,
            resources: [("CDS".to_owned(), 40), ("LDS".to_owned(), 12)].into(),
        });
        let text = render(&FleetStatus { proxies: vec![proxy], ..FleetStatus::default() });
        let expected = "a.default would lose most of what it has: 40 CDS, 12 LDS. Removals are held for 5 s; 595 s are left.";
        assert!(text.contains(expected) && text.contains("confirm-removals"), "{text}");
    }

    #[test]
    fn nobody_is_connected() {
        let status = FleetStatus { revision: 3, ..FleetStatus::default() };
        assert_eq!(render(&status), "No proxies are connected. The newest revision is 3.\n");
    }
}
