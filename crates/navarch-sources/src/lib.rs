//! Where configuration comes from: a watched directory of YAML.
//!
//! In: files. Out: `ChangeSet`s, each the difference between two states of the whole directory, and findings. This crate must
//! never know Envoy or xDS.

pub mod files;
