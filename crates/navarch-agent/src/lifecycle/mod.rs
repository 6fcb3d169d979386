//! From the start of the agent to its end: Envoy is started and started again, COMMAND runs once Envoy is
//! ready, and a signal ends all of it in an order that loses nothing.

mod children;
mod error;
mod process;
mod socket;

pub use error::AgentError;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use navarch_identity::store::StateDirectory;
use navarch_model::mesh::ProxyConfig;
use navarch_model::networking::{HealthCheckMethod, ReadinessProbe};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use self::children::{Application, Proxy};
use crate::bootstrap::{self, Bootstrap, Xds};
use crate::certificate;
use crate::dns::{self, names::Names};
use crate::envoy::{Admin, HotRestart, HotRestartError, Launch};
use crate::issuer::Issuer;
use crate::node::Node;
use crate::options::{Envoy, Options, Place, Role, Status};
use crate::provision;
use crate::readiness::{Found, Readiness};
use crate::relay::{self, Observed};
use crate::roots::Roots;
use crate::secrets::Secrets;
use crate::settings::{Settings, described};
use crate::status::metrics::Subject;
use crate::status::{self, Ask, Health};
use crate::store::Store;
use crate::upstream::Upstream;

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

/// Of a node that registers itself: the WorkloadGroup.
const GROUP: &str = "AUTO_REGISTER_GROUP";

/// Time between two questions to a control plane that does not answer.
const AGAIN: Duration = Duration::from_secs(2);

