//! The processes that the agent starts.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::future::pending;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::error::AgentError;
use super::process::{Ended, Process, Record};
use crate::backoff::Backoff;
use crate::bootstrap::Bootstrap;
use crate::envoy::{Admin, HotRestartError, Launch, Program, Relation};

/// The Envoy that runs, the one that has handed over to it, and what was started, in the agent's directory.
const RECORD: &str = "envoy.pid";
const PARENT_RECORD: &str = "envoy.parent.pid";
const GENERATION: &str = "envoy.generation";

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
    /// Where the Envoy is written down that has handed over.
    parent_record: Record,
    /// The file with what was started.
    generation_file: PathBuf,
    generation: Generation,
    child: Option<Process>,
    /// The Envoy that hands over to `child`, or has.
    parent: Option<Process>,
    /// The handover that is not done yet.
    handover: Option<Handover>,
    /// What runs is not what the agent would start.
    is_outdated: bool,
    started: Instant,
    restart_at: Option<Instant>,
    /// One that is started again.
    starting: Option<JoinHandle<io::Result<u32>>>,
    backoff: Backoff,
    /// Whether this Envoy was ready, and any was.
    is_ready: bool,
    was_ready: bool,
}

/// Which Envoy runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Generation {
    /// How many Envoys have handed over since one was started that took over from nobody.
    epoch: u32,
    program: Option<Program>,
}

/// A handover that has begun.
struct Handover {
    before: Before,
    done: oneshot::Sender<Result<(), HotRestartError>>,
}

/// What is written down of an Envoy that is about to hand over, and holds again if it does not.
struct Before {
    admin: Option<Admin>,
    bootstrap: Vec<u8>,
    generation: Generation,
}

/// What happens to Envoy.
pub enum Event {
    Ready(Admin),
    Ended,
    /// The next Envoy has ended before it was ready, and the one before goes on.
    StaysAsItWas,
}

