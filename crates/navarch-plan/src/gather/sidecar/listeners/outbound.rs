//! From contributions to outbound listeners.

use std::sync::Arc;

use navarch_model::proxy::InterceptionMode;
use navarch_model::service::Protocol;
use navarch_model::{Hashed, Name};
use navarch_snapshot::{ClientLabels, Scope};
use navarch_translate::listeners::address::{listener_name, loopbacks, names};
use navarch_translate::listeners::contribution::{Contribution, HttpChain, TcpChain};
use navarch_translate::listeners::outbound::{OutboundInput, OutboundListener, OutboundSettings};
use navarch_translate::listeners::patch::PatchedListener;
use navarch_translate::listeners::virtual_outbound::VirtualOutbound;

use super::groups::{Group, Grouped, Groups, GroupsKey, Piece, elsewhere};
use super::settings;
use super::view::ProxyView;
use crate::class::Class;
use crate::composed::{BucketResources, Composed, Pieces};
use crate::engine::{Cx, Gather};
use crate::gather::shared::listeners::ChainOrigin;
use crate::gather::shared::sessions;

/// The outbound listeners of a sidecar.
pub fn outbound(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Composed {
    let (groups, grouped) = groups(cx, class, scope);
    let sessions = grouped.persistent_sessions || sessions::in_mesh(cx, scope);
    let settings = settings::outbound(cx, class, scope, sessions);
    let pieces = |groups: &GroupsKey| -> Pieces {
        let pieces = |kind, settings: &Arc<Hashed<OutboundSettings>>| {
            let key = OutboundKey { groups: groups.clone(), settings: settings.clone(), kind };
            cx.gather::<Outbound>(&key).resources.clone()
        };
        let bytes = pieces(Kind::Bytes, &settings.bytes_only);
        let http = pieces(Kind::Http, &settings.all);
        bytes.iter().chain(http.iter()).cloned().collect()
    };
    let shared = pieces(&groups);
    let common = elsewhere(cx, &groups).map(|groups| pieces(&groups));

    let mut own = Vec::new();
    if let Some(port) = class.facts.http_proxy_port(&cx.view().mesh().config) {
        let first = Arc::new(Hashed::new(http_proxy(class, port)));
        let input = OutboundInput { settings: settings.all.clone(), first, later: Vec::new() };
        own.push(cx.get::<OutboundListener>(&input).made.clone());
    }
    if class.facts.interception != InterceptionMode::None {
        own.push(cx.get::<VirtualOutbound>(&settings.all).made.clone());
    }
    Composed { shared, common, own }
}

/// The contributions that a class gets, and whose they are.
fn groups(cx: &Cx<'_>, class: &Class, scope: &Arc<Hashed<Scope>>) -> (GroupsKey, Arc<Grouped>) {
    let view = ProxyView::of(class, &cx.view().mesh().config);
    let key =
        |labels: &ClientLabels| -> GroupsKey { (scope.clone(), Arc::new(Hashed::new(view.with(labels)))) };
    let (labels, grouped) = cx.narrow::<Groups>(&cx.client_labels(class.labels()), key);
    (key(&labels), grouped)
}

/// The rules that chains of an outbound listener were made from, with the connections that each chain takes.
pub fn origins(
    cx: &Cx<'_>,
    class: &Arc<Hashed<Class>>,
    scope: &Arc<Hashed<Scope>>,
    listener: &str,
) -> Vec<ChainOrigin> {
    let (_, groups) = groups(cx, class, scope);
    let places = groups.pieces.iter().flat_map(|piece| piece.iter());
    let group =
        places.filter(|((bind, port), _)| listener_name(bind, *port) == listener).map(|(_, group)| group);
    let chains = group.flat_map(|group| &group.counting).flat_map(|entry| &entry.contribution.tcp);
    let origin = |chain: &TcpChain| {
        let takes = chain.server_names.iter().chain(&chain.destination_blocks).cloned().collect();
        Some(ChainOrigin { takes, origin: chain.origin.clone()?, opens: false })
    };
    chains.filter_map(origin).collect()
}

/// Listeners with HTTP carry settings of the workload (trace tags, filters); those for bytes only are shared
/// by workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Bytes,
    Http,
}

