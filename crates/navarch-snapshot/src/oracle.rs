//! The slow, obvious way as judge of the fast one: after any sequence of edits, the world is what it would be
//! if it had been told the last state at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use navarch_model::change::ChangeSet;
use navarch_model::document::parse_text;
use navarch_model::endpoint::Locality;
use navarch_model::kubernetes::Service;
use navarch_model::object::{Object, ObjectKey};
use navarch_model::proxy::ProxyFacts;
use navarch_model::status::Status;
use navarch_model::{ClusterId, Name, Place};
use proptest::prelude::*;

use crate::part::{BUCKETS, Part};
use crate::scope::Scope;
use crate::snapshot::Snapshot;
use crate::world::{Options, World};

/// Objects that depend on each other in every way there is; several with one key are versions of one object.
const POOL: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    trustDomain: one
    trustDomainAliases: [old]
  meshNetworks: |
    networks:
      net-a:
        endpoints: [{fromCidr: 10.0.0.0/30}]
        gateways: [{registryServiceName: gw.istio-system.svc.cluster.local, port: 15443}, {address: 9.9.9.9, port: 1}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    defaultServiceExportTo: ['.']
    defaultVirtualServiceExportTo: ['.']
    defaultDestinationRuleExportTo: ['.']
  meshNetworks: |
    networks:
      net-b: {endpoints: [{fromRegistry: Kubernetes}], gateways: [{registryServiceName: gw.istio-system.svc.cluster.local, port: 7}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: 'discoverySelectors: [{matchLabels: {mesh: in}}]'}
---
apiVersion: v1
kind: Namespace
metadata: {name: istio-system}
---
apiVersion: v1
kind: Namespace
metadata: {name: istio-system, labels: {topology.istio.io/network: home}}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {mesh: in}}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, annotations: {networking.istio.io/traffic-distribution: PreferClose}}
---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/region: r1, topology.kubernetes.io/zone: z1}}
status: {addresses: [{type: ExternalIP, address: 5.5.5.5}]}
---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/region: r2}}
status: {addresses: [{type: InternalIP, address: 10.9.9.9}]}
---
apiVersion: v1
kind: Pod
metadata: {name: a-1, namespace: shop, labels: {app: a, version: v1, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: a, nodeName: n1, containers: [{name: c, ports: [{name: web, containerPort: 8080}]}]}
status: {phase: Running, podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: a-1, namespace: shop, labels: {app: a, version: v2}}
spec: {nodeName: n1}
status: {phase: Running, podIP: 10.0.0.2}
---
apiVersion: v1
kind: Pod
metadata: {name: a-1, namespace: shop, labels: {app: b}}
status: {phase: Running, podIP: 10.0.0.1, conditions: [{type: Ready, status: 'False'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: a-2, namespace: shop, labels: {app: a}}
status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}
---
apiVersion: v1
kind: Service
metadata: {name: a, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: a}, ports: [{name: http, port: 80, targetPort: web}, {name: tcp, port: 90}]}
---
apiVersion: v1
kind: Service
metadata: {name: a, namespace: shop, creationTimestamp: '2024-01-01T00:00:00Z'}
spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00:96::1'], selector: {app: a, version: v1}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: a, namespace: shop}
spec: {type: ExternalName, externalName: b.shop.svc.cluster.local, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: b, namespace: shop}
spec: {clusterIP: None, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: b, namespace: shop}
spec: {type: ExternalName, externalName: a.shop.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: c, namespace: shop}
spec: {type: ExternalName, externalName: a.shop.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: gw, namespace: istio-system}
spec: {type: LoadBalancer, clusterIP: 10.96.0.7, ports: [{name: tls, port: 15443}]}
status: {loadBalancer: {ingress: [{ip: 34.0.0.1}]}}
---
apiVersion: v1
kind: Service
metadata:
  name: gw
  namespace: istio-system
  labels: {topology.istio.io/network: home}
  annotations: {traffic.istio.io/nodeSelector: '{}'}
spec: {type: NodePort, clusterIP: 10.96.0.7, ports: [{name: tls, port: 15443, nodePort: 31000}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a-s, namespace: shop, labels: {kubernetes.io/service-name: a}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: a-1, namespace: shop}}, {addresses: [10.0.0.9]}]
ports: [{name: http, port: 8080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a-s, namespace: shop, labels: {kubernetes.io/service-name: b}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.2]}, {addresses: [10.0.0.1]}]
ports: [{name: http, port: 8080}]
---
apiVersion: v1
kind: Endpoints
metadata: {name: a, namespace: shop}
subsets: [{addresses: [{ip: 10.0.0.2}], ports: [{name: http, port: 81}]}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm, namespace: shop}
spec: {address: 10.0.0.1, labels: {app: a}, serviceAccount: vm}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm, namespace: shop, labels: {app: b}}
spec: {address: vm.example.com, labels: {app: a}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: e, namespace: shop}
spec:
  hosts: [e.internal, b.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  workloadSelector: {labels: {app: a}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: e, namespace: shop}
spec:
  hosts: [e.internal]
  resolution: DNS_ROUND_ROBIN
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 10.0.0.2}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: f, namespace: shop, creationTimestamp: '2024-01-01T00:00:00Z'}
spec:
  hosts: [e.internal]
  exportTo: [., other]
  resolution: DNS
  ports: [{number: 80, name: http, protocol: HTTP}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: root, namespace: shop}
