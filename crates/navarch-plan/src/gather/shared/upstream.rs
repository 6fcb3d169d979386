//! What clusters and endpoints are gathered from: settings and labels, cut to what matters.

use std::collections::BTreeMap;
use std::sync::Arc;

use navarch_model::endpoint::{EndpointSet, Locality, TlsMode};
use navarch_model::networking::DestinationRule;
use navarch_model::proxy::{IpMode, ProxyFacts, ProxyKind};
use navarch_model::security::{MutualTlsMode, PeerAuthentication};
use navarch_model::service::{Protocol, Service, ServicePort};
use navarch_model::{EffectiveRule, Hashed, Labels, Name};
use navarch_snapshot::authn::{MtlsMode, mtls_mode};
use navarch_snapshot::client_node::NODE_LABEL;
use navarch_snapshot::{Bucket, BucketSet, ClientLabels, Scope, View, host};
use navarch_translate::clusters::ClusterMesh;
use navarch_translate::endpoints::{
    EndpointMesh, EndpointSources, EndpointView, NetworkGateway, NetworkGateways, locality, needs_node,
};

use crate::composed::{DiffersFor, InBucket, Pieces, Seen};
use crate::engine::{Cx, Gather, KeysByLabels};

/// Clusters besides those for calls to services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FurtherClusters {
    /// Those that mesh TLS is passed on to by server name.
    pub mesh_tls: bool,
    /// Those that datagrams are passed on to.
    pub datagrams: bool,
}

impl FurtherClusters {
    /// Whether there are clusters for a port.
    pub fn includes(self, port: &ServicePort) -> bool {
        self.datagrams || port.protocol != Protocol::Udp
    }
}

/// What MeshConfig says about clusters.
pub struct ClusterMeshOf;

impl Gather for ClusterMeshOf {
    const NAME: &'static str = "clusters.mesh";
    type Key = ();
    type Output = Arc<Hashed<ClusterMesh>>;

    fn run(_: &(), cx: &Cx<'_>) -> Self::Output {
        Arc::new(Hashed::new(ClusterMesh::of(&cx.view().mesh().config)))
    }
}

/// What MeshConfig says about endpoints.
pub struct EndpointMeshOf;

impl Gather for EndpointMeshOf {
    const NAME: &'static str = "endpoints.mesh";
    type Key = ();
    type Output = Arc<Hashed<EndpointMesh>>;

    fn run(_: &(), cx: &Cx<'_>) -> Self::Output {
        Arc::new(Hashed::new(EndpointMesh::of(&cx.view().mesh().config)))
    }
}

/// Gateways between networks, as endpoints need them.
pub struct NetworkGatewaysOf;

impl Gather for NetworkGatewaysOf {
    const NAME: &'static str = "endpoints.gateways";
    type Key = ();
    type Output = Arc<Hashed<NetworkGateways>>;

    fn run(_: &(), cx: &Cx<'_>) -> Self::Output {
        let gateways =
            cx.view().network_gateways().by_network.values().flatten().map(|gateway| NetworkGateway {
                address: gateway.address.clone(),
                port: gateway.port.into(),
                network: gateway.network.clone(),
                cluster_id: gateway.cluster_id.clone(),
            });
        Arc::new(Hashed::new(NetworkGateways::new(gateways)))
    }
}

/// Hosts whose endpoints are for clients of the same cluster only.
pub struct ClusterLocalHosts;

/// Host patterns, and whether what they match is local to a cluster. The most specific one decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalHosts(BTreeMap<String, bool>);

impl Gather for ClusterLocalHosts {
    const NAME: &'static str = "endpoints.cluster_local";
    type Key = ();
    type Output = LocalHosts;

    fn run(_: &(), cx: &Cx<'_>) -> Self::Output {
        let settings = cx.view().mesh().config.service_settings.iter();
        let hosts = settings.flat_map(|setting| {
            let local = setting.settings.as_ref().is_some_and(|settings| settings.cluster_local);
            setting.hosts.iter().map(move |host| (host.clone(), local))
        });
        LocalHosts(hosts.collect())
    }
}

