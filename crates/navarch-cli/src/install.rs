//! `navarch install`, `upgrade`, `uninstall` and `precheck`: the control plane in a cluster.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use navarch_agent_cli::output;
use navarch_identity::authority::Root;
use navarch_identity::{Timestamp, pem};
use navarch_install::{Injection, Options, Rule, chart, is_kept, manifests, place, prunable, to_yaml};
use navarch_kubernetes::Access;
use navarch_kubernetes::objects::{Earnest, Objects};
use navarch_kubernetes::permissions::{Need, Permission, Where, permissions};
use navarch_model::Kind;
use navarch_model::definition::definition;
use serde_json::{Value, json};

use crate::inject;
use crate::precheck;

/// Who changes objects, in their `managedFields`.
const MANAGER: &str = "navarch-install";

/// Where istiod keeps an authority that it has made itself.
const ISTIOD_AUTHORITY: &str = "istio-ca-secret";

/// The Secret with the authority, and the namespace-wide root of trust unless something else is said.
const AUTHORITY: &str = "cacerts";
const TRUST_DOMAIN: &str = "cluster.local";

/// How a cluster is reached, for commands that change it.
#[derive(Args, Clone, Debug)]
pub struct ClusterArgs {
    /// File that says how the API server is reached, and as whom; otherwise the one that kubectl uses
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// A context of it; its current one if nothing is said
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl ClusterArgs {
    pub async fn objects(&self) -> Result<Objects> {
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".kube/config"));
        let kubeconfig = self.kubeconfig.clone().or_else(|| home().filter(|path| path.is_file()));
        let access = Access { kubeconfig, context: self.context.clone() };
        Ok(Objects::at(&access).await?)
    }
}

/// Which installation.
#[derive(Args, Clone, Debug)]
pub struct NamedArgs {
    /// Namespace of the control plane
    #[arg(short, long, default_value = "istio-system")]
    namespace: String,
    /// Revision of the control plane; several may run side by side
    #[arg(long, default_value = "default", value_name = "NAME")]
    revision: String,
}

/// Install the control plane in a cluster, or change an installation
///
/// Applies CustomResourceDefinitions that the cluster lacks, a Deployment with what it needs, and the
/// configurations of the webhooks, all as one field manager (server-side apply). What an installation of the
/// same revision before had and this one has not is removed. The certificate authority is made once, in the
/// Secret cacerts, and stays. `navarch upgrade` is the same.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  navarch install --image registry.example.com/navarch:1\n  navarch install --image registry.example.com/navarch:2 --revision canary --dry-run\n  \
                  navarch install --image registry.example.com/navarch:1 -o yaml | kubectl apply --server-side -f -\n  navarch install --image registry.example.com/navarch:1 --chart ./navarch-chart"
)]
pub struct InstallArgs {
    #[command(flatten)]
    named: NamedArgs,
    /// A name that stands for the revision, for labels istio.io/rev; `default` is what
    /// istio-injection=enabled means; may be repeated
    #[arg(long = "tag", value_name = "NAME")]
    tags: Vec<String>,
    /// The image with navarch and Envoy (`cargo xtask image`), for the control plane and for proxies
    #[arg(long)]
    image: String,
    #[arg(long, value_name = "POLICY", help = "When the image is pulled, as Kubernetes has it")]
    image_pull_policy: Option<String>,
    /// A Secret to pull it with; may be repeated
    #[arg(long = "image-pull-secret", value_name = "NAME")]
    image_pull_secrets: Vec<String>,
    /// Replicas at least
    #[arg(long, default_value_t = 2, value_name = "N")]
    replicas_min: u32,
    /// Replicas at most
    #[arg(long, default_value_t = 5, value_name = "N")]
    replicas_max: u32,
    /// Processor that a replica asks for
    #[arg(long, default_value = "500m", value_name = "QUANTITY")]
    cpu: String,
    /// Memory that a replica asks for
    #[arg(long, default_value = "512Mi", value_name = "QUANTITY")]
    memory: String,
    /// What the control plane logs
    #[arg(long = "server-log-level", default_value = "info", value_name = "LEVEL")]
    log_level: String,
    /// What the cluster is called
    #[arg(long, default_value = "Kubernetes", value_name = "NAME")]
    cluster_name: String,
    /// The network of its pods
    #[arg(long, default_value = "", value_name = "NAME", hide_default_value = true)]
    network: String,
    /// File with more settings of injection: docs/injection.md lists them
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// A ServiceMonitor too, for the operator of Prometheus, and a board for Grafana
    #[arg(long)]
    monitor: bool,
    /// No NetworkPolicy
    #[arg(long)]
    no_network_policy: bool,
    /// No webhook that injects pods (`navarch inject` does)
    #[arg(long)]
    no_injection: bool,
    /// Have the API server inject pods by itself, by a MutatingAdmissionPolicy (Kubernetes 1.36), in place of
    /// the webhook: docs/injection.md says what it cannot do
    #[arg(long, conflicts_with = "no_injection")]
    inject_policy: bool,
    /// No webhook that validates configuration
    #[arg(long)]
    no_validation: bool,
    /// Deploy no gateways: who asks for a Gateway sees to its proxies
    #[arg(long)]
    no_gateways: bool,
    /// No CustomResourceDefinitions
    #[arg(long)]
    no_crds: bool,
    /// Let the API server say what would become of it
    #[arg(long, conflicts_with_all = ["output", "chart"])]
    dry_run: bool,
    /// Print the objects in place of applying them
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
    /// Write a Helm chart into this directory in place of applying anything
    #[arg(long, value_name = "DIR", conflicts_with = "output")]
    chart: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Yaml,
    Json,
}

