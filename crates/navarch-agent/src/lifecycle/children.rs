//! The processes that the agent starts.

use std::ffi::OsString;
use std::future::pending;
use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::error::AgentError;
use crate::backoff::Backoff;
use crate::bootstrap::Bootstrap;
use crate::envoy::{Admin, Launch};

/// How often an Envoy that has started is asked whether it is ready.
const POLL: Duration = Duration::from_millis(25);
/// Ends of Envoy, before it was ready for the first time, after which the agent gives up.
const ENDS_MAX: u32 = 5;
/// An Envoy that has lived so long starts with a short wait again.
const STABLE: Duration = Duration::from_secs(10);

/// Envoy, which is started again whenever it ends.
pub struct Proxy {
    launch: Launch,
    /// What is tried if Envoy does not get ready with its bootstrap: ports may be taken.
    fallback: Option<Bootstrap>,
    child: Option<Child>,
    started: Instant,
    restart_at: Option<Instant>,
    backoff: Backoff,
    /// Whether this Envoy was ready, and any was.
    is_ready: bool,
    was_ready: bool,
}

/// What happens to Envoy.
pub enum Event {
    Ready(Admin),
    Ended,
}

impl Proxy {
    pub fn new(launch: Launch, fallback: Bootstrap) -> Self {
        Proxy {
            launch,
            fallback: Some(fallback),
            child: None,
            started: Instant::now(),
            restart_at: None,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(10)),
            is_ready: false,
            was_ready: false,
        }
    }

    pub fn start(&mut self) -> Result<(), AgentError> {
        let started = self.launch.start();
        let child =
            started.map_err(|source| AgentError::Envoy { binary: self.launch.binary.clone(), source })?;
        tracing::info!(pid = child.id(), "Envoy is started");
        self.child = Some(child);
        self.started = Instant::now();
        self.is_ready = false;
        Ok(())
    }

    /// Its admin port, once it is there.
    pub fn admin(&self) -> Option<Admin> {
        self.launch.admin().filter(|_| self.child.is_some())
    }

    /// What happens next. May be dropped without losing anything.
    pub async fn next(&mut self) -> Result<Event, AgentError> {
        loop {
            let Some(child) = &mut self.child else {
                let Some(at) = self.restart_at else { pending().await };
                sleep_until(at).await;
                self.restart_at = None;
                self.start()?;
                continue;
            };
            let (launch, is_ready) = (&self.launch, self.is_ready);
            let ready = async {
                if is_ready {
                    pending::<()>().await;
                }
                loop {
                    if let Some(admin) = launch.admin()
                        && admin.is_ready().await
                    {
                        return admin;
                    }
                    sleep(POLL).await;
                }
            };
            tokio::select! {
                status = child.wait() => {
                    self.ended(status.ok())?;
                    return Ok(Event::Ended);
                }
                admin = ready => {
                    tracing::info!(admin = %admin.0, "Envoy is ready");
                    self.is_ready = true;
                    self.was_ready = true;
                    return Ok(Event::Ready(admin));
                }
            }
        }
    }

    fn ended(&mut self, status: Option<ExitStatus>) -> Result<(), AgentError> {
        self.child = None;
        if self.started.elapsed() > STABLE {
            self.backoff.reset();
        }
        let wait = self.backoff.next();
        let how = status.map_or_else(|| "in an unknown way".to_owned(), how);
        tracing::error!(how, restart_in = ?wait, "Envoy has ended");
        if !self.was_ready
            && let Some(fallback) = self.fallback.take()
        {
            // Another agent on the machine was faster.
            self.launch.bootstrap = fallback;
        }
        if !self.was_ready && self.backoff.failures() >= ENDS_MAX {
            return Err(AgentError::NeverReady { times: ENDS_MAX });
        }
        self.restart_at = Some(Instant::now() + wait);
        Ok(())
    }

    /// Ends it, and not later than `within`.
    pub async fn stop(&mut self, within: Duration) {
        let Some(mut child) = self.child.take() else { return };
        send(&child, Signal::TERM);
        if timeout(within, child.wait()).await.is_err() {
            tracing::warn!("Envoy does not end, and is killed");
            // It fails only if it has just ended.
            let _ = child.kill().await;
        }
    }
}

/// COMMAND.
pub struct Application {
    command: Vec<OsString>,
    child: Option<Child>,
    /// Whether a terminal sends it the signals of its keys.
    has_terminal: bool,
}

impl Application {
    pub fn new(command: Vec<OsString>) -> Self {
        Application { command, child: None, has_terminal: std::io::stdin().is_terminal() }
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Starts it, if there is one and it was not started yet.
    pub fn start(&mut self) -> Result<(), AgentError> {
        if self.child.is_some() {
            return Ok(());
        }
        let Some((program, arguments)) = self.command.split_first() else { return Ok(()) };
        let mut command = Command::new(program);
        command.args(arguments).kill_on_drop(false);
        if !self.has_terminal {
            // What is sent to the group of the agent is the agent's; it passes on what is to be.
            command.process_group(0);
        }
        let child = command.spawn().map_err(|source| AgentError::Command {
            command: program.to_string_lossy().into_owned(),
            source,
        })?;
        tracing::info!(pid = child.id(), command = %program.to_string_lossy(), "COMMAND is started");
        self.child = Some(child);
        Ok(())
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            send(child, signal);
        }
    }

    /// Returns its exit status when it ends: 128 and the signal if one has ended it, as shells say it. May be
    /// dropped without losing anything.
    pub async fn ended(&mut self) -> u8 {
        let Some(child) = &mut self.child else { pending().await };
        let status = child.wait().await;
        self.child = None;
        status.map_or(125, |status| match (status.code(), status.signal()) {
            (Some(code), _) => u8::try_from(code & 0xff).unwrap_or(1),
            (None, signal) => u8::try_from(128 + signal.unwrap_or_default()).unwrap_or(255),
        })
    }
}

fn send(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    // It fails only if the process has ended, which shows elsewhere.
    let _ = pid.map(|pid| kill_process(pid, signal));
}

/// How a process ended, for people.
fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("with status {code}"),
        (None, Some(9)) => "by SIGKILL; if nobody sent it, memory ran out".to_owned(),
        (None, Some(signal)) => format!("by signal {signal}"),
        (None, None) => status.to_string(),
    }
}
