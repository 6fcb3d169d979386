//! Conformance scenarios of an xDS server, on [`navarch_xds::Stream`] under virtual time. A test is named
//! after the scenario it shows; `docs/xds-conformance.md` lists them.

#![expect(
    clippy::disallowed_methods,
    reason = "a variable names a sequence to replay, and whether to trace it"
)]

mod brake;
mod bytes;
mod client;
mod delta;
mod extensions;
mod hosts;
mod nack;
mod ordering;
mod reconnect;
mod removal;
mod sequence;
mod simulation;
mod sotw;
mod table;
mod ttl;
mod warming;
mod wire;
