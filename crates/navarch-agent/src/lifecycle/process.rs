//! A process that the agent watches: its child, or one that an agent before it has left behind.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, pidfd_send_signal, waitpid,
};
use tokio::process::Child;
use tokio::time::{sleep, timeout};

/// How often a process that is not a child is looked at.
const POLL: Duration = Duration::from_millis(50);

/// A process that runs.
pub enum Process {
    Child(Child),
    /// Not a child of this agent: that it has ended can be seen, and mostly not how.
    Other {
        fd: OwnedFd,
        id: u32,
        began: u64,
    },
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    With(ExitStatus),
    /// Nobody can say.
    Unknown,
}

/// Where it is written which process runs, and with which arguments, so that another agent finds it.
#[derive(Clone, Debug)]
pub struct Record(pub PathBuf);

impl Record {
    /// Writes down a process.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, process: &Process) -> io::Result<()> {
        match process.id() {
            Some(id) => std::fs::write(&self.0, format!("{id} {}\n", started(id).unwrap_or_default())),
            None => Ok(()),
        }
    }

    /// Nothing is written down any more.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn remove(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The process that was written down, if it still runs. A number of a process may have gone to another
    /// one; when it was started tells them apart.
    #[must_use]
    pub fn find(&self) -> Option<Process> {
        let text = std::fs::read_to_string(&self.0).ok()?;
        let (id, began) = text.trim().split_once(' ')?;
        let id: u32 = id.parse().ok()?;
        // Looked at once the process is held, so that it cannot become another one in between.
        let process = Process::open(id).ok()?;
        let same = matches!(&process, Process::Other { began: since, .. } if began.parse() == Ok(*since));
        same.then_some(process)
    }
}

/// When a process was started, in ticks since the machine was: field 22 of proc_pid_stat(5). Nothing if it
/// does not run any more.
fn started(id: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(id.to_string()).join("stat")).ok()?;
    // The name, in parentheses, may have anything in it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

impl Process {
    /// A process that is not a child, by its number.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(id: u32) -> io::Result<Process> {
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        let fd = pidfd_open(pid, PidfdFlags::empty())?;
        let began = started(id).ok_or(io::ErrorKind::NotFound)?;
        Ok(Process::Other { fd, id, began })
    }

    /// Its number.
    pub fn id(&self) -> Option<u32> {
        match self {
            Process::Child(child) => child.id(),
            Process::Other { id, .. } => Some(*id),
        }
    }

    /// Returns when it has ended. May be dropped without losing anything.
    pub async fn ended(&mut self) -> Ended {
        match self {
            Process::Child(child) => child.wait().await.map_or(Ended::Unknown, Ended::With),
            Process::Other { fd: _, id, began } => {
                while started(*id) == Some(*began) {
                    sleep(POLL).await;
                }
                // An agent that is the first process of a container is told: all orphans are its children.
                let pid = i32::try_from(*id).ok().and_then(Pid::from_raw);
                let status = waitpid(pid, WaitOptions::NOHANG).ok().flatten();
                status
                    .map_or(Ended::Unknown, |(_, status)| Ended::With(ExitStatus::from_raw(status.as_raw())))
            }
        }
    }

    /// Sends a signal. It fails only if the process has ended, which shows elsewhere.
    pub fn signal(&self, signal: Signal) {
        match self {
            Process::Child(child) => {
                let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
                let _ = pid.map(|pid| kill_process(pid, signal));
            }
            Process::Other { fd, .. } => _ = pidfd_send_signal(fd, signal),
        }
    }

    /// Ends it with SIGTERM, and if it has not ended `within` this time with SIGKILL; whether that was
    /// needed.
    pub async fn stop(mut self, within: Duration) -> bool {
        self.signal(Signal::TERM);
        let is_late = timeout(within, self.ended()).await.is_err();
        if is_late {
            self.signal(Signal::KILL);
            self.ended().await;
        }
        is_late
    }
}

impl Ended {
    /// The exit status as shells say it: 128 and the signal if one ended the process. 0 if nobody can say.
    pub fn code(self) -> u8 {
        match self {
            Ended::Unknown => 0,
            Ended::With(status) => match (status.code(), status.signal()) {
                (Some(code), _) => u8::try_from(code & 0xff).unwrap_or(1),
                (None, signal) => u8::try_from(128 + signal.unwrap_or_default()).unwrap_or(255),
            },
        }
    }

    /// For people.
    pub fn how(self) -> String {
        match self {
            Ended::Unknown => "in an unknown way".to_owned(),
            Ended::With(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("with status {code}"),
                (None, Some(9)) => "by SIGKILL; if nobody sent it, memory ran out".to_owned(),
                (None, Some(signal)) => format!("by signal {signal}"),
                (None, None) => status.to_string(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::process::Command;

    use super::*;

    #[tokio::test]
    async fn a_process_is_found_while_it_runs() {
        let temp = tempfile::tempdir().expect("a directory");
        let record = Record(temp.path().join("pid"));
        assert!(record.find().is_none(), "nothing is written down");
        let child = Command::new("sleep").arg("100").spawn().expect("a process");
        let mut child = Process::Child(child);
        record.write(&child).expect("written");
        let id = child.id().expect("a number");
        let found = record.find().expect("it runs");
        assert_eq!(found.id(), Some(id));
        // The number of one process, and the start of another.
        std::fs::write(&record.0, format!("{id} 1\n")).expect("written");
        assert!(record.find().is_none(), "another one");
        record.write(&child).expect("written");

        let reaped = tokio::spawn(async move { child.ended().await });
        assert!(!found.stop(Duration::from_secs(30)).await, "SIGTERM is enough");
        let ended = reaped.await.expect("it ended");
        assert_eq!((ended.code(), ended.how().as_str()), (143, "by signal 15"));
        assert!(record.find().is_none(), "it has ended");
    }
}
