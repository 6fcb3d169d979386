//! What a run measures, and of which server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::mesh::Kind;
use crate::message::Protocol;
use crate::shape::Shape;

/// What is measured, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    pub shape: Shape,
    pub target: Target,
    /// The API server that has the configuration; without one it is a directory.
    pub cluster: Option<Rc<dyn Cluster>>,
    pub protocol: Protocol,
    /// Changes that are measured, in this order.
    pub kinds: Vec<Kind>,
    /// How often each.
    pub repeat: usize,
    /// Endpoint changes per second, and for how long.
    pub churn: Option<(f64, Duration)>,
    /// Proxies connect over mutual TLS, with certificates made for the run. Only with a server that is
    /// started here.
    pub tls: bool,
    /// Whether all proxies reconnect at once.
    pub reconnect: bool,
    /// Classes, one proxy of which is compared with a plan from scratch.
    pub check_classes: usize,
    /// Metadata that every node states besides the usual.
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// Where the configuration is written and left; otherwise a temporary directory.
    pub directory: Option<PathBuf>,
    /// How long anything may take.
    pub timeout: Duration,
    /// The same for several sizes.
    pub curve: Option<(Axis, Vec<usize>)>,
}

/// The server under test.
#[derive(Clone, Debug)]
pub enum Target {
    /// Started here, for each run anew.
    Navarch {
        binary: PathBuf,
        /// More arguments of `navarch serve`.
        arguments: Vec<String>,
    },
    /// Any server that runs on this machine.
    Running {
        address: SocketAddr,
        /// The process whose time and memory are measured.
        pid: u32,
        /// Brings the configuration in `$BENCH_CONFIG` to the server.
        load_command: Option<String>,
        /// Brings the changed file `$BENCH_FILE` to the server, if it does not follow the API server itself.
        change_command: Option<String>,
    },
}

/// What grows along a curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    Services,
    Proxies,
}

impl Axis {
    pub(crate) fn of(self, shape: &Shape, size: usize) -> Shape {
        match self {
            Axis::Services => shape.with_services(size),
            Axis::Proxies => shape.with_proxies(size),
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Axis::Services => "services",
            Axis::Proxies => "proxies",
        }
    }
}
