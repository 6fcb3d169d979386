//! The API server of a Kubernetes cluster as a source of configuration.
//!
//! In: lists and watches of every kind of the kinds table. Out: what a [`navarch_sources::Source`]
//! gives. Objects are read by the model as those in files are, so that they mean the same. This
//! crate must never know Envoy or xDS.

mod access;
mod feed;
mod follow;
mod kept;
pub mod permissions;
mod read;
mod request;
mod source;

pub use access::{Access, AccessError};
pub use source::{Kubernetes, Options};
