//! The control plane put together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ipnet::IpNet;
use navarch_identity::service::CREATE_CERTIFICATE;
use navarch_identity::tokens::jwt::JwtRule;
use navarch_kubernetes::objects::Objects;
use navarch_kubernetes::remote::{self, RemoteClusters};
use navarch_kubernetes::webhooks::keep_roots;
use navarch_kubernetes::{Kubernetes, Writer};
use navarch_model::document::WrittenIn;
use navarch_model::{ClusterId, Fact};
use navarch_sources::Registrations;
use navarch_sources::Source;
use navarch_sources::memory::Memory;
pub use navarch_xds::Brake;
use navarch_xds::{Server, Settings};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot::{self, Receiver, Sender};

use crate::admin::{self, Admin};
pub use crate::client::RouteForm;
use crate::day::Calendar;
use crate::discovery::FleetDiscovery;
use crate::error::Error;
use crate::events;
use crate::fleet::Fleet;
use crate::gateways::Deployer;
use crate::identity::{self, Bundle, CreateCertificate, Identity, OfCluster, PortAuthenticator, State};
use crate::inputs;
use crate::keys::{self, Keys};
use crate::metrics::Metrics;
use crate::observe::Observed;
use crate::pipeline::Pipeline;
use crate::pod_settings::PodSettings;
use crate::refresh::{self, Refresh};
use crate::registration;
use crate::rejections::Rejections;
use crate::reports::Reports;
use crate::roots;
use crate::secret_readers::SecretReaders;
use crate::secure::{Callers, Tls, TlsFiles};
use crate::webhook::{self, Webhooks};

/// New streams admitted per second, whatever those before them do. A first synchronisation costs a few
/// milliseconds of processor time; classes that are planned already cost less.
const STREAMS_PER_SECOND: f64 = 500.0;
/// How long a new stream may have to wait for its turn: as long as ten thousand need that come at once, if
/// they had to wait for those per second alone. Waiting costs less than coming back, which Envoy does later
/// each time.
const ADMISSION_WAIT_MAX: Duration = Duration::from_secs(20);

/// Where the control plane of a cluster runs unless something is said, as in Istio.
const SYSTEM_NAMESPACE: &str = "istio-system";

/// Connections that wait to be accepted. When a replica is gone, everybody comes at once.
const BACKLOG: u32 = 4096;

/// What `navarch serve` is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// A directory of configuration.
    pub config: Option<PathBuf>,
    /// The API server of a cluster. What is in the directory too comes first.
    pub kubernetes: Option<navarch_kubernetes::Options>,
    /// The other clusters whose Services and workloads count.
    pub remote_clusters: Option<remote::Options>,
    /// Whether findings are told at the objects of the cluster, as Events.
    pub events: bool,
    /// What the cluster is called that proxies are in (Istio: `CLUSTER_ID`).
    pub cluster_name: Option<String>,
    pub mesh_config: Option<PathBuf>,
    /// Namespace the server runs in, if it runs in a cluster: its label names the network of the cluster.
    pub system_namespace: Option<String>,
    /// Plaintext xDS. Loopback by default: whoever connects gets the configuration it asks for.
    pub xds_addr: SocketAddr,
    /// xDS over TLS.
    pub secure: Option<(SocketAddr, TlsFiles)>,
    /// What an API server asks about pods and configuration.
    pub webhooks: Option<webhook::Options>,
    /// What pods of proxies get.
    pub pods: navarch_inject::Settings,
    /// Whether Gateways of the cluster that have no proxies get some.
    pub deploy_gateways: bool,
    /// The certificate authority.
    pub identity: Option<identity::Options>,
    /// Networks that keys of issuers may be fetched from although they are loopback, link-local or the like.
    pub fetch_allowed: Vec<IpNet>,
    /// A file with roots of servers that keys are fetched from.
    pub fetch_roots: Option<PathBuf>,
    pub admin_addr: SocketAddr,
    pub debounce: Duration,
    pub debounce_max: Duration,
    /// How long workloads stay registered after they have gone.
    pub registration_grace: Duration,
    /// Streams are closed spread over this time on shutdown.
    pub drain: Duration,
    /// When removals are held back. `None`: never.
    pub brake: Option<Brake>,
    /// How routes go to proxies that can take them either way.
    pub routes: RouteForm,
}

impl Options {
    /// Where the keys of those are who call the control plane with a token of an issuer.
    fn own_keys(&self) -> Option<String> {
        self.identity.as_ref()?.jwt_rule.as_ref().map(JwtRule::key_source)
    }

    /// What is served, for people.
    fn served(&self) -> String {
        let directory = self.config.as_ref().map(|config| config.display().to_string());
        let cluster = self.kubernetes.as_ref().map(|options| format!("cluster {}", options.cluster));
        directory.into_iter().chain(cluster).collect::<Vec<_>>().join(" and ")
    }

