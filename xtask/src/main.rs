//! Developer commands: `cargo xtask <command>`.

mod arch;
mod check;
mod codegen;
mod deb;
mod demo;
mod documents;
mod hygiene;
mod image;
mod names;
mod progress;
mod ratchet;
mod statuses;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer commands of navarch")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check which crate may know which, banned dependencies, and the hygiene of files
    Arch,
    /// Run the public conformance suite of the Gateway API against navarch, on a real API server. Takes root
    Conformance {
        /// Passed on: `--help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Regenerate the Envoy protobuf types and the descriptor set of navarch-envoy
    Codegen(codegen::Args),
    /// Start a mesh of stock Envoys on loopback addresses and change its routes while it serves
    Demo {
        /// Leave it running after the last step, until Ctrl-C
        #[arg(long)]
        keep: bool,
    },
    /// Pack navarch for Debian: the binary, units of systemd, a user. Prints the path of the package
    Deb {
        /// The binary, with navarch-agent beside it, instead of a release build
        #[arg(long)]
        binary: Option<std::path::PathBuf>,
    },
    /// Print the path of a stock Envoy, obtaining it first if need be
    Envoy,
    /// Make an OCI image with navarch and a stock Envoy, without Docker, and try it
    Image(image::Args),
    /// Print the directory of etcd and kube-apiserver, building them from Go modules first if need be
    Kube,
    /// Compare what navarch says of objects with the statuses that another controller has written
    Statuses(statuses::Args),
    /// Obtain Envoy, build, and run every test, the ones against a real Envoy included
    Test {
        /// Passed on to `cargo test`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Compare the goldens with what is generated now
    Golden {
        /// Rewrite them, and remove those that nothing produces
        #[arg(long)]
        update: bool,
    },
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Arch => arch::run(),
        Command::Conformance { args } => check::conformance(&args),
        Command::Codegen(args) => codegen::run(&args),
        Command::Deb { binary } => deb::run(binary),
        Command::Demo { keep } => demo::run(keep),
        Command::Envoy => {
            println!("{}", check::obtain_envoy()?.display());
            Ok(())
        }
        Command::Image(args) => image::run(&args),
        Command::Kube => {
            println!("{}", check::obtain_kubernetes()?.display());
            Ok(())
        }
        Command::Statuses(args) => statuses::run(&args),
        Command::Test { args } => check::test(&args),
        Command::Golden { update } => check::golden(update),
    }
}
