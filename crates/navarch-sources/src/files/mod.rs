//! A directory of YAML and JSON files, and the file with the mesh settings.

mod mesh_file;
mod source;
mod text;
mod tree;
mod watch;
mod watched;

pub use mesh_file::{MeshFile, SettingsFile};
pub use source::{Directory, FileSource};
pub use text::Text;
pub use tree::FILE_BYTES_MAX;
pub use watched::{Reader, Watched};
