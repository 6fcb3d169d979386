//! A pod to a pod that has a proxy beside its application.
//!
//! In: a pod, or an object with a template of pods, as JSON; settings; what its annotations and labels wish.
//! Out: the same with the agent's container, the redirection of traffic, rewritten probes and what these
//! need. The template is made of the types in [`pod`], so that it cannot be malformed; the pod itself stays
//! JSON, so that fields of a newer Kubernetes, or of a kind that is not Kubernetes' own, stay what they are.
//!
//! This crate knows no socket, no clock and no API server.

pub mod decide;
mod documents;
mod former;
mod inject;
mod json;
mod objects;
pub mod patch;
pub mod pod;
pub mod policy;
mod probes;
mod review;
mod settings;
mod template;
mod terms;
mod wishes;

pub use documents::{Injected, inject_text};
pub use inject::{gateway_pod, inject};
pub use review::{Answer, REVIEW_BYTES_MAX, answer, review};
pub use settings::{Resources, Selector, Settings, SettingsError, SidecarForm};
pub use terms::{Fault, Workload};
