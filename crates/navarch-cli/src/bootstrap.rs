//! `navarch bootstrap`: the dynamic way of configuring Envoy.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use navarch_agent::bootstrap::{Authority, Bootstrap};

use crate::output;
use crate::proxy::ProxyArgs;

/// Print a bootstrap with which stock Envoy connects to this control plane
#[derive(Args)]
#[command(
    after_help = "Examples:\n  navarch bootstrap --name web -n default -l app=web > web.json && envoy -c web.json\n  navarch bootstrap --type router --name gateway -n istio-system -l istio=ingressgateway"
)]
pub struct BootstrapArgs {
    #[command(flatten)]
    proxy: ProxyArgs,
    /// Host and port of the control plane's xDS server
    #[arg(long, default_value = "127.0.0.1:15010")]
    xds_addr: String,
    /// Port of Envoy's admin interface on 127.0.0.1; 0 picks a free one
    #[arg(long, default_value_t = 15000)]
    admin_port: u16,
    /// State of the world instead of delta
    #[arg(long)]
    sotw: bool,
}

/// Prints the bootstrap.
pub fn run(args: &BootstrapArgs) -> Result<ExitCode> {
    let bootstrap = Bootstrap {
        node: args.proxy.node()?,
        xds: authority(&args.xds_addr)?,
        admin: Some(SocketAddr::from(([127, 0, 0, 1], args.admin_port))),
        state_of_the_world: args.sotw,
    };
    output::json(&bootstrap.to_json())?;
    Ok(ExitCode::SUCCESS)
}

fn authority(text: &str) -> Result<Authority> {
    let (host, port) = text.rsplit_once(':').with_context(|| format!("{text} is not host:port"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().with_context(|| format!("{text} does not end in a port number"))?;
    Ok(Authority { host: host.to_owned(), port })
}
