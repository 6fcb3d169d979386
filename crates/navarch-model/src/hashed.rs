//! Values that know their own fingerprint, the keys of the plan's cache.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::ops::Deref;
use std::sync::OnceLock;

use xxhash_rust::xxh3::Xxh3;

/// A 128-bit hash of a value, for comparing and caching inside one process.
///
/// Tenants author the values that are hashed, so the hash is keyed with a secret of the process: nobody
/// outside can construct two inputs that collide. Fingerprints therefore differ between processes and never
/// leave them; the version of a resource on the wire is a hash of another kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(u128);

impl Fingerprint {
    /// The fingerprint of any hashable value.
    ///
    /// `#[derive(Hash)]` visits every field, and floating-point numbers do not implement it: a key can
    /// neither forget a field nor contain a number that is not equal to itself.
    pub fn of<T: Hash + ?Sized>(value: &T) -> Self {
        let mut hasher = FingerprintHasher(Xxh3::with_seed(process_seed()));
        value.hash(&mut hasher);
        Fingerprint(hasher.0.digest128())
    }

    /// The low 64 bits, for spreading entries over shards.
    pub fn low_bits(self) -> u64 {
        self.0 as u64
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A hash of a value that is the same in every process of one build, on every machine: for what is kept over
/// restarts or compared between replicas. The other way round, whoever can choose values can make two of one
/// hash, so nothing is cached by it.
///
/// Of a [`Hashed`] value inside, the fingerprint is hashed, which differs between processes; see
/// [`crate::kinds::Spec`] for what is not.
pub fn stable_hash(feed: impl FnOnce(&mut StableHasher)) -> u128 {
    let mut hasher = StableHasher(Xxh3::new());
    feed(&mut hasher);
    hasher.0.digest128()
}

/// See [`stable_hash`].
pub struct StableHasher(Xxh3);

impl Hasher for StableHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        self.0.digest()
    }
}

fn process_seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| RandomState::new().hash_one(0x6e61_7661_7263_6821_u64))
}

struct FingerprintHasher(Xxh3);

impl Hasher for FingerprintHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        self.0.digest()
    }
}

/// A value with its fingerprint, taken once at construction.
///
/// A parent hashes the fingerprints of its children, so the key of a large input costs as much as its number
/// of parts. Equality compares fingerprints.
#[derive(Clone, Default)]
pub struct Hashed<T> {
    fingerprint: Option<Fingerprint>,
    value: T,
}

impl<T: Hash> Hashed<T> {
    /// Takes the fingerprint of `value`.
    pub fn new(value: T) -> Self {
        Hashed { fingerprint: Some(Fingerprint::of(&value)), value }
    }

    /// The fingerprint of the value.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint.unwrap_or_else(|| Fingerprint::of(&self.value))
    }
}

impl<T> Deref for Hashed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Hash> Hash for Hashed<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fingerprint().hash(state);
    }
}

impl<T: Hash> PartialEq for Hashed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint() == other.fingerprint()
    }
}

impl<T: Hash> Eq for Hashed<T> {}

impl<T: fmt::Debug> fmt::Debug for Hashed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn equal_values_have_equal_fingerprints_and_others_do_not() {
        let one = Hashed::new(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(one, Hashed::new(vec!["a".to_owned(), "b".to_owned()]));
        assert_ne!(one, Hashed::new(vec!["ab".to_owned()]));
        assert_ne!(one, Hashed::new(vec!["a".to_owned(), "b".to_owned(), String::new()]));
    }

    #[test]
    fn a_parent_is_hashed_through_the_fingerprints_of_its_children() {
        let child = Arc::new(Hashed::new("child"));
        assert_eq!(Fingerprint::of(&(1, child.clone())), Fingerprint::of(&(1, child.fingerprint())),);
    }

    #[test]
    fn a_default_value_has_the_fingerprint_of_its_value() {
        assert_eq!(Hashed::<String>::default(), Hashed::new(String::new()));
    }
}
