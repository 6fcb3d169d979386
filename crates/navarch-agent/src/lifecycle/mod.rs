//! From the start of the agent to its end: Envoy is started and started again, COMMAND runs once Envoy is
//! ready, and a signal ends all of it in an order that loses nothing.

mod children;
mod error;
mod process;
mod socket;

pub use error::AgentError;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use navarch_identity::store::StateDirectory;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use self::children::{Application, Proxy};
use crate::bootstrap::{self, Bootstrap, Xds};
use crate::certificate;
use crate::envoy::{Admin, HotRestart, HotRestartError, Launch};
use crate::issuer::Issuer;
use crate::node::Node;
use crate::relay::{self, Observed};
use crate::roots::Roots;
use crate::secrets::Secrets;
use crate::status::metrics::Target;
use crate::status::probe::Probe;
use crate::status::{self, Ask, Health};
use crate::store::Store;
use crate::upstream::{self, Upstream};

/// The socket for Envoy and other clients of xDS, in the agent's directory. Istio's agent calls it `XDS`.
pub const SOCKET: &str = "xds.sock";
/// The bootstrap, in the agent's directory.
pub const BOOTSTRAP: &str = "envoy.json";
/// The address of Envoy's admin port, in the agent's directory.
pub const ADMIN: &str = "admin.addr";
/// The address of the agent's own pages, in its directory.
pub const STATUS: &str = "status.addr";
/// Where proxies' last configurations are kept, in the agent's directory.
const STORE: &str = "xds";

/// How often Envoy is asked whether it is ready, and how many connections it has.
const POLL: Duration = Duration::from_millis(50);
/// Time for Envoy to end after SIGTERM.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// What the proxy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// One application beside it.
    Sidecar,
    /// An edge of the mesh.
    Gateway,
}

/// How the end is.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// Time for connections to end by themselves. Istio: `terminationDrainDuration`.
    pub time: Duration,
    /// Time that Envoy keeps taking traffic even if there is none, for those who have not heard of the end.
    /// Istio: `MINIMUM_DRAIN_DURATION`.
    pub least: Duration,
    /// Time for COMMAND to end after it was told to.
    pub command: Duration,
}

/// What the agent is told.
#[derive(Clone, Debug)]
pub struct Options {
    pub role: Role,
    pub node: Node,
    /// The directory for all that the agent keeps. Only its owner may enter it.
    pub directory: PathBuf,
    pub upstream: upstream::Options,
    /// Whether the workload gets a certificate of the control plane, and the life that is asked for.
    pub certificate: Option<Duration>,
    /// Directory for copies of the certificate, its key and the roots.
    pub output_certificates: Option<PathBuf>,
    pub envoy: Envoy,
    pub status: Status,
    pub drain: Drain,
    /// What to run once Envoy is ready; nothing if it is empty.
    pub command: Vec<OsString>,
}

/// Where something listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub address: SocketAddr,
    /// Somebody asked for it: if it is taken, that is an error. Otherwise it is left out, or elsewhere, since
    /// several agents may share a machine.
    pub is_stated: bool,
}

/// What the agent answers itself.
#[derive(Clone, Debug)]
pub struct Status {
    pub place: Place,
    /// Where the application has its metrics.
    pub targets: Vec<Target>,
    /// Probes of the application, by path.
    pub probes: BTreeMap<String, Probe>,
}

/// How Envoy is started.
#[derive(Clone, Debug)]
pub struct Envoy {
    pub binary: PathBuf,
    /// Where its admin port is to be, and `/healthz/ready` and `/stats/prometheus` of Envoy, if anywhere.
    pub admin: Place,
    pub ready: Option<Place>,
    pub metrics: Option<Place>,
    pub log_level: String,
    pub concurrency: Option<u32>,
    /// Seconds in which an Envoy lets its connections go that hands over to another, and after which it ends
    /// then. Istio: `drainDuration`, `parentShutdownDuration`.
    pub drain_seconds: u64,
    pub parent_seconds: u64,
    pub arguments: Vec<OsString>,
    pub state_of_the_world: bool,
}

