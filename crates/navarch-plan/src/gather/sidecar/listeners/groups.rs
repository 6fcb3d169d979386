//! Contributions grouped by the address they are for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use imbl::OrdMap;
use navarch_model::{Hashed, Name};
use navarch_snapshot::{BUCKETS, Bucket, ClientLabels, Scope};

use super::bucket::{BucketContributions, Contributions, Ranked, place, without_repetition};
use super::view::ProxyView;
use crate::composed::{DiffersFor, in_buckets, start};
use crate::engine::{Cx, Gather};
use crate::gather::shared::upstream::SeenBuckets;

/// Pieces that listeners are grouped and handed over in. A change of one service touches the pieces of its
/// listeners only.
pub const PIECES: usize = 64;

/// What buckets contribute in which a client sees nothing.
static NOTHING: LazyLock<Arc<BucketContributions>> = LazyLock::new(Arc::default);

/// Address and port.
pub type Place = (Name, u16);

/// Contributions for the addresses of one piece.
pub type Piece = OrdMap<Place, Arc<Group>>;

/// The contributions for one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// As the buckets made them, in no order.
    all: Vec<(Bucket, Ranked)>,
    /// Those that count, in the order of precedence.
    pub counting: Vec<Ranked>,
}

/// All contributions, by address.
#[derive(Clone, Debug)]
pub struct Grouped {
    buckets: Arc<[Arc<BucketContributions>]>,
    pub pieces: Arc<[Arc<Piece>]>,
    /// A visible service has persistent sessions.
    pub persistent_sessions: bool,
    /// For a client elsewhere: where others have something else.
    asked: DiffersFor,
    /// For a client elsewhere: where clients with a label may have something else.
    labels_asked: DiffersFor,
}

impl PartialEq for Grouped {
    fn eq(&self, other: &Self) -> bool {
        self.persistent_sessions == other.persistent_sessions
            && self.pieces == other.pieces
            && self.asked == other.asked
            && self.labels_asked == other.labels_asked
    }
}

/// Groups the contributions that a client gets.
pub struct Groups;

/// Whose contributions are grouped.
pub type GroupsKey = (Arc<Hashed<Scope>>, Arc<Hashed<ProxyView>>);

/// The client elsewhere that has most in common with a client.
pub fn elsewhere(cx: &Cx<'_>, (scope, proxy): &GroupsKey) -> Option<GroupsKey> {
    let proxy = proxy.elsewhere(scope.namespace())?;
    Some((cx.elsewhere(scope)?, Arc::new(Hashed::new(proxy))))
}

impl Gather for Groups {
    const NAME: &'static str = "listeners.groups";
    type Key = GroupsKey;
    type Output = Grouped;

    fn run(key: &GroupsKey, cx: &Cx<'_>) -> Grouped {
        let empty = Grouped {
            buckets: std::iter::repeat_n(NOTHING.clone(), usize::from(BUCKETS)).collect(),
            pieces: std::iter::repeat_n(Arc::default(), PIECES).collect(),
            persistent_sessions: false,
            asked: DiffersFor::default(),
            labels_asked: DiffersFor::default(),
        };
        Self::rerun(key, cx, &empty)
    }

    fn rerun(key: &GroupsKey, cx: &Cx<'_>, previous: &Grouped) -> Grouped {
        let (scope, proxy) = key;
        let key_of = |bucket, labels: &ClientLabels| {
            (scope.clone(), proxy.common.clone(), proxy.bucket(bucket, labels), bucket)
        };
        let own = |bucket| cx.narrow::<Contributions>(&proxy.labels, |labels| key_of(bucket, labels)).1;
        let Some(common) = elsewhere(cx, key).map(|key| cx.gather::<Groups>(&key)) else {
            let seen = *cx.gather::<SeenBuckets>(scope);
            let buckets: Arc<[_]> = in_buckets(seen, &*NOTHING, own).collect();
            let (mut asked, mut labels_asked) = (DiffersFor::default(), DiffersFor::default());
            for (bucket, found) in (0..BUCKETS).zip(buckets.iter()) {
                asked.add(&found.asked, bucket);
                if scope.is_elsewhere() && seen.contains(bucket) {
                    let (_, labels) = cx.gather_asked::<Contributions>(&key_of(bucket, &proxy.labels));
                    labels_asked.add(&labels, bucket);
                }
            }
            return Grouped { asked, labels_asked, ..previous.with(buckets, scope) };
        };
        let mut differs = common.asked.of(scope.namespace());
        proxy.labels.keys().for_each(|key| differs = differs | common.labels_asked.of(key));
        proxy.own_addresses.keys().for_each(|bucket| differs.insert(*bucket));
        if differs.is_empty() {
            return Grouped {
                asked: DiffersFor::default(),
                labels_asked: DiffersFor::default(),
                ..(*common).clone()
            };
        }
        let buckets: Arc<[_]> = (0..BUCKETS)
            .zip(common.buckets.iter())
            .map(|(bucket, known)| if differs.contains(bucket) { own(bucket) } else { known.clone() })
            .collect();
        let grouped = match start(Some(previous), Some(&*common), |known| known.distance(&buckets)) {
            Some(known) => known.with(buckets, scope),
            None => previous.with(buckets, scope),
        };
        Grouped { asked: DiffersFor::default(), labels_asked: DiffersFor::default(), ..grouped }
    }
}

