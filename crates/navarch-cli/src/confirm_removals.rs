//! `navarch confirm-removals`: removals that are held back are meant.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use navarch_agent_cli::output;
use navarch_server::status::ConfirmedRemovals;

use crate::admin::OperatorArgs;

/// Let removals go that are held back
///
/// When a change would take most of its clusters or listeners from a proxy, removals are held: a source of
/// configuration that is lost looks the same. `navarch proxy-status` shows it. This says that all removals up
/// to now are meant.
#[derive(Args)]
pub struct ConfirmRemovalsArgs {
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Confirms, and says on how many streams removals were held.
pub async fn run(args: ConfirmRemovalsArgs) -> Result<ExitCode> {
    let confirmed: ConfirmedRemovals = args.operator.post("/debug/removals/confirm").await?;
    output::line(&format!(
        "Removals up to revision {} are confirmed; on {} stream(s) some were held.",
        confirmed.revision, confirmed.proxies
    ))?;
    Ok(ExitCode::SUCCESS)
}
