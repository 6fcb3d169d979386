//! A run: one shape, one fresh server, every phase.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::check::check;
use crate::client::{self, Tls};
use crate::cluster::Mesh;
use crate::fleet::Fleet;
use crate::mesh::{self, Edit, Kind};
use crate::progress::Progress;
use crate::report::{Change, Churn, Load, Memory, Pause, Percentiles, Run, Sample, Start};
use crate::server::{self, Edits, Server};
use crate::settings::{Settings, Target};
use crate::shape::Shape;
use crate::tls;

/// No message for so long: the server has done its work.
const QUIET: Duration = Duration::from_millis(100);
/// How often the server's memory is looked at during churn.
const SAMPLE: Duration = Duration::from_secs(60);
/// Files that the process needs besides one for each connection.
const OTHER_FILES: u64 = 64;

/// Measures one shape. Must be called within a `LocalSet`.
///
/// # Errors
/// If the server does not start, or not all proxies come in sync.
pub async fn run(settings: &Settings, shape: &Shape, progress: &Progress) -> Result<Run> {
    shape.check()?;
    let files = server::raise_open_files();
    if files.is_some_and(|max| max < shape.proxies as u64 + OTHER_FILES) {
        bail!(
            "{} connections need as many open files, and {} are allowed; raise that with `ulimit -n {}`",
            shape.proxies,
            files.unwrap_or_default(),
            shape.proxies as u64 + 1_000
        );
    }
    let begun = Instant::now();
    let cpu_before = server::own_cpu();
    let directory = Directory::new(settings.directory.as_deref())?;
    progress.say(format!("{}: writing the configuration", shape.name));
    match &settings.cluster {
        None => mesh::write(shape, &directory.config())?,
        Some(cluster) => {
            let says = |count| progress.say(format!("{}: {count} objects are there", shape.name));
            cluster.load(Mesh::of(shape), &says).await?;
        }
    }
    progress.say(format!("{}: starting the server", shape.name));
    let (arguments, tls) = match (&settings.target, settings.tls) {
        (_, false) => (Vec::new(), None),
        (Target::Running { .. }, true) => {
            bail!("only a server that is started here can be given certificates")
        }
        (Target::Navarch { .. }, true) => {
            let (arguments, connectors) = tls::prepare(shape, directory.root())?;
            let namespace = |index| shape.namespace_of(shape.class_of(index));
            (arguments, Some(Tls { connectors, namespaces: (0..shape.proxies).map(namespace).collect() }))
        }
    };
    let (server, start) = start(settings, &directory, &arguments).await?;
    let target = client::Target { address: server.xds, protocol: settings.protocol, tls };
    let idle = server.usage()?;
    let mut bench = Bench {
        settings,
        shape,
        progress,
        fleet: Fleet::new(shape, target, &settings.metadata),
        server,
        number: 0,
    };
    let cold = bench.cold_start().await?;
    let loaded = bench.server.usage()?;
    let mut changes = Vec::new();
    for kind in &settings.kinds {
        changes.push(bench.change(*kind).await?);
    }
    let churn = match settings.churn {
        Some((rate, seconds)) => Some(bench.churn(rate, seconds).await?),
        None => None,
    };
    let reconnect = if settings.reconnect { Some(bench.reconnect().await?) } else { None };
    progress.say(format!("{}: comparing what every proxy holds", shape.name));
    let check = check(shape, &bench.fleet, &bench.server, settings.check_classes).await?;
    let broken_connections = bench.fleet.counts().broken;
    let last_error = bench.fleet.shared.borrow().last_error.clone();
    let peak = bench.server.usage()?.peak;
    bench.fleet.disconnect().await;
    Ok(Run {
        shape: shape.clone(),
        protocol: settings.protocol,
        tls: settings.tls,
        kubernetes: settings.cluster.is_some(),
        start,
        memory: Memory {
            idle: idle.resident,
            idle_peak: idle.peak,
            loaded: loaded.resident,
            per_proxy: loaded.resident.saturating_sub(idle.resident) / shape.proxies as u64,
            peak,
        },
        cold,
        changes,
        churn,
        reconnect,
        check,
        client_cpu_s: server::own_cpu() - cpu_before,
        seconds: begun.elapsed().as_secs_f64(),
        broken_connections,
        last_error,
    })
}

