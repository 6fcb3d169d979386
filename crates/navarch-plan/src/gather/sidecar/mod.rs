//! What sidecars get.

pub mod clusters;
pub mod endpoints;
pub mod listeners;
pub mod routes;
pub mod secrets;

use navarch_model::Name;
use navarch_model::networking::Destination;
use navarch_translate::names;

/// The cluster of the egress proxy that a Sidecar names.
fn egress_proxy_cluster(proxy: &Destination) -> Name {
    let port = proxy.port.as_ref().and_then(|port| u16::try_from(port.number).ok());
    Name::from(names::outbound(port.unwrap_or_default(), &proxy.subset, &proxy.host))
}
