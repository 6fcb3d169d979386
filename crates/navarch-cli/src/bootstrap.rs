//! `navarch bootstrap`: the dynamic way of configuring Envoy.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use navarch_agent::bootstrap::{Bootstrap, Pages, Tls, Xds};
use navarch_agent::options::Local;
use navarch_agent::provision::Provision;
use navarch_agent::settings::{self, Described};
use navarch_agent_cli::machine::state_facts;
use navarch_agent_cli::output;
use navarch_agent_cli::values::authority;
use navarch_server::load::load;

use crate::proxy::{self, ProxyArgs};

/// Print a bootstrap with which stock Envoy connects to this control plane
#[derive(Args)]
#[command(
    after_help = "Examples:\n  navarch bootstrap --name web -n default -l app=web > web.json && envoy -c web.json\n  navarch bootstrap --type router --name gateway -n istio-system -l istio=ingressgateway\n  navarch bootstrap --name web \
                  -n default --xds-addr navarch.example.com:15012 --tls-ca ca.pem --tls-cert web.pem --tls-key web.key"
)]
pub struct BootstrapArgs {
    #[command(flatten)]
    proxy: ProxyArgs,
    /// Host and port of the control plane's xDS server
    #[arg(long, default_value = "127.0.0.1:15010")]
    xds_addr: String,
    /// PEM file with the roots of the control plane's certificate: connect over TLS (`navarch serve
    /// --secure-addr`)
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Name or address that the control plane's certificate must have, if it is not the host of --xds-addr
    #[arg(long, value_name = "NAME", requires = "tls_ca")]
    tls_name: Option<String>,
    /// PEM file with the proxy's certificate, whose SPIFFE identity says who it is
    #[arg(long, value_name = "FILE", requires_all = ["tls_ca", "tls_key"])]
    tls_cert: Option<PathBuf>,
    /// PEM file with its private key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Directory of YAML and JSON files with Kubernetes and Istio objects: what its ProxyConfigs and
    /// EnvoyFilters say of bootstraps is in this one
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,
    /// File with the MeshConfig
    #[arg(long, value_name = "FILE", requires = "config")]
    mesh_config: Option<PathBuf>,
    /// Port of Envoy's admin interface on 127.0.0.1; 0 picks a free one
    #[arg(long, default_value_t = 15000)]
    admin_port: u16,
    /// State of the world instead of delta
    #[arg(long)]
    sotw: bool,
}

/// Prints the bootstrap.
pub fn run(args: &BootstrapArgs) -> Result<ExitCode> {
    let mut node = args.proxy.node()?;
    state_facts(&mut node);
    let described = match &args.config {
        Some(config) => {
            let loaded = load(config, args.mesh_config.as_deref())
                .with_context(|| format!("cannot read {}", config.display()))?;
            proxy::described(&loaded, &node)?
        }
        None => settings::described(&node, &Local::default(), Provision::default()),
    };
    let Described { node, config, patch } = described;
    let bootstrap = Bootstrap {
        node,
        config,
        patch,
        xds: Xds::Server(authority(&args.xds_addr)?, args.tls()?),
        admin: Some(SocketAddr::from(([127, 0, 0, 1], args.admin_port))),
        state_of_the_world: args.sotw,
        pages: Pages::default(),
    };
    output::json(&bootstrap.to_json())?;
    Ok(ExitCode::SUCCESS)
}

impl BootstrapArgs {
    fn tls(&self) -> Result<Option<Tls>> {
        let Some(ca) = &self.tls_ca else { return Ok(None) };
        // Envoy may run in another directory, and says little about files that it cannot read.
        let absolute = |path: &Path| {
            std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
            std::path::absolute(path).with_context(|| format!("{} is not a path", path.display()))
        };
        let client = match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => Some((absolute(cert)?, absolute(key)?)),
            _ => None,
        };
        Ok(Some(Tls { ca: absolute(ca)?, name: self.tls_name.clone(), client }))
    }
}
