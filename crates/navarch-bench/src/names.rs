//! What the names of a mesh cost an agent, and how fast it answers for them.
//!
//! The agent is the real one; its Envoy is a program that sleeps, and its control plane and its one stream of
//! discovery are made here, so that what is measured is names alone.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Request as Head, Response};
use navarch_envoy::XdsType;
use navarch_envoy::wire::put_field;
use serde::Serialize;
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::message::{Protocol, Request};
use crate::server::{cpu_of, free_address, read};

const NAMES: &str = "type.googleapis.com/istio.networking.nds.v1.NameTable";
const NODE: &str = "sidecar~127.0.0.1~bench.bench~bench.svc.cluster.local";
/// Services of a namespace.
const NAMESPACE_SERVICES: usize = 100;
/// How long anything may take to begin.
const START_MAX: Duration = Duration::from_secs(60);
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// What is asked, and of whom.
#[derive(Clone, Debug)]
pub struct NameSettings {
    /// The binary of the agent.
    pub agent: PathBuf,
    /// Names that the mesh has.
    pub names: usize,
    /// Questions in all, and in a second.
    pub questions: usize,
    pub rate: f64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct NameReport {
    pub names: usize,
    /// Memory of the agent that it shares with nobody, before it had any names, with them, and after the
    /// questions.
    pub private_kb_without: u64,
    pub private_kb: u64,
    pub private_kb_after: u64,
    /// The most that resident memory has been, shared pages included.
    pub peak_kb: u64,
    pub questions: usize,
    /// Questions without the right answer.
    pub failed: usize,
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// Processor time of the agent for a question.
    pub cpu_us_per_question: f64,
}

/// Starts an agent, gives it names and asks for them.
///
/// # Errors
/// If it does not start, or does not get the names.
pub fn names(settings: &NameSettings) -> Result<NameReport> {
    ensure!(settings.names > 0 && settings.questions > 0, "nothing is asked");
    let directory = std::env::temp_dir().join(format!("navarch-bench-names-{}", std::process::id()));
    std::fs::create_dir_all(&directory).context("a directory for the run")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let report = measure(settings, &directory, &runtime);
    let _ = std::fs::remove_dir_all(&directory);
    report
}

fn measure(
    settings: &NameSettings,
    directory: &Path,
    runtime: &tokio::runtime::Runtime,
) -> Result<NameReport> {
    let release = Arc::new(Notify::new());
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    let server = listener.local_addr()?;
    let table = Bytes::from(response(settings.names));
    let plane = Aborted(runtime.spawn(plane(listener, table, release.clone())).abort_handle());
    let dns = free_address()?;
    let agent = Agent::start(&settings.agent, directory, server, dns)?;
    let proxy = runtime.block_on(proxy(&agent.directory))?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(dns)?;
    let before = agent.memory()?;
    release.notify_one();
    let started = Instant::now();
    while !ask_once(&socket, settings.names - 1)? {
        ensure!(started.elapsed() < START_MAX, "the agent does not know the names: {}", agent.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let with = agent.memory()?;
    let cpu = cpu_of(&read(&format!("/proc/{}/stat", agent.child.id()))?);
    let (mut took, seconds) = ask(&socket, settings)?;
    let cpu = cpu_of(&read(&format!("/proc/{}/stat", agent.child.id()))?) - cpu;
    let after = agent.memory()?;
    drop((proxy, plane));
    took.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (took.len() as f64 * share).ceil() as usize;
        took.get(index.saturating_sub(1)).copied().unwrap_or_default()
    };
    Ok(NameReport {
        names: settings.names,
        private_kb_without: before.private,
        private_kb: with.private,
        private_kb_after: after.private,
        peak_kb: after.peak,
        questions: settings.questions,
        failed: settings.questions - took.len(),
        per_second: took.len() as f64 / seconds,
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        max_ms: at(1.0),
        cpu_us_per_question: cpu * 1e6 / settings.questions as f64,
    })
}

/// The process, which is ended with what it has started.
struct Agent {
    child: Child,
    directory: PathBuf,
}

#[derive(Clone, Copy)]
struct Memory {
    private: u64,
    peak: u64,
}

impl Agent {
    fn start(binary: &Path, directory: &Path, server: SocketAddr, dns: SocketAddr) -> Result<Self> {
        let envoy = directory.join("envoy");
        std::fs::write(&envoy, "#!/bin/sh\nexec sleep 3600\n")?;
        std::fs::set_permissions(&envoy, std::fs::Permissions::from_mode(0o755))?;
        let (log, own) = (std::fs::File::create(directory.join("log"))?, directory.join("agent"));
        let child = Command::new(binary)
            .args(["sidecar", "--service", "bench", "--metadata", "DNS_CAPTURE=true", "--log-level", "warn"])
            .args(["--server", &server.to_string(), "--dns-addr", &dns.to_string()])
            .args([
                "--status-addr",
                &free_address()?.to_string(),
                "--admin-port",
                &free_address()?.port().to_string(),
            ])
            .arg("--envoy")
            .arg(&envoy)
            .arg("--dir")
            .arg(&own)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        Ok(Agent { child, directory: own })
    }

    fn memory(&self) -> Result<Memory> {
        let id = self.child.id();
        let kilobytes = |text: &str, key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default()
        };
        let rollup = read(&format!("/proc/{id}/smaps_rollup")).with_context(|| self.log())?;
        Ok(Memory {
            private: kilobytes(&rollup, "Private_Clean:") + kilobytes(&rollup, "Private_Dirty:"),
            peak: kilobytes(&read(&format!("/proc/{id}/status"))?, "VmHWM:"),
        })
    }

    fn log(&self) -> String {
        let log = self.directory.with_file_name("log");
        format!("the agent says\n{}", std::fs::read_to_string(log).unwrap_or_default())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself. Its Envoy is a child of init.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let recorded = std::fs::read_to_string(self.directory.join("envoy.pid")).unwrap_or_default();
        let id =
            recorded.split(' ').next().and_then(|id| rustix::process::Pid::from_raw(id.trim().parse().ok()?));
        if let Some(id) = id {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::KILL);
        }
    }
}