/// Runs until COMMAND ends or a signal comes. Gives the exit status: that of COMMAND, or 0.
///
/// # Errors
/// If the agent cannot go on.
pub async fn run(options: Options) -> Result<u8, AgentError> {
    let mut signals = Signals::new().map_err(AgentError::Signals)?;
    let directory = Arc::new(StateDirectory::open(&options.directory)?);
    let _lock = directory.lock()?;
    let health = feed(&options, &directory)?;
    let (asks, mut asked) = mpsc::unbounded_channel();
    let status = pages(&options, &directory, health.clone(), asks).await?;
    let fallback = bootstrap(&options, status, true);
    let launch = launch(&options, status);
    let mut proxy = Proxy::new(launch, fallback, directory.path());
    let mut application = Application::new(options.command.clone(), directory.path().join("command.pid"));
    application.take_over();
    if proxy.take_over(status, END_TIMEOUT).await {
        // It would not be ready if it had not, and is sent nothing again that it has.
        health.observed.clusters.store(true, Ordering::Relaxed);
        health.observed.listeners.store(true, Ordering::Relaxed);
    } else {
        proxy.start().await?;
    }
    let outcome = loop {
        tokio::select! {
            came = signals.next() => match came {
                Came::End => break Ok(None),
                Came::Other(signal) if application.is_running() => application.signal(signal),
                Came::Other(rustix::process::Signal::HUP) => break Ok(None),
                Came::Other(_) => {}
            },
            ended = proxy.next() => match ended {
                Ok(children::Event::Ready(admin)) => {
                    health.set_ready(Some(admin));
                    health.is_handing_over.store(false, Ordering::Relaxed);
                    if let Err(error) = application.start() {
                        break Err(error);
                    }
                    if proxy.is_outdated() {
                        tracing::info!("Envoy is restarted: its program or its bootstrap has changed");
                        hot_restart(&mut proxy, &health, oneshot::channel().0).await;
                    }
                }
                Ok(children::Event::StaysAsItWas) => {
                    health.is_handing_over.store(false, Ordering::Relaxed);
                }
                Ok(children::Event::Ended) => {
                    health.set_ready(None);
                    health.restarts.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => break Err(error),
            },
            Some(ask) = asked.recv() => match ask {
                Ask::Quit => break Ok(None),
                Ask::HotRestart(done) => hot_restart(&mut proxy, &health, done).await,
                Ask::Drain => {
                    health.is_draining.store(true, Ordering::Relaxed);
                    if let Some(admin) = proxy.admin()
                        && let Err(error) = admin.drain(options.role == Role::Sidecar).await
                    {
                        tracing::warn!(error = %crate::Chain(&error), "Envoy does not drain");
                    }
                }
            },
            code = application.ended() => {
                tracing::info!(code, "COMMAND has ended");
                break Ok(Some(code));
            }
        }
    };
    health.is_draining.store(true, Ordering::Relaxed);
    let ended = matches!(outcome, Ok(Some(_)));
    let mut end = End { options: &options, signals: &mut signals };
    let stopped = end.run(&mut proxy, &mut application, ended).await;
    Ok(outcome?.or(stopped).unwrap_or(0))
}

/// Lets Envoy hand over to another. The workload stays ready: one of the two always answers.
async fn hot_restart(proxy: &mut Proxy, health: &Health, done: oneshot::Sender<Result<(), HotRestartError>>) {
    proxy.hot_restart(done).await;
    if proxy.is_handing_over() {
        health.is_handing_over.store(true, Ordering::Relaxed);
        health.hot_restarts.fetch_add(1, Ordering::Relaxed);
    }
}

/// Starts what Envoy is fed by: the certificate, the store and the socket.
fn feed(options: &Options, directory: &Arc<StateDirectory>) -> Result<Arc<Health>, AgentError> {
    let observed = Arc::new(Observed::default());
    let kept = options.certificate.and_then(|_| certificate::kept(directory, certificate::now()));
    let (leaf, current) = watch::channel(kept.map(Arc::new));
    let output = options.output_certificates.clone();
    let roots = options.certificate.map(|_| Roots::open(directory.clone(), output.clone()));
    let needs_leaf = options.certificate.is_some();
    let upstream = Upstream::new(options.upstream.clone(), current.clone(), roots.clone(), needs_leaf);
    if let Some(life) = options.certificate {
        let issuer = Issuer { upstream: upstream.clone(), directory: directory.clone(), life, output };
        tokio::spawn(issuer.run(leaf));
    }
    let path = directory.path().join(STORE);
    let store = Store::open(path.clone()).map_err(|source| AgentError::Store { path, source })?;
    let secrets = roots.map_or_else(Secrets::of_files, |roots| Secrets::new(current.clone(), roots));
    let server = relay::server(upstream, secrets, Some(store), observed.clone());
    let path = directory.path().join(SOCKET);
    let listener = socket::bind(&path).map_err(|source| AgentError::Socket { path, source })?;
    tokio::spawn(socket::serve(listener, server));
    Ok(Health::new(observed, current))
}

/// Starts the pages of the agent; where they are.
async fn pages(
    options: &Options,
    directory: &StateDirectory,
    health: Arc<Health>,
    asks: mpsc::UnboundedSender<Ask>,
) -> Result<SocketAddr, AgentError> {
    let Status { place: Place { address, is_stated }, targets, probes } = options.status.clone();
    let failed = |source| AgentError::Status { address, source };
    // An Envoy that is taken over knows the agent by the address that it had.
    let kept = directory.read(STATUS)?.and_then(|text| text.expose_text()?.trim().parse().ok());
    let address = kept.filter(|_| !is_stated).unwrap_or(address);
    let listener = match TcpListener::bind(address).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && !is_stated => {
            TcpListener::bind(SocketAddr::new(address.ip(), 0)).await
        }
        bound => bound,
    };
    let listener = listener.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    directory.replace(STATUS, format!("{address}\n").as_bytes())?;
    tracing::info!(%address, "health and metrics");
    tokio::spawn(status::serve(listener, Arc::new(status::Pages { health, targets, probes, asks })));
    Ok(address)
}