/// How often Envoy is asked whether it is ready, and how many connections it has.
const POLL: Duration = Duration::from_millis(50);
/// Time for Envoy to end after SIGTERM.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs until COMMAND ends or a signal comes. Gives the exit status: that of COMMAND, or 0.
///
/// # Errors
/// If the agent cannot go on.
pub async fn run(options: Options) -> Result<u8, AgentError> {
    let mut signals = Signals::new().map_err(AgentError::Signals)?;
    let directory = Arc::new(StateDirectory::open(&options.directory)?);
    let _lock = directory.lock()?;
    let names = Names::open(directory.clone());
    let (found, finding) = watch::channel(None);
    let (health, upstream) = feed(&options, &directory, names.clone(), finding)?;
    let provision = provision::fetch(&upstream, &options.node, &directory).await;
    let is_known = provision.is_some();
    let settings = Settings::new(&options, provision.unwrap_or_default());
    let is_registered = settings.node.metadata.contains_key(GROUP);
    // Nobody else asks for what is found out.
    let config = (is_known || !is_registered).then(|| settings.config.clone());
    let probe = probe(options.clone(), upstream, directory.clone(), config);
    let readiness = Readiness::start(found, probe, is_registered);
    if captures_dns(&settings.node) {
        names.want();
        let bound = dns::server::bind(options.names.clone(), names, health.names.clone()).await;
        let bound = bound.map_err(AgentError::Names)?;
        tracing::info!(addresses = ?bound.addresses(), "names of the mesh");
        bound.start();
    }
    let (asks, mut asked) = mpsc::unbounded_channel();
    let status = pages(&options, &settings, &directory, health.clone(), asks).await?;
    let settings = usable(&options, settings, status).await;
    let fallback = bootstrap(&options, &settings, status, true);
    let launch = launch(&options, &settings, status);
    let mut proxy = Proxy::new(launch, fallback, directory.path());
    let record = directory.path().join("command.pid");
    let mut application = Application::new(options.command.clone(), settings.environment.clone(), record);
    application.take_over();
    if !settings.holds_command {
        application.start()?;
    }
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
                    readiness.leave();
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
    readiness.leave();
    let ended = matches!(outcome, Ok(Some(_)));
    let mut end = End { options: &options, settings: &settings, signals: &mut signals };
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

/// Whether the agent is asked for names (`ISTIO_META_DNS_CAPTURE`).
fn captures_dns(node: &Node) -> bool {
    let said = node.metadata.get("DNS_CAPTURE");
    said.is_some_and(|said| *said == true || *said == "true" || *said == "1")
}

/// What the application is asked, where anybody says so. A workload that registers itself is sent nobody
/// before its probe succeeds: the control plane is asked until it says which that is.
async fn probe(
    options: Options,
    upstream: Arc<Upstream>,
    directory: Arc<StateDirectory>,
    config: Option<ProxyConfig>,
) -> Option<ReadinessProbe> {
    let config = match config {
        Some(config) => config,
        None => loop {
            sleep(AGAIN).await;
            if let Some(provision) = provision::fetch(&upstream, &options.node, &directory).await {
                break described(&options.node, &options.local, provision).config;
            }
        },
    };
    let probe = config.readiness_probe?;
    // Over plaintext anybody on the way could name the command.
    let is_command = matches!(probe.health_check_method, Some(HealthCheckMethod::Exec(_)));
    if is_command && options.upstream.roots.is_none() {
        tracing::warn!("the readiness probe is a command, and nothing that came over plaintext is run");
        return None;
    }
    Some(probe)
}

/// Starts what Envoy is fed by: the certificate, the store and the socket.
fn feed(
    options: &Options,
    directory: &Arc<StateDirectory>,
    names: Names,
    found: watch::Receiver<Option<Found>>,
) -> Result<(Arc<Health>, Arc<Upstream>), AgentError> {
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
    let server = relay::server(upstream.clone(), secrets, Some(store), Some(names), observed.clone(), found);
    let path = directory.path().join(SOCKET);
    let listener = socket::bind(&path).map_err(|source| AgentError::Socket { path, source })?;
    tokio::spawn(socket::serve(listener, server));
    Ok((Health::new(observed, current), upstream))
}

/// The settings, without what is merged into the bootstrap if Envoy refuses that: a proxy without it is
/// better than none.
async fn usable(options: &Options, settings: Settings, status: SocketAddr) -> Settings {
    if settings.patch.is_empty() {
        return settings;
    }
    match launch(options, &settings, status).validate().await {
        Err(HotRestartError::Refused { said }) => {
            tracing::error!(said, "what EnvoyFilters add to the bootstrap is left out: Envoy refuses it");
            Settings { patch: Vec::new(), ..settings }
        }
        Ok(()) | Err(_) => settings,
    }
}

/// Starts the pages of the agent; where they are.
async fn pages(
    options: &Options,
    settings: &Settings,
    directory: &StateDirectory,
    health: Arc<Health>,
    asks: mpsc::UnboundedSender<Ask>,
) -> Result<SocketAddr, AgentError> {
    let Status { place: _, targets, probes } = options.status.clone();
    let Place { address, is_stated } = settings.status;
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
    let subject = Subject::of_node(&settings.node);
    let turns = status::metrics::Turns::default();
    let pages = status::Pages { health, subject, targets, turns, probes, asks };
    tokio::spawn(status::serve(listener, Arc::new(pages)));
    Ok(address)
}

/// What Envoy starts with; as a fallback, without addresses that nobody asked for.
fn bootstrap(options: &Options, settings: &Settings, status: SocketAddr, is_fallback: bool) -> Bootstrap {
    let Envoy { ready, metrics, state_of_the_world, .. } = options.envoy.clone();
    let admin = settings.admin;
    let wanted = |place: Place| (place.is_stated || !is_fallback).then_some(place.address);
    let any = SocketAddr::new(admin.address.ip(), 0);
    Bootstrap {
        node: settings.node.clone(),
        config: settings.config.clone(),
        patch: settings.patch.clone(),
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

fn launch(options: &Options, settings: &Settings, status: SocketAddr) -> Launch {
    let Envoy { binary, log_level, parent_seconds, arguments, .. } = options.envoy.clone();
    Launch {
        binary,
        bootstrap: bootstrap(options, settings, status, false),
        bootstrap_file: options.directory.join(BOOTSTRAP),
        admin_file: options.directory.join(ADMIN),
        log_level,
        concurrency: settings.concurrency,
        drain_seconds: settings.drain_handover.as_secs(),
        flush_interval: settings.flush_interval,
        flush_kilobytes: settings.flush_kilobytes,
        environment: settings.environment.clone(),
        arguments,
        hot_restart: HotRestart::for_directory(&options.directory, parent_seconds),
    }
}

/// The end, in the order that loses nothing: what comes in ends first, then the application, then what it has
/// started, then Envoy.
struct End<'a> {
    options: &'a Options,
    settings: &'a Settings,
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
                () = sleep(self.options.command_timeout) => {
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
        let Settings { drain: time, drain_least: least, .. } = *self.settings;
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
