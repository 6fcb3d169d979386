//! What the controllers of a cluster would do, as far as the suite needs it: what is to be written is a
//! function of what there is.

mod deployments;
mod endpoints;
mod garbage;
mod namespaces;
mod world;

pub use world::{Change, World};

/// What is to be written now.
pub fn due(world: &World) -> Vec<Change> {
    let all = [deployments::due, endpoints::due, endpoints::balancers, garbage::due, namespaces::due];
    all.iter().flat_map(|of| of(world)).collect()
}
