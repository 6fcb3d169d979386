//! The command line of the agent: what `navarch agent` and `navarch-agent` understand, written once.
//!
//! `navarch-agent` is a binary of its own, since there is one beside every application: what the control
//! plane is made of is neither on the disk of such a machine nor in its memory. What both command lines share
//! besides is here, too: how values are written, how commands print, and how they log.

#![deny(clippy::print_stdout, clippy::print_stderr, reason = "they panic on a closed pipe: see `output`")]

pub mod agent;
pub mod join;
pub mod logs;
pub mod machine;
pub mod output;
mod redirect;
pub mod values;

/// The version, and the commit that it was built from where that is known.
pub const VERSION: &str = env!("NAVARCH_VERSION");
