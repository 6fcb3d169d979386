//! Gathering of clusters.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use navarch_model::networking::IstioIngressListener;
use navarch_model::proxy::{InterceptionMode, IpMode, ProxyFacts, ProxyKind};
use navarch_model::service::{Protocol, Service, ServicePort};
use navarch_model::{EffectiveRule, Hashed};
use navarch_snapshot::authn::{MtlsMode, namespace_mtls_mode};
use navarch_snapshot::bound::Instance;
use navarch_snapshot::scope::OutboundMode;
use navarch_snapshot::{Bucket, Scope};
use navarch_translate::clusters::{
    ClusterPatches, ClusterView, Discovery, Fixed, FixedInput, Inbound, InboundInput, InboundTarget,
    NameServer, Outbound, OutboundInput, ServiceIdentity, discovery, takes_dialled_address,
};

use super::envoy_filters::{ClusterPatchesOf, FilterTarget};
use super::upstream::{Client, ClusterMeshOf, EndpointSettings, ForwardsMeshTls, seen};
use crate::class::Class;
use crate::engine::{Cx, Gather};
use crate::parts::{BucketResources, InBucket, Parts, Seen};

/// The clusters of a class.
pub fn clusters(cx: &Cx<'_>, class: &Arc<Hashed<Class>>, scope: &Arc<Hashed<Scope>>) -> Parts {
    let view = cluster_view(cx, &class.facts);
    let patches = (*cx.gather::<ClusterPatchesOf>(&FilterTarget::of(&class.facts))).clone();
    let client = OutboundClient {
        scope: scope.clone(),
        view: view.clone(),
        client: Client::new(cx, &class.facts),
        sni_clusters: class.facts.kind == ProxyKind::Router
            && *cx.gather::<ForwardsMeshTls>(&class.facts.labels),
        patches: patches.clone(),
    };
    let (_, shared) = cx.narrow::<SeenClusters>(&client.client.labels, |labels| OutboundClient {
        client: client.client.with(labels),
        ..client.clone()
    });
    let mut local = fixed(cx, class, scope, &view, &patches);
    if class.facts.kind == ProxyKind::Sidecar {
        local.extend(inbound(cx, class, scope, &view, &patches));
    }
    // EnvoyFilters may add a cluster twice, or one that is there; the first one stays.
    let mut names = BTreeSet::new();
    local.retain(|cluster| names.insert(cluster.name().clone()));
    Parts::seen(&shared, local)
}

fn cluster_view(cx: &Cx<'_>, facts: &ProxyFacts) -> ClusterView {
    let certificates = &facts.client_certificates;
    let mesh = &cx.view().mesh().config;
    ClusterView {
        kind: facts.kind,
        ip_mode: facts.ip_mode(),
        preserve_header_case: facts
            .proxy_config(mesh)
            .proxy_headers
            .as_ref()
            .is_some_and(|headers| headers.preserve_http1_header_case == Some(true)),
        client_certificates: (!certificates.chain.is_empty()).then(|| certificates.clone()),
    }
}

/// What clusters of services depend on of a proxy.
#[derive(Clone, Hash)]
struct OutboundClient {
    scope: Arc<Hashed<Scope>>,
    view: ClusterView,
    client: Client,
    sni_clusters: bool,
    patches: ClusterPatches,
}

/// The clusters of all services that a client sees.
struct SeenClusters;

impl Gather for SeenClusters {
    const NAME: &'static str = "clusters.seen";
    type Key = OutboundClient;
    type Output = Seen;

    fn run(key: &OutboundClient, cx: &Cx<'_>) -> Seen {
        seen::<SeenClusters, OutboundClusters>(cx, &key.scope, &key.client, |scope, client| OutboundClient {
            scope,
            client,
            ..key.clone()
        })
    }
}

/// The clusters of the services that a client sees in a bucket.
struct OutboundClusters;

impl Gather for OutboundClusters {
    const NAME: &'static str = "clusters.outbound";
    type Key = (Arc<Hashed<OutboundClient>>, Bucket);
    type Output = InBucket;

