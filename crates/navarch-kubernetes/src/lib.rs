//! The API server of a Kubernetes cluster as a source of configuration, and who writes to it.
//!
//! In: lists and watches of every kind of the kinds table. Out: what a [`navarch_sources::Source`]
//! gives. Objects are read by the model as those in files are, so that they mean the same. What
//! becomes of them goes back into their statuses. This crate must never know Envoy or xDS.

mod access;
mod ask;
mod feed;
mod follow;
mod kept;
mod leadership;
mod lease;
mod maker;
mod managed;
pub mod objects;
pub mod permissions;
mod pool;
mod presence;
mod protobuf;
mod read;
pub mod remote;
mod request;
mod source;
mod status;
pub mod webhooks;

pub use access::{Access, AccessError};
pub use ask::{AskError, Questions};
pub use leadership::{Candidate, Leadership};
pub use maker::{Event, Maker, SecretData, WriteError};
pub use managed::Managed;
pub use request::Failure;
pub use source::{Kubernetes, Options, Writer};
pub use status::Report as StatusReport;
