//! A stock Envoy: how to get one, run one, and ask one whether it likes a configuration.

pub mod bootstrap;
mod obtain;
mod rig;
mod validate;

pub use obtain::{VERSION, binary};
pub use rig::{Bootstrap, Envoy};
pub use validate::{Rejected, validate, validate_all};
