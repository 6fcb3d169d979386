//! `MeshSettings`: everything that is set once for the whole mesh.

use super::{MeshConfig, MeshNetworks, StatedProxyConfig};

/// MeshConfig, with defaults applied, and MeshNetworks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MeshSettings {
    pub config: MeshConfig,
    pub networks: MeshNetworks,
    /// What is stated of `defaultConfig`, without what is only assumed: agents have defaults of their own.
    pub default_config: StatedProxyConfig,
}
