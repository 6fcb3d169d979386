//! Developer commands: `cargo xtask <command>`.

mod codegen;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer commands of navarch")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Regenerate the Envoy protobuf types and the descriptor set of navarch-envoy.
    Codegen(codegen::Args),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Codegen(args) => codegen::run(&args),
    }
}
