//! Protobuf messages as parts of a key.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use navarch_model::Fingerprint;
use prost::Message;

/// A message that is part of a translator's input: shared, and compared by its encoding.
///
/// Many messages hold floating-point numbers or nested messages without `Hash`. The encoding is deterministic
/// (maps are ordered), so its fingerprint, taken once, stands for the value.
pub struct Encoded<T> {
    message: Arc<T>,
    fingerprint: Fingerprint,
}

impl<T: Message> Encoded<T> {
    /// Takes the fingerprint of the encoding of `message`.
    pub fn new(message: T) -> Self {
        let fingerprint = Fingerprint::of(message.encode_to_vec().as_slice());
        Self { message: Arc::new(message), fingerprint }
    }
}

impl<T: Clone> Encoded<T> {
    /// A copy of the message, for building a larger one.
    pub fn to_message(&self) -> T {
        T::clone(&self.message)
    }
}

impl<T> Clone for Encoded<T> {
    fn clone(&self) -> Self {
        Self { message: self.message.clone(), fingerprint: self.fingerprint }
    }
}

impl<T> Deref for Encoded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.message
    }
}

impl<T> Hash for Encoded<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fingerprint.hash(state);
    }
}

impl<T> PartialEq for Encoded<T> {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl<T> Eq for Encoded<T> {}

impl<T: fmt::Debug> fmt::Debug for Encoded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}

/// Copies of messages that are shared by many keys, for building a larger message.
pub fn messages<T: Clone>(parts: &[Encoded<T>]) -> Vec<T> {
    parts.iter().map(Encoded::to_message).collect()
}
