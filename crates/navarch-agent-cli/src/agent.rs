//! `navarch agent`: Envoy with all that it needs on its machine.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Args, Subcommand};
use navarch_agent::bootstrap::Authority;
use navarch_agent::lifecycle;
use navarch_agent::node::{Description, Locality, Node};
use navarch_agent::options::{Envoy, Flags, Local, Options, Place, Role, Status};
use navarch_agent::status::metrics::Target;
use navarch_agent::status::probe;
use navarch_agent::upstream;
use navarch_agent::{detached, dns, envoy};
use navarch_model::mesh::{StatedProxyConfig, read_stated};
use serde_json::Value;

use crate::join::Join;
use crate::logs::LogArgs;
use crate::machine::state_facts;
use crate::output;
use crate::redirect::{self, RedirectArgs};
use crate::values::{authority, metadata_value, pair, parse_duration};

/// Where Kubernetes puts what Istio's agent is given.
const KUBERNETES_ROOT: &str = "/var/run/secrets/istio/root-cert.pem";
const KUBERNETES_TOKEN: &str = "/var/run/secrets/tokens/istio-token";
const POD_LABELS: &str = "/etc/istio/pod/labels";
const POD_ANNOTATIONS: &str = "/etc/istio/pod/annotations";
/// The annotation with a ProxyConfig.
const CONFIG_ANNOTATION: &str = "proxy.istio.io/config";

/// The namespace and the service account of a workload of which nothing is said.
const DEFAULT: &str = "default";

/// Ports of Istio's proxies: Envoy's admin port, the agent, readiness and metrics of Envoy.
const ADMIN_PORT: u16 = 15000;
const STATUS_PORT: u16 = 15020;
const READY_PORT: u16 = 15021;
const METRICS_PORT: u16 = 15090;
const DNS_PORT: u16 = 15053;

/// Ports of the control plane: over TLS, and in plaintext.
const SECURE_PORT: u16 = 15012;
const PLAINTEXT_PORT: u16 = 15010;

/// The side of the proxy: run Envoy beside an application or as a gateway, and lead traffic to it
#[derive(Subcommand)]
pub enum AgentCommand {
    Sidecar(AgentArgs),
    #[command(alias = "router")]
    Gateway(AgentArgs),
    Redirect(RedirectArgs),
}

