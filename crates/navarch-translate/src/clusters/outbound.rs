//! Clusters of a port of a service: one for the port, one for each subset.

use std::sync::Arc;

use navarch_envoy::any::any;
use navarch_envoy::proto::envoy::config::cluster::v3::Cluster;
use navarch_envoy::proto::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CustomClusterType, DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbConfig,
    LbPolicy, OriginalDstLbConfig,
};
use navarch_envoy::proto::envoy::config::core::v3::{
    AggregatedConfigSource, ApiVersion, ConfigSource, HealthStatus, HealthStatusSet, TypedExtensionConfig,
    config_source,
};
use navarch_envoy::proto::envoy::extensions::clusters::dynamic_forward_proxy::v3::{
    ClusterConfig, cluster_config,
};
use navarch_envoy::proto::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;
use navarch_envoy::proto::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use navarch_envoy::wkt;
use navarch_model::networking::Subset;
use navarch_model::service::{Protocol, Registry, Resolution, Service, ServicePort, TargetPort};
use navarch_model::{EffectiveRule, Hashed, Name};

use super::policy::{self, Policy};
use super::{
    ClusterMesh, ClusterPatches, ClusterView, Clusters, Discovery, Draft, balancer, discovery, encode,
    lookup_family, metadata, outbound_context, outlier, pool, stat_name, stat_name_of, transport,
};
use crate::endpoints::{self, EndpointSources, Mode, Selection, locality};
use crate::names;
use crate::patching::Fates;
use crate::pure::{Pure, Sealed};

/// How many questions a DNS socket is used for: resolvers that hash by source port would otherwise always get
/// the same load.
const DNS_UDP_QUERIES_MAX: u32 = 100;
/// Spreads the refreshing of names, so that proxies that started together do not ask together.
const DNS_JITTER_MS: u32 = 100;

/// A port of a service to make clusters for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OutboundInput {
    pub service: Arc<Hashed<Service>>,
    pub port: u16,
    pub rule: Option<Arc<Hashed<EffectiveRule>>>,
    pub mesh: Arc<Hashed<ClusterMesh>>,
    pub identity: ServiceIdentity,
    /// Endpoints, for clusters that carry their addresses themselves (DNS); others do not change with their
    /// endpoints.
    pub endpoints: Option<EndpointSources>,
    /// What decides about localities besides the rule.
    pub locality: Arc<Hashed<endpoints::EndpointMesh>>,
    pub view: ClusterView,
    /// Also the clusters to which a gateway forwards mesh TLS without terminating it.
    pub sni_clusters: bool,
    /// The port is one for datagrams (UDP).
    pub datagrams: bool,
    pub patches: ClusterPatches,
}

/// Who the servers of a service are, and whether they speak mutual TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceIdentity {
    /// Names that certificates of the service's endpoints may carry, in every trust domain that counts as
    /// ours; sorted.
    pub names: Vec<Name>,
    /// PeerAuthentication of the namespace and the mesh does not switch mutual TLS off.
    pub accepts_mtls: bool,
    /// There are endpoints on the port, and all of them accept mutual TLS. Counts where Envoy does not know
    /// the endpoints (ORIGINAL_DST) and cannot choose by each.
    pub all_endpoints_accept_mtls: bool,
}

/// Clusters of a port of a service and its subsets.
pub struct Outbound;

impl Sealed for Outbound {}

impl Pure for Outbound {
    const NAME: &'static str = "clusters.outbound";
    type Input = OutboundInput;
    type Output = Clusters;

    fn run(input: &OutboundInput) -> Clusters {
        encode(outbound_clusters(input), &input.patches, outbound_context(input.view.kind), &[])
    }

    fn fates(output: &Clusters) -> Option<&Arc<Fates>> {
        output.fates()
    }
}

/// The clusters before they are encoded.
pub fn outbound_clusters(input: &OutboundInput) -> Vec<Cluster> {
    let service = &**input.service;
    let Some(port) = service.port(input.port, input.datagrams) else { return Vec::new() };
    let rule = input.rule.as_ref().map(|rule| &***rule);
    let mut clusters = Vec::new();
    let modes: &[Mode] = match input.datagrams {
        true => &[Mode::Datagrams],
        false => &[Mode::Outbound, Mode::Sni],
    };
    for mode in modes.iter().copied() {
        if mode == Mode::Sni && (!input.sni_clusters || service.mesh_external) {
            continue;
        }
        Builder { input, service, port, rule, mode }.build(&mut clusters);
    }
    clusters
}

