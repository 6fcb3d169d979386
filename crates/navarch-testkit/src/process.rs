//! A child process that never outlives its owner, with its output in files.

use crate::wait::Fatal;
use anyhow::{Context, Result, bail};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

/// A running program. Dropping it kills it with SIGKILL and reaps it.
///
/// It stays in our process group on purpose: an interrupt from the terminal reaches it too.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with stdout and stderr appended to the file `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Process> {
        let out = File::options().create(true).append(true).open(log);
        let out = out.with_context(|| format!("opening {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("starting {name}: {command:?}"))?;
        Ok(Process { name: name.to_owned(), child, log: log.to_path_buf() })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has written so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// A [`Fatal`] error, with the end of its log, if it has ended.
    pub fn check_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let log = tail(&self.log(), 25);
            return Err(Fatal(format!("{} ended with {status}; its log ends with:\n{log}", self.name)).into());
        }
        Ok(())
    }

    /// Sends a signal by name, for example `TERM`, through the shell's own `kill`.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let kill = format!("kill -{signal} {}", self.child.id());
        let status = Command::new("/bin/sh").args(["-c", &kill]).status()?;
        if !status.success() {
            bail!("{kill}: {status}");
        }
        Ok(())
    }

    /// SIGTERM, then waits for it to end by itself.
    pub async fn terminate(mut self, within: Duration) -> Result<ExitStatus> {
        self.signal("TERM")?;
        let what = format!("{} to end after SIGTERM", self.name);
        crate::wait::until(&what, within, || {
            let status = self.child.try_wait();
            async { status?.context("still running") }
        })
        .await
    }

    /// SIGKILL, and reaps it.
    pub fn kill(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        // Both fail only if it has ended already, which is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The last `lines` lines of `text`.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn terminates_reports_and_captures() {
        let dir = crate::workspace::scratch("process").unwrap();
        let sleeper = |log: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "echo hello; exec sleep 100"]);
            Process::start("sleeper", &mut command, &dir.join(log)).unwrap()
        };
        let mut process = sleeper("a");
        process.check_running().unwrap();
        crate::wait::until_true("output", crate::wait::STEP, || {
            let log = process.log();
            async move { Ok(log == "hello\n") }
        })
        .await
        .unwrap();
        assert!(!process.terminate(crate::wait::STEP).await.unwrap().success());

        let process = sleeper("b");
        let id = process.id();
        drop(process);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }
}
