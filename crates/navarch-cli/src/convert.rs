//! `navarch convert`: from Istio's gateways and routes, and from Ingress, to the Gateway API.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use navarch_agent_cli::output;
use navarch_convert::convert;
use navarch_model::finding::Severity;
use navarch_server::inputs::of_paths;
use navarch_server::load::load_from;

/// Write gateways and routes as objects of the Gateway API
///
/// VirtualServices, Istio's Gateways and Ingresses become Gateways, HTTPRoutes, TLSRoutes, TCPRoutes and
/// ReferenceGrants on standard output. What has no counterpart, or one that means something else, is said
/// on standard error with file and line; the exit status is 1 then. Without that, proxies do with every
/// call what they did. Services have to be among what is read, since routes of the Gateway API name them.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  navarch convert ./mesh > gateway-api.yaml\n  kubectl get gw,vs,ing,svc -A -o yaml | navarch convert - > gateway-api.yaml"
)]
pub struct ConvertArgs {
    /// Directories and files with Kubernetes and Istio objects; `-` is standard input
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// File with the MeshConfig
    #[arg(long, value_name = "FILE", env = "NAVARCH_MESH_CONFIG")]
    mesh_config: Option<PathBuf>,
    /// GatewayClass of the Gateways
    #[arg(long, value_name = "NAME", default_value = "istio")]
    class: String,
    /// How to print
    #[arg(short, long, default_value = "yaml")]
    output: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// A document for each object
    Yaml,
    /// For programs: objects, and what does not fit
    Json,
}

/// Prints the objects, and what does not fit.
pub fn run(args: &ConvertArgs) -> Result<ExitCode> {
    let sources = of_paths(&args.paths, args.mesh_config.as_deref());
    let sources = sources.context("there is nothing to convert")?;
    let loaded = load_from(sources).context("the configuration cannot be read")?;
    let conversion = convert(&loaded.snapshot, &args.class);
    // What is not in use is not converted.
    let broken = loaded.findings.iter().filter(|finding| finding.severity == Severity::Error);
    let broken: Vec<_> = broken.collect();
    match args.output {
        Format::Yaml => output::print(&conversion.to_yaml()?)?,
        Format::Json => output::json(&serde_json::json!({
            "objects": conversion.manifests,
            "findings": broken.iter().copied().chain(&conversion.findings).collect::<Vec<_>>(),
        }))?,
    }
    let fits = broken.is_empty() && conversion.findings.is_empty();
    if matches!(args.output, Format::Yaml) {
        for finding in broken.into_iter().chain(&conversion.findings) {
            output::note(&finding.to_string());
        }
    }
    Ok(if fits { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
