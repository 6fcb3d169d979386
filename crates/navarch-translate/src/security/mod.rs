//! Security policies as filters: AuthorizationPolicy and RequestAuthentication.
//!
//! Both give filters for a phase of the filter chains, and never see a listener: the same filters serve the
//! inbound chains of a sidecar and the chains of a gateway.

pub mod authorization;
pub mod external;
pub mod jwt;
mod matchers;
mod rule;

pub use authorization::{Authorization, AuthorizationInput, PolicyFilters};
pub use external::{ExternalAuthorizer, Lookup};
pub use jwt::{RequestAuthenticationInput, TokenChecks};
