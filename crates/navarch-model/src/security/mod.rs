//! Authentication and authorisation policies.

pub mod authorization_policy;
pub mod peer_authentication;
pub mod request_authentication;

pub use authorization_policy::*;
pub use peer_authentication::*;
pub use request_authentication::*;

pub use crate::types::{PolicyTargetReference, PortSelector, WorkloadMode, WorkloadSelector};