impl Proxy {
    /// Nothing runs yet. What does is written down in this directory.
    pub fn new(launch: Launch, fallback: Bootstrap, directory: &Path) -> Self {
        Proxy {
            launch,
            fallback: Some(fallback),
            record: Record(directory.join(RECORD)),
            parent_record: Record(directory.join(PARENT_RECORD)),
            generation_file: directory.join(GENERATION),
            generation: Generation::default(),
            child: None,
            parent: None,
            handover: None,
            is_outdated: false,
            started: Instant::now(),
            restart_at: None,
            starting: None,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(10)),
            is_ready: false,
            was_ready: false,
        }
    }

    /// Takes over the Envoy that an agent before has left running, if it is one for the same proxy. One for
    /// another proxy is ended, since it has the ports. `agent` is where the agent's pages are. Whether there
    /// is an Envoy now.
    pub async fn take_over(&mut self, agent: SocketAddr, within: Duration) -> bool {
        self.parent = self.parent_record.find();
        let Some(found) = self.record.find() else {
            self.end_parent();
            return false;
        };
        let there = self.launch.started_with();
        self.launch.bootstrap.keep_addresses(&there, agent);
        let relation =
            self.fallback.as_ref().map_or(Relation::Other, |own| self.launch.relation(&there, own));
        let can_change = self.launch.hot_restart.is_some();
        if relation == Relation::Other || (relation == Relation::Changed && !can_change) {
            tracing::info!(
                pid = found.id(),
                "the Envoy of an agent before is for another proxy, and is ended"
            );
            found.stop(within).await;
            return false;
        }
        tracing::info!(pid = found.id(), "the Envoy of an agent before is taken over");
        let text = std::fs::read(&self.generation_file).unwrap_or_default();
        self.generation = serde_json::from_slice(&text).unwrap_or_default();
        let is_replaced = self.generation.program != self.launch.program();
        self.is_outdated = can_change && (relation == Relation::Changed || is_replaced);
        self.child = Some(found);
        true
    }

    /// Whether what was taken over is not what the agent would start.
    pub fn is_outdated(&self) -> bool {
        self.is_outdated
    }

    /// Starts one that takes over from nobody.
    pub async fn start(&mut self) -> Result<(), AgentError> {
        let started = self.launch.start(0).await;
        let noted = started.and_then(|id| self.note(id, 0));
        noted.map_err(|source| self.cannot_start(source))
    }

    fn cannot_start(&self, source: io::Error) -> AgentError {
        AgentError::Envoy { binary: self.launch.binary.clone(), source }
    }

    /// Notes that an Envoy was started.
    fn note(&mut self, id: u32, epoch: u32) -> io::Result<()> {
        tracing::info!(pid = id, epoch, "Envoy is started");
        let generation = Generation { epoch, program: self.launch.program() };
        let child = Process::open(id)?;
        if let Some(parent) = &self.child {
            self.parent_record.write(parent)?;
        }
        self.record.write(&child)?;
        std::fs::write(&self.generation_file, serde_json::to_vec(&generation)?)?;
        self.generation = generation;
        if let Some(parent) = self.child.replace(child) {
            self.parent = Some(parent);
        }
        self.started = Instant::now();
        self.is_ready = false;
        self.is_outdated = false;
        Ok(())
    }

    /// Starts another Envoy, to which this one hands its sockets. `done` hears once that is so, or why not.
    pub async fn hot_restart(&mut self, done: oneshot::Sender<Result<(), HotRestartError>>) {
        match self.begin_hot_restart().await {
            Ok(before) => self.handover = Some(Handover { before, done }),
            Err(error) => {
                tracing::error!(error = %crate::Chain(&error), "Envoy is not restarted");
                // Whether anybody still waits for the answer is not the agent's business.
                let _ = done.send(Err(error));
            }
        }
    }

    async fn begin_hot_restart(&mut self) -> Result<Before, HotRestartError> {
        self.is_outdated = false;
        let hot_restart = self.launch.hot_restart.as_ref().ok_or(HotRestartError::Unavailable)?;
        if self.parent.is_some() {
            return Err(hot_restart.busy());
        }
        if self.child.is_none() || !self.is_ready {
            return Err(HotRestartError::NotReady);
        }
        self.launch.validate().await?;
        let before = Before {
            admin: self.launch.admin(),
            bootstrap: std::fs::read(&self.launch.bootstrap_file).map_err(HotRestartError::Start)?,
            generation: self.generation,
        };
        let epoch = self.generation.epoch + 1;
        let started = self.launch.start(epoch).await;
        match started.and_then(|id| self.note(id, epoch)) {
            Ok(()) => Ok(before),
            Err(error) => {
                self.restore(before);
                Err(HotRestartError::Start(error))
            }
        }
    }

    /// Writes down again what holds of the Envoy that goes on.
    fn restore(&mut self, before: Before) {
        let Before { admin, bootstrap, generation } = before;
        self.generation = generation;
        let written = serde_json::to_vec(&generation)
            .map_err(io::Error::from)
            .and_then(|text| std::fs::write(&self.generation_file, text))
            .and_then(|()| std::fs::write(&self.launch.bootstrap_file, bootstrap))
            // The admin port closes when the next Envoy begins to start, and is there if that came to
            // nothing.
            .and_then(|()| admin.map_or(Ok(()), |admin| self.launch.write_admin(admin)))
            .and_then(|()| self.child.as_ref().map_or(Ok(()), |child| self.record.write(child)))
            .and_then(|()| self.parent_record.remove());
        if let Err(error) = written {
            tracing::warn!(%error, "another agent will not find this Envoy as it is");
        }
    }

    /// Whether one Envoy hands over to another just now.
    pub fn is_handing_over(&self) -> bool {
        self.handover.is_some()
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
                // In a task, so that no process is started and forgotten if this is dropped.
                let starting = self.starting.get_or_insert_with(|| {
                    let launch = self.launch.clone();
                    tokio::spawn(async move { launch.start(0).await })
                });
                let started = starting.await.map_err(io::Error::other).flatten();
                (self.starting, self.restart_at) = (None, None);
                let noted = started.and_then(|id| self.note(id, 0));
                noted.map_err(|source| self.cannot_start(source))?;
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
                    if let Some(handover) = self.handover.take() {
                        self.stays_as_it_was(ended, handover);
                        return Ok(Event::StaysAsItWas);
                    }
                    self.ended(ended)?;
                    return Ok(Event::Ended);
                }
                admin = ready => {
                    tracing::info!(admin = %admin.0, "Envoy is ready");
                    self.is_ready = true;
                    self.was_ready = true;
                    if let Some(handover) = self.handover.take() {
                        let _ = handover.done.send(Ok(()));
                    }
                    return Ok(Event::Ready(admin));
                }
                () = gone(&mut self.parent), if is_ready => {
                    tracing::info!("the Envoy that has handed over has ended");
                    self.parent = None;
                }
            }
        }
    }

    /// The next Envoy has ended before it took over.
    fn stays_as_it_was(&mut self, ended: Ended, handover: Handover) {
        let error = HotRestartError::Ended { how: ended.how() };
        tracing::error!(error = %crate::Chain(&error), "Envoy is not restarted");
        self.child = self.parent.take();
        self.is_ready = true;
        self.restore(handover.before);
        let _ = handover.done.send(Err(error));
    }

    /// Ends the Envoy that has handed over: only the one that has taken over would have told it to.
    fn end_parent(&self) {
        if let Some(parent) = &self.parent {
            parent.signal(Signal::TERM);
        }
    }

    fn ended(&mut self, ended: Ended) -> Result<(), AgentError> {
        self.child = None;
        self.end_parent();
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
        if let Some(handover) = self.handover.take() {
            let _ = handover.done.send(Err(HotRestartError::Ending));
        }
        for process in self.parent.take().into_iter().chain(self.child.take()) {
            if process.stop(within).await {
                tracing::warn!("Envoy did not end, and was killed");
            }
        }
    }
}

/// Returns when the process has ended; never if there is none.
async fn gone(process: &mut Option<Process>) {
    match process {
        Some(process) => _ = process.ended().await,
        None => pending().await,
    }
}

/// COMMAND.
pub struct Application {
    command: Vec<OsString>,
    environment: BTreeMap<String, String>,
    record: Record,
    child: Option<Process>,
    /// Whether a terminal sends it the signals of its keys.
    has_terminal: bool,
}

impl Application {
    pub fn new(command: Vec<OsString>, environment: BTreeMap<String, String>, record: PathBuf) -> Self {
        Application {
            command,
            environment,
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
        command.args(arguments).envs(&self.environment).kill_on_drop(false);
        if !self.has_terminal {
            // What is sent to the group of the agent is the agent's; it passes on what is to be.
            command.process_group(0);
        }
        let name = program.to_string_lossy().into_owned();
        let failed = |source| AgentError::Command { command: name.clone(), source };
        let child = command.spawn().map_err(failed)?;
        tracing::info!(pid = child.id(), command = %program.to_string_lossy(), "COMMAND is started");
        let child = Process::Child(child);
        self.record.write(&child).map_err(failed)?;
        self.child = Some(child);
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
