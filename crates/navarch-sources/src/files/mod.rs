//! A directory of YAML and JSON files.

mod source;
mod tree;
mod watch;

pub use source::{FileSource, Scan};
pub use tree::{FILE_BYTES_MAX, Hint};
pub use watch::{Burst, Watch};
