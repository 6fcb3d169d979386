//! The shape of every translator.

use std::hash::Hash;
use std::sync::Arc;

use crate::patching::Fates;

/// What no other crate can name, and so not implement.
pub trait Sealed {}

/// A translator: a plain function whose only argument is the key of the cache.
///
/// There is no `&self` and no context: everything the output depends on is in the input, and equal inputs
/// give equal bytes on every replica and after every restart. Implementations read no clock, no environment
/// and no random numbers.
///
/// Sealed: translators are in this crate, which cannot reach the snapshot.
pub trait Pure: Sealed {
    /// Distinguishes translators in the cache and in metrics; unique in the program.
    const NAME: &'static str;
    /// A plain value made of shared, already hashed parts and narrow views of the proxy.
    type Input: Hash;
    /// Encoded resources, or encoded parts of one.
    type Output: Send + Sync + 'static;
    /// Translates.
    fn run(input: &Self::Input) -> Self::Output;

    /// What became of the patches of EnvoyFilters, where the translator applies them.
    fn fates(_output: &Self::Output) -> Option<&Arc<Fates>> {
        None
    }
}