    fn run((key, bucket): &Self::Key, cx: &Cx<'_>) -> InBucket {
        let mut resources = BucketResources::new();
        let mesh = cx.gather::<ClusterMeshOf>(&());
        let settings = EndpointSettings::new(cx);
        for service in key.scope.services_in(cx.view(), *bucket) {
            let discovery = discovery(&service, key.view.kind);
            if discovery == Discovery::Alias {
                continue;
            }
            let rule = key.scope.destination_rule(cx.view(), &service, Some(&key.client.labels));
            // Only clusters that resolve names carry their endpoints.
            let resolves = matches!(discovery, Discovery::StrictDns | Discovery::LogicalDns);
            let endpoints = resolves
                .then(|| settings.sources(cx, &service, rule.as_deref().map(|rule| &**rule), &key.client));
            for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
                let clusters = cx.get::<Outbound>(&OutboundInput {
                    service: service.clone(),
                    port: port.port,
                    rule: rule.clone(),
                    mesh: (*mesh).clone(),
                    identity: identity(cx, &service, port, rule.as_deref().map(|rule| &**rule)),
                    endpoints: endpoints.clone(),
                    locality: settings.mesh.clone(),
                    view: key.view.clone(),
                    sni_clusters: key.sni_clusters,
                    patches: key.patches.clone(),
                });
                resources.extend(clusters.iter().cloned());
            }
        }
        resources.sort_by(|a, b| a.name().cmp(b.name()));
        resources.dedup_by(|a, b| a.name() == b.name());
        resources.shrink_to_fit();
        InBucket { resources: Arc::new(resources), asked: cx.view().namespaces_asked() }
    }
}

/// Who the servers are, as far as the clusters of the port depend on it.
fn identity(
    cx: &Cx<'_>,
    service: &Service,
    port: &ServicePort,
    rule: Option<&EffectiveRule>,
) -> ServiceIdentity {
    let summary = cx.view().endpoint_summary(&service.hostname, &service.namespace);
    let names = match summary {
        Some(summary) => summary.identities.clone(),
        None => service.subject_alt_names.iter().cloned().collect(),
    };
    ServiceIdentity {
        names,
        accepts_mtls: !service.mesh_external
            && namespace_mtls_mode(cx.view(), &service.namespace) != Some(MtlsMode::Disable),
        all_endpoints_accept_mtls: takes_dialled_address(service, rule.map(|rule| &rule.spec))
            && summary
                .and_then(|summary| summary.ports.get(&port.name))
                .is_some_and(|port| port.all_mutual_tls),
    }
}

/// Clusters that do not stem from services.
fn fixed(
    cx: &Cx<'_>,
    class: &Class,
    scope: &Scope,
    view: &ClusterView,
    patches: &ClusterPatches,
) -> BucketResources {
    if !matches!(view.kind, ProxyKind::Sidecar | ProxyKind::Router) {
        return BucketResources::new();
    }
    let dynamic =
        scope.outbound_traffic_policy().is_some_and(|policy| policy.mode == OutboundMode::AllowAnyDynamicDns);
    let input = FixedInput {
        mesh: (*cx.gather::<ClusterMeshOf>(&())).clone(),
        view: view.clone(),
        dynamic_dns: dynamic.then(|| name_server(&class.facts)),
        external_secrets: class.facts.external_secrets,
        patches: patches.clone(),
    };
    cx.get::<Fixed>(&input).to_vec()
}

/// Who resolves the names of destinations that nobody declares.
pub(crate) fn name_server(facts: &ProxyFacts) -> NameServer {
    facts.dns_capture.map_or(NameServer::Default, NameServer::Local)
}

/// The clusters of the workload's own ports: of the Sidecar's ingress listeners if it has any, else of the
/// services it backs. Without interception the latter would bind the workload's own ports.
fn inbound(
    cx: &Cx<'_>,
    class: &Class,
    scope: &Scope,
    view: &ClusterView,
    patches: &ClusterPatches,
) -> BucketResources {
    let instances = &class.instances;
    let mut inputs = BTreeMap::new();
    if !scope.ingress().is_empty() {
        for listener in scope.ingress() {
            if let Some(input) = of_listener(cx, class, scope, view, listener, instances) {
                inputs.entry(input.port).or_insert(input);
            }
        }
    } else if class.facts.interception != InterceptionMode::None {
        let mut by_port: BTreeMap<u16, Vec<&Instance>> = BTreeMap::new();
        for instance in instances {
            by_port.entry(instance.target_port).or_default().push(instance);
        }
        for (port, instances) in by_port {
            if let Some(input) = of_port(cx, scope, view, port, &instances) {
                inputs.entry(input.port).or_insert(input);
            }
        }
    }
    let inputs = inputs.into_values().map(|input| InboundInput { patches: patches.clone(), ..input });
    inputs.flat_map(|input| cx.get::<Inbound>(&input).to_vec()).collect()
}

