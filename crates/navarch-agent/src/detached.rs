//! Processes that nobody is the parent of but init.
//!
//! An Envoy that can hand over to another asks the kernel for SIGTERM when its parent ends (prctl(2),
//! `PR_SET_PDEATHSIG`), and would go with an agent that crashes. So it is not a child of the agent: a process
//! in between starts it and ends, and only then it becomes Envoy.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command as Blocking, Stdio};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, getppid};
use tokio::process::Command;

/// This program, even if another one has taken its place on the disk.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// How often a process looks whether its parent has ended.
const POLL: Duration = Duration::from_millis(1);

/// The subcommand of the program under which it calls [`detach`]; a command follows.
pub const DETACH: &str = "detach";
/// The subcommand of the program under which it calls [`become_program`]; the number of the parent and a
/// command follow.
pub const BECOME: &str = "become";

/// Starts a program that does not end with this one, in a process group of its own and without input. Gives
/// the number of its process.
///
/// # Errors
/// If it cannot be started. That the program is not there shows in its end.
pub async fn start(
    program: &OsStr,
    arguments: &[OsString],
    environment: &BTreeMap<String, String>,
) -> io::Result<u32> {
    let mut command = Command::new(OWN_PROGRAM);
    command.arg(DETACH).arg("--").arg(program).args(arguments).envs(environment);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let output = child.wait_with_output().await?;
    let number = String::from_utf8_lossy(&output.stdout).trim().parse();
    number.map_err(|_| io::Error::other(format!("no process was started: {}", output.status)))
}

/// The process in between: starts another and says its number. The caller ends at once.
///
/// # Errors
/// If it cannot be started.
pub fn detach(command: &[OsString]) -> io::Result<u32> {
    let own = std::process::id().to_string();
    let mut next = Blocking::new(OWN_PROGRAM);
    next.args([BECOME, &own, "--"]).args(command);
    // What the process in between prints goes to the agent, which waits for its end.
    next.stdin(Stdio::null()).stdout(Stdio::from(io::stderr())).process_group(0);
    Ok(next.spawn()?.id())
}

/// Waits until the process in between has ended, and becomes the program. Returns only if that cannot be.
pub fn become_program(parent: u32, command: &[OsString]) -> io::Error {
    let Some((program, arguments)) = command.split_first() else {
        return io::Error::new(io::ErrorKind::InvalidInput, "no program");
    };
    let parent = i32::try_from(parent).ok().and_then(Pid::from_raw);
    while getppid() == parent {
        sleep(POLL);
    }
    Blocking::new(program).args(arguments).exec()
}
