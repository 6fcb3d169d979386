//! `navarch serve`: the control plane.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use navarch_server::secure::TlsFiles;
use navarch_server::serve::{Brake, Options, serve};
use tracing_subscriber::EnvFilter;

use crate::wait::parse_duration;

/// Serve the configuration in a directory to proxies
///
/// The directory is watched: a save is in effect a moment later. A file that cannot be read never takes away what worked; see `navarch
/// analyze`. Ports listen on loopback unless told otherwise: the xDS port is plaintext and trusts whoever connects. With
/// --secure-addr the same is served over TLS, and with --tls-client-ca only to proxies whose certificate proves who they are.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  navarch serve --config ./mesh\n  navarch serve --config ./mesh --mesh-config mesh.yaml --log-level debug\n  navarch serve --config ./mesh --secure-addr \
                  0.0.0.0:15012 --tls-cert server.pem --tls-key server.key --tls-client-ca ca.pem"
)]
pub struct ServeArgs {
    /// Directory of YAML and JSON files with Kubernetes and Istio objects
    #[arg(long, value_name = "DIR", env = "NAVARCH_CONFIG")]
    config: PathBuf,
    /// File with the MeshConfig; otherwise the ConfigMap `istio` in the root namespace is used, if there is one
    #[arg(long, value_name = "FILE", env = "NAVARCH_MESH_CONFIG")]
    mesh_config: Option<PathBuf>,
    /// Namespace the server runs in, if it runs in a cluster: its label topology.istio.io/network is the network of the cluster
    #[arg(long, value_name = "NAMESPACE", env = "NAVARCH_SYSTEM_NAMESPACE")]
    system_namespace: Option<String>,
    /// Where the xDS server listens (plaintext)
    #[arg(long, default_value = "127.0.0.1:15010", env = "NAVARCH_XDS_ADDR")]
    xds_addr: SocketAddr,
    /// Also serve xDS over TLS here
    #[arg(long, value_name = "ADDR", requires_all = ["tls_cert", "tls_key"], env = "NAVARCH_SECURE_ADDR")]
    secure_addr: Option<SocketAddr>,
    /// PEM file with the server's certificate and what leads to its root; read again when it changes, as the others
    #[arg(long, value_name = "FILE", requires = "secure_addr", env = "NAVARCH_TLS_CERT")]
    tls_cert: Option<PathBuf>,
    /// PEM file with its private key
    #[arg(long, value_name = "FILE", requires = "secure_addr", env = "NAVARCH_TLS_KEY")]
    tls_key: Option<PathBuf>,
    /// PEM file with roots of client certificates. Clients must have one, and be what its SPIFFE identity says
    #[arg(long, value_name = "FILE", requires = "secure_addr", env = "NAVARCH_TLS_CLIENT_CA")]
    tls_client_ca: Option<PathBuf>,
    /// Where health, readiness, metrics and debug pages are
    #[arg(long, default_value = "127.0.0.1:15014", env = "NAVARCH_ADMIN_ADDR")]
    admin_addr: SocketAddr,
    /// Time between two revisions while changes do not stop, and quiet time after edits of several files; a single edit after a quiet
    /// time is applied at once
    #[arg(long, default_value = "50ms", value_parser = parse_duration, env = "NAVARCH_DEBOUNCE")]
    debounce: Duration,
    /// Longest time that changes are held back when they do not stop
    #[arg(long, default_value = "1s", value_parser = parse_duration, env = "NAVARCH_DEBOUNCE_MAX")]
    debounce_max: Duration,
    /// How long streams are given to move to another replica on shutdown
    #[arg(long, default_value = "1s", value_parser = parse_duration, env = "NAVARCH_DRAIN")]
    drain: Duration,
    /// Percent of its clusters or listeners that a proxy may lose within ten seconds. If more would go, ten at least, removals are
    /// held until they are confirmed (`navarch confirm-removals`) or --removals-hold has passed; 100 or more: never held
    #[arg(long, default_value_t = 50, value_name = "PERCENT", env = "NAVARCH_REMOVALS_MAX")]
    removals_max: u32,
    /// How long removals are held
    #[arg(long, default_value = "10m", value_parser = parse_duration, env = "NAVARCH_REMOVALS_HOLD")]
    removals_hold: Duration,
    /// What is logged: error, warn, info, debug, trace, or a filter such as info,navarch_xds=debug
    #[arg(long, default_value = "info", env = "NAVARCH_LOG_LEVEL")]
    log_level: String,
    /// How logs are written
    #[arg(long, default_value = "text", env = "NAVARCH_LOG_FORMAT")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Serves until SIGINT or SIGTERM.
pub fn run(args: ServeArgs) -> Result<ExitCode> {
    let filter = EnvFilter::try_new(&args.log_level)
        .with_context(|| format!("--log-level {} is not a level or a filter", args.log_level))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => logs.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => logs.json().init(),
    }
    let secure = match (args.secure_addr, args.tls_cert, args.tls_key) {
        (Some(address), Some(cert), Some(key)) => {
            Some((address, TlsFiles { cert, key, client_ca: args.tls_client_ca }))
        }
        _ => None,
    };
    let options = Options {
        config: args.config,
        mesh_config: args.mesh_config,
        system_namespace: args.system_namespace,
        xds_addr: args.xds_addr,
        secure,
        admin_addr: args.admin_addr,
        debounce: args.debounce,
        debounce_max: args.debounce_max.max(args.debounce),
        drain: args.drain,
        brake: (args.removals_max < 100).then(|| Brake {
            percent_max: args.removals_max,
            hold: args.removals_hold,
            ..Brake::default()
        }),
    };
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(options))?;
    Ok(ExitCode::SUCCESS)
}

/// A connection is an open file. The usual limit of 1,024 is one for programs that use `select`, which this one does not.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Not to be allowed what one is allowed to is not expected; then the limit stays.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