async fn start(
    settings: &Settings,
    directory: &Directory,
    tls: &[String],
) -> Result<(Server, Option<Start>)> {
    let cluster = settings.cluster.clone().map(Edits::Cluster);
    match &settings.target {
        Target::Navarch { binary, arguments } => {
            let begun = Instant::now();
            let log = directory.root().join("serve.log");
            let edits = cluster.unwrap_or_else(|| Edits::Directory(directory.config()));
            let server = Server::start(binary, edits, arguments, tls, &log).await?;
            let start = Start { seconds: begun.elapsed().as_secs_f64(), cpu_s: server.usage()?.cpu };
            Ok((server, Some(start)))
        }
        Target::Running { address, pid, change_command, load_command } => {
            if let Some(command) = load_command {
                let mut shell = tokio::process::Command::new("sh");
                shell.args(["-c", command]).env("BENCH_CONFIG", directory.config());
                let status = shell.status().await.with_context(|| format!("running {command}"))?;
                ensure!(status.success(), "`{command}` ended with {status}");
            }
            let command = change_command.clone().map(|command| {
                let directory = directory.config();
                Edits::Command { directory, command }
            });
            let edits = cluster.or(command).context("nothing brings changes to the server")?;
            Ok((Server::running(*address, *pid, edits)?, None))
        }
    }
}

/// A run while it goes on.
struct Bench<'a> {
    settings: &'a Settings,
    shape: &'a Shape,
    progress: &'a Progress,
    fleet: Fleet,
    server: Server,
    /// Number of the last change.
    number: u32,
}

impl Bench<'_> {
    /// Everyone connects to a server that has planned nothing.
    async fn cold_start(&mut self) -> Result<Load> {
        let (before, counts) = (self.server.usage()?, self.fleet.counts());
        let begun = Instant::now();
        self.fleet.connect();
        let (shape, progress) = (self.shape, self.progress);
        let say =
            |synced| progress.say(format!("{}: {synced} of {} proxies in sync", shape.name, shape.proxies));
        self.fleet.all_synced(self.settings.timeout, say).await?;
        let took = begun.elapsed();
        self.fleet.settle(QUIET, self.settings.timeout).await;
        Ok(Load::new(took, self.server.usage()?.cpu - before.cpu, self.fleet.counts().since(&counts)))
    }

    fn edit(&mut self, kind: Kind) -> Edit {
        self.number += 1;
        Edit::new(self.shape, kind, self.number as usize % self.shape.inhabited(), self.number)
    }

    /// One change after the other, each when the one before has arrived everywhere.
    async fn change(&mut self, kind: Kind) -> Result<Change> {
        let repeats = self.settings.repeat;
        let (before, counts, counters) = (self.server.usage()?, self.fleet.counts(), self.server.counters());
        let mut deliveries = Vec::new();
        let mut affected = 0;
        for repeat in 0..repeats {
            self.progress.say(format!("{}: {} {}/{repeats}", self.shape.name, kind.as_str(), repeat + 1));
            let edit = self.edit(kind);
            affected = edit.affected(self.shape);
            self.fleet.expect(&edit, affected, Instant::now());
            self.server.apply(&edit).await?;
            deliveries.extend(self.fleet.delivered(self.settings.timeout).await);
            self.fleet.settle(QUIET, self.settings.timeout).await;
        }
        let cpu = self.server.usage()?.cpu - before.cpu;
        let received = self.fleet.counts().since(&counts);
        let after = self.server.counters();
        let each = |total: f64| total / repeats.max(1) as f64;
        let work = after.into_iter().map(|(name, value)| {
            let grown = value - counters.get(&name).copied().unwrap_or_default();
            (name, each(grown))
        });
        let (to_ack, lost) = Percentiles::of(&deliveries);
        Ok(Change {
            kind,
            repeats,
            affected,
            to_ack,
            cpu_ms_per_change: each(cpu * 1e3),
            cpu_ms_per_1000_pushes: cpu * 1e6 / received.messages.max(1) as f64,
            responses: each(received.messages as f64),
            resources: each(received.resources as f64),
            bytes: each(received.bytes as f64),
            lost,
            work: work.filter(|(_, value)| *value != 0.0).collect(),
        })
    }

    /// Endpoints change at a steady rate, whether or not the changes before have arrived.
    async fn churn(&mut self, rate: f64, length: Duration) -> Result<Churn> {
        let (before, counts) = (self.server.usage()?, self.fleet.counts());
        let count = (rate * length.as_secs_f64()).ceil().max(1.0) as usize;
        let begun = Instant::now();
        let mut samples = vec![Sample { seconds: 0.0, resident: before.resident, cpu_s: 0.0 }];
        let (mut writes, writer) = (Vec::new(), self.server.writer());
        for index in 0..count {
            let due = begun + Duration::from_secs_f64(index as f64 / rate);
            tokio::time::sleep_until(due.into()).await;
            let edit = self.edit(Kind::Endpoint);
            let at = Instant::now();
            self.fleet.expect(&edit, edit.affected(self.shape), at);
            match &writer {
                Some(writer) => {
                    if !writer.write(at, edit) {
                        // Why, it says in the end.
                        break;
                    }
                }
                None => {
                    self.server.apply(&edit).await?;
                    writes.push((at, at.elapsed()));
                }
            }
            let minutes = begun.elapsed().as_secs() / SAMPLE.as_secs();
            if minutes >= samples.len() as u64 {
                samples.push(self.sample(begun, &before)?);
            }
            if index % 16 == 0 {
                self.progress.say(format!("{}: churn {}/{count}", self.shape.name, index + 1));
            }
        }
        if let Some(writer) = writer {
            writes = writer.finish().await?;
        }
        let took = begun.elapsed();
        let deliveries = self.fleet.delivered(self.settings.timeout).await;
        self.fleet.settle(QUIET, self.settings.timeout).await;
        samples.push(self.sample(begun, &before)?);
        let cpu = self.server.usage()?.cpu - before.cpu;
        let received = self.fleet.counts().since(&counts);
        let (to_ack, lost) = Percentiles::of(&deliveries);
        Ok(Churn {
            changes: count,
            per_second: count as f64 / took.as_secs_f64(),
            seconds: took.as_secs_f64(),
            to_ack,
            pauses: Pause::all(&deliveries, &writes, begun),
            cpu_ms_per_change: cpu * 1e3 / count as f64,
            cpu_share: cpu / took.as_secs_f64(),
            responses: received.messages,
            bytes: received.bytes,
            lost,
            samples,
        })
    }

    fn sample(&self, begun: Instant, before: &server::Usage) -> Result<Sample> {
        let usage = self.server.usage()?;
        let seconds = begun.elapsed().as_secs_f64();
        Ok(Sample { seconds, resident: usage.resident, cpu_s: usage.cpu - before.cpu })
    }

    /// All connections break at once and come back with what they hold. Over when a change made meanwhile has
    /// reached everyone, because a server that honours versions has nothing else to say.
    async fn reconnect(&mut self) -> Result<Load> {
        self.progress.say(format!("{}: everyone reconnects", self.shape.name));
        let (before, counts) = (self.server.usage()?, self.fleet.counts());
        let begun = Instant::now();
        self.fleet.disconnect().await;
        self.fleet.connect();
        self.number += 1;
        let edit = Edit::for_everyone(self.number);
        self.fleet.expect(&edit, edit.affected(self.shape), begun);
        self.server.apply(&edit).await?;
        let deliveries = self.fleet.delivered(self.settings.timeout).await;
        let (to_ack, lost) = Percentiles::of(&deliveries);
        ensure!(lost == 0, "{lost} proxies have not come back after {:?}", self.settings.timeout);
        self.fleet.settle(QUIET, self.settings.timeout).await;
        let took = Duration::from_secs_f64(to_ack.max_ms / 1e3);
        Ok(Load::new(took, self.server.usage()?.cpu - before.cpu, self.fleet.counts().since(&counts)))
    }
}

