//! Where configuration comes from.
//!
//! In: files, and whatever else is a [`Source`]. Out: a `ChangeSet`, which is the difference between two
//! states of all sources, and findings. Which version of an object is in use when it is written twice, or
//! cannot be read any more, is decided for all sources together, by [`Claims`]. This crate must never know
//! Envoy or xDS.

mod claims;
pub mod files;
pub mod health;
pub mod memory;
mod registrations;
mod source;

pub use claims::{Claims, Difference};
pub use health::Health;
pub use registrations::{Kept, KnownHealth, Registered, Registrations};
pub use source::{Batch, PlaceId, Settled, Source, SourceError, SourceId, StatusWriter, Update, Written};
