//! `navarch inject`: proxies beside applications, without a webhook.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use navarch_agent_cli::output;
use navarch_inject::{Settings, inject_text};
use navarch_model::Severity;

/// Put the proxy into the pods of objects, as the webhook does
///
/// Reads Pods, and objects with a template of pods (Deployment, StatefulSet, DaemonSet, ReplicaSet,
/// ReplicationController, Job, CronJob, DeploymentConfig), in YAML or JSON, lists included, and prints them
/// with the agent's container, the redirection of traffic, and probes that ask the agent. Other documents are
/// printed as they are. Doing it again changes nothing. Pods that say so (the label sidecar.istio.io/inject:
/// "false", hostNetwork) are left alone, and this is said on standard error. If something is wrong nothing is
/// printed, and the exit status is 1.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  navarch inject -f deployment.yaml | kubectl apply -f -\n  kubectl get deploy -n shop -o yaml | navarch inject -f - | kubectl apply -f -\n  \
                  navarch inject -f app.yaml --settings injection.yaml --mesh-config mesh.yaml"
)]
pub struct InjectArgs {
    /// A file with objects; `-` is standard input; may be given several times
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    filename: Vec<PathBuf>,
    /// The namespace of objects that do not say theirs
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// File with settings of injection, as `navarch serve` has it: docs/injection.md lists them
    #[arg(long, value_name = "FILE", env = "NAVARCH_INJECT_SETTINGS")]
    settings: Option<PathBuf>,
    /// File with the MeshConfig, whose defaultConfig is for proxies
    #[arg(long, value_name = "FILE", env = "NAVARCH_MESH_CONFIG")]
    mesh_config: Option<PathBuf>,
    /// The image with navarch and Envoy, over that of the settings
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// The revision of the control plane, over that of the settings
    #[arg(long, value_name = "NAME")]
    revision: Option<String>,
}

/// Prints what becomes of the objects.
pub fn run(args: &InjectArgs) -> Result<ExitCode> {
    let mut settings = settings(args.settings.as_deref(), args.mesh_config.as_deref())?;
    if let Some(image) = &args.image {
        settings.image.clone_from(image);
    }
    if let Some(revision) = &args.revision {
        settings.revision.clone_from(revision);
    }
    let (mut text, mut is_wrong) = (String::new(), false);
    for path in &args.filename {
        let (name, read) = read(path)?;
        let injected = inject_text(&settings, &args.namespace, &name, &read);
        for finding in &injected.findings {
            is_wrong |= finding.severity == Severity::Error;
            output::note(&finding.to_string());
        }
        text.push_str(&injected.text);
    }
    if is_wrong {
        return Ok(ExitCode::from(1));
    }
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The settings of a file, and what the MeshConfig says of proxies.
pub fn settings(file: Option<&Path>, mesh_config: Option<&Path>) -> Result<Settings> {
    let text_of = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let wrong = |path: &Path| format!("{} cannot be used", path.display());
    let mut settings = Settings::default();
    if let Some(path) = file {
        settings = Settings::parse(&text_of(path)?).with_context(|| wrong(path))?;
    }
    if let Some(path) = mesh_config {
        settings = settings.with_mesh_config(&text_of(path)?).with_context(|| wrong(path))?;
    }
    Ok(settings)
}

/// What a file is called, and what it says.
fn read(path: &Path) -> Result<(String, String)> {
    let failed = || format!("cannot read {}", path.display());
    if path.as_os_str() == "-" {
        return Ok(("<stdin>".to_owned(), std::io::read_to_string(std::io::stdin()).with_context(failed)?));
    }
    Ok((path.display().to_string(), std::fs::read_to_string(path).with_context(failed)?))
}
