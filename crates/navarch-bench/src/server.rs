//! The server under test: navarch, started here, or any other one.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::mesh::Edit;

/// Clock ticks per second in `/proc/PID/stat` (`USER_HZ`), the same on every Linux.
const TICKS: f64 = 100.0;

/// A server that is measured.
pub struct Server {
    pub xds: SocketAddr,
    /// The admin port, if the server is navarch.
    pub admin: Option<SocketAddr>,
    pid: u32,
    child: Option<Child>,
    edits: Edits,
}

/// How a change gets to the server.
pub enum Edits {
    /// The file is written into the directory that the server watches.
    Directory(PathBuf),
    /// The file is written, then a command is run.
    Command { directory: PathBuf, command: String },
    /// What would be in the file is brought to the API server that the server follows.
    Cluster(Rc<dyn Cluster>),
}

/// Writes files on a thread of its own: neither waits for the proxies, nor they for it.
pub struct Writer {
    edits: mpsc::Sender<(Instant, Edit)>,
    written: JoinHandle<Result<Vec<(Instant, Duration)>>>,
}

impl Writer {
    /// Makes a change that was to be made then. False if one before it could not be made.
    pub fn write(&self, at: Instant, edit: Edit) -> bool {
        self.edits.send((at, edit)).is_ok()
    }

    /// When each was to be made, and how long after that it was.
    ///
    /// # Errors
    /// If a file could not be written.
    pub async fn finish(self) -> Result<Vec<(Instant, Duration)>> {
        drop(self.edits);
        self.written.await?
    }
}

impl Edits {
    /// Arguments of `navarch serve` that lead it to the configuration.
    fn arguments(&self) -> Vec<String> {
        match self {
            Edits::Directory(directory) | Edits::Command { directory, .. } => {
                vec!["--config".to_owned(), directory.display().to_string()]
            }
            Edits::Cluster(cluster) => cluster.arguments(),
        }
    }
}

/// What the server has used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time of all its threads, in seconds, to a hundredth.
    pub cpu: f64,
    /// Resident memory in bytes.
    pub resident: u64,
    /// The most that resident memory has been.
    pub peak: u64,
}

impl Server {
    /// Starts `navarch serve` on free ports and waits until it is ready.
    ///
    /// # Errors
    /// If it does not become ready; says where its log is.
    pub async fn start(
        binary: &Path,
        edits: Edits,
        extra: &[String],
        tls: &[String],
        log: &Path,
    ) -> Result<Self> {
        let (plaintext, admin) = (free_address()?, free_address()?);
        let secure = if tls.is_empty() { None } else { Some(free_address()?) };
        let xds = secure.unwrap_or(plaintext);
        let output = std::fs::File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let child = Command::new(binary)
            .args(["serve", "--log-level", "warn"])
            .args(edits.arguments())
            .args(["--xds-addr", &plaintext.to_string(), "--admin-addr", &admin.to_string()])
            .args(secure.iter().flat_map(|secure| ["--secure-addr".to_owned(), secure.to_string()]))
            .args(tls)
            .args(extra)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let mut server = Server { xds, admin: Some(admin), pid: child.id(), child: Some(child), edits };
        let deadline = Instant::now() + Duration::from_secs(600);
        while get(admin, "/ready").is_err() {
            if let Some(status) = server.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                bail!("`navarch serve` ended with {status}: {}", tail(log));
            }
            ensure!(
                Instant::now() < deadline,
                "`navarch serve` is not ready after ten minutes: {}",
                tail(log)
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(server)
    }

    /// A server that runs already and serves the configuration.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn running(xds: SocketAddr, pid: u32, edits: Edits) -> Result<Self> {
        let server = Server { xds, admin: None, pid, child: None, edits };
        server.usage().with_context(|| format!("there is no process {pid}"))?;
        Ok(server)
    }

