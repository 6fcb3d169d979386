//! What stock Envoy refuses, known before it is sent.
//!
//! In: an encoded resource with its type. Out: what is wrong with it, each with its place in the message and
//! a reason. The rules come from the constraints that the API's own definition carries ([`schema`]), from the
//! list of extensions that the pinned Envoy gives of itself ([`extensions`]), and from what its code insists
//! on ([`structure`]). The judge in `tests/judge.rs` compares all of it with `envoy --mode validate`.
//!
//! Never knows anything of ours: no service, no proxy, no configuration kind. Pure: the same bytes give the
//! same answer.

pub mod extensions;
pub mod lua;
pub mod schema;
pub mod structure;
mod violation;
mod walk;
mod wire;

pub use violation::{Rule, Violation};

/// Everything in an encoded message that stock Envoy would refuse, in the order in which it stands. Nothing
/// for a type that the descriptor set does not have.
pub fn violations(type_url: &str, message: &[u8]) -> Vec<Violation> {
    match schema::shape_of(type_url) {
        Some(shape) => walk::check(&shape, message),
        None => Vec::new(),
    }
}

/// The same of a part that is to be merged into a message: nothing is said of what is missing, because the
/// message may have it, nor of how fields go together.
pub fn violations_in_part(type_url: &str, message: &[u8]) -> Vec<Violation> {
    match schema::shape_of(type_url) {
        Some(shape) => walk::check_part(&shape, message),
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
