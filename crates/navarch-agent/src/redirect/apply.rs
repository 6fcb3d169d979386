//! A plan, carried out or shown.

use std::io::{self, Write as _};
use std::process::{Command as Process, Stdio};

use super::ruleset::{Command, Plan};

/// Why the kernel does not have the rules.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    #[error("{program} is not there: install {package}")]
    Missing { program: &'static str, package: &'static str },
    #[error("cannot run {0}")]
    Run(&'static str, #[source] io::Error),
    #[error("{command} failed: {said}")]
    Failed { command: String, said: String },
}

const NFT: &str = "nft";
const IP: &str = "ip";
/// Where they are if the search path has only what is for everybody.
const DIRECTORIES: [&str; 2] = ["/usr/sbin", "/sbin"];

/// The plan as a text that `nft -f` takes; the commands are comments in it.
#[must_use]
pub fn shown(plan: &Plan) -> String {
    let Plan { before, rules, after } = plan;
    let comments = |commands: &[Command]| {
        commands.iter().map(|command| format!("# {IP} {}\n", command.arguments.join(" "))).collect::<String>()
    };
    format!("{}{rules}{}", comments(before), comments(after))
}

/// Carries it out. The rules are changed all at once or not at all.
///
/// # Errors
/// If a program is missing or refuses what it is told.
pub fn apply(plan: &Plan) -> Result<(), RedirectError> {
    let Plan { before, rules, after } = plan;
    for command in before {
        ip(command)?;
    }
    run(NFT, "nftables", &["-f", "-"], rules)?;
    for command in after {
        ip(command)?;
    }
    Ok(())
}

fn ip(command: &Command) -> Result<(), RedirectError> {
    match run(IP, "iproute2", &command.arguments, "") {
        // Without the program there is nothing of ours to take back.
        Err(RedirectError::Failed { .. } | RedirectError::Missing { .. }) if command.may_fail => Ok(()),
        result => result,
    }
}

fn run(
    program: &'static str,
    package: &'static str,
    arguments: &[impl AsRef<str>],
    input: &str,
) -> Result<(), RedirectError> {
    let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    let spawn = |name: &str| {
        let mut command = Process::new(name);
        command.args(&arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn()
    };
    let mut started = spawn(program);
    for directory in DIRECTORIES {
        if started.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            started = spawn(&format!("{directory}/{program}"));
        }
    }
    let mut child = started.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => RedirectError::Missing { program, package },
        _ => RedirectError::Run(program, error),
    })?;
    let failed = |error| RedirectError::Run(program, error);
    if let Some(mut pipe) = child.stdin.take() {
        match pipe.write_all(input.as_bytes()) {
            // It has ended already, and says why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            result => result.map_err(failed)?,
        }
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(RedirectError::Failed { command: format!("{program} {}", arguments.join(" ")), said })
}