/// Ends a task with what needs it.
struct Aborted(AbortHandle);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Opens a stream as a proxy does, once one is started: it asks for all listeners.
async fn proxy(directory: &Path) -> Result<Aborted> {
    let deadline = Instant::now() + START_MAX;
    while !directory.join("envoy.pid").exists() {
        ensure!(Instant::now() < deadline, "the agent starts no Envoy");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let socket = UnixStream::connect(directory.join("xds.sock")).await?;
    let (sender, connection) = h2::client::handshake(socket).await?;
    let task = Aborted(tokio::spawn(connection).abort_handle());
    let head = Head::post(format!("http://agent{}", Protocol::Delta.path()))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (response, mut out) = sender.ready().await?.send_request(head, false)?;
    let mut node = Vec::new();
    put_field(&mut node, 1 << 3 | 2, NODE.as_bytes());
    out.send_data(
        Request { node: Some(&node), ..Request::default() }.encode(Protocol::Delta, XdsType::Lds),
        false,
    )?;
    let response = response.await?;
    let held = tokio::spawn(async move {
        let _held = (task, out, response);
        std::future::pending::<()>().await
    });
    Ok(Aborted(held.abort_handle()))
}

/// A control plane that has nothing but names, and gives them once it may.
async fn plane(listener: TcpListener, table: Bytes, release: Arc<Notify>) -> Result<()> {
    loop {
        let (socket, _) = listener.accept().await?;
        let (table, release) = (table.clone(), release.clone());
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(socket).await?;
            while let Some(accepted) = connection.accept().await {
                let (request, mut respond) = accepted?;
                let head = Response::builder().header("content-type", "application/grpc").body(())?;
                let mut out = respond.send_response(head, false)?;
                let (table, release) = (table.clone(), release.clone());
                tokio::spawn(async move {
                    let mut body = request.into_body();
                    while let Some(data) = body.data().await {
                        let data = data?;
                        body.flow_control().release_capacity(data.len())?;
                        if data.windows(NAMES.len()).any(|window| window == NAMES.as_bytes()) {
                            release.notified().await;
                            out.send_data(table.clone(), false)?;
                        }
                    }
                    anyhow::Ok(())
                });
            }
            anyhow::Ok(())
        });
    }
}

/// The name of a service.
fn name(number: usize) -> String {
    format!("service-{number}.namespace-{}.svc.cluster.local", number / NAMESPACE_SERVICES)
}

fn address(number: usize) -> [u8; 4] {
    let [_, a, b, c] = u32::try_from(number).unwrap_or_default().to_be_bytes();
    [10, a, b, c]
}