    fn keys(&self) -> keys::Options {
        keys::Options {
            allowed: self.fetch_allowed.clone(),
            roots: self.fetch_roots.clone(),
            state: self.identity.as_ref().map(|identity| identity.state.clone()),
            own: self.own_keys(),
        }
    }
}

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
/// If the configuration cannot be read, or a port cannot be listened on.
pub async fn serve(options: Options) -> Result<(), Error> {
    let metrics = Metrics::new().map_err(Error::Metrics)?;
    // Ports first: a second server fails before it has read anything.
    let xds = listen(options.xds_addr, "xDS, --xds-addr")?;
    let http = listen(options.admin_addr, "admin, --admin-addr")?;
    let secure = match &options.secure {
        Some((address, _)) => Some(listen(*address, "xDS over TLS, --secure-addr")?),
        None => None,
    };
    let hooks = match &options.webhooks {
        Some(hooks) => Some(listen(hooks.address, "webhooks, --webhook-addr")?),
        None => None,
    };
    let addresses = (local(&xds, options.xds_addr), local(&http, options.admin_addr));
    // Before the cluster is followed, which is kept in it too.
    let state = options.identity.as_ref().map(State::claim).transpose()?;
    let mut sources = inputs::of_watched_files(options.config.as_deref(), options.mesh_config.as_deref());
    let registrations = Registrations::new(options.registration_grace);
    // Before what other replicas have written of the same workloads: nobody knows sooner how they are.
    sources.push(registrations.source());
    let (mut writer, mut of_cluster, mut remotes, mut secret_readers) = (None, None, None, None);
    if let Some(remote) = &options.remote_clusters {
        let clusters = RemoteClusters::follow(remote.clone()).await?;
        remotes = Some(clusters.remotes());
        sources.push(Box::new(clusters));
    }
    if let Some(kubernetes) = &options.kubernetes {
        let cluster = Kubernetes::follow(kubernetes).await?;
        writer = cluster.writer();
        let readers = SecretReaders::new(cluster.questions());
        sources.push(readers.source());
        secret_readers = Some(readers);
        of_cluster = Some(OfCluster {
            name: kubernetes.cluster.to_string(),
            questions: cluster.questions(),
            remotes: remotes.clone(),
            objects: writer.as_ref().map(|writer| writer.objects().clone()),
        });
        sources.push(Box::new(cluster));
    }
    let bundle = Arc::new(Bundle::new());
    sources.push(bundle.source());
    let keys = Keys::new(options.keys());
    sources.push(keys.source());
    let state_directory = options.identity.as_ref().map(|identity| identity.state.clone());
    let (rejections, heard) = Rejections::new(state_directory.clone());
    sources.push(rejections.source());
    if options.identity.is_none() {
        sources.push(without_authority());
    }
    let mut restored = Vec::new();
    if let Some(state) = state_directory {
        restored = registrations.restore(registration::kept::read(&state));
        tokio::spawn(registration::kept::follow(registrations.clone(), state));
    }
    let calendar = Calendar::new();
    sources.push(calendar.source());
    tokio::spawn(calendar.run());
    let mut world = navarch_snapshot::world::Options {
        system_namespace: options.system_namespace.as_deref().map(Into::into),
        ..Default::default()
    };
    if let Some(name) = &options.cluster_name {
        world.cluster_name = name.as_str().into();
    }
    let world_name = world.cluster_name.clone();
    let mut pipeline = Pipeline::open(sources, world, metrics.clone()).await?;
    if keys.restore(&pipeline.snapshot()) | rejections.restore(&pipeline.snapshot()) {
        pipeline = pipeline.catch_up().await?;
    }
    let snapshot = pipeline.snapshot();
    metrics.revision.set(snapshot.revision() as i64);
    let fleet = Fleet::start(snapshot.clone(), metrics.clone(), options.routes).map_err(Error::Thread)?;
    if let Some(readers) = secret_readers {
        // Before anybody connects.
        fleet.review_secrets();
        tokio::spawn(readers.run(fleet.clone()));
    }
    let identity = match options.identity.as_ref().zip(state) {
        Some((identity, state)) => {
            let namespace = options.system_namespace.as_deref();
            let cluster = of_cluster.as_ref();
            Some(Identity::open(identity, state, namespace, cluster, fleet.clone(), bundle).await?)
        }
        None => None,
    };
    if let (Some(identity), Some(own)) = (&identity, options.own_keys().and_then(|source| keys.at(&source))) {
        identity.set_issuer_keys(&own);
    }
    let tls = match &options.secure {
        Some((_, files)) => Some(Tls::open(files.clone(), identity.clone(), Callers::Proxies)?),
        None => None,
    };
    let pods = PodSettings::new(options.pods.clone(), options.mesh_config.clone(), pipeline.latest());
    let hooks = match hooks.zip(options.webhooks.clone()) {
        Some((listener, asked)) => {
            let server = options.secure.as_ref().and_then(|(_, files)| files.server.clone());
            let files = TlsFiles { server, client_ca: None };
            let tls = Tls::open(files, identity.clone(), Callers::ApiServers)?;
            keep_webhooks(&options, &asked, identity.clone(), writer.as_ref()).await?;
            Some((listener, tls, Webhooks::new(pods.clone(), metrics.webhooks.clone())))
        }
        None => None,
    };
    let replica = replica_name();
    let settings = Settings {
        identifier: identifier(&replica),
        grace: Duration::from_secs(1),
        streams_per_second: STREAMS_PER_SECOND,
        admission_wait_max: ADMISSION_WAIT_MAX,
        brake: options.brake,
        ..Settings::default()
    };
    let pages = Arc::new(OnceLock::new());
    let reports = Arc::new(Reports::new(metrics.clone()));
    let shared_registrations = registrations.clone();
    let discovery = FleetDiscovery {
        fleet: fleet.clone(),
        pages: pages.clone(),
        identity: identity.clone(),
        registrations,
    };
    let mut server = Server::builder(discovery)
        .settings(settings)
        .observer(Observed::new(metrics.clone(), fleet.clone(), rejections.clone()))
        .loads(reports.clone());
    if let Some(identity) = &identity {
        server = server
            .authenticator(PortAuthenticator(identity.clone()))
            .service(CREATE_CERTIFICATE, CreateCertificate(identity.clone()));
    }
    let server = server.build();
    if let Some(identity) = &identity {
        tokio::spawn(identity.clone().follow(server.registry()));
    }
    if let Some(writer) = writer.as_ref().filter(|_| options.events) {
        let objects = writer.objects().clone();
        let revision = Arc::new(options.pods.called());
        tokio::spawn(events::follow(objects, revision, pipeline.findings(), pipeline.latest()));
    }
    if let Some(writer) = writer.as_ref().filter(|_| options.deploy_gateways) {
        let deployer = Deployer {
            objects: writer.objects().clone(),
            latest: pipeline.latest(),
            settings: pods,
            namespace: options.system_namespace.clone().unwrap_or_else(|| SYSTEM_NAMESPACE.to_owned()),
            events: options.events,
            pending: metrics.gateways_pending.clone(),
        };
        tokio::spawn(deployer.run());
    }
    if let Some(writer) = &writer {
        let sharing = registration::shared::Sharing {
            registrations: shared_registrations,
            objects: writer.objects().clone(),
            latest: pipeline.latest(),
            namespace: options.system_namespace.clone().unwrap_or_else(|| SYSTEM_NAMESPACE.to_owned()),
            holder: registration::shared::holder(&replica_name()),
        };
        tokio::spawn(sharing.run());
    }
    // The roots of an authority that is this server's alone would replace those of another control plane.
    let is_of_all = options.identity.as_ref().is_some_and(|own| own.shared || own.plugged.is_some());
    if let (Some(identity), Some(writer), Some(cluster), true) =
        (&identity, &writer, &options.kubernetes, is_of_all)
    {
        let (objects, namespaces) = (writer.objects().clone(), cluster.namespaces.clone());
        tokio::spawn(roots::follow(objects, identity.clone(), pipeline.latest(), namespaces));
    }
    let (refresh, requests) = refresh::channel();
    let admin = Arc::new(Admin {
        fleet: fleet.clone(),
        refresh: refresh.clone(),
        registry: server.registry(),
        metrics,
        findings: pipeline.findings(),
        latest: pipeline.latest(),
        sources: pipeline.healths(),
        cluster_name: world_name.to_string(),
        remotes,
        writer: writer.clone(),
        reports,
        identity: identity.clone(),
        keys: keys.clone(),
        replica,
        draining: AtomicBool::new(false),
    });
    let _ = pages.set(admin.clone());
    let told = move |keys: &str| {
        if let Some(identity) = &identity {
            identity.set_issuer_keys(keys);
        }
    };
    tokio::spawn(keys.run(fleet.clone(), told));
    tokio::spawn(rejections.run(fleet.clone(), heard));
    tracing::info!(
        revision = snapshot.revision(),
        services = snapshot.services().count(),
        xds = %addresses.0,
        admin = %addresses.1,
        "serving {}",
        options.served()
    );
    tokio::spawn(registration::kept::await_return(restored));
    let admin_task = tokio::spawn(admin::serve(http, admin.clone()));
    let (debounce, debounce_max) = (options.debounce, options.debounce_max);
    let following = follow(async move { pipeline.run(debounce, debounce_max, fleet, requests).await });
    let (following, followed) = following.map_err(Error::Serve)?;
    tokio::spawn(refresh_on_hangup(refresh));
    if let (Some(listener), Some((asked, _))) = (&secure, &options.secure) {
        tracing::info!(xds = %local(listener, *asked), "serving over TLS");
    }
    let mut served = tokio::task::JoinSet::new();
    let plaintext = server.clone();
    served.spawn(async move { plaintext.serve(xds).await });
    if let (Some(listener), Some(tls)) = (secure, tls) {
        served.spawn({
            let (server, tls) = (server.clone(), tls.clone());
            async move { server.serve_over(listener, tls).await }
        });
        tokio::spawn(tls.follow());
    }
    if let Some((listener, tls, hooks)) = hooks {
        tracing::info!(webhooks = %local(&listener, options.admin_addr), "serving webhooks");
        tokio::spawn(tls.clone().follow());
        served.spawn(hooks.serve(listener, tls));
    }
    tokio::select! {
        () = stop_signal() => tracing::info!(window_ms = options.drain.as_millis() as u64, "shutting down"),
        Some(result) = served.join_next() => {
            let result = result.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            return result.map_err(Error::Serve);
        }
    }
    if let Some(writer) = &writer {
        writer.leadership().resign().await;
    }
    admin.drain();
    server.shutdown(options.drain).await;
    drop(following);
    let _ = followed.await;
    admin_task.abort();
    Ok(())
}

