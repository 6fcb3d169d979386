//! What the agent is told: by flags, and by what the workload itself says of its proxy.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use navarch_model::mesh::StatedProxyConfig;

use crate::dns;
use crate::node::Node;
use crate::status::metrics::Target;
use crate::status::probe::Probe;
use crate::upstream;

/// What the proxy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// One application beside it.
    Sidecar,
    /// An edge of the mesh.
    Gateway,
}

/// What the agent is told.
#[derive(Clone, Debug)]
pub struct Options {
    pub role: Role,
    pub node: Node,
    /// What the workload itself says of its proxy.
    pub local: Local,
    /// Settings that are stated for this agent alone.
    pub flags: Flags,
    /// The directory for all that the agent keeps. Only its owner may enter it.
    pub directory: PathBuf,
    pub upstream: upstream::Options,
    /// Whether the workload gets a certificate of the control plane, and the life that is asked for.
    pub certificate: Option<Duration>,
    /// Directory for copies of the certificate, its key and the roots.
    pub output_certificates: Option<PathBuf>,
    pub envoy: Envoy,
    pub status: Status,
    /// Time for COMMAND to end after it was told to.
    pub command_timeout: Duration,
    /// The server of names for the workload, which it has if its metadata says so.
    pub names: dns::server::Options,
    /// What to run once Envoy is ready; nothing if it is empty.
    pub command: Vec<OsString>,
}

/// Where something listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub address: SocketAddr,
    /// Somebody asked for it: if it is taken, that is an error. Otherwise it is left out, or elsewhere, since
    /// several agents may share a machine.
    pub is_stated: bool,
}

/// What the agent answers itself.
#[derive(Clone, Debug)]
pub struct Status {
    pub place: Place,
    /// Where the application has its metrics.
    pub targets: Vec<Target>,
    /// Probes of the application, by path.
    pub probes: BTreeMap<String, Probe>,
}

/// How Envoy is started.
#[derive(Clone, Debug)]
pub struct Envoy {
    pub binary: PathBuf,
    /// Where its admin port is to be, and `/healthz/ready` and `/stats/prometheus` of Envoy, if anywhere.
    pub admin: Place,
    pub ready: Option<Place>,
    pub metrics: Option<Place>,
    pub log_level: String,
    /// Seconds after which an Envoy ends that has handed over to another. Istio: `parentShutdownDuration`.
    pub parent_seconds: u64,
    pub arguments: Vec<OsString>,
    pub state_of_the_world: bool,
}

/// Settings that flags, or a ProxyConfig, may state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Threads of Envoy; 0: as many as the machine has.
    pub concurrency: Option<u32>,
    /// Time for connections to end by themselves, and the least time for them.
    pub drain: Option<Duration>,
    pub drain_least: Option<Duration>,
    /// Time in which an Envoy lets its connections go that hands over to another.
    pub drain_handover: Option<Duration>,
}

/// What the workload itself states.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Local {
    /// `PROXY_CONFIG` of the environment, and the annotation `proxy.istio.io/config`, each over the one
    /// before.
    pub config: StatedProxyConfig,
    /// Keys of metadata that are stated, and not only assumed.
    pub metadata: BTreeSet<String>,
}
