//! Settings of the whole mesh.

pub mod extension_provider;
pub mod mesh_config;
pub mod networks;
pub mod parse;
pub mod proxy;
pub mod settings;
pub mod stated;

pub use extension_provider::*;
pub use mesh_config::*;
pub use networks::*;
pub use parse::*;
pub use proxy::*;
pub use settings::*;
pub use stated::*;
