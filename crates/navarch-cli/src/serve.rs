//! `navarch serve`: the control plane.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use navarch_agent_cli::logs::LogArgs;
use navarch_agent_cli::values::parse_duration;
use navarch_identity::tokens::jwt::JwtRule;
use navarch_inject::Settings;
use navarch_kubernetes::webhooks::Configuration;
use navarch_server::identity;
use navarch_server::secure::{ServerFiles, TlsFiles};
use navarch_server::serve::{Brake, Options, RouteForm, serve};
use navarch_server::webhook;

use crate::inject;
use crate::kubernetes::KubernetesArgs;

/// Istio's port for xDS over TLS, on loopback as all ports unless told otherwise.
const SECURE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15012);

const CERT_TTL_MIN: Duration = Duration::from_secs(10);
const CERT_TTL_MAX: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Serve the configuration in a directory, in a Kubernetes cluster, or both, to proxies
///
/// The directory is watched: a save is in effect a moment later. A file that cannot be read never takes away
/// what worked; see `navarch analyze`. Ports listen on loopback unless told otherwise: the xDS port is
/// plaintext and trusts whoever connects. With --state there is a certificate authority, and a port over TLS
/// for those who prove who they are, with a certificate or a token (`navarch token create`). --secure-addr
/// with --tls-cert serves over TLS without an authority.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  navarch serve --config ./mesh\n  navarch serve --config ./mesh --mesh-config mesh.yaml --log-level debug\n  navarch serve --kubernetes --kubeconfig ~/.kube/config\n  navarch serve --config ./mesh --state \
                  /var/lib/navarch --secure-addr 0.0.0.0:15012 --tls-name navarch.example.com\n  navarch serve --config ./mesh --secure-addr \
                  0.0.0.0:15012 --tls-cert server.pem --tls-key server.key --tls-client-ca ca.pem"
)]
pub struct ServeArgs {
    /// Directory of YAML and JSON files with Kubernetes and Istio objects
    #[arg(long, value_name = "DIR", env = "NAVARCH_CONFIG", required_unless_present = "kubernetes")]
    config: Option<PathBuf>,
    #[command(flatten)]
    kubernetes: KubernetesArgs,
    /// File with the MeshConfig; otherwise the ConfigMap `istio` in the root namespace is used, if there is
    /// one
    #[arg(long, value_name = "FILE", env = "NAVARCH_MESH_CONFIG")]
    mesh_config: Option<PathBuf>,
    /// Namespace the server runs in, if it runs in a cluster: its label topology.istio.io/network is the
    /// network of the cluster, and the Lease by which one of all replicas writes is in it (istio-system if
    /// nothing is said)
    #[arg(long, value_name = "NAMESPACE", env = "NAVARCH_SYSTEM_NAMESPACE")]
    system_namespace: Option<String>,
    /// Where the xDS server listens (plaintext)
    #[arg(long, default_value = "127.0.0.1:15010", value_name = "HOST:PORT", value_parser = listen_address, env = "NAVARCH_XDS_ADDR")]
    xds_addr: SocketAddr,
    /// Directory of the certificate authority's state: roots, keys, tokens. It is made on the first start,
    /// and only its owner may enter it. With it, xDS and certificates are served over TLS, and everybody
    /// proves who they are. What a cluster said last is kept there too, its Secrets in the clear, for a start
    /// while its API server is away
    #[arg(long, value_name = "DIR", env = "NAVARCH_STATE")]
    state: Option<PathBuf>,
    /// Make an authority if the state directory is there and has none. Without it that is an error, since it
    /// is also what a disk looks like that is not mounted. One that is there is never replaced
    #[arg(long, requires = "state")]
    new_authority: bool,
    /// Directory with an authority of yours: ca-cert.pem, ca-key.pem, cert-chain.pem and root-cert.pem, or
    /// tls.crt, tls.key and ca.crt; read again when they change
    #[arg(long, value_name = "DIR", requires = "state", env = "NAVARCH_CA_DIR")]
    ca_dir: Option<PathBuf>,
    /// The authority is that of the cluster, shared by all replicas: Secret cacerts in the system namespace,
    /// or else istio-ca-secret, which is made once. The state directory keeps tokens
    #[arg(long, requires_all = ["state", "kubernetes"], conflicts_with_all = ["ca_dir", "read_only"], env = "NAVARCH_CA_SECRET")]
    ca_secret: bool,
    /// How long certificates of workloads live if they ask for nothing else, such as 12h; ten seconds at
    /// least, 90 days at most
    #[arg(long, default_value = "24h", requires = "state", value_parser = parse_duration, env = "NAVARCH_CERT_TTL")]
    cert_ttl: Duration,
    /// Tokens of an OpenID Connect issuer that prove who somebody is, as Istio's JWT_RULE: JSON with issuer,
    /// audiences and, unless the issuer's discovery document says where they are, jwks_uri
    #[arg(long, value_name = "JSON", requires = "state", env = "JWT_RULE")]
    jwt_rule: Option<String>,
    /// A network that keys of issuers of tokens (jwksUri) may be fetched from although its addresses are
    /// loopback, link-local or those of a cloud's metadata service
    #[arg(long, value_name = "CIDR", env = "NAVARCH_FETCH_ALLOW", value_delimiter = ',')]
    fetch_allow: Vec<IpNet>,
    /// PEM file with roots of the servers that keys are fetched from, beside those of the system
    #[arg(long, value_name = "FILE", env = "NAVARCH_FETCH_CA")]
    fetch_ca: Option<PathBuf>,
    /// One more name or address that clients know this server by, in the certificate that its authority signs
    /// for it
    #[arg(long, value_name = "NAME", requires = "state", env = "NAVARCH_TLS_NAME", value_delimiter = ',')]
    tls_name: Vec<String>,
    /// Serve xDS over TLS here; with --state 127.0.0.1:15012 if nothing else is said
    #[arg(long, value_name = "HOST:PORT", value_parser = listen_address, env = "NAVARCH_SECURE_ADDR")]
    secure_addr: Option<SocketAddr>,
    /// PEM file with the server's certificate and what leads to its root; read again when it changes, as the
    /// others
    #[arg(long, value_name = "FILE", requires = "tls_key", env = "NAVARCH_TLS_CERT")]
    tls_cert: Option<PathBuf>,
    /// PEM file with its private key
    #[arg(long, value_name = "FILE", requires = "tls_cert", env = "NAVARCH_TLS_KEY")]
    tls_key: Option<PathBuf>,
    /// PEM file with roots of client certificates. Clients must have one, and be what its SPIFFE identity
    /// says; with --state they may also have one of its authority, or a token
    #[arg(long, value_name = "FILE", env = "NAVARCH_TLS_CLIENT_CA")]
    tls_client_ca: Option<PathBuf>,
    /// Answer an API server here, over TLS, what it asks of pods (/inject) and of configuration (/validate)
    #[arg(long, value_name = "HOST:PORT", value_parser = listen_address, env = "NAVARCH_WEBHOOK_ADDR")]
    webhook_addr: Option<SocketAddr>,
    /// File with settings of injection, for the webhook and for gateways that are deployed: docs/injection.md
    /// lists them
    #[arg(long, value_name = "FILE", env = "NAVARCH_INJECT_SETTINGS")]
    inject_settings: Option<PathBuf>,
    /// A configuration of webhooks that leads here, mutating/NAME or validating/NAME: the roots of our
    /// authority are kept in it; may be repeated
    #[arg(
        long,
        value_name = "KIND/NAME",
        requires = "webhook_addr",
        env = "NAVARCH_WEBHOOK_CONFIGURATION",
        value_delimiter = ',',
        value_parser = webhook_configuration
    )]
    webhook_configuration: Vec<Configuration>,
    /// Where health, readiness, metrics and debug pages are
    #[arg(long, default_value = "127.0.0.1:15014", value_name = "HOST:PORT", value_parser = listen_address, env = "NAVARCH_ADMIN_ADDR")]
    admin_addr: SocketAddr,
    /// Time between two revisions while changes do not stop, and quiet time after edits of several files; a
    /// single edit after a quiet time is applied at once
    #[arg(long, default_value = "50ms", value_parser = parse_duration, env = "NAVARCH_DEBOUNCE")]
    debounce: Duration,
    /// Longest time that changes are held back until they stop; after that they are a stream, and are applied
    /// every `--debounce` until they do
    #[arg(long, default_value = "1s", value_parser = parse_duration, env = "NAVARCH_DEBOUNCE_MAX")]
    debounce_max: Duration,
    /// How long a workload stays registered in its WorkloadGroup after it has gone
    /// (`PILOT_WORKLOAD_ENTRY_GRACE_PERIOD` of istiod)
    #[arg(long, default_value = "10s", value_parser = parse_duration, env = "NAVARCH_REGISTRATION_GRACE")]
    registration_grace: Duration,
    /// How long streams are given to move to another replica on shutdown
    #[arg(long, default_value = "1s", value_parser = parse_duration, env = "NAVARCH_DRAIN")]
    drain: Duration,
    /// Percent of its clusters or listeners that a proxy may lose within ten seconds. If more would go, ten
    /// at least, removals are held until they are confirmed (`navarch confirm-removals`) or --removals-hold
    /// has passed; 100 or more: never held
    #[arg(long, default_value_t = 50, value_name = "PERCENT", env = "NAVARCH_REMOVALS_MAX")]
    removals_max: u32,
    /// How long removals are held
    #[arg(long, default_value = "10m", value_parser = parse_duration, env = "NAVARCH_REMOVALS_HOLD")]
    removals_hold: Duration,
    /// How routes go to proxies that can take them either way, which is Envoy 1.40 or newer over delta ADS;
    /// others get them whole. A proxy that runs with whole ones keeps them until it is restarted
    #[arg(long, default_value = "split", env = "NAVARCH_ROUTES")]
    routes: Routes,
    #[command(flatten)]
    logs: LogArgs,
}

