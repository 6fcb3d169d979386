//! What a proxy with a given configuration does with a call, without a proxy.
//!
//! In: a [`Call`] and the resources of one proxy. Out: the [`Outcome`]: which listener, filter chain, virtual
//! host and route take it, and where it goes.
//!
//! ```text
//!   Call ── address ──> listener ── inspectors, chain match ──> filter chain
//!                                       │ TCP proxy                  │ HTTP connection manager
//!                                       │                     RDS: virtual host, route
//!                                       └──────────> clusters <──────┘
//!                                                       └── EDS: endpoints by priority
//! ```
//!
//! The rules are Envoy's (architecture overview: listeners, filter chain match, HTTP routing). What depends
//! on things that only exist at run time, such as dynamic metadata, random fractions or the code of a Lua
//! filter, is [`Action::Unknown`], never a guess. Filters that may deny a call but cannot route it elsewhere
//! are listed in [`Outcome::unevaluated`].
//!
//! This crate never knows anything of ours but Envoy's types: the same engine answers for resources from any
//! control plane.

mod call;
mod decode;
mod endpoints;
mod filter_chain;
mod http;
mod listener;
mod matching;
mod outcome;
mod reading;
mod route;
mod terminal;

pub use call::{Call, Direction, Protocol, Tls};
pub use outcome::{
    Action, Blocked, Changes, ClusterShare, Endpoint, Fault, Health, Mirror, Outcome, Retries, Stage,
    Transport, Upstream,
};

use navarch_envoy::ProxyResources;

/// Follows `call` through the configuration of one proxy. The same arguments give the same outcome.
#[must_use]
pub fn simulate(resources: &ProxyResources, call: &Call) -> Outcome {
    let mut outcome = Outcome::default();
    outcome.action = match listener::accept(resources, call, &mut outcome) {
        Ok(action) | Err(action) => action,
    };
    outcome
}
