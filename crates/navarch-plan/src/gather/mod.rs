//! Gathering: from what a class can see to the inputs of translators, by the role of the proxy, then by the type of
//! resource.
//!
//! A gather decides *what* is translated (which services, which rule for each); *how* is the translators' business.

pub mod gateway;
pub mod shared;
pub mod sidecar;

use navarch_model::Name;
use navarch_model::networking::Destination;
use navarch_translate::names;

/// The cluster of the egress proxy that a Sidecar names.
pub(crate) fn egress_proxy_cluster(proxy: &Destination) -> Name {
    let port = proxy.port.as_ref().and_then(|port| u16::try_from(port.number).ok());
    Name::from(names::outbound(port.unwrap_or_default(), &proxy.subset, &proxy.host))
}
