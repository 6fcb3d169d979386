//! Route configurations (RDS).
//!
//! A route configuration is put together from encoded pieces: a VirtualService becomes encoded routes ([`HttpRoutes`]), a host
//! becomes an encoded virtual host ([`virtual_host`]), and [`RouteConfiguration`] concatenates virtual hosts. Protobuf allows
//! that: a repeated field is its elements one after the other. So a change of one host costs the translation of that host and a
//! copy of the others.

mod action;
pub mod domains;
pub mod filter_config;
pub mod hash_policy;
mod headers;
pub mod patch;
pub mod retry;
pub mod route_configuration;
mod route_match;
pub mod virtual_host;
pub mod virtual_service;

pub use action::default_route;
pub use route_configuration::{
    CatchAll, CatchAllHost, Contribution, Rank, Ranked, RouteConfiguration, RouteConfigurationInput,
};
pub use virtual_host::{Domain, RouteSource, SidecarVirtualHost, SidecarVirtualHostInput, VirtualHost};
pub use virtual_service::{
    DestinationService, EncodedRoute, HttpRoutes, HttpRoutesInput, RouteContext, Routes, Source,
};

use navarch_model::Labels;

/// Annotation that tells which API a VirtualService stems from.
const SEMANTICS_ANNOTATION: &str = "internal.istio.io/route-semantics";

/// Which API's rules hold for a VirtualService.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Semantics {
    #[default]
    Istio,
    /// Made from a route of the Kubernetes Gateway API.
    GatewayApi,
    /// Made from a Kubernetes Ingress.
    Ingress,
}

impl Semantics {
    /// Reads the annotations of a VirtualService.
    pub fn of(annotations: &Labels) -> Self {
        match annotations.get(SEMANTICS_ANNOTATION).map(|value| &**value) {
            Some("gateway") => Semantics::GatewayApi,
            Some("ingress") => Semantics::Ingress,
            _ => Semantics::Istio,
        }
    }
}

/// The name of the cluster for a port of a host, with a subset or without.
pub fn outbound_cluster(port: u32, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}
