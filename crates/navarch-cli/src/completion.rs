//! `navarch completion` and `navarch man`: what shells and `man` read, made from the same tables as `--help`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Command};
use clap_complete::Shell;
use navarch_agent_cli::output;

/// Print the completion script of a shell
#[derive(Args)]
#[command(
    after_help = "Examples:\n  source <(navarch completion bash)\n  navarch completion zsh > \"${fpath[1]}/_navarch\"\n  navarch completion fish > ~/.config/fish/completions/navarch.fish"
)]
pub struct CompletionArgs {
    shell: Shell,
}

/// Write the manual pages
#[derive(Args)]
#[command(after_help = "Examples:\n  navarch man ./man1 && man ./man1/navarch-serve.1")]
pub struct ManArgs {
    /// Directory for the pages, made if it does not exist
    directory: PathBuf,
}

/// Prints the script.
pub fn completion(args: &CompletionArgs, command: &mut Command) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "navarch", &mut script);
    output::print(&String::from_utf8(script)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a page for the program and one for each command.
pub fn man(args: &ManArgs, command: Command) -> Result<ExitCode> {
    let directory = &args.directory;
    std::fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    clap_mangen::generate_to(command, directory)
        .with_context(|| format!("writing to {}", directory.display()))?;
    Ok(ExitCode::SUCCESS)
}
