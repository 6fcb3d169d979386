//! YAML with positions.
//!
//! Text becomes [`Document`]s of [`Node`]s that keep line and column; [`Decode`] turns nodes into typed
//! values and records every problem it meets, each with the position and path of the field.

mod decode;
mod fields;
mod json;
mod message;
mod node;
mod parse;
mod path;
mod scalar;

pub(crate) use decode::closest;
pub(crate) use decode::json_name;
pub use decode::{Decode, Decoder, Oneof, Problem, ProblemKind};
pub use fields::{Field, Fields};
pub(crate) use json::object_of_json;
pub(crate) use message::{closed_enum, message, oneof, union_message};
pub use node::{Document, Entry, Node, Value};
pub use parse::{Budget, SyntaxError, parse};
pub(crate) use path::{descend, json_name_matches, locate};
pub use scalar::{Scalar, Style, resolve};
