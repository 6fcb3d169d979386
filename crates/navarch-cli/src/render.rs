//! `navarch render`: the static way of configuring Envoy.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use navarch_agent::bootstrap;
use navarch_agent::settings::Described;
use navarch_agent_cli::output;
use navarch_model::finding::Severity;
use navarch_server::load::{Loaded, load};
use serde_json::json;

use crate::proxy::{self, ProxyArgs};

/// Print a complete static configuration for a proxy
///
/// What the control plane would send is written into one file that `envoy -c` runs without any control plane.
/// What a static file cannot express is said on standard error; if something does not work without it, the
/// exit status is 1.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  navarch render --config ./mesh --name web -n default -l app=web > web.json && envoy -c web.json"
)]
pub struct RenderArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    proxy: ProxyArgs,
    /// Port of Envoy's admin interface on 127.0.0.1; 0 picks a free one
    #[arg(long, default_value_t = 15000)]
    admin_port: u16,
}

/// A configuration directory
#[derive(Args, Clone, Debug)]
pub struct ConfigArgs {
    /// Directory of YAML and JSON files with Kubernetes and Istio objects
    #[arg(long, value_name = "DIR", env = "NAVARCH_CONFIG")]
    config: PathBuf,
    /// File with the MeshConfig
    #[arg(long, value_name = "FILE", env = "NAVARCH_MESH_CONFIG")]
    mesh_config: Option<PathBuf>,
}

impl ConfigArgs {
    /// Reads the directory once.
    pub fn load(&self) -> Result<Loaded> {
        load(&self.config, self.mesh_config.as_deref())
            .with_context(|| format!("cannot read {}", self.config.display()))
    }
}

/// Prints the configuration.
pub fn run(args: &RenderArgs) -> Result<ExitCode> {
    let loaded = args.config.load()?;
    let node = args.proxy.node()?;
    let made = loaded.render(
        &node.id,
        &node.cluster,
        &node.metadata,
        node.locality.as_ref().map(|l| (&*l.region, &*l.zone, &*l.sub_zone)),
    )?;
    for finding in loaded.findings.iter().filter(|finding| finding.severity == Severity::Error) {
        output::note(&finding.to_string());
    }
    for note in &made.notes {
        output::note(&format!("note: {note}"));
    }
    for left_out in &made.left_out {
        output::note(&format!("error: {left_out}"));
    }
    if made.resources["listeners"].as_array().is_none_or(Vec::is_empty) {
        bail!(
            "nothing would listen at {}: {}",
            node.id,
            "no Gateway selects its labels (--label), no Sidecar gives it a listener, or all of its listeners are left out"
        );
    }
    let admin = SocketAddr::from(([127, 0, 0, 1], args.admin_port));
    let Described { node, config, patch } = proxy::described(&loaded, &node)?;
    let bootstrap = json!({
        "node": node,
        "admin": { "address": { "socket_address": { "address": admin.ip().to_string(), "port_value": admin.port() } } },
        "static_resources": made.resources,
    });
    output::json(&bootstrap::completed(bootstrap, &node, &config, &patch))?;
    Ok(if made.left_out.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