/// Run Envoy beside an application, or as a gateway
///
/// Makes a bootstrap, starts a stock Envoy and, when it is ready, COMMAND. Envoy gets its configuration and
/// its certificates through the agent: the key of the workload is made here and never leaves the machine, the
/// certificate is renewed at half of its life, and while the control plane is away a proxy that starts is
/// served what it had last. An Envoy that crashes is started again. On SIGTERM connections are drained,
/// COMMAND is told to end, and then Envoy.
#[derive(Args)]
#[command(
    after_help = "Exit status: that of COMMAND; without one 0. 125: the agent cannot go on; 126: COMMAND cannot be run; 127: it is not there.\n\n\
                  Examples:\n  navarch agent sidecar --service reviews -n shop --server navarch.example.com:15012 --root root-cert.pem --token token -- ./reviews --port 9080\n  \
                  navarch agent gateway --service edge -n shop -l istio=ingressgateway --root root-cert.pem --token token\n  navarch agent sidecar --service web --server 127.0.0.1:15010"
)]
pub struct AgentArgs {
    /// The service that the workload belongs to: its label `app`, and its name if there is no other
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Name of the workload instance (the pod)
    #[arg(long, env = "POD_NAME")]
    name: Option<String>,
    /// Namespace of the workload
    #[arg(short, long, default_value = DEFAULT, env = "POD_NAMESPACE")]
    namespace: String,
    /// Service account that the workload runs as, which the token must be for
    #[arg(long, default_value = DEFAULT, env = "SERVICE_ACCOUNT")]
    service_account: String,
    /// Address of the workload; if it is not said, the one that leads to the control plane
    #[arg(long, env = "INSTANCE_IP")]
    ip: Option<IpAddr>,
    /// Domain suffix of the mesh
    #[arg(long, default_value = "cluster.local", env = "DOMAIN_SUFFIX")]
    domain: String,
    /// A label of the workload; may be given several times
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Metadata of the node; a value that is a JSON object or list is taken as such. ISTIO_META_KEY in the
    /// environment does the same
    #[arg(short, long = "metadata", value_name = "KEY=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// Where the workload runs: region/zone/sub-zone
    #[arg(long)]
    locality: Option<String>,
    /// Host and port of the control plane; port 15012 with --root, else 15010
    #[arg(long, value_name = "HOST:PORT", env = "NAVARCH_SERVER")]
    server: Option<String>,
    /// PEM file with the roots of the control plane's certificate: connect over TLS
    #[arg(long, value_name = "FILE", env = "NAVARCH_ROOT")]
    root: Option<PathBuf>,
    /// Name that the control plane's certificate must have, if it is not the host of --server
    #[arg(long, value_name = "NAME", env = "NAVARCH_TLS_NAME")]
    tls_name: Option<String>,
    /// File with the token that proves who the workload is: of `navarch token create`, or of Kubernetes.
    /// Needed until there is a certificate
    #[arg(long, value_name = "FILE", env = "NAVARCH_TOKEN_FILE")]
    token: Option<PathBuf>,
    /// File of `navarch token create --join`, which says where the control plane is, its roots, the token,
    /// the namespace and the service account
    #[arg(long, value_name = "FILE", env = "NAVARCH_JOIN")]
    join: Option<PathBuf>,
    /// The life of certificates that is asked for
    #[arg(long, default_value = "24h", value_parser = parse_duration)]
    certificate_life: Duration,
    /// Directory for copies of certificate, key and roots: cert-chain.pem, key.pem, root-cert.pem
    #[arg(long, value_name = "DIR", env = "OUTPUT_CERTS")]
    output_certs: Option<PathBuf>,
    /// Directory for what the agent keeps: the key, what proxies were sent last, the socket. Only its owner
    /// may enter it
    #[arg(long, value_name = "DIR", env = "NAVARCH_AGENT_DIR")]
    dir: Option<PathBuf>,
    /// The Envoy to start; otherwise the one on the PATH
    #[arg(long, value_name = "FILE", env = "NAVARCH_ENVOY")]
    envoy: Option<PathBuf>,
    /// Port of Envoy's admin interface on 127.0.0.1; 15000, or a free one if that is taken
    #[arg(long, value_name = "PORT")]
    admin_port: Option<u16>,
    /// Where the agent answers /healthz/ready, /stats/prometheus, probes and /quitquitquit; 127.0.0.1:15020,
    /// or a free port if that is taken
    #[arg(long, value_name = "HOST:PORT")]
    status_addr: Option<SocketAddr>,
    /// Where Envoy answers /healthz/ready; 127.0.0.1:15021, or nowhere if that is taken
    #[arg(long, value_name = "HOST:PORT")]
    ready_addr: Option<SocketAddr>,
    /// Where Envoy answers /stats/prometheus; 127.0.0.1:15090, or nowhere if that is taken
    #[arg(long, value_name = "HOST:PORT")]
    metrics_addr: Option<SocketAddr>,
    /// Where the application has metrics, such as http://127.0.0.1:8080/metrics, to be merged with Envoy's;
    /// may be given several times
    #[arg(long, value_name = "URL")]
    app_metrics: Vec<Target>,
    /// Where the agent answers the workload's questions for names, if it has DNS_CAPTURE=true in its
    /// metadata; 127.0.0.1:15053 and [::1]:15053
    #[arg(long, value_name = "HOST:PORT", env = "DNS_PROXY_ADDR", value_parser = local_address)]
    dns_addr: Option<SocketAddr>,
    /// A server for names that the mesh does not know, instead of those in /etc/resolv.conf; may be given
    /// several times
    #[arg(long, value_name = "HOST:PORT")]
    dns_server: Vec<SocketAddr>,
    /// Threads of Envoy; 0: as many as the machine has [default: that of the ProxyConfig, or 2]
    #[arg(long, value_name = "COUNT")]
    concurrency: Option<u32>,
    /// What Envoy logs: error, warning, info, debug, trace
    #[arg(long, default_value = "warning", value_name = "LEVEL")]
    envoy_log_level: String,
    /// One more argument for Envoy; may be given several times
    #[arg(long = "envoy-arg", value_name = "ARG", allow_hyphen_values = true)]
    envoy_args: Vec<OsString>,
    /// Time for connections to end by themselves on SIGTERM [default: terminationDrainDuration of the
    /// ProxyConfig, or 5s]
    #[arg(long, value_parser = parse_duration)]
    drain: Option<Duration>,
    /// Time that Envoy takes traffic on SIGTERM even if there is none [default: 1s]
    #[arg(long, value_parser = parse_duration, env = "MINIMUM_DRAIN_DURATION")]
    drain_min: Option<Duration>,
    /// Time in which an Envoy that hands over to another lets its connections go (hot restart) [default:
    /// drainDuration of the ProxyConfig, or 45s]
    #[arg(long, value_parser = parse_duration)]
    drain_duration: Option<Duration>,
    /// Time after which an Envoy ends that has handed over to another
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    parent_shutdown_duration: Duration,
    /// Time for COMMAND to end after it was told to
    #[arg(long, default_value = "20s", value_parser = parse_duration)]
    command_timeout: Duration,
    /// State of the world instead of delta
    #[arg(long)]
    sotw: bool,
    #[command(flatten)]
    logs: LogArgs,
    /// What to run once Envoy is ready
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs until COMMAND ends or a signal comes.
pub fn run(command: AgentCommand) -> Result<ExitCode> {
    let (args, role) = match command {
        AgentCommand::Sidecar(args) => (args, Role::Sidecar),
        AgentCommand::Gateway(args) => (args, Role::Gateway),
        AgentCommand::Redirect(args) => return redirect::run(args),
    };
    args.logs.init()?;
    let options = args.options(role)?;
    // One thread: the agent waits nearly always, and there is one beside every application.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = match runtime.block_on(lifecycle::run(options)) {
        Ok(code) => code,
        Err(error) => {
            let code = error.exit_code();
            output::note(&format!("error: {:#}", anyhow::Error::new(error)));
            code
        }
    };
    // Work that blocks, such as resolving a name, is not waited for.
    runtime.shutdown_background();
    Ok(ExitCode::from(code))
}

