//! Why an agent cannot go on.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use navarch_identity::store::StoreError;

/// Why the agent cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("the agent's directory cannot be used")]
    Directory(#[from] StoreError),
    #[error("cannot keep what proxies are sent in {path}")]
    Store { path: PathBuf, source: io::Error },
    #[error("cannot listen on {path}")]
    Socket { path: PathBuf, source: io::Error },
    #[error("cannot listen on {address}")]
    Status { address: SocketAddr, source: io::Error },
    #[error("cannot answer questions for names")]
    Names(#[source] io::Error),
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),
    #[error("cannot start {}", .binary.display())]
    Envoy { binary: PathBuf, source: io::Error },
    #[error("Envoy ended {times} times before it was ready; its output says why")]
    NeverReady { times: u32 },
    #[error("cannot run {command}")]
    Command { command: String, source: io::Error },
}

impl AgentError {
    /// The exit status that says so, as `env` and `timeout` have it: 127 if COMMAND is not there, 126 if it
    /// cannot be run, and 125 for all that is the agent's own.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            AgentError::Command { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            AgentError::Command { .. } => 126,
            _ => 125,
        }
    }
}