/// A response with all names, as a gRPC message.
fn response(names: usize) -> Vec<u8> {
    let field = |out: &mut Vec<u8>, number: u8, value: &[u8]| put_field(out, number << 3 | 2, value);
    let mut table = Vec::new();
    for number in 0..names {
        let mut info = Vec::new();
        field(&mut info, 1, Ipv4Addr::from(address(number)).to_string().as_bytes());
        field(&mut info, 2, b"Kubernetes");
        field(&mut info, 3, format!("service-{number}").as_bytes());
        field(&mut info, 4, format!("namespace-{}", number / NAMESPACE_SERVICES).as_bytes());
        let mut entry = Vec::new();
        field(&mut entry, 1, name(number).as_bytes());
        field(&mut entry, 2, &info);
        field(&mut table, 1, &entry);
    }
    let (mut any, mut resource, mut out) = (Vec::new(), Vec::new(), vec![0; 5]);
    field(&mut any, 1, NAMES.as_bytes());
    field(&mut any, 2, &table);
    field(&mut resource, 1, b"1");
    field(&mut resource, 2, &any);
    field(&mut out, 2, &resource);
    field(&mut out, 4, NAMES.as_bytes());
    field(&mut out, 5, b"1");
    let length = u32::try_from(out.len() - 5).unwrap_or(u32::MAX);
    out[1..5].copy_from_slice(&length.to_be_bytes());
    out
}

/// A question for an address (RFC 1035, 4.1).
fn question(id: u16, name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.extend(id.to_be_bytes());
    out.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        out.push(label.len() as u8);
        out.extend(label.as_bytes());
    }
    out.extend([0, 0, 1, 0, 1]);
    out
}

/// Whether an answer has the address of a service, as its one record.
fn is_right(answer: &[u8], number: usize) -> bool {
    answer.get(2).is_some_and(|flags| flags & 0x80 != 0) && answer.get(6..8) == Some(&[0, 1]) && {
        let address = address(number);
        answer.windows(4).any(|window| window == address)
    }
}

/// Asks for one name; whether it was answered.
fn ask_once(socket: &UdpSocket, number: usize) -> Result<bool> {
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut buffer = [0; 4096];
    // Nobody may listen yet.
    if socket.send(&question(0, &name(number))).is_err() {
        return Ok(false);
    }
    Ok(socket.recv(&mut buffer).is_ok_and(|length| is_right(&buffer[..length], number)))
}

/// Asks at a rate, each time for another name; the milliseconds that right answers took. A question that is
/// sent late is late from when it was due.
fn ask(socket: &UdpSocket, settings: &NameSettings) -> Result<(Vec<f64>, f64)> {
    socket.set_nonblocking(true)?;
    let mut buffer = [0; 4096];
    // What was asked before the names were there may be answered yet.
    std::thread::sleep(Duration::from_millis(500));
    while socket.recv(&mut buffer).is_ok() {}
    let (started, mut sent) = (Instant::now(), 0_usize);
    let due = |index: usize| started + Duration::from_secs_f64(index as f64 / settings.rate);
    // Identifiers come again after 65,536 questions, when nobody waits for the earlier one any more.
    let number = |index: usize| index.wrapping_mul(7919) % settings.names;
    let mut waiting: Vec<Option<usize>> = vec![None; 1 << 16];
    let mut took = Vec::with_capacity(settings.questions);
    loop {
        let now = Instant::now();
        if sent < settings.questions && now >= due(sent) {
            let id = (sent & 0xffff) as u16;
            socket.send(&question(id, &name(number(sent)))).context("asking")?;
            waiting[usize::from(id)] = Some(sent);
            sent += 1;
        }
        if let Ok(length) = socket.recv(&mut buffer) {
            let answer = &buffer[..length];
            let Some(id) = answer.first_chunk::<2>().map(|id| u16::from_be_bytes(*id)) else { continue };
            let Some(index) = waiting[usize::from(id)].take() else { continue };
            if is_right(answer, number(index)) {
                took.push(due(index).elapsed().as_secs_f64() * 1e3);
            }
        }
        if sent == settings.questions && (took.len() == sent || now > due(settings.questions) + ANSWER_MAX) {
            return Ok((took, started.elapsed().as_secs_f64()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_from_others() {
        let asked = question(7, &name(515));
        let mut answer = asked.clone();
        (answer[2], answer[7]) = (0x81, 1);
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 10, 0, 2, 3]);
        assert!(is_right(&answer, 515) && !is_right(&answer, 516) && !is_right(&asked, 515));
        assert!(!is_right(&[], 515));
    }
}