/// The form of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Routes {
    /// Each virtual host is a resource: an edit sends the hosts that it changes
    Split,
    /// Each route configuration is a resource, with all of its virtual hosts
    Whole,
}

/// Serves until SIGINT or SIGTERM.
pub fn run(args: ServeArgs) -> Result<ExitCode> {
    args.logs.init()?;
    let secure = args.secure()?;
    let webhooks = args.webhooks()?;
    let (pods, deploy_gateways) = (args.pods()?, args.kubernetes.deploy_gateways);
    ensure!((CERT_TTL_MIN..=CERT_TTL_MAX).contains(&args.cert_ttl), "--cert-ttl is from 10s to 90 days");
    let jwt_rule = args.jwt_rule.as_deref().map(JwtRule::parse).transpose()?;
    let (cluster_name, events) = (args.kubernetes.cluster_name.clone(), args.kubernetes.events);
    let remote_clusters =
        args.kubernetes.remote_clusters(args.state.as_deref(), args.system_namespace.as_deref())?;
    let kubernetes =
        args.kubernetes.options(pods.called(), args.state.as_deref(), args.system_namespace.as_deref());
    let identity = args.state.map(|state| identity::Options {
        state,
        new_authority: args.new_authority,
        plugged: args.ca_dir,
        shared: args.ca_secret,
        life: args.cert_ttl,
        jwt_rule,
        names: args.tls_name,
    });
    let options = Options {
        config: args.config,
        cluster_name,
        kubernetes,
        remote_clusters,
        events,
        mesh_config: args.mesh_config,
        system_namespace: args.system_namespace,
        xds_addr: args.xds_addr,
        secure,
        webhooks,
        pods,
        deploy_gateways,
        identity,
        fetch_allowed: args.fetch_allow,
        fetch_roots: args.fetch_ca,
        admin_addr: args.admin_addr,
        debounce: args.debounce,
        debounce_max: args.debounce_max.max(args.debounce),
        registration_grace: args.registration_grace,
        drain: args.drain,
        brake: (args.removals_max < 100).then(|| Brake {
            percent_max: args.removals_max,
            hold: args.removals_hold,
            ..Brake::default()
        }),
        routes: match args.routes {
            Routes::Split => RouteForm::Split,
            Routes::Whole => RouteForm::Whole,
        },
    };
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(options))?;
    Ok(ExitCode::SUCCESS)
}