#[derive(Args)]
pub struct DetachArgs {
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

#[derive(Args)]
pub struct BecomeArgs {
    parent: u32,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Prints the number of the process that becomes the program.
pub fn detach(args: &DetachArgs) -> Result<ExitCode> {
    output::line(&detached::detach(&args.command)?.to_string())?;
    Ok(ExitCode::SUCCESS)
}

pub fn become_program(args: &BecomeArgs) -> Result<ExitCode> {
    let error = detached::become_program(args.parent, &args.command);
    Err(error).with_context(|| format!("cannot run {}", args.command[0].to_string_lossy()))
}

impl AgentArgs {
    fn options(mut self, role: Role) -> Result<Options> {
        if let Some(path) = self.join.take() {
            self.take_join(&Join::read(&path)?)?;
        }
        let root = self.root.clone().or_else(|| existing(KUBERNETES_ROOT));
        let token = self.token.clone().or_else(|| existing(KUBERNETES_TOKEN));
        for file in root.iter().chain(&token) {
            std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
        }
        ensure!(
            root.is_some() || token.is_none(),
            "a token is sent over TLS alone: name the roots of the control plane with --root"
        );
        let config = stated_config()?;
        let server = self.server(&config, root.is_some())?;
        let (node, metadata) = self.node(&server, role)?;
        let directory = self.directory()?;
        let has_kept = directory.join("workload.pem").exists();
        ensure!(
            root.is_none() || token.is_some() || has_kept,
            "there is no certificate of this workload yet: get one with --token (`navarch token create`)"
        );
        let admin = self.admin_port.map(|port| (Ipv4Addr::LOCALHOST, port).into());
        let search = std::env::var_os("PATH");
        let binary = envoy::find(self.envoy.as_deref(), search.as_deref(), &[])?;
        let names = self.names();
        Ok(Options {
            role,
            node,
            local: Local { config, metadata },
            flags: Flags {
                concurrency: self.concurrency,
                drain: self.drain,
                drain_least: self.drain_min,
                drain_handover: self.drain_duration,
            },
            directory,
            certificate: root.is_some().then_some(self.certificate_life),
            upstream: upstream::Options {
                server,
                roots: root,
                name: self.tls_name,
                token,
                headers: Vec::new(),
            },
            output_certificates: self.output_certs,
            envoy: Envoy {
                binary,
                admin: place(admin, ADMIN_PORT).unwrap_or_else(anywhere),
                ready: place(self.ready_addr, READY_PORT),
                metrics: place(self.metrics_addr, METRICS_PORT),
                log_level: self.envoy_log_level,
                parent_seconds: self.parent_shutdown_duration.as_secs(),
                arguments: self.envoy_args,
                state_of_the_world: self.sotw,
            },
            status: Status {
                place: place(self.status_addr, STATUS_PORT).unwrap_or_else(anywhere),
                targets: targets(&self.app_metrics)?,
                probes: match std::env::var("ISTIO_KUBE_APP_PROBERS") {
                    Ok(text) => probe::parse(&text).context("ISTIO_KUBE_APP_PROBERS does not hold probes")?,
                    Err(_) => BTreeMap::new(),
                },
            },
            command_timeout: self.command_timeout,
            names,
            command: self.command,
        })
    }

