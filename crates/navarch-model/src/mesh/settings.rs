//! `MeshSettings`: everything that is set once for the whole mesh.

use super::{MeshConfig, MeshNetworks};

/// MeshConfig, with defaults applied, and MeshNetworks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MeshSettings {
    pub config: MeshConfig,
    pub networks: MeshNetworks,
}
