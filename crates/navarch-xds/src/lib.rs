//! The server side of the xDS protocol.
//!
//! ```text
//!   request bytes --> Request --+                                     +--> Response --> shared bytes
//!                               +--> Stream (no IO, no clock) --poll--+
//!   Class::publish -- watch ----+         one TypeState per type           +--> Event, StreamStatus
//! ```
//!
//! State-of-the-world and delta, aggregated and per type, from one model: a [`Stream`] knows what its client
//! wants and what it was told, and only the codecs differ. What a client is told comes as
//! [`ProxyResources`](navarch_envoy::ProxyResources) through a [`Class`], already encoded; a response is a
//! few bytes of its own and shared chunks.
//!
//! This crate knows the xDS protocol and what its clients make of it. It must never know where resources come
//! from or what a VirtualService is.

#![deny(missing_docs)]

mod brake;
mod class;
mod client;
mod encode;
mod matcher;
mod missing;
mod nack;
mod names;
mod node;
mod order;
pub mod proto;
mod request;
mod response;
pub mod running;
pub mod server;
mod status;
mod stream;
mod subscription;
mod syncz;
mod type_state;
mod wanted;

pub use brake::Brake;
pub use class::{Class, ClassMemory};
pub use client::{ClientKind, ClientRules, Holds};
pub use encode::Encoder;
pub use nack::Nack;
pub use node::{Locality, Node};
pub use request::{Error, Request, Wish};
pub use response::{Batch, Cause, Dialect, Protocol, Response};
pub use server::{
    Answers, ClusterLoad, Connection, Discovery, Evidence, LastLoads, LoadReports, Observer, OwnResources,
    Peer, Question, Rejection, Server, Settings, Transport, Visible,
};
pub use status::{Mark, Registry, RemovalHold, StreamStatus, SyncState, TypeStatus};
pub use stream::{Event, Stream};
pub use subscription::Wildcard;
pub use syncz::{SYNCZ, client_config, syncz};
