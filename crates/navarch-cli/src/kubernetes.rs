//! Which cluster, for commands that follow one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use navarch_agent_cli::values::parse_duration;
use navarch_kubernetes::{Access, Candidate, Options, remote};
use navarch_model::Revision;
use navarch_server::serve::replica_name;

/// What a cluster is called unless something is said, as in Istio.
const CLUSTER: &str = "Kubernetes";

/// Where the control plane of a cluster runs unless something is said, as in Istio.
const NAMESPACE: &str = "istio-system";

/// How a cluster is reached, and what of it counts.
#[derive(Args)]
pub struct KubernetesArgs {
    /// Serve what is in a Kubernetes cluster: its Services and Pods, and Istio's and the Gateway
    /// API's objects. The one that we run in, unless --kubeconfig or --context names another
    #[arg(long, env = "NAVARCH_KUBERNETES")]
    kubernetes: bool,
    /// File that says how the API server is reached, and as whom
    #[arg(long, value_name = "FILE", requires = "kubernetes", env = "NAVARCH_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig; its current one if nothing is said
    #[arg(long, value_name = "NAME", requires = "kubernetes", env = "NAVARCH_CONTEXT")]
    context: Option<String>,
    /// Only what is in this namespace; may be repeated. Namespaces, Nodes and other objects without
    /// a namespace count as well
    #[arg(
        long,
        value_name = "NAMESPACE",
        requires = "kubernetes",
        env = "NAVARCH_WATCH_NAMESPACE",
        value_delimiter = ','
    )]
    watch_namespace: Vec<String>,
    /// Which revision of the control plane this is: objects whose label istio.io/rev says another
    /// one are left to that one
    #[arg(
        long,
        value_name = "NAME",
        default_value = "default",
        requires = "kubernetes",
        env = "NAVARCH_REVISION"
    )]
    pub revision: String,
    /// Another name that stands for the revision in labels istio.io/rev; may be repeated. `default` is the
    /// one that is meant where there is no label. Those of --inject-settings stand for it as well
    #[arg(
        long,
        value_name = "NAME",
        requires = "kubernetes",
        env = "NAVARCH_REVISION_TAG",
        value_delimiter = ','
    )]
    pub revision_tag: Vec<String>,
    /// Another cluster whose Services and workloads count, and a kubeconfig that leads to it; may be
    /// repeated. With --kubernetes also those of the Secrets with the label istio/multiCluster=true in
    /// the system namespace
    #[arg(
        long,
        value_name = "NAME=KUBECONFIG",
        env = "NAVARCH_REMOTE_CLUSTER",
        value_delimiter = ',',
        value_parser = remote_cluster
    )]
    remote_cluster: Vec<(String, PathBuf)>,
    /// No other clusters but those of --remote-cluster: Secrets with kubeconfigs are not heeded
    #[arg(long, requires = "kubernetes", env = "NAVARCH_NO_REMOTE_SECRETS")]
    no_remote_secrets: bool,
    /// How long the start waits for another cluster that does not answer (`PILOT_REMOTE_CLUSTER_TIMEOUT` of
    /// istiod)
    #[arg(long, default_value = "15s", value_parser = parse_duration, env = "NAVARCH_REMOTE_CLUSTER_WAIT")]
    remote_cluster_wait: Duration,
    /// Write nothing to the cluster: no statuses, and no Lease that says who writes them
    #[arg(long, requires = "kubernetes", env = "NAVARCH_READ_ONLY")]
    read_only: bool,
    /// Tell what is wrong with an object of the cluster at the object, as an Event (kubectl describe)
    #[arg(long, requires = "kubernetes", conflicts_with = "read_only", env = "NAVARCH_EVENTS")]
    pub events: bool,
    /// Make what runs a Gateway that names no host to be reached at: a Deployment of proxies with a Service,
    /// as --inject-settings says. One of all replicas does
    #[arg(long, requires = "kubernetes", conflicts_with = "read_only", env = "NAVARCH_DEPLOY_GATEWAYS")]
    pub deploy_gateways: bool,
    /// What the cluster is called; proxies say which one they are in
    #[arg(long, value_name = "NAME", env = "CLUSTER_ID")]
    pub cluster_name: Option<String>,
}

/// `NAME=KUBECONFIG`
fn remote_cluster(text: &str) -> Result<(String, PathBuf)> {
    let (name, path) = text.split_once('=').with_context(|| format!("{text} is not NAME=KUBECONFIG"))?;
    ensure!(!name.is_empty() && !path.is_empty(), "{text} is not NAME=KUBECONFIG");
    Ok((name.to_owned(), PathBuf::from(path)))
}

impl KubernetesArgs {
    fn access(&self) -> Access {
        Access { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() }
    }

    fn cluster(&self) -> &str {
        self.cluster_name.as_deref().unwrap_or(CLUSTER)
    }

    /// Which other clusters are followed, if any may be.
    ///
    /// # Errors
    /// If two of them are called the same.
    pub fn remote_clusters(
        &self,
        state: Option<&Path>,
        namespace: Option<&str>,
    ) -> Result<Option<remote::Options>> {
        let heeds_secrets = self.kubernetes && !self.no_remote_secrets;
        if !heeds_secrets && self.remote_cluster.is_empty() {
            return Ok(None);
        }
        let files: BTreeMap<String, PathBuf> = self.remote_cluster.iter().cloned().collect();
        ensure!(files.len() == self.remote_cluster.len(), "--remote-cluster names a cluster twice");
        Ok(Some(remote::Options {
            local: self.cluster().into(),
            secrets: heeds_secrets.then(|| (self.access(), namespace.unwrap_or(NAMESPACE).to_owned())),
            files,
            namespaces: self.watch_namespace.iter().cloned().collect(),
            kept: state.map(|state| state.join("remote-clusters")),
            patience: self.remote_cluster_wait,
        }))
    }

    /// What is followed, if a cluster is. What it says is kept in the directory of state, if there is one;
    /// `namespace` is where we run.
    pub fn options(
        self,
        revision: Revision,
        state: Option<&Path>,
        namespace: Option<&str>,
    ) -> Option<Options> {
        let candidate = (!self.read_only).then(|| Candidate {
            namespace: namespace.unwrap_or(NAMESPACE).to_owned(),
            lease: format!("navarch-{}", revision.name),
            name: format!("{}-{}", replica_name(), std::process::id()),
        });
        self.kubernetes.then(|| Options {
            access: self.access(),
            cluster: self.cluster().into(),
            revision: Arc::new(revision),
            namespaces: self.watch_namespace.into_iter().collect(),
            kept: state.map(|state| state.join("kubernetes")),
            candidate,
        })
    }
}
