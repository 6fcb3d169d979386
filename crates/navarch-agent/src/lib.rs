//! The side of the proxy: stock Envoy started, fed, kept in certificates, watched and drained.
//!
//! ```text
//!   the control plane <-- upstream: one connection ------ relay <-- Unix socket --- Envoy, gRPC clients
//!        ^                                                 |  \___ store: what was sent last, on disk
//!        |  CreateCertificate                              v
//!        +----------------------- certificate ---------> secrets (SDS)
//!
//!   lifecycle: bootstrap -> Envoy -> ready -> COMMAND ... a signal -> drain -> the end
//! ```
//!
//! This crate must never know the snapshot, the plan or the sources of configuration: it talks to the control
//! plane as any proxy does. It reads no environment; the command line does, and passes values.

use std::error::Error;
use std::fmt;

mod backoff;
pub mod bootstrap;
pub mod certificate;
pub mod detached;
pub mod dns;
pub mod envoy;
mod grpc;
pub mod http;
pub mod issuer;
pub mod lifecycle;
pub mod node;
pub mod options;
pub mod provision;
pub mod readiness;
pub mod redirect;
pub mod relay;
pub mod roots;
pub mod running;
pub mod secrets;
pub mod settings;
pub mod status;
pub mod store;
pub mod upstream;
pub mod workload;

/// An error with all that caused it, in one line.
pub(crate) struct Chain<'e>(pub &'e dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
