//! The names that a proxy's workload asks for, and their addresses.

use std::net::IpAddr;
use std::sync::Arc;

use navarch_model::endpoint::{Address, Health, Locality};
use navarch_model::proxy::{IpMode, ProxyKind};
use navarch_model::service::{Registry, Service};
use navarch_model::{Hashed, Name};
use navarch_snapshot::{Bucket, Scope};
use navarch_translate::name_table::{NameTable, NameTableInput, NamedAddresses, Names, NamesInput};

use super::upstream::{UpstreamClient, seen};
use crate::class::Class;
use crate::composed::{BucketResources, Composed, InBucket, Seen};
use crate::engine::{Cx, Gather};

/// The table, for a proxy beside which somebody answers questions for names.
pub fn names(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Composed {
    if class.facts.dns_capture.is_none() {
        return Composed::default();
    }
    // Names do not depend on the rest, and are shared by all that differ in it.
    let client = UpstreamClient {
        kind: ProxyKind::Sidecar,
        cluster_id: Name::default(),
        network_view: Vec::new(),
        locality: Locality::default(),
        ..UpstreamClient::new(cx, &class.facts)
    };
    let key = NamesClient { scope: scope.clone(), client };
    let (_, seen) = cx.narrow::<SeenNames>(&key.client.labels, |labels| NamesClient {
        client: key.client.with(labels),
        ..key.clone()
    });
    let pieces = seen.pieces.iter().flat_map(|piece| piece.iter().cloned()).collect();
    Composed::own(vec![cx.get::<NameTable>(&NameTableInput(pieces))])
}

/// What names depend on of a proxy.
#[derive(Clone, Hash)]
struct NamesClient {
    scope: Arc<Hashed<Scope>>,
    client: UpstreamClient,
}

/// The names of all services that a client sees.
struct SeenNames;

impl Gather for SeenNames {
    const NAME: &'static str = "name_table.seen";
    type Key = NamesClient;
    type Output = Seen;

    fn run(key: &NamesClient, cx: &Cx<'_>) -> Seen {
        seen::<SeenNames, NamesOfBucket>(cx, &key.scope, &key.client, |scope, client| NamesClient {
            scope,
            client,
        })
    }
}

/// The names of the services that a client sees in a bucket.
struct NamesOfBucket;

impl Gather for NamesOfBucket {
    const NAME: &'static str = "name_table.bucket";
    type Key = (Arc<Hashed<NamesClient>>, Bucket);
    type Output = InBucket;

    fn run((key, bucket): &Self::Key, cx: &Cx<'_>) -> InBucket {
        let mut found = Vec::new();
        for service in key.scope.services_in(cx.view(), *bucket) {
            let kubernetes = service.registry == Registry::Kubernetes;
            let short = kubernetes.then(|| (service.name.clone(), service.namespace.clone()));
            let addresses = match service.headless {
                true => pods(cx, key, &service, &mut found),
                false => addresses(&service, key.client.ip_mode),
            };
            if !addresses.is_empty() {
                found.push(NamedAddresses { host: service.hostname.clone(), addresses, kubernetes: short });
            }
        }
        found.sort_by(|one, other| one.host.cmp(&other.host));
        let piece = (!found.is_empty()).then(|| cx.get::<Names>(&NamesInput(found)));
        let resources: BucketResources = piece.into_iter().collect();
        InBucket { resources: Arc::new(resources), asked: cx.view().namespaces_asked() }
    }
}

fn supports(mode: IpMode, address: IpAddr) -> bool {
    match mode {
        IpMode::V4 => address.is_ipv4(),
        IpMode::V6 => address.is_ipv6(),
        IpMode::Dual => true,
    }
}

/// The addresses that listeners of the client have for a service. Ranges are none.
fn addresses(service: &Service, mode: IpMode) -> Vec<Name> {
    let is_one = |address: &&Name| address.parse::<IpAddr>().is_ok_and(|ip| !ip.is_unspecified());
    let is_usable = |address: &&Name| address.parse().is_ok_and(|ip| supports(mode, ip));
    let declared = service.addresses.iter().filter(is_one);
    match service.registry {
        Registry::Kubernetes => {
            let usable: Vec<Name> = declared.clone().filter(is_usable).cloned().collect();
            if usable.is_empty() { declared.take(1).cloned().collect() } else { usable }
        }
        // Each is a destination of its own, which the client may reach through its network.
        Registry::ServiceEntry if !service.addresses.is_empty() => declared.cloned().collect(),
        Registry::ServiceEntry => {
            service.auto_allocated_addresses.iter().filter(is_usable).cloned().collect()
        }
    }
}

/// The pods of a headless service on the client's network. Those that have a name of their own are added by
/// it, as Kubernetes has it: `<pod>.<service>.<namespace>.svc.<domain>`.
fn pods(cx: &Cx<'_>, key: &NamesClient, service: &Service, found: &mut Vec<NamedAddresses>) -> Vec<Name> {
    let Some(set) = cx.view().endpoints(&service.hostname, &service.namespace) else { return Vec::new() };
    let mut all: Vec<Name> = Vec::new();
    let first = service.ports.first().map(|port| &port.name);
    let domain = service.hostname.split_once('.').map(|(_, domain)| domain);
    for endpoint in &set.endpoints {
        let Address::Ip(address) = endpoint.address else { continue };
        let is_ready = endpoint.health == Health::Healthy || service.publish_not_ready_addresses;
        if !is_ready || first.is_some_and(|first| *first != endpoint.service_port_name) {
            continue;
        }
        if endpoint.network != key.client.network {
            continue;
        }
        let both = std::iter::once(address).chain(endpoint.additional_addresses.iter().copied());
        let own: Vec<Name> = both
            .filter(|address| supports(key.client.ip_mode, *address))
            .map(|address| Name::from(address.to_string()))
            .collect();
        if own.is_empty() {
            continue;
        }
        if let Some(domain) =
            domain.filter(|_| !endpoint.host_name.is_empty() && !endpoint.sub_domain.is_empty())
        {
            let short = format!("{}.{}", endpoint.host_name, endpoint.sub_domain);
            found.push(NamedAddresses {
                host: Name::from(format!("{short}.{domain}")),
                addresses: own.clone(),
                kubernetes: Some((Name::from(short), service.namespace.clone())),
            });
        }
        all.extend(own);
    }
    all
}
