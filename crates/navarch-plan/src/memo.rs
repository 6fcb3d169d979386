//! The memo: the only cache of translated output.

use std::any::Any;
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use navarch_model::Fingerprint;
use navarch_translate::Pure;
use parking_lot::Mutex;

/// Locks that the entries are spread over.
const SHARDS: usize = 32;

type Key = (&'static str, Fingerprint);
type Entry = Weak<dyn Any + Send + Sync>;

/// What translators have returned, by translator and fingerprint of the input.
///
/// Entries are weak: an output lives as long as some plan uses it, so the memo is bounded by what is in use.
/// In builds with debug assertions every hit is computed again and compared: a translator that reads anything
/// but its input is found where it happens.
#[derive(Default)]
pub struct Memo {
    shards: [Mutex<HashMap<Key, Entry>>; SHARDS],
    hits: AtomicU64,
    misses: AtomicU64,
    watch: Option<Box<Watch>>,
}

type Watch = dyn Fn(&Miss<'_>) + Send + Sync;

/// A translation that the memo did not have. Whoever measures translators takes their inputs from a plan this
/// way.
pub struct Miss<'a> {
    /// Name of the translator.
    pub translator: &'static str,
    /// Translates the input once more.
    pub translate: &'a dyn Fn(),
    /// Asks the memo for the output, which it has by now.
    pub get: &'a dyn Fn(),
}

/// How often the memo had the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoCounts {
    pub hits: u64,
    pub misses: u64,
}

impl Memo {
    /// A memo that shows each translation that it did not have, after it was made.
    pub fn watched(watch: impl Fn(&Miss<'_>) + Send + Sync + 'static) -> Self {
        Memo { watch: Some(Box::new(watch)), ..Memo::default() }
    }

    /// The output of `P` for `input`, translated only if no plan in use has it already.
    pub fn get<P: Pure>(&self, input: &P::Input) -> Arc<P::Output>
    where
        P::Output: PartialEq,
    {
        let fingerprint = Fingerprint::of(input);
        let shard = self.shard(fingerprint);
        let known = shard.lock().get(&(P::NAME, fingerprint)).and_then(Weak::upgrade);
        if let Some(output) = known.and_then(|any| any.downcast::<P::Output>().ok()) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            debug_assert!(P::run(input) == *output, "{} read something that is not in its input", P::NAME);
            return output;
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let output = Arc::new(P::run(input));
        let entry: Entry = Arc::downgrade(&output) as Entry;
        shard.lock().insert((P::NAME, fingerprint), entry);
        if let Some(watch) = &self.watch {
            watch(&Miss {
                translator: P::NAME,
                translate: &|| _ = black_box(P::run(black_box(input))),
                get: &|| _ = black_box(self.get::<P>(black_box(input))),
            });
        }
        output
    }

    /// Forgets entries that no plan uses any more.
    pub fn sweep(&self) {
        for shard in &self.shards {
            shard.lock().retain(|_, entry| entry.strong_count() > 0);
        }
    }

    /// Hits and misses since the start.
    pub fn counts(&self) -> MemoCounts {
        MemoCounts { hits: self.hits.load(Ordering::Relaxed), misses: self.misses.load(Ordering::Relaxed) }
    }

    /// Number of entries, dead ones included.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether nothing was ever translated.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, fingerprint: Fingerprint) -> &Mutex<HashMap<Key, Entry>> {
        &self.shards[fingerprint.low_bits() as usize % self.shards.len()]
    }
}