impl LocalHosts {
    /// Without a setting, what runs a cluster is local to it: `kube-system` and the Kubernetes API.
    fn is_local(&self, service: &Service) -> bool {
        if let Some(local) = self.0.get(&*service.hostname) {
            return *local;
        }
        let wildcards = self.0.keys().filter(|host| host::is_wildcard(host)).map(String::as_str);
        if let Some(local) =
            host::most_specific(&service.hostname, wildcards).and_then(|host| self.0.get(host))
        {
            return *local;
        }
        service.hostname.contains(".kube-system.svc.")
            || service.hostname.starts_with("kubernetes.default.svc.")
    }
}

/// The buckets in which a scope may see something.
pub struct SeenBuckets;

impl Gather for SeenBuckets {
    const NAME: &'static str = "scope.buckets";
    type Key = Arc<Hashed<Scope>>;
    type Output = BucketSet;

    fn run(scope: &Self::Key, cx: &Cx<'_>) -> BucketSet {
        scope.buckets(cx.view())
    }
}

/// The pieces of the buckets that a client sees. `S` is the gather for all buckets and `B` that for
/// one. `key` makes the key for a client with a scope. The client is made known to a bucket as far as it
/// asks; buckets that ask for the same share one key. Only buckets that ask for the client's namespace have a
/// piece of their own, the others that of a client elsewhere.
pub fn seen<S, B>(
    cx: &Cx<'_>,
    scope: &Arc<Hashed<Scope>>,
    client: &UpstreamClient,
    key: impl Fn(Arc<Hashed<Scope>>, UpstreamClient) -> S::Key,
) -> Seen
where
    S: Gather<Output = Seen>,
    B: Gather<Key = (Arc<Hashed<S::Key>>, Bucket), Output = InBucket>,
{
    let mut asked = DiffersFor::default();
    let mut keys = KeysByLabels::default();
    let mut own = |bucket| {
        let (_, found) = cx.narrow::<B>(&client.labels, |labels| {
            (keys.get(labels, || key(scope.clone(), client.with(labels))), bucket)
        });
        asked.add(&found.asked, bucket);
        found.resources.clone()
    };
    let Some(elsewhere) = cx.elsewhere(scope) else {
        let pieces = Pieces::of_buckets(*cx.gather::<SeenBuckets>(scope), own);
        return Seen { pieces, asked, common: None };
    };
    let (_, common) = cx.narrow::<S>(&client.labels, |labels| key(elsewhere.clone(), client.with(labels)));
    let differs = common.asked.of(scope.namespace());
    let pieces =
        if differs.is_empty() { common.pieces.clone() } else { common.pieces.replacing(differs, &mut own) };
    Seen { pieces, asked: DiffersFor::default(), common: Some(common.pieces.clone()) }
}

/// A client, cut to what endpoints and the choice of rules can depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamClient {
    pub kind: ProxyKind,
    pub ip_mode: IpMode,
    pub cluster_id: Name,
    pub network: Name,
    pub network_view: Vec<Name>,
    pub locality: Locality,
    /// Those that are known.
    pub labels: ClientLabels,
}

impl UpstreamClient {
    /// The client that a proxy is.
    pub fn new(cx: &Cx<'_>, facts: &ProxyFacts) -> Self {
        UpstreamClient {
            kind: facts.kind,
            ip_mode: facts.ip_mode(),
            cluster_id: facts.cluster_id.clone(),
            network: facts.network.clone(),
            network_view: facts.network_view.clone(),
            locality: facts.locality.clone(),
            labels: cx.client_labels(&facts.labels),
        }
    }

    /// The same with these known labels.
    pub fn with(&self, labels: &ClientLabels) -> Self {
        UpstreamClient { labels: labels.clone(), ..self.clone() }
    }

    /// What endpoints of a service take from the client.
    fn view(
        &self,
        cx: &Cx<'_>,
        service: &Service,
        rule: Option<&DestinationRule>,
        mesh: &EndpointMesh,
    ) -> EndpointView {
        let exact = self.labels.are_exact();
        let by_place = exact || locality::matters(service, rule, mesh);
        let keys = rule.into_iter().flat_map(locality::priority_labels).chain(mesh.priority_labels());
        let node = if exact || needs_node(service) { self.labels.get(cx.view(), NODE_LABEL) } else { None };
        EndpointView {
            kind: self.kind,
            ip_mode: self.ip_mode,
            cluster_id: self.cluster_id.clone(),
            network: self.network.clone(),
            network_view: self.network_view.clone(),
            locality: if by_place { self.locality.clone() } else { Locality::default() },
            labels: if by_place { self.labels.of(cx.view(), keys) } else { Labels::default() },
            node_name: node.cloned().unwrap_or_default(),
        }
    }
}