struct Builder<'a> {
    input: &'a OutboundInput,
    service: &'a Service,
    port: &'a ServicePort,
    rule: Option<&'a EffectiveRule>,
    mode: Mode,
}

impl<'a> Builder<'a> {
    fn build(&self, clusters: &mut Vec<Cluster>) {
        let spec = self.rule.map(|rule| &rule.spec);
        let policy = Policy::of_port(spec.and_then(|spec| spec.traffic_policy.as_ref()), self.port.port)
            .with_defaults(&self.input.mesh);
        let Some(default) = self.default_cluster(policy) else { return };
        let discovery = default.discovery_type();
        let dynamic = default.dynamic;
        clusters.push(default.finish());
        if dynamic || self.mode == Mode::Datagrams {
            return;
        }
        for subset in spec.into_iter().flat_map(|spec| &spec.subsets) {
            clusters.extend(self.subset_cluster(policy, subset, discovery).map(Draft::finish));
        }
    }

    /// The cluster of the port itself.
    fn default_cluster(&self, policy: Policy<'a>) -> Option<Draft> {
        let mut draft = match discovery(self.service, self.input.view.kind) {
            Discovery::Alias => return None,
            Discovery::DynamicForwardProxy => self.dynamic_forward_proxy()?,
            Discovery::Eds => self.draft("", DiscoveryType::Eds)?,
            Discovery::StrictDns => self.draft("", DiscoveryType::StrictDns)?,
            Discovery::LogicalDns => self.draft("", DiscoveryType::LogicalDns)?,
            Discovery::OriginalDst => self.draft("", DiscoveryType::OriginalDst)?,
        };
        if self.mode == Mode::Outbound && !draft.dynamic && endpoints::keeps_sessions(self.service) {
            draft.common_lb().override_host_status = Some(session_statuses());
        }
        // The rule as a whole says whether addresses are taken as dialled; the port's policy only sets the
        // type of the cluster.
        let whole = self.rule.and_then(|rule| rule.spec.traffic_policy.as_ref());
        let passthrough = whole.and_then(|policy| policy.load_balancer.as_ref()).is_some_and(|balancer| {
            policy::simple(balancer) == navarch_model::networking::SimpleLb::Passthrough
        });
        self.apply(&mut draft, policy, "", passthrough);
        if self.service.mesh_external {
            metadata::external(&mut draft);
        }
        if let Some(rule) = self.rule.and_then(|rule| rule.sources.first()) {
            metadata::rule(&mut draft, rule);
            metadata::alpn_override(&mut draft, policy.tls.map(|tls| tls.mode));
        }
        Some(draft)
    }

    /// The cluster of a subset. It is of the type that the rule gave to the default cluster.
    fn subset_cluster(
        &self,
        policy: Policy<'a>,
        subset: &'a Subset,
        discovery: Option<DiscoveryType>,
    ) -> Option<Draft> {
        let passthrough =
            subset.traffic_policy.as_ref().and_then(|policy| policy.load_balancer.as_ref()).is_some_and(
                |balancer| policy::simple(balancer) == navarch_model::networking::SimpleLb::Passthrough,
            );
        let discovery = if passthrough { DiscoveryType::OriginalDst } else { discovery? };
        let mut draft = self.draft(&subset.name, discovery)?;
        let policy = policy.with_subset(subset.traffic_policy.as_ref(), self.port.port);
        self.apply(&mut draft, policy, &subset.name, passthrough);
        if let Some(rule) = self.rule.and_then(|rule| rule.sources.first()) {
            metadata::rule(&mut draft, rule);
            metadata::subset(&mut draft, &subset.name);
            metadata::alpn_override(&mut draft, policy.tls.map(|tls| tls.mode));
        }
        if self.service.mesh_external && self.input.view.standard_metrics {
            metadata::external(&mut draft);
        }
        Some(draft)
    }

