//! Clusters of services, and those that every proxy of a role has.

use std::collections::BTreeSet;
use std::sync::Arc;

use navarch_model::proxy::ProxyFacts;
use navarch_model::service::{Protocol, Service, ServicePort};
use navarch_model::{EffectiveRule, Hashed};
use navarch_snapshot::authn::{MtlsMode, namespace_mtls_mode};
use navarch_snapshot::scope::OutboundMode;
use navarch_snapshot::{Bucket, Scope};
use navarch_translate::clusters::{
    ClusterPatches, ClusterView, Discovery, Fixed, FixedInput, NameServer, Outbound, OutboundInput,
    ServiceIdentity, discovery, takes_dialled_address,
};

use super::envoy_filters::{ClusterPatchesOf, FilterTarget};
use super::upstream::{ClusterMeshOf, EndpointSettings, FurtherClusters, UpstreamClient, seen};
use crate::class::Class;
use crate::composed::{BucketResources, Composed, InBucket, Seen};
use crate::engine::{Cx, Gather};

/// What all clusters of a class are made with.
pub struct Clusters<'a, 'e> {
    pub cx: &'a Cx<'e>,
    pub class: &'a Class,
    pub scope: &'a Arc<Hashed<Scope>>,
    pub view: ClusterView,
    pub patches: ClusterPatches,
}

impl<'a, 'e> Clusters<'a, 'e> {
    /// What clusters of this class are made with.
    pub fn new(cx: &'a Cx<'e>, class: &'a Class, scope: &'a Arc<Hashed<Scope>>) -> Self {
        Clusters {
            cx,
            class,
            scope,
            view: cluster_view(cx, &class.facts),
            patches: (*cx.gather::<ClusterPatchesOf>(&FilterTarget::of(&class.facts))).clone(),
        }
    }

    /// The clusters of the services that the class sees, and its own.
    pub fn with_services(&self, further: FurtherClusters, mut own: BucketResources) -> Composed {
        let client = OutboundClient {
            scope: self.scope.clone(),
            view: self.view.clone(),
            client: UpstreamClient::new(self.cx, &self.class.facts),
            further,
            patches: self.patches.clone(),
        };
        let (_, shared) = self.cx.narrow::<SeenClusters>(&client.client.labels, |labels| OutboundClient {
            client: client.client.with(labels),
            ..client.clone()
        });
        // EnvoyFilters may add a cluster twice, or one that is there; the first one stays.
        let mut names = BTreeSet::new();
        own.retain(|cluster| names.insert(cluster.name().clone()));
        Composed::seen(&shared, own)
    }

    /// Clusters that do not stem from services.
    pub fn fixed(&self) -> BucketResources {
        let policy = self.scope.outbound_traffic_policy();
        let dynamic = policy.is_some_and(|policy| policy.mode == OutboundMode::AllowAnyDynamicDns);
        let input = FixedInput {
            mesh: (*self.cx.gather::<ClusterMeshOf>(&())).clone(),
            view: self.view.clone(),
            dynamic_dns: dynamic.then(|| name_server(&self.class.facts)),
            external_secrets: self.class.facts.external_secrets,
            patches: self.patches.clone(),
        };
        self.cx.get::<Fixed>(&input).to_vec()
    }
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
        standard_metrics: facts.standard_metrics,
        backend_certificate: None,
    }
}

/// What clusters of services depend on of a proxy.
#[derive(Clone, Hash)]
struct OutboundClient {
    scope: Arc<Hashed<Scope>>,
    view: ClusterView,
    client: UpstreamClient,
    further: FurtherClusters,
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
    const NAME: &'static str = "clusters.bucket";
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
            for port in service.ports.iter().filter(|port| key.further.includes(port)) {
                let clusters = cx.get::<Outbound>(&OutboundInput {
                    service: service.clone(),
                    port: port.port,
                    rule: rule.clone(),
                    mesh: (*mesh).clone(),
                    identity: identity(cx, &service, port, rule.as_deref().map(|rule| &**rule)),
                    endpoints: endpoints.clone(),
                    locality: settings.mesh.clone(),
                    view: key.view.clone(),
                    sni_clusters: key.further.mesh_tls,
                    datagrams: port.protocol == Protocol::Udp,
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

/// Who resolves the names of destinations that nobody declares.
pub(crate) fn name_server(facts: &ProxyFacts) -> NameServer {
    facts.dns_capture.map_or(NameServer::Default, NameServer::Local)
}