/// An address to listen on. A host name stands for the first of its addresses, an IPv4 address before others.
fn listen_address(text: &str) -> Result<SocketAddr> {
    let found = text.to_socket_addrs().with_context(|| format!("{text} is not host:port"))?;
    found.min_by_key(|address| !address.is_ipv4()).with_context(|| format!("{text} has no address"))
}

fn webhook_configuration(text: &str) -> Result<Configuration> {
    Configuration::parse(text).with_context(|| format!("{text} is not mutating/NAME or validating/NAME"))
}

impl ServeArgs {
    /// Where webhooks are served, if they are, and what pods get.
    fn webhooks(&self) -> Result<Option<webhook::Options>> {
        let Some(address) = self.webhook_addr else { return Ok(None) };
        let certified = self.tls_cert.is_some() || self.state.is_some();
        ensure!(certified, "--webhook-addr needs a certificate: --tls-cert and --tls-key, or --state");
        Ok(Some(webhook::Options { address, configurations: self.webhook_configuration.clone() }))
    }

    /// What pods of proxies get.
    fn pods(&self) -> Result<Settings> {
        let mut settings = inject::settings(self.inject_settings.as_deref(), self.mesh_config.as_deref())?;
        let revision = &self.kubernetes.revision;
        match &self.inject_settings {
            None => settings.revision.clone_from(revision),
            // Two control planes would each take the pods and gateways of the other for their own.
            Some(file) => ensure!(
                settings.revision == *revision,
                "{} is of revision {}, and --revision says {revision}",
                file.display(),
                settings.revision
            ),
        }
        settings.tags.extend(self.kubernetes.revision_tag.iter().cloned());
        Ok(settings)
    }

