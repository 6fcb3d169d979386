//! The processes that the agent starts.

use std::ffi::OsString;
use std::future::pending;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Command;
use tokio::time::{Instant, sleep, sleep_until};

use super::error::AgentError;
use super::process::{Ended, Process, Record};
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
    record: Record,
    child: Option<Process>,
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
    pub fn new(launch: Launch, fallback: Bootstrap, record: PathBuf) -> Self {
        Proxy {
            launch,
            fallback: Some(fallback),
            record: Record(record),
            child: None,
            started: Instant::now(),
            restart_at: None,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(10)),
            is_ready: false,
            was_ready: false,
        }
    }

    /// Takes over the Envoy that an agent before has left running, if it is one for the same proxy. One for
    /// another proxy is ended, since it has the ports. Whether there is an Envoy now.
    pub async fn take_over(&mut self, within: Duration) -> bool {
        let Some(found) = self.record.find() else { return false };
        if self.launch.is_same_proxy() {
            tracing::info!(pid = found.id(), "the Envoy of an agent before is taken over");
            self.child = Some(found);
            return true;
        }
        tracing::info!(pid = found.id(), "the Envoy of an agent before is for another proxy, and is ended");
        found.stop(within).await;
        false
    }

    pub fn start(&mut self) -> Result<(), AgentError> {
        let failed = |source| AgentError::Envoy { binary: self.launch.binary.clone(), source };
        let child = self.launch.start().map_err(failed)?;
        tracing::info!(pid = child.id(), "Envoy is started");
        self.record.write(&child).map_err(failed)?;
        self.child = Some(Process::Child(child));
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
                ended = child.ended() => {
                    self.ended(ended)?;
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

    fn ended(&mut self, ended: Ended) -> Result<(), AgentError> {
        self.child = None;
        if self.started.elapsed() > STABLE {
            self.backoff.reset();
        }
        let wait = self.backoff.next();
        tracing::error!(how = ended.how(), restart_in = ?wait, "Envoy has ended");
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
        let Some(child) = self.child.take() else { return };
        if child.stop(within).await {
            tracing::warn!("Envoy did not end, and was killed");
        }
    }
}

/// COMMAND.
pub struct Application {
    command: Vec<OsString>,
    record: Record,
    child: Option<Process>,
    /// Whether a terminal sends it the signals of its keys.
    has_terminal: bool,
}

impl Application {
    pub fn new(command: Vec<OsString>, record: PathBuf) -> Self {
        Application {
            command,
            record: Record(record),
            child: None,
            has_terminal: std::io::stdin().is_terminal(),
        }
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Takes over the COMMAND that an agent before has left running.
    pub fn take_over(&mut self) {
        self.child = self.record.find().filter(|_| !self.command.is_empty());
        if let Some(child) = &self.child {
            tracing::info!(pid = child.id(), "the COMMAND of an agent before is taken over");
        }
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
        let name = program.to_string_lossy().into_owned();
        let failed = |source| AgentError::Command { command: name.clone(), source };
        let child = command.spawn().map_err(failed)?;
        tracing::info!(pid = child.id(), command = %program.to_string_lossy(), "COMMAND is started");
        self.record.write(&child).map_err(failed)?;
        self.child = Some(Process::Child(child));
        Ok(())
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            child.signal(signal);
        }
    }

    /// Returns its exit status when it ends. May be dropped without losing anything.
    pub async fn ended(&mut self) -> u8 {
        let Some(child) = &mut self.child else { pending().await };
        let ended = child.ended().await;
        self.child = None;
        ended.code()
    }
}
