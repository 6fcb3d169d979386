//! `navarch-agent`: what `navarch agent` does, without the rest of navarch.

use std::process::ExitCode;

use clap::Parser;
use navarch_agent_cli::agent::{self, AgentCommand, BecomeArgs, DetachArgs};
use navarch_agent_cli::{VERSION, output};

/// The side of the proxy: run Envoy beside an application or as a gateway, and lead traffic to it
///
/// The same as `navarch agent`, in a small program of its own.
#[derive(Parser)]
#[command(name = "navarch-agent", version = VERSION, max_term_width = 100)]
enum Cli {
    #[command(flatten)]
    Agent(Box<AgentCommand>),
    /// Starts a program that nobody but init is the parent of
    #[command(name = navarch_agent::detached::DETACH, hide = true)]
    Detach(DetachArgs),
    /// Becomes a program once its parent has ended
    #[command(name = navarch_agent::detached::BECOME, hide = true)]
    Become(BecomeArgs),
}

fn main() -> ExitCode {
    output::exit(match Cli::parse() {
        Cli::Agent(command) => agent::run(*command),
        Cli::Detach(args) => agent::detach(&args),
        Cli::Become(args) => agent::become_program(&args),
    })
}
