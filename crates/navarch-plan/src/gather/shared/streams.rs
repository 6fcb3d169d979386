//! Where the bytes of connections go.

use std::sync::Arc;

use navarch_model::networking::{
    DestinationRule, HashKey, LbPolicy, LoadBalancerSettings, TrafficPolicy, TunnelSettings,
};
use navarch_model::route::{Backend, RouteSet, ServiceBackend, StreamBackend};
use navarch_model::service::{Protocol, Service};
use navarch_model::{EffectiveRule, Hashed, Name, ObjectKey};
use navarch_snapshot::{ClientLabels, Scope};
use navarch_translate::listeners::tcp::{Destination, TcpRoute, Tunnel};
use navarch_translate::names;

use crate::engine::Cx;

/// What the routes of connections on one port are made with, at sidecars and at gateways.
pub struct Streams<'a, 'e> {
    pub cx: &'a Cx<'e>,
    pub scope: &'a Scope,
    /// Labels of the client.
    pub labels: &'a ClientLabels,
    /// The port of the listener.
    pub port: u16,
    pub protocol: Protocol,
}

impl Streams<'_, '_> {
    /// Where a rule of a set leads; nothing if no backend gets a share. `stat_prefix` names the statistics of
    /// a single service.
    pub fn route(
        &self,
        backends: &[StreamBackend],
        set: &RouteSet,
        stat_prefix: impl Fn(&Service, &ServiceBackend, &str) -> String,
    ) -> Option<TcpRoute> {
        let first = backends.first()?;
        let (service, cluster) = self.resolve(&first.backend);
        let effective = service.as_ref().and_then(|service| self.rule(service));
        let traffic = Traffic::of(effective.as_deref().map(|rule| &rule.spec));
        if backends.len() == 1 {
            let to = first.backend.service();
            let stat = match (&service, to) {
                (Some(service), Some(to)) => stat_prefix(service, to, &cluster),
                _ => cluster.clone(),
            };
            let subset = to.map_or("", |to| &to.subset);
            let destination = Destination::Cluster(Name::from(cluster));
            return Some(traffic.route(destination, &stat, subset, self.protocol));
        }
        let shares = backends.iter().filter(|to| to.weight > 0);
        let clusters: Vec<(Name, u32)> =
            shares.map(|to| (Name::from(self.resolve(&to.backend).1), to.weight)).collect();
        if clusters.is_empty() {
            return None;
        }
        let ObjectKey { namespace, name, .. } = set.key();
        // A subset's settings cannot apply to a part of the connections.
        let destination = Destination::Weighted(clusters);
        Some(traffic.route(destination, &format!("{name}.{namespace}"), "", self.protocol))
    }

    /// The service that a backend means, if the client knows it, and its cluster.
    fn resolve(&self, backend: &Backend) -> (Option<Arc<Hashed<Service>>>, String) {
        let Some(to) = backend.service() else { return (None, names::UNKNOWN_SERVICE.to_owned()) };
        let service = self.scope.service(self.cx.view(), &to.host);
        let external = service.as_ref().and_then(|service| service.external_name.as_deref());
        let only_port = service.as_ref().and_then(|service| service.only_port());
        let cluster = names::backend(to, external, only_port, self.port);
        (service, cluster)
    }

    /// The DestinationRule for a service.
    pub fn rule(&self, service: &Service) -> Option<Arc<Hashed<EffectiveRule>>> {
        self.scope.destination_rule(self.cx.view(), service, Some(self.labels))
    }
}

/// What a rule says about connections.
pub struct Traffic<'a> {
    rule: Option<&'a DestinationRule>,
    policy: Option<&'a TrafficPolicy>,
    tunnels: bool,
}

impl<'a> Traffic<'a> {
    /// What this rule says; without a rule, nothing.
    pub fn of(rule: Option<&'a DestinationRule>) -> Self {
        Traffic { rule, policy: rule.and_then(|rule| rule.traffic_policy.as_ref()), tunnels: true }
    }

    /// The same but for tunnels: for connections that are passed on as they are.
    pub fn without_tunnel(self) -> Self {
        Traffic { tunnels: false, ..self }
    }

    /// A route of connections of one protocol to a destination.
    pub fn route(
        &self,
        destination: Destination,
        stat_prefix: &str,
        subset: &str,
        protocol: Protocol,
    ) -> TcpRoute {
        let pool = self.policy.and_then(|policy| policy.connection_pool.as_ref());
        let tcp = pool.and_then(|pool| pool.tcp.as_ref());
        TcpRoute {
            stat_prefix: Name::from(stat_prefix),
            destination,
            idle_timeout: tcp.and_then(|tcp| tcp.idle_timeout),
            max_connection_duration: tcp.and_then(|tcp| tcp.max_connection_duration),
            hash_source_ip: self.hashes_source_ip(subset),
            tunnel: self.tunnel(subset).map(tunnel),
            protocol,
            sni_dns_cache: None,
        }
    }

    fn subset(&self, name: &str) -> Option<&'a TrafficPolicy> {
        self.rule?.subsets.iter().find(|subset| subset.name == name)?.traffic_policy.as_ref()
    }

    /// Whether connections of one client go to one endpoint: as the subset says if it says anything about
    /// load balancing.
    fn hashes_source_ip(&self, subset: &str) -> bool {
        let of_subset = self.subset(subset).and_then(|policy| policy.load_balancer.as_ref());
        let of_rule = self.policy.and_then(|policy| policy.load_balancer.as_ref());
        of_subset.or(of_rule).is_some_and(hashes_source_ip)
    }

    fn tunnel(&self, subset: &str) -> Option<&'a TunnelSettings> {
        let policy = if subset.is_empty() { self.policy } else { self.subset(subset) };
        policy.filter(|_| self.tunnels).and_then(|policy| policy.tunnel.as_ref())
    }
}

fn hashes_source_ip(settings: &LoadBalancerSettings) -> bool {
    matches!(
        &settings.lb_policy,
        Some(LbPolicy::ConsistentHash(hash)) if hash.hash_key == Some(HashKey::UseSourceIp(true))
    )
}

fn tunnel(settings: &TunnelSettings) -> Tunnel {
    let host = &settings.target_host;
    let port = settings.target_port;
    let hostname = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    Tunnel { hostname: Name::from(hostname), use_post: settings.protocol == "POST" }
}