impl Kind {
    fn of(group: &Group) -> Self {
        let http = group.counting.iter().any(|entry| entry.contribution.http.is_some());
        if http { Kind::Http } else { Kind::Bytes }
    }
}

/// The listeners of one kind, in pieces.
struct Outbound;

#[derive(Clone, Hash)]
struct OutboundKey {
    groups: GroupsKey,
    settings: Arc<Hashed<OutboundSettings>>,
    kind: Kind,
}

#[derive(Default)]
struct Made {
    groups: Arc<[Arc<Piece>]>,
    resources: Pieces,
    /// By piece, the listeners that patches have to do with.
    patched: Vec<Arc<[Arc<PatchedListener>]>>,
}

/// The listeners of a piece, and those among them that patches have to do with.
type MadePiece = (Arc<BucketResources>, Arc<[Arc<PatchedListener>]>);

impl Made {
    /// The listeners of a piece, if it is the same in memory as at this position.
    fn made(&self, index: usize, piece: &Arc<Piece>) -> Option<MadePiece> {
        let same = self.groups.get(index).is_some_and(|known| Arc::ptr_eq(known, piece));
        let made = || Some((self.resources.get(index)?.clone(), self.patched.get(index)?.clone()));
        if same { made() } else { None }
    }
}

impl PartialEq for Made {
    fn eq(&self, other: &Self) -> bool {
        self.resources == other.resources
    }
}

impl Gather for Outbound {
    const NAME: &'static str = "listeners.seen";
    type Key = OutboundKey;
    type Output = Made;

    fn run(key: &OutboundKey, cx: &Cx<'_>) -> Made {
        Self::rerun(key, cx, &Made::default())
    }

    fn rerun(key: &OutboundKey, cx: &Cx<'_>, previous: &Made) -> Made {
        let groups = cx.gather::<Groups>(&key.groups).pieces.clone();
        let common = elsewhere(cx, &key.groups)
            .map(|groups| cx.gather::<Outbound>(&OutboundKey { groups, ..key.clone() }));
        let made = groups.iter().enumerate().map(|(index, piece)| {
            let known = common.iter().map(|common| &**common).chain([previous]);
            let made = known.filter_map(|known| known.made(index, piece)).next();
            match made {
                Some(made) => {
                    made.1.iter().for_each(|listener| cx.reuse::<OutboundListener>(listener));
                    made
                }
                None => listeners(cx, key, piece),
            }
        });
        let (resources, patched): (Vec<_>, Vec<_>) = made.unzip();
        Made { resources: resources.into_iter().collect(), patched, groups }
    }
}

fn listeners(cx: &Cx<'_>, key: &OutboundKey, piece: &Piece) -> MadePiece {
    let wanted = piece.values().filter(|group| Kind::of(group) == key.kind);
    let made: Vec<Arc<PatchedListener>> =
        wanted.filter_map(|group| listener(cx, &key.settings, group)).collect();
    let resources = made.iter().map(|listener| listener.made.clone());
    // A listener that an EnvoyFilter removes has no name.
    let resources = resources.filter(|listener| !listener.name().is_empty()).collect();
    (Arc::new(resources), made.into_iter().filter(|listener| listener.fates().is_some()).collect())
}

fn listener(
    cx: &Cx<'_>,
    settings: &Arc<Hashed<OutboundSettings>>,
    group: &Group,
) -> Option<Arc<PatchedListener>> {
    let mut contributions = group.counting.iter().map(|entry| entry.contribution.clone());
    let first = contributions.next()?;
    let later = contributions.collect();
    Some(cx.get::<OutboundListener>(&OutboundInput { settings: settings.clone(), first, later }))
}

fn http_proxy(class: &Class, port: u16) -> Contribution {
    Contribution {
        binds: names(loopbacks(class.facts.ip_mode())),
        bind_to_port: true,
        port,
        protocol: Protocol::HttpProxy,
        tcp: Vec::new(),
        http: Some(HttpChain {
            routes: Name::from("http_proxy"),
            protocol: Protocol::HttpProxy,
            detect: false,
            absolute_urls: true,
            mesh_alpn: false,
            dns_cache: None,
        }),
    }
}
