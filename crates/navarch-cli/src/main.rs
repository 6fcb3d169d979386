//! The one binary, named `navarch`: the command line and nothing else.

mod admin;
mod analyze;
mod bench;
mod bootstrap;
mod confirm_removals;
mod explain;
mod output;
mod proxy;
mod proxy_status;
mod render;
mod serve;
mod table;
mod wait;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// An istiod-compatible control plane for stock Envoy
///
/// Reads Istio and Kubernetes configuration from a directory of YAML files and keeps a fleet of Envoys in sync over xDS. Needs no
/// Kubernetes, no root and no other service.
#[derive(Parser)]
#[command(name = "navarch", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    ProxyStatus(proxy_status::ProxyStatusArgs),
    Wait(wait::WaitArgs),
    ConfirmRemovals(confirm_removals::ConfirmRemovalsArgs),
    Explain(explain::ExplainArgs),
    Analyze(analyze::AnalyzeArgs),
    Bootstrap(bootstrap::BootstrapArgs),
    Render(render::RenderArgs),
    Bench(bench::BenchArgs),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Serve(args) => serve::run(args),
        Command::ProxyStatus(args) => runtime()?.block_on(proxy_status::run(args)),
        Command::ConfirmRemovals(args) => runtime()?.block_on(confirm_removals::run(args)),
        Command::Wait(args) => runtime()?.block_on(wait::run(args)),
        Command::Explain(args) => runtime()?.block_on(explain::run(args)),
        Command::Analyze(args) => analyze::run(&args),
        Command::Bootstrap(args) => bootstrap::run(&args),
        Command::Render(args) => render::run(&args),
        Command::Bench(args) => bench::run(args),
    }
}

/// A runtime for commands that only ask a server something.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
