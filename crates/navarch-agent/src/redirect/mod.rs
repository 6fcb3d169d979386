//! Traffic that is led to Envoy without the application knowing: `navarch agent redirect`.
//!
//! ```text
//!   Options --ruleset::plan--> Plan: one transaction of nftables, commands of iproute2 --apply--> the kernel
//! ```
//!
//! The plan is a function of the options alone. All rules are in one table of their own, `inet navarch`,
//! which is replaced as a whole: doing it again changes nothing, and undoing it is removing the table.

pub mod apply;
pub mod options;
pub mod ruleset;
