//! Route configurations (RDS).
//!
//! A route configuration is put together from encoded pieces: a set of rules becomes encoded routes
//! ([`HttpRoutes`]), a host becomes an encoded virtual host ([`virtual_host`]), and [`RouteConfiguration`]
//! concatenates virtual hosts. Protobuf allows that: a repeated field is its elements one after the other. So
//! a change of one host costs the translation of that host and a copy of the others.

mod action;
pub mod domains;
pub mod filter_config;
pub mod hash_policy;
mod headers;
pub mod http_routes;
mod input;
mod merged;
pub mod patch;
mod percent;
pub mod retry;
pub mod route_configuration;
mod route_match;
pub mod split;
pub mod virtual_host;

pub use action::default_route;
pub use domains::Domain;
pub use http_routes::HttpRoutes;
pub use input::{DestinationService, EncodedRoute, HttpRoutesInput, RouteContext, Routes, Source};
pub use merged::{MergedRoutes, MergedRoutesInput};
pub use route_configuration::{
    CatchAll, CatchAllHost, Contribution, Rank, Ranked, RouteConfiguration, RouteConfigurationInput,
};
pub use virtual_host::{RouteSource, SidecarVirtualHost, SidecarVirtualHostInput, VirtualHost};