fn of_port(
    cx: &Cx<'_>,
    scope: &Scope,
    view: &ClusterView,
    port: u16,
    instances: &[&Instance],
) -> Option<InboundInput> {
    let first = instances.first()?;
    let mesh = (*cx.gather::<ClusterMeshOf>(&())).clone();
    let target = if mesh.inbound_to_localhost {
        InboundTarget::Address(loopback(view.ip_mode, false), port.into())
    } else {
        InboundTarget::OriginalDestination
    };
    Some(InboundInput {
        port: port.into(),
        target,
        service_port: first.port.into(),
        service_port_name: first.port_name.to_string(),
        protocol: first.protocol,
        services: services(instances.iter().copied()),
        rule: scope.destination_rule(cx.view(), &first.service, None),
        connection_pool: scope.inbound_connection_pool(port.into()).cloned(),
        mesh,
        view: view.clone(),
        patches: ClusterPatches::default(),
    })
}

fn services<'a>(instances: impl Iterator<Item = &'a Instance>) -> Vec<(Arc<Hashed<Service>>, u32)> {
    let mut seen = BTreeSet::new();
    instances
        .filter(|instance| seen.insert((&instance.service.hostname, instance.port)))
        .map(|instance| (instance.service.clone(), instance.port.into()))
        .collect()
}

fn of_listener(
    cx: &Cx<'_>,
    class: &Class,
    scope: &Scope,
    view: &ClusterView,
    listener: &IstioIngressListener,
    instances: &[Instance],
) -> Option<InboundInput> {
    let port = listener.port.as_ref()?;
    let instance = instances.iter().find(|instance| u32::from(instance.target_port) == port.number);
    let rule: Option<Arc<Hashed<EffectiveRule>>> =
        instance.and_then(|instance| scope.destination_rule(cx.view(), &instance.service, None));
    Some(InboundInput {
        port: port.number,
        target: target(&listener.default_endpoint, class, view.ip_mode)?,
        service_port: port.number,
        service_port_name: port.name.clone(),
        protocol: Protocol::parse(&port.protocol),
        services: instance.map(|instance| (instance.service.clone(), port.number)).into_iter().collect(),
        rule,
        connection_pool: scope.inbound_connection_pool(port.number).cloned(),
        mesh: (*cx.gather::<ClusterMeshOf>(&())).clone(),
        view: view.clone(),
        patches: ClusterPatches::default(),
    })
}

/// Where `defaultEndpoint` points to: a socket, the loopback interface, or (for an unspecified address) the
/// address of the instance. Nothing if it cannot be read; validation has said so.
fn target(endpoint: &str, class: &Class, mode: IpMode) -> Option<InboundTarget> {
    if endpoint.is_empty() {
        return Some(InboundTarget::OriginalDestination);
    }
    if endpoint.starts_with("unix://") {
        return Some(InboundTarget::Unix(endpoint.to_owned()));
    }
    let (host, port) = endpoint.rsplit_once(':')?;
    let port: u32 = port.parse().ok()?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let own = |wanted: fn(&IpAddr) -> bool| class.own_addresses.iter().copied().find(wanted);
    let address = match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => own(IpAddr::is_ipv4).unwrap_or(Ipv4Addr::LOCALHOST.into()),
        Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => own(IpAddr::is_ipv6).unwrap_or(Ipv6Addr::LOCALHOST.into()),
        Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)) => loopback(mode, false),
        Ok(IpAddr::V6(Ipv6Addr::LOCALHOST)) => loopback(mode, true),
        _ => return Some(InboundTarget::OriginalDestination),
    };
    Some(InboundTarget::Address(address, port))
}

/// The loopback address of a family that the proxy has.
fn loopback(mode: IpMode, prefer_v6: bool) -> IpAddr {
    match (mode, prefer_v6) {
        (IpMode::V4, _) | (IpMode::Dual, false) => Ipv4Addr::LOCALHOST.into(),
        (IpMode::V6, _) | (IpMode::Dual, true) => Ipv6Addr::LOCALHOST.into(),
    }
}