/// Runs of this process so far.
static RUNS: AtomicUsize = AtomicUsize::new(0);

/// Where the configuration and the log are. A directory of our own is removed at the end.
struct Directory {
    root: std::path::PathBuf,
    ours: bool,
}

impl Directory {
    fn new(wanted: Option<&Path>) -> Result<Self> {
        let directory = match wanted {
            Some(path) => Directory { root: path.to_owned(), ours: false },
            None => {
                // Runs of one process may overlap, as tests do.
                let count = RUNS.fetch_add(1, Ordering::Relaxed);
                let name = format!("navarch-bench-{}-{count}", std::process::id());
                Directory { root: std::env::temp_dir().join(name), ours: true }
            }
        };
        let config = directory.config();
        // What an earlier run added must not be part of this one.
        if config.exists() {
            ensure!(
                config.join("services").is_dir(),
                "{} is there and was not written by this benchmark",
                config.display()
            );
            std::fs::remove_dir_all(&config).with_context(|| format!("emptying {}", config.display()))?;
        }
        std::fs::create_dir_all(&config).with_context(|| format!("creating {}", config.display()))?;
        Ok(directory)
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn config(&self) -> std::path::PathBuf {
        self.root.join("config")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.ours {
            // What stays is in the system's directory for temporary files.
            let _ = std::fs::remove_dir_all(&self.root);
        }
    }
}
