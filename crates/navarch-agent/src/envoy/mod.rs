//! The Envoy beside: how it is started, what its admin port says, and how it is told to drain.

mod admin;
mod find;
mod hot_restart;

pub use admin::Admin;
pub use find::{NotFound, find};
pub use hot_restart::{HotRestart, HotRestartError};

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::bootstrap::{Bootstrap, field};
use crate::detached;

/// Time for Envoy to read a bootstrap.
const VALIDATE_TIMEOUT: Duration = Duration::from_secs(10);

/// What Envoy is started with.
#[derive(Clone, Debug)]
pub struct Launch {
    pub binary: PathBuf,
    pub bootstrap: Bootstrap,
    /// The file for the bootstrap.
    pub bootstrap_file: PathBuf,
    /// The file in which Envoy says where its admin port is.
    pub admin_file: PathBuf,
    pub log_level: String,
    /// Threads; those of the machine if absent.
    pub concurrency: Option<u32>,
    /// Seconds in which connections are drained, as of Istio's `drainDuration`.
    pub drain_seconds: u64,
    /// How often, and with how much at once, logs are written; 0 for as much as Envoy likes.
    pub flush_interval: Duration,
    pub flush_kilobytes: u32,
    /// Variables besides those of the agent.
    pub environment: BTreeMap<String, String>,
    /// Passed on as they are.
    pub arguments: Vec<OsString>,
    /// How it hands over to another one, if it can.
    pub hot_restart: Option<HotRestart>,
}

/// A file with a program, as it was when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    device: u64,
    inode: u64,
    /// Seconds since 1970.
    modified: i64,
}

/// What an Envoy that runs is to an agent that finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// It has the bootstrap that the agent would give it, but for ports that nobody asked for.
    Same,
    /// It is for the same proxy, with another bootstrap.
    Changed,
    /// It is for another proxy.
    Other,
}

impl Launch {
    /// Starts Envoy: the first one, or the `epoch`th that takes over from another.
    ///
    /// It gets a process group of its own, so that an interrupt from the terminal does not reach it: the
    /// agent drains it. It goes on when the agent is killed. Gives the number of its process.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn start(&self, epoch: u32) -> io::Result<u32> {
        if let Err(error) = std::fs::remove_file(&self.admin_file)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        write(&self.bootstrap_file, &self.bootstrap)?;
        let mut arguments = self.arguments(&self.bootstrap_file);
        arguments.extend(["--admin-address-path".into(), self.admin_file.clone().into()]);
        match &self.hot_restart {
            Some(hot_restart) => arguments.extend(hot_restart.arguments(epoch)),
            None => arguments.push("--disable-hot-restart".into()),
        }
        detached::start(self.binary.as_os_str(), &arguments, &self.environment).await
    }

    /// Lets Envoy read the bootstrap, without starting.
    ///
    /// # Errors
    /// If it refuses it, or cannot be asked.
    pub async fn validate(&self) -> Result<(), HotRestartError> {
        let file = self.bootstrap_file.with_extension("next.json");
        write(&file, &self.bootstrap).map_err(HotRestartError::Start)?;
        let mut command = Command::new(&self.binary);
        command.args(self.arguments(&file)).args(["--mode", "validate", "--disable-hot-restart"]);
        command.envs(&self.environment);
        let asked = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let asked = timeout(VALIDATE_TIMEOUT, asked).await;
        let _ = std::fs::remove_file(&file);
        let output = match asked {
            Ok(output) => output.map_err(HotRestartError::Start)?,
            Err(_) => return Err(HotRestartError::Refused { said: "it does not answer".to_owned() }),
        };
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().lines().last().unwrap_or("it does not say why").to_owned();
        Err(HotRestartError::Refused { said })
    }

    /// The arguments that are the same whatever Envoy is started for.
    fn arguments(&self, bootstrap: &Path) -> Vec<OsString> {
        let drain = self.drain_seconds.to_string();
        let flush = self.flush_interval.as_millis().to_string();
        let mut arguments: Vec<OsString> = vec!["-c".into(), bootstrap.into()];
        arguments.extend(
            ["--allow-unknown-static-fields", "--drain-strategy", "immediate", "--file-flush-interval-msec"]
                .into_iter()
                .chain([&*flush, "-l", &self.log_level, "--drain-time-s", &drain])
                .map(OsString::from),
        );
        if self.flush_kilobytes > 0 {
            arguments.extend(["--file-flush-min-size-kb".into(), self.flush_kilobytes.to_string().into()]);
        }
        if let Some(threads) = self.concurrency {
            arguments.extend(["--concurrency".into(), threads.to_string().into()]);
        }
        arguments.extend(self.arguments.iter().cloned());
        arguments
    }

    /// The bootstrap of the Envoy that was started last; null if none was.
    #[must_use]
    pub fn started_with(&self) -> Value {
        let text = std::fs::read(&self.bootstrap_file).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// What the Envoy is that runs with the bootstrap `there`. `fallback` is what it may have been started
    /// with where ports were taken.
    #[must_use]
    pub fn relation(&self, there: &Value, fallback: &Bootstrap) -> Relation {
        let own = self.bootstrap.to_json();
        if *there == own || *there == fallback.to_json() {
            return Relation::Same;
        }
        // Where its configuration comes from, whatever else is said of that: a patched bootstrap has other
        // names.
        let xds = |bootstrap: &Value| {
            let assignment = field(&field(bootstrap, "static_resources")["clusters"][0], "load_assignment");
            let endpoint = &field(&assignment["endpoints"][0], "lb_endpoints")[0];
            endpoint["endpoint"]["address"]["pipe"]["path"].clone()
        };
        let is_ours = own["node"]["id"] == there["node"]["id"] && xds(&own) == xds(there);
        if is_ours { Relation::Changed } else { Relation::Other }
    }

    /// The program that would be started: another one once the file is replaced. `None` if it is not there.
    #[must_use]
    pub fn program(&self) -> Option<Program> {
        let file = std::fs::metadata(&self.binary).ok()?;
        Some(Program { device: file.dev(), inode: file.ino(), modified: file.mtime() })
    }

    /// The admin port of the Envoy that was started last. It is there only once that Envoy has it: on a port
    /// that is not its own another Envoy may answer.
    #[must_use]
    pub fn admin(&self) -> Option<Admin> {
        let text = std::fs::read_to_string(&self.admin_file).ok()?;
        text.trim().parse().ok().map(Admin)
    }

    /// Says again where the admin port is.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_admin(&self, admin: Admin) -> io::Result<()> {
        std::fs::write(&self.admin_file, admin.0.to_string())
    }
}

fn write(path: &Path, bootstrap: &Bootstrap) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(&bootstrap.to_json())?;
    text.push(b'\n');
    std::fs::write(path, text)
}
