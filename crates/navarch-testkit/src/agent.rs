//! `navarch-agent` under control, with the Envoy that it starts.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};

use crate::http::{Answer, Call};
use crate::process::Process;
use crate::{envoy, navarch, ports, wait, workspace};

/// A running agent. When it is dropped, it and its Envoy are killed.
#[derive(Debug)]
pub struct Agent {
    name: String,
    process: Option<Process>,
    /// What runs it, if not this process: its words come before those of the agent.
    runner: Vec<String>,
    arguments: Vec<String>,
    command: Vec<String>,
    /// The Envoy that it starts, if it is not the usual one.
    envoy: Option<PathBuf>,
    admin: SocketAddr,
    status: SocketAddr,
    /// Envoy's own pages. Stated, as the others are: of agents that start at once all would try the ports
    /// that stand for no choice, and an Envoy counts the listener that fails.
    ready: SocketAddr,
    metrics: SocketAddr,
    /// Short, since the path of a socket is; removed with the agent.
    directory: PathBuf,
    log: PathBuf,
}

impl Agent {
    /// Starts an agent with these arguments: `sidecar` or `gateway`, and flags. Its directory and Envoy's
    /// admin port are chosen here.
    pub fn start(name: &str, arguments: &[&str], command: &[&str]) -> Result<Agent> {
        Agent::start_by(Vec::new(), name, arguments, command)
    }

    /// The same, run by another program: on another machine, or as another user.
    pub fn start_by(runner: Vec<String>, name: &str, arguments: &[&str], command: &[&str]) -> Result<Agent> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let own = format!("navarch-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(own);
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let mut agent = Agent {
            name: name.to_owned(),
            process: None,
            runner,
            arguments: texts(arguments),
            command: texts(command),
            envoy: None,
            admin: ([127, 0, 0, 1], ports::free_port()?).into(),
            status: ([127, 0, 0, 1], ports::free_port()?).into(),
            ready: ([127, 0, 0, 1], ports::free_port()?).into(),
            metrics: ([127, 0, 0, 1], ports::free_port()?).into(),
            directory,
            log: workspace::scratch(name)?.join("agent.log"),
        };
        agent.launch()?;
        Ok(agent)
    }

    /// What it is given besides, from its next start on.
    pub fn add(&mut self, arguments: &[&str]) {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    }

    /// The Envoy that it starts from its next start on.
    pub fn use_envoy(&mut self, binary: &Path) {
        self.envoy = Some(binary.to_owned());
    }

    /// Starts it again, with the same directory.
    pub fn launch(&mut self) -> Result<()> {
        self.process = None;
        let binary = navarch::agent()?;
        let mut command = match self.runner.split_first() {
            None => Command::new(binary),
            Some((program, words)) => {
                let mut command = Command::new(program);
                command.args(words).arg(binary);
                command
            }
        };
        command.args(&self.arguments).arg("--dir").arg(&self.directory);
        let binary = self.envoy.clone().map_or_else(envoy::binary, Ok)?;
        command.arg("--envoy").arg(binary).args(["--admin-port", &self.admin.port().to_string()]);
        command.args(["--status-addr", &self.status.to_string()]);
        command.args(["--ready-addr", &self.ready.to_string(), "--metrics-addr", &self.metrics.to_string()]);
        // Where the machine has one processor, two threads only get in each other's way.
        command.args(["--concurrency", "1"]).arg("--").args(&self.command);
        self.process = Some(Process::start(&self.name, &mut command, &self.log)?);
        Ok(())
    }

    /// Waits until Envoy is LIVE.
    pub async fn wait_live(&mut self) -> Result<()> {
        let url = format!("http://{}/ready", self.admin);
        let process = self.process.as_mut().context("not running")?;
        let live = wait::until("the agent's Envoy to be LIVE", wait::STEP, || {
            let (running, call) = (process.check_running(), Call::get(url.clone()));
            async move {
                running?;
                call.send().await?.ok()
            }
        });
        live.await.map(drop).with_context(|| format!("the log is {}", self.log.display()))
    }

    /// Envoy's admin port.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// How often Envoy has refused what it was sent, by statistic.
    pub async fn rejections(&self) -> Result<Vec<(String, u64)>> {
        let text = self.envoy("/stats?usedonly").await?.text();
        let values = text.lines().filter_map(|line| line.rsplit_once(": "));
        let refused = values.filter(|(name, _)| {
            name.ends_with(".update_rejected") || name.ends_with(".listener_create_failure")
        });
        let refused = refused.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
        Ok(refused.filter(|(_, count)| *count > 0).collect())
    }

    /// Where Envoy says whether the agent is ready.
    pub fn ready(&self) -> SocketAddr {
        self.ready
    }

    /// A page of Envoy's admin port.
    pub async fn envoy(&self, path: &str) -> Result<Answer> {
        Call::get(format!("http://{}{path}", self.admin)).send().await?.ok()
    }

    /// A page of the agent itself.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        Call::get(format!("http://{}{path}", self.status)).send().await
    }

    /// As [`Agent::get`], for what changes something.
    pub async fn post(&self, path: &str) -> Result<Answer> {
        Call::post(format!("http://{}{path}", self.status)).send().await
    }

    /// The sum of Envoy's counters and gauges whose names end so.
    pub async fn stats(&self, suffix: &str) -> Result<u64> {
        let text = self.envoy("/stats?usedonly").await?.text();
        let values = text.lines().filter_map(|line| line.rsplit_once(": "));
        let values = values.filter(|(name, _)| name.ends_with(suffix));
        Ok(values.filter_map(|(_, value)| value.parse::<u64>().ok()).sum())
    }

    /// Everything that the agent, its Envoy and COMMAND have written.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until the log has this text so many times.
    pub async fn said(&self, text: &str, times: usize) -> Result<()> {
        wait::until(text, wait::STEP, || async {
            let found = self.log().matches(text).count();
            ensure!(found >= times, "said {found} times");
            Ok(())
        })
        .await
    }

    /// The directory that it keeps its files in.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The process of Envoy.
    pub fn envoy_id(&self) -> Result<u32> {
        self.recorded("envoy.pid").context("no Envoy was started")
    }

    /// The number of a process that the agent has written down.
    fn recorded(&self, name: &str) -> Result<u32> {
        let text = std::fs::read_to_string(self.directory.join(name))?;
        let id = text.split(' ').next().unwrap_or_default();
        id.parse().context("its number is not one")
    }

    /// Sends a signal to Envoy.
    pub fn signal_envoy(&self, signal: &str) -> Result<()> {
        let kill = format!("kill -{signal} {} 2>/dev/null", self.envoy_id()?);
        let status = Command::new("/bin/sh").args(["-c", &kill]).status()?;
        ensure!(status.success(), "{kill}: {status}");
        Ok(())
    }

    /// Ends it with SIGTERM.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.process.take().context("not running")?.terminate(wait::STEP).await
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self) -> Result<()> {
        let process = self.process.as_mut().context("not running")?;
        wait::until("the agent to end", wait::STEP, || {
            let running = process.check_running().is_ok();
            async move {
                ensure!(!running, "still running");
                Ok(())
            }
        })
        .await
    }

    /// Ends it, and not its Envoy, with SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.process = None;
        // What it has started outlives it, and may have ended already.
        for name in ["envoy.pid", "envoy.parent.pid", "command.pid"] {
            let Ok(id) = self.recorded(name) else { continue };
            let _ = Command::new("/bin/sh").args(["-c", &format!("kill -KILL {id} 2>/dev/null")]).status();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