/// Remove the control plane of a revision from a cluster
///
/// Definitions of kinds, the namespace and the certificate authority (Secret cacerts) stay: with them goes
/// what others have made.
#[derive(Args)]
#[command(after_help = "Examples:\n  navarch uninstall --revision canary\n  navarch uninstall --dry-run")]
pub struct UninstallArgs {
    #[command(flatten)]
    named: NamedArgs,
    /// Let the API server say what would become of it
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Say what stands in the way of an installation
///
/// Looks at the version of the API server, at the kinds that it has, at what we may do, and at other control
/// planes that answer to the same labels. Exit status 1 if something is in the way.
#[derive(Args)]
pub struct PrecheckArgs {
    #[command(flatten)]
    named: NamedArgs,
    /// A tag that is to stand for the revision; may be repeated
    #[arg(long = "tag", value_name = "NAME")]
    tags: Vec<String>,
    /// For an installation with --inject-policy
    #[arg(long)]
    inject_policy: bool,
    /// For an installation with --monitor
    #[arg(long)]
    monitor: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl InstallArgs {
    fn options(&self) -> Result<Options> {
        ensure!(
            (1..=self.replicas_max).contains(&self.replicas_min),
            "--replicas-min is from 1 to --replicas-max"
        );
        let options = Options {
            namespace: self.named.namespace.clone(),
            revision: self.named.revision.clone(),
            tags: self.tags.clone(),
            image: self.image.clone(),
            image_pull_policy: self.image_pull_policy.clone(),
            image_pull_secrets: self.image_pull_secrets.clone(),
            replicas: (self.replicas_min.to_string(), self.replicas_max.to_string()),
            cpu: self.cpu.clone(),
            memory: self.memory.clone(),
            log_level: self.log_level.clone(),
            cluster: self.cluster_name.clone(),
            network: self.network.clone(),
            monitor: self.monitor,
            network_policy: !self.no_network_policy,
            injection: match (self.inject_policy, self.no_injection) {
                (true, _) => Injection::Policy,
                (false, true) => Injection::None,
                (false, false) => Injection::Webhook,
            },
            validation: !self.no_validation,
            gateways: !self.no_gateways,
            settings: inject::settings(self.settings.as_deref(), None)?,
        };
        options.check()?;
        Ok(options)
    }

    fn definitions(&self) -> Vec<Value> {
        let ours = Kind::ALL.iter().filter(|kind| !self.no_crds && kind.group().ends_with(".istio.io"));
        ours.filter_map(|kind| definition(*kind)).collect()
    }
}

/// What the control plane may do.
fn rules(options: &Options) -> Vec<Rule> {
    let rule = |permission: Permission| Rule {
        group: permission.group.to_owned(),
        resource: permission.resource(),
        names: permission.names.iter().map(|name| (*name).to_owned()).collect(),
        verbs: permission.verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        own_namespace: permission.place == Where::OwnNamespace,
    };
    let needed = |permission: &Permission| options.gateways || permission.need != Need::Gateways;
    permissions().into_iter().filter(needed).map(rule).collect()
}

/// Installs, prints, or writes the chart.
pub async fn install(args: InstallArgs) -> Result<ExitCode> {
    let options = args.options()?;
    if let Some(directory) = &args.chart {
        let chart = chart(&options, &rules(&options), &args.definitions(), env!("CARGO_PKG_VERSION"))?;
        return write_chart(directory, &chart.0);
    }
    let objects = manifests(&options, &rules(&options), args.definitions());
    match args.output {
        Some(Format::Yaml) => output::print(&to_yaml(&objects)?)?,
        Some(Format::Json) => output::json(&json!({"apiVersion": "v1", "kind": "List", "items": objects}))?,
        None => {
            let cluster = args.cluster.objects().await?;
            let earnest = if args.dry_run { Earnest::Tried } else { Earnest::Done };
            apply(&cluster, &options, &objects, earnest).await?;
            prune(&cluster, &options, &objects, earnest).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write_chart(directory: &Path, files: &[(String, String)]) -> Result<ExitCode> {
    for (name, text) in files {
        let path = directory.join(name);
        let failed = || format!("cannot write {}", path.display());
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(failed)?;
        }
        std::fs::write(&path, text).with_context(failed)?;
        output::line(&path.display().to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Applies all objects, and makes an authority if there is none.
async fn apply(cluster: &Objects, options: &Options, objects: &[Value], earnest: Earnest) -> Result<()> {
    let said = if earnest == Earnest::Tried { "would be applied" } else { "applied" };
    let mut is_made = false;
    for object in objects {
        let place = place(object).context("an object has no place")?;
        // After the namespace, and before what waits for it.
        if !is_made && !is_kept(object) {
            is_made = true;
            authority(cluster, &options.namespace, earnest).await?;
        }
        if object["kind"] == "CustomResourceDefinition" && is_of_others(cluster, &place.path()).await? {
            output::line(&format!("{} is there, and left alone", place.title))?;
            continue;
        }
        match cluster.apply(&place.path(), MANAGER, object, earnest).await {
            Ok(_) => output::line(&format!("{} {said}", place.title))?,
            // What is in a namespace cannot be tried before there is one.
            Err(error) if error.status() == Some(404) && earnest == Earnest::Tried => {
                output::line(&format!("{} {said}; the API server cannot try it yet", place.title))?;
            }
            Err(error) => return Err(error).with_context(|| format!("{} cannot be applied", place.title)),
        }
    }
    Ok(())
}

/// Whether a definition is there that somebody else has made: that of Istio, or of another tool.
async fn is_of_others(cluster: &Objects, path: &str) -> Result<bool> {
    let Some(found) = cluster.get(path).await? else { return Ok(false) };
    let managers = found["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    Ok(!managers.iter().any(|field| field["manager"] == MANAGER))
}

/// Makes the authority that signs for workloads, unless there is one. It is never replaced.
async fn authority(cluster: &Objects, namespace: &str, earnest: Earnest) -> Result<()> {
    let collection = format!("/api/v1/namespaces/{namespace}/secrets");
    let title = format!("Secret {namespace}/{AUTHORITY}");
    if cluster.get(&format!("{collection}/{AUTHORITY}")).await?.is_some() {
        return output::line(&format!("{title} is there, and stays"));
    }
    if cluster.get(&format!("{collection}/{ISTIOD_AUTHORITY}")).await?.is_some() {
        bail!(
            "istiod signs with an authority of its own (Secret {namespace}/{ISTIOD_AUTHORITY}), and another root would \
             break its mesh: copy it to {AUTHORITY} first, as docs/from-istiod.md says"
        );
    }
    if earnest == Earnest::Tried {
        return output::line(&format!("{title} would be made: an authority for workloads"));
    }
    let root = Root::generate(TRUST_DOMAIN, Timestamp::from(SystemTime::now()))?;
    let certificate = pem::of_certificate(&root.certificate);
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": AUTHORITY, "namespace": namespace},
        "stringData": {
            "tls.crt": certificate,
            "tls.key": root.key.expose_text().context("a key in PEM form is text")?,
            "ca.crt": certificate,
        },
    });
    match cluster.create(&collection, MANAGER, &secret, earnest).await {
        Ok(_) => output::line(&format!("{title} made: an authority for workloads")),
        // Somebody else was faster, and theirs counts.
        Err(error) if error.status() == Some(409) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("{title} cannot be made")),
    }
}

/// Removes what an installation of the revision before had, and this one has not.
async fn prune(cluster: &Objects, options: &Options, objects: &[Value], earnest: Earnest) -> Result<usize> {
    let kept: Vec<String> = objects.iter().filter_map(place).map(|place| place.path()).collect();
    let said = if earnest == Earnest::Tried { "would be removed" } else { "removed" };
    let mut count = 0;
    for (kind, collection) in prunable(&options.namespace) {
        for found in cluster.list(&collection, &options.selector()).await? {
            let name = found["metadata"]["name"].as_str().unwrap_or_default();
            let path = format!("{collection}/{name}");
            if name.is_empty() || kept.contains(&path) {
                continue;
            }
            if cluster.delete(&path, earnest).await? {
                output::line(&format!("{kind} {name} {said}"))?;
                count += 1;
            }
        }
    }
    Ok(count)
}

/// Removes the control plane.
pub async fn uninstall(args: UninstallArgs) -> Result<ExitCode> {
    let NamedArgs { namespace, revision } = args.named;
    let options = Options { namespace, revision, ..Options::default() };
    options.check()?;
    let cluster = args.cluster.objects().await?;
    let earnest = if args.dry_run { Earnest::Tried } else { Earnest::Done };
    if prune(&cluster, &options, &[], earnest).await? == 0 {
        bail!("there is no control plane {} in {}", options.revision, options.namespace);
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what stands in the way.
pub async fn check(args: PrecheckArgs) -> Result<ExitCode> {
    let NamedArgs { namespace, revision } = args.named;
    let injection = if args.inject_policy { Injection::Policy } else { Injection::Webhook };
    let monitor = args.monitor;
    let options = Options { namespace, revision, tags: args.tags, injection, monitor, ..Options::default() };
    options.check()?;
    let cluster = args.cluster.objects().await?;
    let found = precheck::check(&cluster, &options).await?;
    for line in &found.notes {
        output::line(line)?;
    }
    for line in &found.obstacles {
        output::line(&format!("in the way: {line}"))?;
    }
    if found.obstacles.is_empty() {
        output::line("nothing is in the way")?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::from(1))
}