    /// A cluster before any policy; nothing if it has to carry addresses and there are none.
    fn draft(&self, subset: &str, discovery: DiscoveryType) -> Option<Draft> {
        let name = self.mode.cluster_name(self.port.port, subset, &self.service.hostname);
        let mut draft = Draft::new(name, discovery);
        match discovery {
            DiscoveryType::StrictDns | DiscoveryType::LogicalDns => {
                self.dns(&mut draft);
                let name = draft.cluster.name.clone();
                draft.cluster.load_assignment = Some(self.embedded_endpoints(name, subset)?);
            }
            DiscoveryType::OriginalDst => {
                if let Some(port) = self.port_override() {
                    draft.cluster.lb_config = Some(LbConfig::OriginalDstLbConfig(OriginalDstLbConfig {
                        upstream_port_override: Some(port),
                        ..OriginalDstLbConfig::default()
                    }));
                }
            }
            DiscoveryType::Eds | DiscoveryType::Static => {}
        }
        pool::protocol(&mut draft, self.port.protocol, &self.input.view);
        metadata::services(&mut draft, [self.service]);
        let pattern = &self.input.mesh.outbound_stat_name;
        if !pattern.is_empty() {
            let port = u32::from(self.port.port);
            draft.cluster.alt_stat_name =
                stat_name_of(pattern, self.service, subset, port, &self.port.name, 0);
        }
        Some(draft)
    }

    /// The settings of a policy, in the order in which they build on each other: HTTP/2 before limits on its
    /// streams, outlier detection before failover that depends on it, the type of the cluster before TLS.
    fn apply(&self, draft: &mut Draft, policy: Policy<'a>, subset: &str, passthrough: bool) {
        let input = self.input;
        let mesh = &**input.mesh;
        pool::upgrade(draft, mesh, policy.connection_pool, self.port.protocol);
        pool::apply(draft, mesh, policy.connection_pool, policy.retry_budget);
        outlier::apply(draft, self.service, policy.outlier_detection);
        let setting = locality::effective(&input.locality, policy.load_balancer, self.service);
        self.prioritise(draft, setting.as_ref(), subset);
        balancer::apply(draft, policy.load_balancer, setting.as_ref(), input.view.kind);
        if self.mode == Mode::Outbound {
            self.secure(draft, policy, subset, passthrough);
        }
        if draft.is_original_dst() {
            draft.cluster.lb_policy = LbPolicy::ClusterProvided as i32;
        }
        if draft.discovery_type() == Some(DiscoveryType::Eds) {
            draft.cluster.eds_cluster_config = Some(eds(draft.cluster.name.clone()));
        }
    }

    fn secure(&self, draft: &mut Draft, policy: Policy<'a>, subset: &str, passthrough: bool) {
        let input = self.input;
        let by_address = passthrough || self.service.resolution == Resolution::Passthrough;
        let names: Vec<String> = if draft.dynamic {
            Vec::new()
        } else {
            input.identity.names.iter().map(|name| name.to_string()).collect()
        };
        let sni = names::sni(self.port.port, subset, &self.service.hostname);
        let context = transport::Context {
            mesh: &input.mesh,
            view: &input.view,
            subject_alt_names: &names,
            sni: if draft.dynamic { "" } else { &sni },
            mesh_external: self.service.mesh_external,
            is_service_entry: self.service.registry == Registry::ServiceEntry,
            auto_mtls: input.identity.accepts_mtls
                && (!by_address || input.identity.all_endpoints_accept_mtls),
            rule_selects_workloads: self.rule.is_some_and(|rule| rule.spec.workload_selector.is_some()),
        };
        transport::apply(draft, policy.tls, &context);
        transport::proxy_protocol(draft, policy.proxy_protocol);
    }

    fn dns(&self, draft: &mut Draft) {
        let cluster = &mut draft.cluster;
        let family = if self.service.dns_race_first_tcp_connect {
            DnsLookupFamily::All
        } else {
            lookup_family(self.input.view.ip_mode)
        };
        cluster.dns_lookup_family = family as i32;
        cluster.typed_dns_resolver_config = Some(resolver(CaresDnsResolverConfig {
            udp_max_queries: Some(DNS_UDP_QUERIES_MAX),
            ..CaresDnsResolverConfig::default()
        }));
        cluster.dns_jitter = Some(wkt::duration_ms(DNS_JITTER_MS));
        cluster.dns_refresh_rate = self.input.mesh.dns_refresh_rate.map(wkt::duration);
        cluster.respect_dns_ttl = true;
    }

    fn selection<'s>(&'s self, subset: &'s str) -> Option<Selection<'s>> {
        Some(Selection {
            service: self.service,
            port: self.port,
            rule: self.rule,
            subset,
            mode: self.mode,
            dns: true,
            sources: self.input.endpoints.as_ref()?,
        })
    }

