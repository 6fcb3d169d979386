//! The capabilities, by theme, and what they need: a gateway, backends, clients.

pub mod backend;
pub mod certificate;
pub mod changes;
pub mod churn;
pub mod connection;
pub mod edge;
pub mod files;
pub mod resilience;
pub mod restarts;
pub mod routing;
pub mod tls;
