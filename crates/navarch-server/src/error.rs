//! Why the control plane cannot start or go on.

use std::net::SocketAddr;

/// An error of the control plane as a whole. What is wrong inside the configuration is never one of these.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Source(#[from] navarch_sources::SourceError),
    #[error("the cluster cannot be followed")]
    Kubernetes(#[from] navarch_kubernetes::AccessError),
    #[error("cannot listen on {address} ({purpose}); is another navarch running?")]
    Listen {
        address: SocketAddr,
        purpose: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("TLS cannot be served")]
    Tls(#[from] crate::secure::TlsError),
    #[error("the configurations of webhooks cannot be reached")]
    Webhooks(#[source] navarch_kubernetes::objects::ObjectError),
    #[error("reading the configuration broke off")]
    Panicked,
    #[error("there is no certificate authority")]
    Identity(#[from] crate::identity::IdentityError),
    #[error("the node cannot be served: {0}")]
    Node(String),
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    #[error("the server broke off")]
    Serve(#[source] std::io::Error),
    #[error("two metrics have one name")]
    Metrics(#[source] prometheus::Error),
}