    /// Takes what is not said otherwise from a file to join with.
    fn take_join(&mut self, join: &Join) -> Result<()> {
        for (said, known) in
            [(&mut self.namespace, &join.namespace), (&mut self.service_account, &join.service_account)]
        {
            if said == DEFAULT {
                said.clone_from(known);
            }
        }
        let (root, token) = join.place(&self.directory()?)?;
        self.server.get_or_insert_with(|| join.server.clone());
        self.root.get_or_insert(root);
        self.token.get_or_insert(token);
        if self.tls_name.is_none() {
            self.tls_name.clone_from(&join.tls_name);
        }
        Ok(())
    }

    /// The agent's own directory.
    fn directory(&self) -> Result<PathBuf> {
        let directory = match &self.dir {
            Some(dir) => dir.clone(),
            None => default_directory(&self.namespace, &self.instance())?,
        };
        std::path::absolute(&directory).with_context(|| format!("{} is not a path", directory.display()))
    }

    fn server(&self, config: &StatedProxyConfig, is_secure: bool) -> Result<Authority> {
        let port = if is_secure { SECURE_PORT } else { PLAINTEXT_PORT };
        let stated = read_stated(config).0.discovery_address;
        match self.server.clone().or(Some(stated).filter(|address| !address.is_empty())) {
            None => Ok(Authority { host: Ipv4Addr::LOCALHOST.to_string(), port }),
            Some(host) if host.contains(':') => authority(&host),
            Some(host) => Ok(Authority { host, port }),
        }
    }

    /// The server of names for the workload.
    fn names(&self) -> dns::server::Options {
        let usual = || {
            let both = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
            both.map(|address| SocketAddr::new(address, DNS_PORT)).to_vec()
        };
        dns::server::Options {
            listen: self.dns_addr.map_or_else(usual, |address| vec![address]),
            servers: self.dns_server.clone(),
            resolv_conf: dns::resolv::PATH.into(),
            namespace: self.namespace.clone(),
            domain: self.domain.clone(),
        }
    }

    /// The name of the instance: what is said, else the service, else the machine.
    fn instance(&self) -> String {
        let hostname = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let named = self.name.clone().or_else(|| self.service.clone()).or_else(hostname);
        named.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).unwrap_or("proxy".to_owned())
    }

