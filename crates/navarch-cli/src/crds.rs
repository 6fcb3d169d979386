//! `navarch crds`: what an API server has to be given before it takes our kinds.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use navarch_agent_cli::output;
use navarch_model::Kind;
use navarch_model::definition::definition;
use serde_json::json;

/// Print CustomResourceDefinitions of Istio's kinds, for kubectl
///
/// They are written from the table of kinds that this version reads. A cluster that has those of
/// Istio needs none of them. The API server does not check fields of specifications; `navarch
/// analyze` does.
#[derive(Args)]
#[command(after_help = "Examples:\n  navarch crds | kubectl apply -f -")]
pub struct CrdsArgs {
    /// Those of the Gateway API too. They are for trying things out: clusters should have the ones
    /// that the Gateway API's project releases
    #[arg(long)]
    gateway_api: bool,
}

/// Prints them as one list, in JSON.
pub fn run(args: &CrdsArgs) -> Result<ExitCode> {
    let is_wanted = |kind: &&Kind| args.gateway_api || kind.group().ends_with(".istio.io");
    let items: Vec<_> = Kind::ALL.iter().filter(is_wanted).filter_map(|kind| definition(*kind)).collect();
    output::json(&json!({"apiVersion": "v1", "kind": "List", "items": items}))?;
    Ok(ExitCode::SUCCESS)
}
