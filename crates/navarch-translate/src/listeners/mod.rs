//! Listeners of sidecars, and the parts of listeners that gateways share.

pub mod tls;