    fn embedded_endpoints(
        &self,
        name: String,
        subset: &str,
    ) -> Option<navarch_envoy::proto::envoy::config::endpoint::v3::ClusterLoadAssignment> {
        let groups = self.selection(subset)?.unprioritised();
        (!groups.is_empty()).then(|| endpoints::assignment(name, groups))
    }

    /// Priorities and weights of addresses that the cluster carries. In contrast to EDS, mesh-wide outlier
    /// detection counts.
    fn prioritise(&self, draft: &mut Draft, setting: Option<&locality::Setting>, subset: &str) {
        let (Some(setting), true, Some(selection)) =
            (setting, draft.cluster.load_assignment.is_some(), self.selection(subset))
        else {
            return;
        };
        let failover = draft.cluster.outlier_detection.is_some();
        let groups = setting.apply(selection.unprioritised(), &selection.sources.view, failover);
        draft.cluster.load_assignment = Some(endpoints::assignment(draft.cluster.name.clone(), groups));
    }

    /// A ServiceEntry without resolution may send to another port than the one that was dialled.
    fn port_override(&self) -> Option<u32> {
        match self.port.target_port {
            Some(TargetPort::Number(target))
                if self.service.registry == Registry::ServiceEntry && target != self.port.port =>
            {
                Some(target.into())
            }
            _ => None,
        }
    }

    /// A cluster that resolves the name of each request, for a wildcard host.
    fn dynamic_forward_proxy(&self) -> Option<Draft> {
        let supported =
            matches!(self.port.protocol, Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::Tls);
        if !supported || self.mode != Mode::Outbound {
            return None;
        }
        let name = self.mode.cluster_name(self.port.port, "", &self.service.hostname);
        let cache = DnsCacheConfig {
            name: names::dns_cache(&self.service.hostname),
            dns_lookup_family: lookup_family(self.input.view.ip_mode) as i32,
            ..DnsCacheConfig::default()
        };
        let mut draft = dynamic_draft(name, cache, false);
        pool::protocol(&mut draft, self.port.protocol, &self.input.view);
        Some(draft)
    }
}

/// A cluster that resolves the name of each request.
pub(super) fn dynamic_draft(name: String, cache: DnsCacheConfig, allow_insecure: bool) -> Draft {
    let config = ClusterConfig {
        allow_insecure_cluster_options: allow_insecure,
        cluster_implementation_specifier: Some(
            cluster_config::ClusterImplementationSpecifier::DnsCacheConfig(cache),
        ),
        ..ClusterConfig::default()
    };
    Draft {
        cluster: Cluster {
            alt_stat_name: stat_name(&name),
            name,
            lb_policy: LbPolicy::ClusterProvided as i32,
            cluster_discovery_type: Some(ClusterDiscoveryType::ClusterType(CustomClusterType {
                name: "envoy.clusters.dynamic_forward_proxy".to_owned(),
                typed_config: Some(any(&config)),
            })),
            ..Cluster::default()
        },
        dynamic: true,
        ..Draft::default()
    }
}

/// The resolver that clusters use: c-ares.
pub(super) fn resolver(config: CaresDnsResolverConfig) -> TypedExtensionConfig {
    TypedExtensionConfig {
        name: "envoy.network.dns_resolver.cares".to_owned(),
        typed_config: Some(any(&config)),
    }
}

/// Endpoints come over the stream that the cluster came on. Zero: a cluster without endpoints is never taken
/// for ready by mere passing of time.
fn eds(service_name: String) -> EdsClusterConfig {
    EdsClusterConfig {
        eds_config: Some(ConfigSource {
            initial_fetch_timeout: Some(wkt::duration_secs(0)),
            resource_api_version: ApiVersion::V3 as i32,
            config_source_specifier: Some(config_source::ConfigSourceSpecifier::Ads(
                AggregatedConfigSource::default(),
            )),
            ..ConfigSource::default()
        }),
        service_name,
    }
}

/// A session may lead to an endpoint that gets no new ones.
fn session_statuses() -> HealthStatusSet {
    HealthStatusSet {
        statuses: [
            HealthStatus::Healthy,
            HealthStatus::Draining,
            HealthStatus::Unknown,
            HealthStatus::Degraded,
        ]
        .map(|status| status as i32)
        .to_vec(),
    }
}