spec:
  hosts: [a, '*.example.com']
  gateways: [mesh, edge]
  http:
  - {match: [{uri: {prefix: /x}}], delegate: {name: leaf, namespace: other}}
  - {route: [{destination: {host: b}}], mirror: {host: e.internal, port: {number: 80}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: root, namespace: shop}
spec: {hosts: [a], exportTo: [.], http: [{match: [{sourceNamespace: other}], route: [{destination: {host: a}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: leaf, namespace: other}
spec: {http: [{match: [{uri: {prefix: /x/y}}], route: [{destination: {host: c}}]}, {match: [{uri: {prefix: /q}}], route: [{destination: {host: c}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: leaf, namespace: other}
spec: {hosts: [a.shop.svc.cluster.local], http: [{route: [{destination: {host: c.shop.svc.cluster.local}}]}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d, namespace: shop}
spec: {host: a, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d, namespace: shop}
spec: {host: '*.svc.cluster.local', workloadSelector: {matchLabels: {app: a}}, trafficPolicy: {tls: {mode: DISABLE}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d2, namespace: shop}
spec: {host: a, trafficPolicy: {tls: {mode: DISABLE}}, subsets: [{name: v1, labels: {version: v2}}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: shop}
spec: {egress: [{hosts: ['./*']}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: other}
spec: {egress: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [istio-system/*]}, {hosts: ['shop/*', '~shop/e.internal']}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: istio}
spec: {controllerName: example.com/theirs}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: door, namespace: shop}
spec:
  gatewayClassName: istio
  addresses: [{type: Hostname, value: a}]
  allowedListeners: {namespaces: {from: Selector, selector: {matchLabels: {mesh: in}}}}
  listeners:
  - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {mesh: in}}}}}
  - {name: tls, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert, namespace: other}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: door, namespace: shop}
spec:
  gatewayClassName: navarch
  allowedListeners: {namespaces: {from: All}}
  listeners: [{name: tcp, port: 90, protocol: TCP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more, namespace: shop}
spec: {parentRef: {name: door}, listeners: [{name: http, port: 90, protocol: HTTP}, {name: tcp, port: 81, protocol: TCP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more, namespace: other}
spec: {parentRef: {name: door, namespace: shop}, listeners: [{name: http, port: 81, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more, namespace: other}
spec: {parentRef: {name: absent}, listeners: [{name: http, port: 81, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: certificates, namespace: other}
spec: {from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: shop}], to: [{group: '', kind: Secret}]}
---
apiVersion: v1
kind: Secret
metadata: {name: cert, namespace: other}
stringData: {tls.crt: nonsense, tls.key: nonsense}
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: p, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: a, sectionName: http}, {group: '', kind: Service, name: b}]
  validation: {hostname: a.internal, wellKnownCACertificates: System}
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: q, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: b}, {group: networking.istio.io, kind: ServiceEntry, name: e}]
  validation: {hostname: b.internal, caCertificateRefs: [{group: '', kind: ConfigMap, name: roots}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: roots, namespace: shop}
data: {ca.crt: nonsense}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {name: p, namespace: shop}
spec: {targetRefs: [{group: '', kind: Service, name: a}], retryConstraint: {budget: {percent: 10}}}
";

fn pool() -> &'static [Arc<Object>] {
    static POOL_OBJECTS: OnceLock<Vec<Arc<Object>>> = OnceLock::new();
    POOL_OBJECTS.get_or_init(|| {
        let mut objects = Vec::new();
        // One text per object: an object that is defined twice would otherwise be a mistake.
        for document in POOL.split("\n---\n") {
            let parsed = parse_text("pool.yaml", document);
            assert_eq!(parsed.objects.len(), 1, "{document}\n{:#?}", parsed.findings);
            objects.extend(parsed.objects.into_iter().map(Arc::new));
        }
        objects
    })
}

/// One edit: which object of the pool, and whether it goes away. Beyond the pool: the object, written at
/// another place; beyond that: an equal one in another cluster.
type Edit = (usize, bool);

fn change(edits: &[Edit]) -> ChangeSet {
    let mut change = ChangeSet::default();
    let mut last: BTreeMap<ObjectKey, Option<Arc<Object>>> = BTreeMap::new();
    for (index, remove) in edits {
        let object = &pool()[*index % pool().len()];
        let mut object = object.clone();
        if *index >= pool().len() {
            let mut other = (*object).clone();
            match *index < 2 * pool().len() {
                true => other.place = Place::None,
                false => other.key.cluster = ClusterId::remote("west"),
            }
            object = Arc::new(other);
        }
        last.insert(object.key.clone(), (!remove).then_some(object));
    }
    for (key, object) in last {
        match object {
            Some(object) => change.upserts.push(object),
            None => change.removals.push(key),
        }
    }
    change
}

fn empty() -> World {
    World::new(Options { system_namespace: Some(Name::from("istio-system")), ..Options::default() })
}

/// What the world would be if it had been told everything at once.
fn from_scratch(world: &World) -> World {
    let mut fresh = empty();
    fresh.apply(ChangeSet { upserts: world.known_objects().cloned().collect(), ..ChangeSet::default() });
    fresh
}

/// The quick comparison finds the parts that a look at all parts finds.
fn assert_changes_are_complete(before: &Snapshot, after: &Snapshot) {
    let every: BTreeSet<Part> = before.parts().into_iter().chain(after.parts()).collect();
    let differs = |part: &Part| before.fingerprint(part) != after.fingerprint(part);
    let expected: Vec<Part> = every.into_iter().filter(differs).collect();
    let mut found = after.changed_since(before);
    found.sort();
    assert_eq!(found, expected);
}

/// Buckets that a scope leaves out hold nothing that it would show.
fn assert_nothing_is_seen_outside_the_footprint(snapshot: &Snapshot) {
    let view = snapshot.view();
    for namespace in ["shop", "other"] {
        let id = format!("sidecar~10.0.0.1~a.{namespace}~{namespace}.svc.cluster.local");
        let facts = ProxyFacts::parse(&id, "a", &serde_json::Map::new(), Locality::default()).unwrap();
        let scope = Scope::resolve(&view, &facts, &navarch_model::Labels::default());
        let seen = scope.buckets(&view);
        for bucket in (0..BUCKETS).filter(|bucket| !seen.contains(*bucket)) {
            assert_eq!(scope.services_in(&view, bucket), []);
            for listener in scope.egress_listeners() {
                assert_eq!(scope.listener_services_in(&view, listener, bucket), []);
                assert!(scope.listener_routes_in(&view, listener, bucket).is_empty());
            }
        }
    }
}

/// Statuses are those of a fresh world, and who is told the changes knows them all.
fn assert_statuses_are_told(before: &Snapshot, after: &Snapshot, fresh: &Snapshot) {
    let all = |snapshot: &Snapshot| snapshot.statuses().iter().collect::<BTreeMap<ObjectKey, Status>>();
    let mut told = all(before);
    for (key, status) in after.statuses().changed_since(before) {
        match status {
            Some(status) => told.insert(key, status),
            None => told.remove(&key),
        };
    }
    let expected = all(fresh);
    assert_eq!(told, expected);
    assert_eq!(all(after), expected);
}

fn check(steps: &[Vec<Edit>]) {
    let mut world = empty();
    for (number, step) in steps.iter().enumerate() {
        let before = world.snapshot().clone();
        let after = world.apply(change(step));
        world.assert_consistent();
        assert_nothing_is_seen_outside_the_footprint(&after);
        assert_changes_are_complete(&before, &after);
        let fresh = from_scratch(&world);
        let difference = after.difference(fresh.snapshot());
        assert_eq!(difference, None, "after step {number} of {steps:?}");
        assert_eq!(after.findings(), fresh.snapshot().findings(), "after step {number} of {steps:?}");
        assert_statuses_are_told(&before, &after, fresh.snapshot());
        if after.revision() == before.revision() {
            assert_eq!(after.difference(&before), None, "the revision must grow with a change");
        }
    }
    // Nothing is left of what is taken away.
    let keys: Vec<ObjectKey> = world.known_objects().map(|object| object.key.clone()).collect();
    let empty = world.apply(ChangeSet::removing(keys));
    assert_eq!(empty.difference(self::empty().snapshot()), None);
    assert_eq!(empty.statuses().iter().count(), 0);
    assert!(empty.outcomes.is_empty());
    world.assert_empty();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn incremental_is_from_scratch(
        steps in prop::collection::vec(
            prop::collection::vec((0..3 * pool().len(), prop::bool::weighted(0.3)), 1..6),
            1..14,
        )
    ) {
        check(&steps);
    }
}

#[test]
fn everything_at_once_and_one_by_one() {
    let written: Vec<Edit> = (0..pool().len()).map(|index| (index, false)).collect();
    let two_clusters = (0..3 * pool().len()).map(|index| (index, false)).collect();
    for all in [written, two_clusters] {
        check(std::slice::from_ref(&all));
        check(&all.iter().map(|edit| vec![*edit]).collect::<Vec<_>>());
        check(&all.iter().rev().map(|edit| vec![*edit]).collect::<Vec<_>>());
    }
}

/// Found by the property test.
#[test]
fn an_alias_of_another_cluster_gives_way_to_a_service_of_the_local_one() {
    let index = |position: usize| pool().len() * 2 + position;
    let of = |name: &str, alias: bool| {
        let found = pool().iter().position(|object| {
            let service = object.spec::<Service>();
            &*object.key.name == name
                && service.is_some_and(|service| (service.spec.type_ == "ExternalName") == alias)
        });
        found.unwrap()
    };
    let (alias, service, target) = (index(of("b", true)), of("b", false), of("a", false));
    check(&[vec![(alias, false)], vec![(service, false)], vec![(target, false)]]);
    check(&[vec![(alias, false), (service, false)], vec![(target, false)], vec![(service, true)]]);
}

#[test]
fn revisions_grow_with_changes_only() {
    let mut world = World::new(Options::default());
    let index = pool().iter().position(|object| *object.key.name == Name::from("e")[..]).unwrap();
    assert_eq!(world.apply(change(&[(index, false)])).revision(), 1);
    assert_eq!(world.apply(change(&[(index, false)])).revision(), 1);
    assert_eq!(world.apply(ChangeSet::default()).revision(), 1);
    assert_eq!(world.apply(change(&[(index, true)])).revision(), 2);
    assert_eq!(world.apply(change(&[(index, true)])).revision(), 2);

    // An object that only moved to another file is not a change, but its new place is known.
    world.apply(change(&[(index, false)]));
    let mut moved = (*pool()[index]).clone();
    moved.place = Place::None;
    let snapshot = world.apply(ChangeSet::upserting([moved.clone()]));
    assert_eq!(snapshot.revision(), 3);
    assert_eq!(snapshot.object(&moved.key).unwrap().place, Place::None);
}