    /// Where TLS is served, if it is, and with which files.
    fn secure(&self) -> Result<Option<(SocketAddr, TlsFiles)>> {
        let server = match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => Some(ServerFiles { cert: cert.clone(), key: key.clone() }),
            _ => None,
        };
        let files = TlsFiles { server, client_ca: self.tls_client_ca.clone() };
        let has_files = files.server.is_some() || files.client_ca.is_some();
        match self.secure_addr.or(self.state.is_some().then_some(SECURE)) {
            None => {
                ensure!(
                    !has_files,
                    "--tls-cert and --tls-client-ca are for TLS: say where with --secure-addr"
                );
                Ok(None)
            }
            Some(address) => {
                let certified = files.server.is_some() || self.state.is_some();
                ensure!(certified, "--secure-addr needs a certificate: --tls-cert and --tls-key, or --state");
                Ok(Some((address, files)))
            }
        }
    }
}

/// A connection is an open file. The usual limit of 1,024 is one for programs that use `select`, which this
/// one does not.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Not to be allowed what one is allowed to is not expected; then the limit stays.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_addresses() {
        let check = |text: &str, expected: Option<&str>| {
            let found = listen_address(text).ok().map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        };
        check("127.0.0.1:1", Some("127.0.0.1:1"));
        check("localhost:15010", Some("127.0.0.1:15010"));
        check("[::1]:2", Some("[::1]:2"));
        check("127.0.0.1", None);
        check("127.0.0.1:70000", None);
    }
}
