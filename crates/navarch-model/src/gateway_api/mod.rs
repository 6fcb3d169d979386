//! The Kubernetes Gateway API, `gateway.networking.k8s.io`: gateways and what may be attached to them.
//!
//! Fields that the API server fills in when they are missing are `Option`s here; methods give the defaults.

pub mod backend_policy;
pub mod gateway;
pub mod gateway_class;
pub mod listener_set;
pub mod reference_grant;
pub mod route_kind;

pub use backend_policy::*;
pub use gateway::*;
pub use gateway_class::*;
pub use listener_set::*;
pub use reference_grant::*;
pub use route_kind::*;

/// The API group.
pub const GROUP: &str = "gateway.networking.k8s.io";
