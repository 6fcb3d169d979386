//! The Kubernetes Gateway API, `gateway.networking.k8s.io`: gateways and what may be attached to them.
//!
//! Fields that the API server fills in when they are missing are `Option`s here; methods give the defaults.

pub mod backend_policy;
pub mod features;
mod filter;
pub mod gateway;
pub mod gateway_class;
mod grpc_route;
mod http_route;
pub mod listener_set;
mod reference;
pub mod reference_grant;
pub mod route_kind;
mod stream_routes;
mod values;

pub use backend_policy::*;
pub use features::*;
pub use filter::*;
pub use gateway::*;
pub use gateway_class::*;
pub use grpc_route::*;
pub use http_route::*;
pub use listener_set::*;
pub use reference::*;
pub use reference_grant::*;
pub use route_kind::*;
pub use stream_routes::*;
pub use values::*;

/// The API group.
pub const GROUP: &str = "gateway.networking.k8s.io";
