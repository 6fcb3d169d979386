//! Which resources each class of proxies gets.
//!
//! In: snapshots and the facts of proxies. Out: `ProxyResources`, one per class, shared by all its proxies.
//! Inputs of translators are gathered through an incremental engine that records what was read; translated
//! output is kept in one memo, keyed by the translator's input. This crate must never know a runtime, a
//! socket or a clock.

pub mod class;
pub mod composed;
pub mod engine;
pub mod explain;
pub mod findings;
pub mod gather;
pub mod memo;
pub mod planner;

pub use class::{Class, Secrets};
pub use composed::{BucketResources, Composed};
pub use engine::{Cx, Engine, Gather};
pub use findings::{TranslationFindings, presumed_fates, unmatched};
pub use gather::shared::rejected;
pub use memo::Memo;
pub use navarch_translate::patching::Fates;
pub use planner::{ClassPlan, Planner};