/// What Envoy starts with; as a fallback, without addresses that nobody asked for.
fn bootstrap(options: &Options, status: SocketAddr, is_fallback: bool) -> Bootstrap {
    let Envoy { admin, ready, metrics, state_of_the_world, .. } = options.envoy.clone();
    let wanted = |place: Place| (place.is_stated || !is_fallback).then_some(place.address);
    let any = SocketAddr::new(admin.address.ip(), 0);
    Bootstrap {
        node: options.node.clone(),
        xds: Xds::Socket(options.directory.join(SOCKET)),
        admin: Some(wanted(admin).unwrap_or(any)),
        state_of_the_world,
        pages: bootstrap::Pages {
            ready: ready.and_then(wanted).map(|ready| (ready, status)),
            // It leads to the admin port, which has to be known.
            metrics: metrics
                .and_then(wanted)
                .filter(|_| wanted(admin).is_some_and(|admin| admin.port() != 0)),
        },
    }
}

fn launch(options: &Options, status: SocketAddr) -> Launch {
    let Envoy { binary, log_level, concurrency, drain_seconds, parent_seconds, arguments, .. } =
        options.envoy.clone();
    Launch {
        binary,
        bootstrap: bootstrap(options, status, false),
        bootstrap_file: options.directory.join(BOOTSTRAP),
        admin_file: options.directory.join(ADMIN),
        log_level,
        concurrency,
        drain_seconds,
        arguments,
        hot_restart: HotRestart::for_directory(&options.directory, parent_seconds),
    }
}

/// The end, in the order that loses nothing: what comes in ends first, then the application, then what it has
/// started, then Envoy.
struct End<'a> {
    options: &'a Options,
    signals: &'a mut Signals,
}

impl End<'_> {
    /// The exit status of COMMAND, if it ends here. A second signal to end cuts the waiting short.
    async fn run(&mut self, proxy: &mut Proxy, application: &mut Application, is_over: bool) -> Option<u8> {
        let inbound_only = self.options.role == Role::Sidecar && application.is_running();
        if let Some(admin) = proxy.admin().filter(|_| !is_over) {
            self.drain(admin, inbound_only).await;
        }
        let mut code = None;
        if application.is_running() {
            application.signal(rustix::process::Signal::TERM);
            tokio::select! {
                ended = application.ended() => code = Some(ended),
                () = sleep(self.options.drain.command) => {
                    tracing::warn!("COMMAND does not end, and is killed");
                }
                () = self.signals.end() => {}
            }
            if code.is_none() {
                application.signal(rustix::process::Signal::KILL);
                code = Some(application.ended().await);
            }
        }
        proxy.stop(END_TIMEOUT).await;
        code
    }

    async fn drain(&mut self, admin: Admin, inbound_only: bool) {
        let Drain { time, least, command: _ } = self.options.drain;
        if time.is_zero() {
            return;
        }
        if let Err(error) = admin.drain(inbound_only).await {
            tracing::warn!(error = %crate::Chain(&error), "Envoy does not drain");
            return;
        }
        tracing::info!(at_most = ?time, "Envoy drains");
        let began = Instant::now();
        let quiet = async {
            sleep(least).await;
            while !matches!(admin.connections(inbound_only).await, Ok(0)) {
                sleep(POLL).await;
            }
        };
        tokio::select! {
            done = timeout(time.max(least), quiet) => match done {
                Ok(()) => tracing::info!(after = ?began.elapsed(), "no connections are left"),
                Err(_) => tracing::info!("connections are left, and are cut"),
            },
            () = self.signals.end() => tracing::info!("told again to end: connections are cut"),
        }
    }
}

/// What signals tell.
enum Came {
    /// SIGTERM or SIGINT.
    End,
    /// One that is COMMAND's.
    Other(rustix::process::Signal),
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    others: [(Signal, rustix::process::Signal); 4],
}

impl Signals {
    fn new() -> io::Result<Self> {
        use rustix::process::Signal as Kind;
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            others: [
                (signal(SignalKind::hangup())?, Kind::HUP),
                (signal(SignalKind::user_defined1())?, Kind::USR1),
                (signal(SignalKind::user_defined2())?, Kind::USR2),
                (signal(SignalKind::window_change())?, Kind::WINCH),
            ],
        })
    }

    async fn next(&mut self) -> Came {
        let [(one, a), (two, b), (three, c), (four, d)] = &mut self.others;
        tokio::select! {
            _ = self.terminate.recv() => Came::End,
            _ = self.interrupt.recv() => Came::End,
            _ = one.recv() => Came::Other(*a),
            _ = two.recv() => Came::Other(*b),
            _ = three.recv() => Came::Other(*c),
            _ = four.recv() => Came::Other(*d),
        }
    }

    /// Returns at the next signal to end.
    async fn end(&mut self) {
        while !matches!(self.next().await, Came::End) {}
    }
}