    /// Makes a change. What comes after the call is the server's time.
    ///
    /// # Errors
    /// If the file cannot be written, or the command fails.
    pub async fn apply(&self, edit: &Edit) -> Result<()> {
        match &self.edits {
            Edits::Directory(directory) => edit.write(directory),
            Edits::Command { directory, command } => {
                edit.write(directory)?;
                let status = tokio::process::Command::new("sh")
                    .args(["-c", command])
                    .env("BENCH_CONFIG", directory)
                    .env("BENCH_FILE", directory.join(&edit.file))
                    .env("BENCH_CHANGE", edit.kind.as_str())
                    .status()
                    .await
                    .with_context(|| format!("running {command}"))?;
                ensure!(status.success(), "`{command}` ended with {status}");
                Ok(())
            }
            Edits::Cluster(cluster) => cluster.apply(edit).await,
        }
    }

    /// Who makes changes one after the other; `None` if they are not made by writing files alone.
    pub fn writer(&self) -> Option<Writer> {
        let Edits::Directory(directory) = &self.edits else { return None };
        let (edits, queue) = mpsc::channel::<(Instant, Edit)>();
        let directory = directory.clone();
        let write = move |(at, edit): (Instant, Edit)| {
            edit.write(&directory)?;
            Ok((at, at.elapsed()))
        };
        Some(Writer {
            edits,
            written: tokio::task::spawn_blocking(move || queue.iter().map(write).collect()),
        })
    }

    /// What the server has used so far.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn usage(&self) -> Result<Usage> {
        let status = read(&format!("/proc/{}/status", self.pid))?;
        let kilobytes = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default()
        };
        Ok(Usage {
            cpu: cpu_of(&read(&format!("/proc/{}/stat", self.pid))?),
            resident: kilobytes("VmRSS:") * 1024,
            peak: kilobytes("VmHWM:") * 1024,
        })
    }

    /// Counters of navarch that tell what work was done, by name.
    #[must_use]
    pub fn counters(&self) -> std::collections::BTreeMap<String, f64> {
        let text = self.admin.and_then(|admin| get(admin, "/metrics").ok()).unwrap_or_default();
        let wanted = [
            "navarch_memo_lookups_total{",
            "navarch_gather_runs_total{",
            "navarch_revision",
            "pilot_xds_pushes{",
        ];
        let samples = text.lines().filter(|line| wanted.iter().any(|start| line.starts_with(start)));
        samples
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Processor seconds of this process.
#[must_use]
pub fn own_cpu() -> f64 {
    read("/proc/self/stat").map(|stat| cpu_of(&stat)).unwrap_or_default()
}

/// Lets this process, and so a server that it starts, have as many files open as it may. Gives how many;
/// `None`: no limit.
pub fn raise_open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    // Not to be allowed what one is allowed to is not expected; then the limit stays.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    getrlimit(Resource::Nofile).current
}

/// `utime` and `stime` are the 14th and 15th field; the second, the name, is in parentheses and may contain
/// blanks.
pub fn cpu_of(stat: &str) -> f64 {
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 =
        rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / TICKS
}

/// A file of the kernel.
///
/// # Errors
/// If the process is gone.
pub fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {path}"))
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(5)..).unwrap_or_default().join("\n");
    format!("{} says\n{last}", log.display())
}

/// An address that nobody listens on.
///
/// # Errors
/// If there is none.
pub fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    Ok(listener.local_addr()?)
}

/// A page of the admin port.
///
/// # Errors
/// If there is no answer, or its status is not 200.
pub fn get(admin: SocketAddr, path: &str) -> Result<String> {
    let mut socket = TcpStream::connect_timeout(&admin, Duration::from_secs(5))?;
    socket.set_read_timeout(Some(Duration::from_secs(300)))?;
    // HTTP/1.0: the answer comes in one piece and ends with the connection.
    write!(socket, "GET {path} HTTP/1.0\r\nHost: {admin}\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is not HTTP")?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    ensure!(status == "200", "{path} answers {status}: {}", body.trim());
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_behind_the_name() {
        let stat = "7 (a) b c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 9 9 20 0 4 0 100 1000 50";
        assert_eq!(cpu_of(stat), 3.0);
        assert_eq!(cpu_of(""), 0.0);
        assert!(own_cpu() >= 0.0 && raise_open_files() != Some(0));
    }
}
