//! The binary `navarch`: the command line and nothing else. That of the agent is in `navarch-agent-cli`,
//! which also makes a binary of its own.

#![deny(clippy::print_stdout, clippy::print_stderr, reason = "they panic on a closed pipe: see `output`")]

mod admin;
mod analyze;
mod await_ready;
mod bench;
mod bootstrap;
mod ca;
mod completion;
mod confirm_removals;
mod convert;
mod crds;
mod explain;
mod findings;
mod inject;
mod install;
mod kubernetes;
mod named;
mod precheck;
mod proxy;
mod proxy_status;
mod remote_clusters;
mod render;
mod serve;
mod table;
mod token;
mod wait;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use navarch_agent_cli::{VERSION, agent, output};

/// Its settings are in `.cargo/config.toml`, its reasons in `docs/decisions/0046-the-allocator.md`.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// An istiod-compatible control plane for stock Envoy
///
/// Reads Istio and Kubernetes configuration from a directory of YAML files and keeps a fleet of Envoys in
/// sync over xDS. Needs no Kubernetes, no root and no other service.
#[derive(Parser)]
#[command(name = "navarch", version = VERSION, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(Box<serve::ServeArgs>),
    Crds(crds::CrdsArgs),
    ProxyStatus(proxy_status::ProxyStatusArgs),
    Wait(wait::WaitArgs),
    RemoteClusters(remote_clusters::RemoteClustersArgs),
    ConfirmRemovals(confirm_removals::ConfirmRemovalsArgs),
    Explain(explain::ExplainArgs),
    Analyze(analyze::AnalyzeArgs),
    Convert(convert::ConvertArgs),
    Inject(inject::InjectArgs),
    #[command(visible_alias = "upgrade")]
    Install(Box<install::InstallArgs>),
    Uninstall(install::UninstallArgs),
    Precheck(install::PrecheckArgs),
    Bootstrap(bootstrap::BootstrapArgs),
    #[command(subcommand)]
    Agent(Box<agent::AgentCommand>),
    Render(render::RenderArgs),
    #[command(subcommand)]
    Ca(ca::CaCommand),
    #[command(subcommand)]
    Token(token::TokenCommand),
    Bench(bench::BenchArgs),
    /// Starts a program that nobody but init is the parent of
    #[command(name = navarch_agent::detached::DETACH, hide = true)]
    Detach(agent::DetachArgs),
    /// Holds an application back until the proxy beside it is ready
    #[command(hide = true)]
    AwaitReady(await_ready::AwaitReadyArgs),
    /// Becomes a program once its parent has ended
    #[command(name = navarch_agent::detached::BECOME, hide = true)]
    Become(agent::BecomeArgs),
    Completion(completion::CompletionArgs),
    Man(completion::ManArgs),
}

fn main() -> ExitCode {
    output::exit(run(Cli::parse().command))
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Serve(args) => serve::run(*args),
        Command::Crds(args) => crds::run(&args),
        Command::ProxyStatus(args) => runtime()?.block_on(proxy_status::run(args)),
        Command::ConfirmRemovals(args) => runtime()?.block_on(confirm_removals::run(args)),
        Command::RemoteClusters(args) => runtime()?.block_on(remote_clusters::run(args)),
        Command::Wait(args) => runtime()?.block_on(wait::run(args)),
        Command::Explain(args) => runtime()?.block_on(explain::run(args)),
        Command::Analyze(args) => analyze::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Inject(args) => inject::run(&args),
        Command::Install(args) => runtime()?.block_on(install::install(*args)),
        Command::Uninstall(args) => runtime()?.block_on(install::uninstall(args)),
        Command::Precheck(args) => runtime()?.block_on(install::check(args)),
        Command::Bootstrap(args) => bootstrap::run(&args),
        Command::Agent(args) => agent::run(*args),
        Command::AwaitReady(args) => runtime()?.block_on(await_ready::run(args)),
        Command::Detach(args) => agent::detach(&args),
        Command::Become(args) => agent::become_program(&args),
        Command::Render(args) => render::run(&args),
        Command::Ca(command) => runtime()?.block_on(ca::run(command)),
        Command::Token(command) => token::run(&command),
        Command::Bench(args) => bench::run(args),
        Command::Completion(args) => completion::completion(&args, &mut Cli::command()),
        Command::Man(args) => completion::man(&args, Cli::command()),
    }
}

/// A runtime for commands that only ask a server something.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
