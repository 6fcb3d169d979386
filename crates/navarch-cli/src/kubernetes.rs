//! Which cluster, for commands that follow one.

use std::path::{Path, PathBuf};

use clap::Args;
use navarch_kubernetes::{Access, Candidate, Options};
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
    revision: String,
    /// Write nothing to the cluster: no statuses, and no Lease that says who writes them
    #[arg(long, requires = "kubernetes", env = "NAVARCH_READ_ONLY")]
    read_only: bool,
    /// Tell what is wrong with an object of the cluster at the object, as an Event (kubectl describe)
    #[arg(long, requires = "kubernetes", conflicts_with = "read_only", env = "NAVARCH_EVENTS")]
    pub events: bool,
    /// What the cluster is called; proxies say which one they are in
    #[arg(long, value_name = "NAME", env = "CLUSTER_ID")]
    pub cluster_name: Option<String>,
}

impl KubernetesArgs {
    /// What is followed, if a cluster is. What it says is kept in the directory of state, if there is one;
    /// `namespace` is where we run.
    pub fn options(self, state: Option<&Path>, namespace: Option<&str>) -> Option<Options> {
        let candidate = (!self.read_only).then(|| Candidate {
            namespace: namespace.unwrap_or(NAMESPACE).to_owned(),
            lease: format!("navarch-{}", self.revision),
            name: format!("{}-{}", replica_name(), std::process::id()),
        });
        self.kubernetes.then(|| Options {
            access: Access { kubeconfig: self.kubeconfig, context: self.context },
            cluster: self.cluster_name.as_deref().unwrap_or(CLUSTER).into(),
            revision: self.revision.into(),
            namespaces: self.watch_namespace.into_iter().collect(),
            kept: state.map(|state| state.join("kubernetes")),
            candidate,
        })
    }
}
