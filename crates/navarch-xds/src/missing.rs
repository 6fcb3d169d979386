//! What is said about a name that was asked for and does not exist.

use std::sync::Arc;

use navarch_envoy::wire::put_field;
use navarch_envoy::{ProxyResources, Resource, XdsType};

use crate::client::ClientRules;
use crate::order::mentions;
use crate::response::Protocol;

/// The answer to a name without a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A resource that says "there is nothing".
    Empty(Arc<Resource>),
    /// The name in `removed_resources`.
    Removed,
    /// None; the resource follows when it exists.
    Silence,
}

/// Chooses the answer, see [`navarch_envoy::Removal`] for why it differs.
#[must_use]
pub fn answer(
    ty: XdsType,
    name: &Arc<str>,
    protocol: Protocol,
    client: &ClientRules,
    resources: &ProxyResources,
) -> Answer {
    let removed = match protocol {
        Protocol::Delta => Answer::Removed,
        Protocol::Sotw => Answer::Silence,
    };
    match ty {
        // A cluster waits for its assignment, and keeps the endpoints it has until an assignment takes them
        // away.
        XdsType::Eds => Answer::Empty(empty_assignment(name)),
        // A configured runtime layer holds up everything else until it is answered.
        XdsType::Rtds => Answer::Empty(named(ty, name, 0x0a)),
        // A listener that waits for routes does not stop waiting because of a removal.
        XdsType::Rds if client.waits_for_routes() && listener_mentions(resources, name) => {
            Answer::Empty(named(ty, name, 0x0a))
        }
        // Not a host, see `Stream::release_routes`.
        XdsType::Vhds if name.ends_with('/') => removed,
        // A resource without a body says that the alias resolves to nothing.
        XdsType::Vhds if protocol == Protocol::Delta => {
            Answer::Empty(Arc::new(Resource::without_body(name.clone(), vec![name.clone()])))
        }
        // A removal makes the filter answer every request with an error.
        XdsType::Ecds => Answer::Silence,
        _ => removed,
    }
}

/// A `ClusterLoadAssignment` without endpoints.
#[must_use]
pub fn empty_assignment(name: &Arc<str>) -> Arc<Resource> {
    named(XdsType::Eds, name, 0x0a)
}

/// A message with nothing but its name.
fn named(ty: XdsType, name: &Arc<str>, name_tag: u8) -> Arc<Resource> {
    let mut message = Vec::new();
    put_field(&mut message, name_tag, name.as_bytes());
    Arc::new(Resource::of(ty, name.clone(), &message))
}

fn listener_mentions(resources: &ProxyResources, name: &str) -> bool {
    resources.set(XdsType::Lds).iter().any(|listener| mentions(listener, name))
}
