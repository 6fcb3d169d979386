//! What runs the control plane and gateways in a cluster, as objects.
//!
//! In: what is asked for. Out: manifests, of which what is applied by `navarch install`, what it prints and
//! the Helm chart are made; and what the control plane applies for a Gateway ([`gateway`]). This crate knows
//! no API server: whoever applies them is told where they belong ([`place`]).

mod board;
mod chart;
mod control_plane;
pub mod gateway;
mod manifests;
mod options;
mod place;
mod webhooks;

pub use chart::{Chart, chart};
pub use manifests::{is_kept, manifests, to_yaml};
pub use options::{Options, OptionsError, Rule};
pub use place::{Place, place, prunable};
pub use webhooks::{injection_configuration, validation_configuration};
