//! The Envoy beside: how it is started, what its admin port says, and how it is told to drain.

mod admin;
mod find;

pub use admin::Admin;
pub use find::{NotFound, find};

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, Command};

use crate::bootstrap::Bootstrap;

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
    /// Passed on as they are.
    pub arguments: Vec<OsString>,
}

impl Launch {
    /// Starts Envoy.
    ///
    /// It gets a process group of its own, so that an interrupt from the terminal does not reach it: the
    /// agent drains it. It goes on when the agent is killed.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&self) -> io::Result<Child> {
        if let Err(error) = std::fs::remove_file(&self.admin_file)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        write(&self.bootstrap_file, &self.bootstrap.to_json())?;
        let mut command = Command::new(&self.binary);
        command
            .arg("-c")
            .arg(&self.bootstrap_file)
            .arg("--admin-address-path")
            .arg(&self.admin_file)
            .args(["--disable-hot-restart", "--allow-unknown-static-fields", "--drain-strategy", "immediate"])
            .args(["--file-flush-interval-msec", "1000", "-l", &self.log_level])
            .args(["--drain-time-s", &self.drain_seconds.to_string()])
            .args(
                self.concurrency.iter().flat_map(|threads| ["--concurrency".to_owned(), threads.to_string()]),
            )
            .args(&self.arguments);
        command.stdin(Stdio::null()).process_group(0).kill_on_drop(false).spawn()
    }
}

impl Launch {
    /// Whether the bootstrap that is there, with which an Envoy may run, is for the same proxy with the same
    /// control plane. Its ports may be others.
    #[must_use]
    pub fn is_same_proxy(&self) -> bool {
        let Ok(text) = std::fs::read(&self.bootstrap_file) else { return false };
        let there: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        let own = self.bootstrap.to_json();
        let xds = |bootstrap: &serde_json::Value| bootstrap["static_resources"]["clusters"][0].clone();
        let same = |field: &str| own[field] == there[field];
        same("node") && same("dynamic_resources") && xds(&own) == xds(&there)
    }

    /// The admin port of the Envoy that was started last. It is there only once that Envoy has it: on a port
    /// that is not its own another Envoy may answer.
    #[must_use]
    pub fn admin(&self) -> Option<Admin> {
        let text = std::fs::read_to_string(&self.admin_file).ok()?;
        text.trim().parse().ok().map(Admin)
    }
}

fn write(path: &Path, bootstrap: &serde_json::Value) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(bootstrap)?;
    text.push(b'\n');
    std::fs::write(path, text)
}