    /// The node, and the keys of its metadata that are stated.
    fn node(&self, server: &Authority, role: Role) -> Result<(Node, BTreeSet<String>)> {
        let mut description = Description {
            kind: if role == Role::Gateway { "router" } else { "sidecar" }.to_owned(),
            ip: self.ip.unwrap_or_else(|| address_towards(server)),
            name: self.instance(),
            namespace: self.namespace.clone(),
            service_account: self.service_account.clone(),
            domain: self.domain.clone(),
            service: self.service.clone(),
            locality: self.locality.as_deref().map(Locality::parse),
            ..Description::default()
        };
        description.take_environment(std::env::vars());
        for (path, is_labels) in [(POD_LABELS, true), (POD_ANNOTATIONS, false)] {
            if let Ok(text) = std::fs::read_to_string(path) {
                description.take_pod_file(&text, is_labels);
            }
        }
        for (key, value) in &self.metadata {
            description.metadata.insert(key.clone(), metadata_value(value));
        }
        description.labels.extend(self.labels.iter().map(|(key, value)| (key.clone(), value.clone())));
        if let Some(Value::Object(labels)) = description.metadata.remove("LABELS") {
            let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            description.labels.extend(labels.into_iter().map(|(key, value)| (key, text(value))));
        }
        if !description.labels.contains_key("app")
            && let Some(service) = &self.service
        {
            description.labels.insert("app".to_owned(), service.clone());
        }
        let stated = description.metadata.keys().cloned().collect();
        let mut node = description.node();
        state_facts(&mut node);
        Ok((node, stated))
    }
}

/// What the workload states of its ProxyConfig: `PROXY_CONFIG`, and over it the annotation.
fn stated_config() -> Result<StatedProxyConfig> {
    let mut config = StatedProxyConfig::default();
    if let Ok(text) = std::env::var("PROXY_CONFIG") {
        config.put_text(&text).map_err(|reason| anyhow!("PROXY_CONFIG:{reason}"))?;
    }
    if let Some(text) = annotations().get(CONFIG_ANNOTATION) {
        config.put_text(text).map_err(|reason| anyhow!("{CONFIG_ANNOTATION}:{reason}"))?;
    }
    Ok(config)
}

/// The annotations of the pod, if it is one.
fn annotations() -> BTreeMap<String, String> {
    let mut description = Description::default();
    if let Ok(text) = std::fs::read_to_string(POD_ANNOTATIONS) {
        description.take_pod_file(&text, false);
    }
    description.annotations
}

/// `localhost:15053`, as Istio writes it, too.
fn local_address(text: &str) -> Result<SocketAddr, String> {
    let text = text.replace("localhost", "127.0.0.1");
    text.parse().map_err(|_| "expected an address with a port".to_owned())
}

fn existing(path: &str) -> Option<PathBuf> {
    Some(PathBuf::from(path)).filter(|path| path.is_file())
}

/// `/var/lib/navarch-agent/<namespace>.<name>` for root, and for others the same in their home.
fn default_directory(namespace: &str, name: &str) -> Result<PathBuf> {
    let own = format!("{namespace}.{name}");
    ensure!(!own.contains('/'), "the name {own} has a slash in it");
    if rustix::process::geteuid().is_root() {
        return Ok(Path::new("/var/lib/navarch-agent").join(own));
    }
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"));
    let Some(base) = state.or_else(home) else { bail!("there is no HOME: name a directory with --dir") };
    Ok(base.join("navarch-agent").join(own))
}

/// The address that packets to the control plane have as their source. Nothing is sent.
fn address_towards(server: &Authority) -> IpAddr {
    let found = || {
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect((server.host.as_str(), server.port)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    found().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// The address that is stated; otherwise the usual port of this machine, if it is free: several agents may
/// share a machine.
fn place(stated: Option<SocketAddr>, port: u16) -> Option<Place> {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let is_free = || TcpListener::bind(usual).is_ok();
    match stated {
        Some(address) => Some(Place { address, is_stated: true }),
        None => is_free().then_some(Place { address: usual, is_stated: false }),
    }
}

/// Any port of this machine.
fn anywhere() -> Place {
    Place { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), is_stated: false }
}

/// Where the application says that it has metrics.
fn targets(stated: &[Target]) -> Result<Vec<Target>> {
    let mut targets = stated.to_vec();
    let mut annotations = annotations();
    // The injector keeps here what the annotations said before it led Prometheus to the agent.
    if let Ok(text) = std::env::var("ISTIO_PROMETHEUS_ANNOTATIONS") {
        let said: BTreeMap<String, String> =
            serde_json::from_str(&text).context("ISTIO_PROMETHEUS_ANNOTATIONS is not an object of texts")?;
        annotations = said.into_iter().map(|(key, value)| (format!("prometheus.io/{key}"), value)).collect();
    }
    targets.extend(Target::of_annotations(&annotations));
    Ok(targets)
}