/// Runs something on a thread of its own, until the first of what is returned is dropped; the second tells
/// when it has ended. As a task it would wait for its turn behind thousands of streams that have something to
/// send, and the next change with it.
fn follow(work: impl Future<Output = ()> + Send + 'static) -> std::io::Result<(Sender<()>, Receiver<()>)> {
    let (stop, stopped) = oneshot::channel();
    let (ends, ended) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let run = move || {
        runtime.block_on(async {
            tokio::select! {
                biased;
                _ = stopped => {}
                () = work => {}
            }
        });
        drop(ends);
    };
    std::thread::Builder::new().name("follow".to_owned()).spawn(run)?;
    Ok((stop, ended))
}

/// Says that nobody issues certificates.
fn without_authority() -> Box<dyn Source> {
    let name = "options";
    let facts = Memory::new(name, WrittenIn::Cluster { id: ClusterId::LOCAL, name: name.into() });
    facts.state(Fact::NoAuthority);
    facts.complete();
    Box::new(facts)
}

/// Keeps our roots in the configurations that lead to our webhooks, unless the certificate there is not of
/// our authority: then whoever gave it to us sees to that.
async fn keep_webhooks(
    options: &Options,
    webhooks: &webhook::Options,
    identity: Option<Arc<Identity>>,
    writer: Option<&Writer>,
) -> Result<(), Error> {
    let has_files = options.secure.as_ref().is_some_and(|(_, files)| files.server.is_some());
    let (Some(kubernetes), Some(identity), Some(writer), false) =
        (&options.kubernetes, identity, writer, has_files)
    else {
        return Ok(());
    };
    let leadership = writer.leadership().clone();
    if webhooks.configurations.is_empty() {
        return Ok(());
    }
    let objects = Objects::at(&kubernetes.access).await.map_err(Error::Webhooks)?;
    let roots = move || identity.port_authority().roots_pem().to_owned();
    tokio::spawn(keep_roots(objects, webhooks.configurations.clone(), roots, move || leadership.is_held()));
    Ok(())
}

fn listen(address: SocketAddr, purpose: &'static str) -> Result<TcpListener, Error> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bind().map_err(|source| Error::Listen { address, purpose, source })
}

fn local(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}

/// Resolves on SIGINT or SIGTERM.
async fn stop_signal() {
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::terminate()) => {}
    }
}

/// As daemons do on SIGHUP: reads the configuration again. Changes are followed anyway; this does not rely on
/// being told of them.
async fn refresh_on_hangup(refresh: Refresh) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    while hangup.recv().await.is_some() {
        if let Some(refreshed) = refresh.now().await {
            tracing::info!(revision = refreshed.revision, "read again on SIGHUP");
        }
    }
}

/// The ISTIOD column: which replica serves a proxy.
pub fn replica_name() -> String {
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let hostname = hostname.trim();
    if hostname.is_empty() { "navarch".to_owned() } else { hostname.to_owned() }
}

/// `control_plane.identifier`, in the JSON form that `istioctl` reads.
fn identifier(replica: &str) -> String {
    serde_json::json!({
        "Component": "navarch",
        "ID": replica,
        "Info": { "version": env!("CARGO_PKG_VERSION") },
    })
    .to_string()
}
