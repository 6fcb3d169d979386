//! The world: one writer, immutable snapshots, indexes and visibility.
//!
//! In: `ChangeSet`s of typed objects. Out: `Snapshot`s, one per revision, cheap to clone and to share between
//! threads, cut into *parts* that have a fingerprint each. Readers look at a snapshot through a [`View`],
//! which records the parts that were read; a computation is repeated only when a part that it read has
//! changed. Nobody declares dependencies by hand.
//!
//! ```text
//!  ChangeSet ──> World ── registry: Services, Endpoints, workloads ──┐
//!                  │   └─ bound: rules by host, delegates merged ────┴──> Snapshot ──> View ──> Scope
//!                  └───── objects by kind and namespace ─────────────────────┘
//! ```
//!
//! This crate must never know Envoy's types, files, sockets or a clock.

mod assemble;
pub mod authn;
mod bind;
pub mod bound;
mod buckets;
mod changed_keys;
mod changes;
mod client;
pub mod client_node;
mod derive;
mod findings;
mod footprint;
mod gateway_routes;
mod gateways;
pub mod host;
mod namespaces;
mod network;
#[cfg(test)]
mod oracle;
mod outcome;
pub mod part;
mod places;
pub mod provisioned;
mod registry;
pub mod scope;
mod small_set;
pub mod snapshot;
pub mod status;
mod tables;
mod touched;
pub mod view;
pub mod workload;
pub mod world;

pub use client::ClientLabels;
pub use footprint::BucketSet;
pub use gateway_routes::{GatewayBuckets, HostBucket, RoutesByHost, host_bucket};
pub use part::{BUCKETS, Bucket, Part, bucket_of};
pub use places::Places;
pub use scope::Scope;
pub use snapshot::Snapshot;
pub use status::Statuses;
pub use tables::{Listed, Listing};
pub use view::{Reads, View};
pub use world::World;
