//! The public conformance suite of the Gateway API against navarch: `cargo xtask conformance`.
//!
//! The suite wants a cluster: pods that answer, load balancers, logs. Here is as much of one as it needs, on
//! one machine without containers: a real API server, [`control`] in place of controllers, and a [`node`]
//! whose pods are processes in network namespaces. All of it is in a network of its own, which takes root.

mod cluster;
mod control;
mod names;
mod node;
mod objects;
mod programs;
mod suite;

use anyhow::{Result, bail};
use clap::Parser;
use cluster::Cluster;
use navarch_testkit::{network, workspace};
use programs::Programs;
use std::{
    process::{ExitCode, ExitStatus},
    time::Duration,
};
use suite::{Options, Suite};

/// Time between two looks at the cluster.
const PAUSE: Duration = Duration::from_millis(200);

/// Run the conformance suite of the Gateway API
#[derive(Debug, Parser)]
#[command(name = "cargo xtask conformance")]
struct Args {
    #[command(flatten)]
    options: Options,
    /// The channel of the definitions: standard or experimental
    #[arg(long, default_value = "experimental")]
    channel: String,
    /// Do not replace the report in docs/conformance
    #[arg(long)]
    no_report: bool,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result =
        runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(start(&Args::parse())));
    match result {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Obtains everything where registries can be reached, and runs in a network of our own.
async fn start(args: &Args) -> Result<ExitStatus> {
    // From here on an interrupt is ours to handle: what runs is ended first.
    let interrupt = tokio::spawn(tokio::signal::ctrl_c());
    network::obtain()?;
    let programs = Programs::obtain()?;
    let environment =
        [("NAVARCH_BIN", programs.navarch.as_path()), ("NAVARCH_ENVOY", programs.envoy.as_path())];
    let network = match network::enter(&environment)? {
        network::Run::Ended(status) => return Ok(status),
        network::Run::Inside(network) => network,
    };
    tokio::select! {
        result = run(args, network, programs) => result,
        _ = interrupt => bail!("interrupted"),
    }
}

async fn run(args: &Args, network: network::Network, programs: Programs) -> Result<ExitStatus> {
    let program = programs.suite();
    println!("starting an API server and navarch");
    let mut cluster = Cluster::start(network, programs, &args.channel).await?;
    let mut suite = Suite::start(&program, &cluster.kubeconfig(), &args.options)?;
    let status = loop {
        cluster.go_round().await?;
        if let Some(status) = suite.follow()? {
            break status;
        }
        tokio::time::sleep(PAUSE).await;
    };
    suite.summarise();
    if let Some(report) = suite.report().filter(|_| args.options.run.is_none() && !args.no_report) {
        let kept = workspace::root().join("docs/conformance").join(args.options.report());
        std::fs::copy(report, &kept)?;
        println!("{} is the report", kept.display());
    }
    Ok(status)
}
