//! From contributions to outbound listeners.

use std::collections::BTreeMap;
use std::sync::Arc;

use navarch_envoy::Resource;
use navarch_model::proxy::InterceptionMode;
use navarch_model::service::Protocol;
use navarch_model::{Hashed, Name};
use navarch_snapshot::{BUCKETS, Scope};
use navarch_translate::listeners::address::{loopbacks, names};
use navarch_translate::listeners::outbound::{
    Contribution, HttpChain, OutboundInput, OutboundListener, OutboundSettings,
};
use navarch_translate::listeners::virtual_outbound::VirtualOutbound;

use super::bucket::{Contributions, MentionedLabels, Ranked, place, without_repetition};
use super::settings;
use super::view::{CommonView, ProxyView};
use crate::class::Class;
use crate::engine::Cx;
use crate::parts::Parts;

/// Pieces that listeners are handed over in. A change of one service touches the pieces of its listeners only.
const PIECES: usize = 64;

/// The outbound listeners of a sidecar.
pub fn outbound(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Parts {
    let mesh = &cx.view().mesh().config;
    let common = Arc::new(Hashed::new(CommonView::of(&class.facts, mesh)));
    let mut persistent_sessions = false;
    let mut places: BTreeMap<(Name, u16), Vec<Ranked>> = BTreeMap::new();
    for bucket in 0..BUCKETS {
        let mentioned = cx.gather::<MentionedLabels>(&bucket);
        let proxy = ProxyView::of(&common, class, &mentioned, bucket);
        let found = cx.gather::<Contributions>(&(scope.clone(), proxy, bucket));
        persistent_sessions |= found.persistent_sessions;
        for entry in &found.ranked {
            places.entry(place(&entry.contribution)).or_default().push(entry.clone());
        }
    }
    let settings = settings::outbound(cx, class, scope, persistent_sessions);
    let mut pieces: Vec<Vec<Arc<Resource>>> = vec![Vec::new(); PIECES];
    for ((bind, port), entries) in places {
        let index = piece_of(&bind, port);
        let ordered = in_order(entries, scope);
        let made = listener(cx, &settings, ordered.into_iter().map(|entry| entry.contribution));
        if let (Some(piece), Some(made)) = (pieces.get_mut(index), made) {
            piece.push(made);
        }
    }
    let mut local = Vec::new();
    if let Some(port) = http_proxy_port(cx, class) {
        let proxy = http_proxy(class, port);
        local.extend(listener(cx, &settings, [Arc::new(Hashed::new(proxy))].into_iter()));
    }
    if class.facts.interception != InterceptionMode::None {
        local.push(cx.get::<VirtualOutbound>(&settings.all));
    }
    Parts { buckets: pieces.into_iter().map(Arc::new).collect(), local }
}

/// The contributions that count, in the order of precedence. An egress listener without a port leaves addresses alone that an earlier
/// one has: the user wants only the named hosts there.
fn in_order(mut entries: Vec<Ranked>, scope: &Scope) -> Vec<Ranked> {
    entries.sort_by(|a, b| a.rank.cmp(&b.rank));
    let mut first_taken = None;
    entries.retain(|entry| {
        let egress = entry.rank.egress;
        let catches_all = scope.egress_listeners().get(egress).is_none_or(|listener| listener.port.is_none());
        let first = *first_taken.get_or_insert(egress);
        !catches_all || first == egress
    });
    without_repetition(entries)
}

fn listener(
    cx: &Cx<'_>,
    settings: &settings::Outbound,
    mut contributions: impl Iterator<Item = Arc<Hashed<Contribution>>>,
) -> Option<Arc<Resource>> {
    let first = contributions.next()?;
    let later: Vec<_> = contributions.collect();
    let http = first.http.is_some() || later.iter().any(|contribution| contribution.http.is_some());
    let settings: Arc<Hashed<OutboundSettings>> =
        if http { settings.all.clone() } else { settings.bytes_only.clone() };
    Some(cx.get::<OutboundListener>(&OutboundInput { settings, first, later }))
}

/// The port of the HTTP proxy that applications may be configured to use: the proxy's own, or that of the mesh.
fn http_proxy_port(cx: &Cx<'_>, class: &Class) -> Option<u16> {
    let own = class.facts.metadata("HTTP_PROXY_PORT").parse::<u16>().ok();
    let of_mesh = || u16::try_from(cx.view().mesh().config.proxy_http_port).ok();
    own.or_else(of_mesh).filter(|port| *port != 0)
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
            dns_cache: None,
        }),
    }
}

/// A stable piece for an address.
fn piece_of(bind: &str, port: u16) -> usize {
    let hash = bind.bytes().chain(port.to_be_bytes()).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    usize::try_from(hash % PIECES as u64).unwrap_or_default()
}