/// The endpoints of one service: apart, so that others in the bucket may change.
pub struct EndpointsOf;

/// A service by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    pub hostname: Name,
    pub namespace: Name,
}

impl ServiceKey {
    /// The key of a service.
    pub fn of(service: &Service) -> Self {
        ServiceKey { hostname: service.hostname.clone(), namespace: service.namespace.clone() }
    }
}

/// Endpoints, and which of them accept plain text only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceEndpoints {
    pub endpoints: Arc<Hashed<EndpointSet>>,
    pub plaintext: Vec<u32>,
}

impl Gather for EndpointsOf {
    const NAME: &'static str = "endpoints.service";
    type Key = ServiceKey;
    type Output = ServiceEndpoints;

    fn run(key: &ServiceKey, cx: &Cx<'_>) -> ServiceEndpoints {
        match cx.view().endpoints(&key.hostname, &key.namespace) {
            Some(endpoints) => {
                ServiceEndpoints { endpoints: endpoints.clone(), plaintext: plaintext(cx.view(), endpoints) }
            }
            None => ServiceEndpoints::default(),
        }
    }
}

/// Positions of endpoints whose PeerAuthentication switches mutual TLS off.
fn plaintext(view: &View<'_>, set: &EndpointSet) -> Vec<u32> {
    // Most meshes switch it off nowhere, and most endpoints of a service are in one namespace.
    let mut possible: BTreeMap<&Name, bool> = BTreeMap::new();
    let off = (0..).zip(&set.endpoints).filter(|(_, endpoint)| {
        endpoint.tls_mode == TlsMode::Istio
            && *possible.entry(&endpoint.namespace).or_insert_with(|| switches_off(view, &endpoint.namespace))
            && mtls_mode(view, &endpoint.namespace, &endpoint.labels, endpoint.port.into())
                == MtlsMode::Disable
    });
    off.map(|(position, _)| position).collect()
}

/// Whether any policy that could apply in a namespace switches mutual TLS off.
fn switches_off(view: &View<'_>, namespace: &str) -> bool {
    let root = view.mesh().config.root_namespace.as_str();
    [root, namespace].into_iter().any(|namespace| {
        view.objects::<PeerAuthentication>(namespace).iter().any(|policy| {
            let modes = policy.spec.mtls.iter().chain(policy.spec.port_level_mtls.values());
            modes.into_iter().any(|mtls| mtls.mode == MutualTlsMode::Disable)
        })
    })
}

/// What endpoints of all services are gathered with.
pub struct EndpointSettings {
    pub mesh: Arc<Hashed<EndpointMesh>>,
    gateways: Arc<Hashed<NetworkGateways>>,
    cluster_local: Arc<LocalHosts>,
}

impl EndpointSettings {
    /// The settings as they are now.
    pub fn new(cx: &Cx<'_>) -> Self {
        EndpointSettings {
            mesh: (*cx.gather::<EndpointMeshOf>(&())).clone(),
            gateways: (*cx.gather::<NetworkGatewaysOf>(&())).clone(),
            cluster_local: cx.gather::<ClusterLocalHosts>(&()),
        }
    }

    /// The endpoints of a service as a client gets to see them.
    pub fn sources(
        &self,
        cx: &Cx<'_>,
        service: &Service,
        rule: Option<&EffectiveRule>,
        client: &UpstreamClient,
    ) -> EndpointSources {
        let found = cx.gather::<EndpointsOf>(&ServiceKey::of(service));
        EndpointSources {
            endpoints: found.endpoints.clone(),
            plaintext: found.plaintext.clone(),
            cluster_local: self.cluster_local.is_local(service),
            gateways: self.gateways.clone(),
            view: client.view(cx, service, rule.map(|rule| &rule.spec), &self.mesh),
            mesh: self.mesh.clone(),
        }
    }
}
