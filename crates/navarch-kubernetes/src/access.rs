//! How an API server is reached, and as whom.

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

/// Time for a connection, TLS included.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Longest silence of a connection. A watch is never silent for as long: the API server sends a
/// bookmark every minute.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(90);

/// Which API server, and as whom. Neither of the two: that of the cluster that we run in, as our
/// service account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// A kubeconfig file. Without it, and with a context, the file is where kubectl looks for it.
    pub kubeconfig: Option<PathBuf>,
    /// One of its contexts; its current one if absent.
    pub context: Option<String>,
}

/// Why it is not known how to reach an API server.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("we do not run in a cluster, and no kubeconfig is given")]
    InCluster(#[source] Box<InClusterError>),
    #[error("the kubeconfig cannot be used")]
    Kubeconfig(#[source] Box<KubeconfigError>),
    #[error("there can be no client with these certificates")]
    Client(#[source] Box<kube::Error>),
}

impl Access {
    /// A client. Nothing is connected to yet. Tokens in files and those that programs give out are
    /// renewed by it.
    ///
    /// # Errors If it is not known how to reach an API server.
    pub async fn client(&self) -> Result<Client, AccessError> {
        client(self.config().await?)
    }

    pub(crate) async fn config(&self) -> Result<Config, AccessError> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let read = match &self.kubeconfig {
            Some(path) => match Kubeconfig::read_from(path) {
                Ok(file) => Config::from_custom_kubeconfig(file, &options).await,
                Err(error) => Err(error),
            },
            None if self.context.is_some() => Config::from_kubeconfig(&options).await,
            None => return Config::incluster().map_err(|error| AccessError::InCluster(error.into())),
        };
        read.map_err(|error| AccessError::Kubeconfig(error.into()))
    }
}

/// A client that says at once what has failed.
pub(crate) fn client(mut config: Config) -> Result<Client, AccessError> {
    config.connect_timeout = Some(CONNECT_MAX);
    config.read_timeout = Some(SILENCE_MAX);
    // For minutes nobody would know that an API server is busy or has no store (429, 503). Followers try
    // again themselves.
    config.default_retry = false;
    Client::try_from(config).map_err(|error| AccessError::Client(error.into()))
}
