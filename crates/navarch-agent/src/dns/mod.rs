//! Names of the mesh for the workload: a server of names on this machine.
//!
//! ```text
//!   control plane --NameTable (NDS)--> relay --> Names --Table--> answer <-- question -- workload
//!                                                                   |
//!                                            unknown names, byte for byte --> servers of resolv.conf
//! ```
//!
//! Questions are read no further than needed, and answers of other servers not at all: they are handed on as
//! they came. `message` and `answer` have no IO and no clock.

pub mod answer;
pub mod message;
pub mod names;
pub mod resolv;
pub mod server;
pub mod table;