impl Grouped {
    /// How many buckets differ in memory.
    fn distance(&self, buckets: &[Arc<BucketContributions>]) -> usize {
        self.buckets.iter().zip(buckets).filter(|(old, new)| !Arc::ptr_eq(old, new)).count()
    }

    /// The contributions of these buckets, starting from what is grouped already.
    fn with(&self, buckets: Arc<[Arc<BucketContributions>]>, scope: &Scope) -> Self {
        let mut changes = Changes::default();
        for (bucket, (old, new)) in (0..BUCKETS).zip(self.buckets.iter().zip(buckets.iter())) {
            if !Arc::ptr_eq(old, new) {
                changes.add(bucket, old, new);
            }
        }
        let mut pieces = self.pieces.to_vec();
        for ((bind, port), added) in changes.places() {
            let Some(piece) = pieces.get_mut(piece_of(&bind, port)) else { continue };
            let old = piece.get(&(bind.clone(), port)).map(|group| group.all.as_slice()).unwrap_or_default();
            let kept = old.iter().filter(|(bucket, _)| !changes.buckets.contains(bucket)).cloned();
            let all: Vec<(Bucket, Ranked)> = kept.chain(added).collect();
            let piece = Arc::make_mut(piece);
            if all.is_empty() {
                piece.remove(&(bind, port));
            } else {
                piece.insert((bind, port), Arc::new(Group::of(all, scope)));
            }
        }
        let persistent_sessions = buckets.iter().any(|bucket| bucket.persistent_sessions);
        Grouped {
            buckets,
            pieces: pieces.into(),
            persistent_sessions,
            asked: DiffersFor::default(),
            labels_asked: DiffersFor::default(),
        }
    }
}

/// What differs from the grouping before.
#[derive(Default)]
struct Changes {
    buckets: BTreeSet<Bucket>,
    /// By place, the contributions of the changed buckets: before, and now.
    places: BTreeMap<Place, [Vec<(Bucket, Ranked)>; 2]>,
}

impl Changes {
    fn add(&mut self, bucket: Bucket, old: &BucketContributions, new: &BucketContributions) {
        self.buckets.insert(bucket);
        for (now, contributions) in [old, new].into_iter().enumerate() {
            for entry in &contributions.ranked {
                let place = self.places.entry(place(&entry.contribution)).or_default();
                if let Some(entries) = place.get_mut(now) {
                    entries.push((bucket, entry.clone()));
                }
            }
        }
    }

    /// Places whose group is made again, with the contributions of the changed buckets. The others keep
    /// theirs, in memory too.
    fn places(&self) -> impl Iterator<Item = (Place, Vec<(Bucket, Ranked)>)> + '_ {
        self.places
            .iter()
            .filter(|(_, [old, new])| old != new)
            .map(|(place, [_, new])| (place.clone(), new.clone()))
    }
}

impl Group {
    fn of(all: Vec<(Bucket, Ranked)>, scope: &Scope) -> Self {
        let counting = in_order(all.iter().map(|(_, entry)| entry.clone()).collect(), scope);
        Group { all, counting }
    }
}

/// The contributions that count, in the order of precedence. An egress listener without a port leaves
/// addresses alone that an earlier one has: the user wants only the named hosts there.
fn in_order(mut entries: Vec<Ranked>, scope: &Scope) -> Vec<Ranked> {
    entries.sort_by(|a, b| a.rank.cmp(&b.rank));
    let first = entries.first().map(|entry| entry.rank.egress);
    entries.retain(|entry| {
        let egress = entry.rank.egress;
        let catches_all = scope.egress_listeners().get(egress).is_none_or(|listener| listener.port.is_none());
        !catches_all || first == Some(egress)
    });
    without_repetition(entries)
}

/// A stable piece for an address.
fn piece_of(bind: &str, port: u16) -> usize {
    let hash = bind.bytes().chain(port.to_be_bytes()).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    usize::try_from(hash % PIECES as u64).unwrap_or_default()
}
