//! What the services of one bucket ask of listeners.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_model::service::{Protocol, Visibility};
use navarch_model::{Hashed, Name};
use navarch_snapshot::bound::service_order;
use navarch_snapshot::{Bucket, Scope};
use navarch_translate::listeners::contribution::{Contribution, ListenerProtocol, listener_protocol};

use super::port::PortOf;
use super::service::contributions;
use super::view::{BucketView, CommonView};
use crate::engine::{Cx, Gather};

/// The place of a contribution in the order that decides conflicts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank {
    /// Position of the egress listener.
    pub egress: usize,
    /// Services that not everybody sees come first.
    public: bool,
    created_at: i64,
    name: Name,
    namespace: Name,
    /// Position within the service: addresses, ports and endpoints in order.
    position: usize,
}

/// A contribution and its rank.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ranked {
    pub rank: Rank,
    pub contribution: Arc<Hashed<Contribution>>,
}

/// Everything the services of a bucket ask of listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketContributions {
    /// In the order of their ranks. Of those that only add routes to a shared HTTP listener, the first.
    pub ranked: Vec<Ranked>,
    /// A service has persistent sessions.
    pub persistent_sessions: bool,
    /// Namespaces whose clients may have other contributions.
    pub asked: BTreeSet<Name>,
}

/// Gathers the contributions of a bucket.
pub struct Contributions;

impl Gather for Contributions {
    const NAME: &'static str = "listeners.bucket_contributions";
    type Key = (Arc<Hashed<Scope>>, Arc<Hashed<CommonView>>, BucketView, Bucket);
    type Output = BucketContributions;

    fn run((scope, common, proxy, bucket): &Self::Key, cx: &Cx<'_>) -> BucketContributions {
        let mut out = BucketContributions::default();
        for (egress, listener) in scope.egress_listeners().iter().enumerate() {
            for service in scope.listener_services_in(cx.view(), listener, *bucket) {
                out.persistent_sessions |= service.persistent_session.is_some();
                let rank = |position| {
                    let (created_at, name, namespace) = service_order(&service);
                    Rank {
                        egress,
                        public: !listener.hosts.is_exact() && service.export_to == Visibility::Public,
                        created_at,
                        name: Name::from(name),
                        namespace: Name::from(namespace),
                        position,
                    }
                };
                let port = PortOf { cx, scope, common, proxy, listener, service: &service };
                let asked = contributions(&port).into_iter().enumerate();
                out.ranked.extend(asked.map(|(position, contribution)| Ranked {
                    rank: rank(position),
                    contribution: Arc::new(Hashed::new(contribution)),
                }));
            }
        }
        out.ranked.sort_by(|a, b| a.rank.cmp(&b.rank));
        out.ranked = without_repetition(out.ranked);
        out.ranked.shrink_to_fit();
        out.asked = cx.view().namespaces_asked();
        out
    }
}

/// Leaves out contributions that change nothing: of HTTP ports on a shared listener the oldest decides, of
/// HTTP proxies the youngest.
pub fn without_repetition(ranked: Vec<Ranked>) -> Vec<Ranked> {
    let mut last_proxy: BTreeMap<(Name, u16), usize> = BTreeMap::new();
    for (index, entry) in ranked.iter().enumerate() {
        if entry.contribution.protocol == Protocol::HttpProxy {
            last_proxy.insert(place(&entry.contribution), index);
        }
    }
    let mut shared: BTreeSet<(Name, u16, usize)> = BTreeSet::new();
    ranked
        .into_iter()
        .enumerate()
        .filter(|(index, entry)| {
            let contribution = &entry.contribution;
            let (bind, port) = place(contribution);
            match listener_protocol(contribution.protocol) {
                _ if contribution.protocol == Protocol::HttpProxy => {
                    last_proxy.get(&(bind, port)) == Some(index)
                }
                Some(ListenerProtocol::Http) => shared.insert((bind, port, entry.rank.egress)),
                _ => true,
            }
        })
        .map(|(_, entry)| entry)
        .collect()
}

/// Address and port that a contribution is for.
pub fn place(contribution: &Contribution) -> (Name, u16) {
    (contribution.binds.first().cloned().unwrap_or_else(|| Name::from("")), contribution.port)
}
