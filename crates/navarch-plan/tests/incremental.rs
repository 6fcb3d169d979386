//! What an edit costs among ten thousand services: counted, not timed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use navarch_envoy::{ProxyResources, XdsType, diff};
use navarch_model::change::ChangeSet;
use navarch_model::endpoint::Locality;
use navarch_model::proxy::ProxyFacts;
use navarch_model::{Hashed, parse_text};
use navarch_plan::{ClassPlan, Planner};
use navarch_snapshot::world::Options;
use navarch_snapshot::{BUCKETS, World, bucket_of};

const SERVICES: usize = 10_000;

fn service(index: usize) -> String {
    let (a, b) = (index / 250, index % 250 + 1);
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: s{index}, namespace: n{}}}\nspec:\n  clusterIP: 10.{}.{a}.{b}\n  \
         ports: [{{name: http, port: 80, targetPort: 8080, protocol: TCP}}]\n---\n{}---\n",
        index % 100,
        a / 200 + 1,
        slice(index, 1)
    )
}

fn slice(index: usize, host: usize) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s{index}, namespace: n{}, labels: \
         {{kubernetes.io/service-name: s{index}}}}}\naddressType: IPv4\nendpoints: [{{addresses: [10.200.{}.{host}], conditions: \
         {{ready: true}}}}]\nports: [{{name: http, port: 8080, protocol: TCP}}]\n",
        index % 100,
        index % 250
    )
}

fn change(text: &str) -> ChangeSet {
    let parsed = parse_text("test.yaml", text);
    assert!(parsed.rejected.is_empty() && !parsed.incomplete, "{:?}", parsed.findings);
    ChangeSet::upserting(parsed.objects)
}

/// A mesh, and plans of two classes: one that sees everything, one that sees its namespace only.
struct Rig {
    world: World,
    planner: Planner,
    plans: Vec<ClassPlan>,
    last: Vec<Arc<ProxyResources>>,
}

/// What an edit did.
#[derive(Debug, Default, PartialEq, Eq)]
struct Cost {
    /// Changed resources of the class that sees everything, by type; `X` and the number.
    everything: String,
    /// The same of the class that sees one namespace.
    namespace: String,
    /// Bytes of the changed resources of the class that sees everything.
    bytes: usize,
    /// Inputs that were translated.
    translated: u64,
}

impl Rig {
    /// With `services` services, for Envoys that take virtual hosts as resources of their own or do not.
    fn new(services: usize, split_routes: bool) -> Self {
        let mut text = String::from(
            "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: default, namespace: n1}\nspec: {egress: \
             [{hosts: ['./*']}]}\n---\n",
        );
        (0..services).for_each(|index| text.push_str(&service(index)));
        let mut world = World::new(Options::default());
        let planner = Planner::new(world.apply(change(&text)));
        let plans: Vec<ClassPlan> = ["n0", "n1"]
            .iter()
            .map(|namespace| {
                let id = format!("sidecar~10.99.0.1~p.{namespace}~{namespace}.svc.cluster.local");
                let facts = ProxyFacts::parse(&id, "p", &serde_json::Map::new(), Locality::default())
                    .expect("a node");
                let facts = ProxyFacts { split_routes, ..facts };
                planner.class_plan(Arc::new(Hashed::new(planner.classify(&facts))))
            })
            .collect();
        let last = plans.iter().map(|plan| planner.resources(plan)).collect();
        Rig { world, planner, plans, last }
    }

    fn apply(&mut self, text: &str) -> Cost {
        let before = self.planner.inspect(|engine| engine.memo().counts().misses);
        self.planner.advance(self.world.apply(change(text)));
        let now: Vec<_> = self.plans.iter().map(|plan| self.planner.resources(plan)).collect();
        let changed = |index: usize| {
            let (old, new): (&ProxyResources, &ProxyResources) = (&self.last[index], &now[index]);
            let mut counts: BTreeMap<XdsType, usize> = BTreeMap::new();
            for ty in XdsType::ALL {
                let delta = diff(old.set(ty), new.set(ty));
                counts.insert(ty, delta.changed.len() + delta.removed.len());
            }
            counts.retain(|_, count| *count > 0);
            counts.iter().fold(String::new(), |mut text, (ty, count)| {
                let _ = write!(text, "{}{} {count}", if text.is_empty() { "" } else { ", " }, ty.short());
                text
            })
        };
        let bytes = |ty| -> usize {
            let delta = diff(self.last[0].set(ty), now[0].set(ty));
            delta.changed.iter().map(|resource| resource.len()).sum()
        };
        let cost = Cost {
            bytes: XdsType::ALL.into_iter().map(bytes).sum(),
            everything: changed(0),
            namespace: changed(1),
            translated: self.planner.inspect(|engine| engine.memo().counts().misses) - before,
        };
        self.last = now;
        cost
    }

    fn check(&mut self, what: &str, text: &str, everything: &str, namespace: &str, translated_max: u64) {
        let cost = self.apply(text);
        assert_eq!((&*cost.everything, &*cost.namespace), (everything, namespace), "{what}");
        assert!(
            cost.translated <= translated_max,
            "{what}: {} inputs were translated, not {translated_max}",
            cost.translated
        );
        // A route configuration of ten thousand services is megabytes.
        let is_whole = everything.contains("RDS");
        assert!(is_whole || cost.bytes < 4096, "{what}: {} bytes", cost.bytes);
    }
}

#[test]
fn an_edit_among_ten_thousand_services_translates_what_reads_it() {
    let mut rig = Rig::new(SERVICES, false);
    assert!(
        rig.last[0].set(XdsType::Cds).len() > SERVICES && rig.last[0].set(XdsType::Eds).len() >= SERVICES
    );
    let in_namespace = rig.last[1].set(XdsType::Eds).len();
    assert!((100..200).contains(&in_namespace), "{in_namespace} endpoints of one namespace");

    rig.check("an endpoint that both see", &slice(101, 2), "EDS 1", "EDS 1", 2);
    rig.check("an endpoint that one sees", &slice(102, 2), "EDS 1", "", 1);
    rig.check(
        "a route",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: r, namespace: n2}\nspec: {hosts: [s102], http: \
         [{timeout: 1s, route: [{destination: {host: s102}}]}]}\n",
        "RDS 1",
        "",
        8,
    );
    rig.check(
        "a rule",
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r, namespace: n2}\nspec: {host: s102, \
         trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}}\n",
        "CDS 1",
        "",
        8,
    );
    rig.check(
        "a subset",
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r, namespace: n2}\nspec: {host: s102, \
         trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}, subsets: [{name: v1, labels: {v: '1'}}]}\n",
        "CDS 1, EDS 1",
        "",
        8,
    );
    rig.check(
        "an outside service",
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e, namespace: n2}\nspec: {hosts: \
         [api.example.com], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}\n",
        "CDS 1, RDS 1",
        "",
        8,
    );
    rig.check("a new service", &service(10_001), "CDS 1, EDS 1, RDS 1", "CDS 1, EDS 1, RDS 1", 16);
}

#[test]
fn an_edit_of_a_route_is_one_virtual_host_where_they_are_resources() {
    let mut rig = Rig::new(1_000, true);
    assert!(rig.last[0].set(XdsType::Vhds).len() > 1_000);
    // There are as many hosts as services of the namespace, and the one for everything else.
    assert_eq!(rig.last[1].set(XdsType::Vhds).len(), 11);
    let route = |timeout: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: r, namespace: n1}}\nspec: {{hosts: [s101], \
             http: [{{timeout: {timeout}, route: [{{destination: {{host: s101}}}}]}}]}}\n"
        )
    };
    rig.check("an endpoint", &slice(101, 2), "EDS 1", "EDS 1", 2);
    // The routes, the host as its own namespace sees it and as others do, and a resource of each.
    rig.check("a route", &route("1s"), "VHDS 1", "VHDS 1", 5);
    rig.check("another route", &route("2s"), "VHDS 1", "VHDS 1", 5);
    rig.check(
        "a rule with hashing",
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r, namespace: n2}\nspec: {host: s102, \
         trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x}}}}\n",
        "CDS 1, VHDS 1",
        "",
        8,
    );
    rig.check(
        "an outside service",
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e, namespace: n2}\nspec: {hosts: \
         [api.example.com], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}\n",
        "CDS 1, VHDS 1",
        "",
        8,
    );
    // A new port is a listener, a route configuration, and in it the host for everything else.
    rig.check(
        "an outside service on a port of its own",
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: f, namespace: n2}\nspec: {hosts: \
         [other.example.com], resolution: DNS, ports: [{number: 8123, name: http, protocol: HTTP}]}\n",
        "CDS 1, LDS 1, RDS 1, VHDS 2",
        "",
        16,
    );
    rig.check("a new service", &service(1_001), "CDS 1, EDS 1, VHDS 1", "CDS 1, EDS 1, VHDS 1", 16);
}

/// How often each gather ran during an edit, of those named.
fn runs(
    world: &mut World,
    planner: &Planner,
    plans: &[ClassPlan],
    edit: &str,
    names: &[&str],
) -> BTreeMap<String, u64> {
    let count = || planner.inspect(|engine| engine.runs());
    let before = count();
    planner.advance(world.apply(change(edit)));
    for plan in plans {
        planner.resources(plan);
    }
    let after = count();
    let of = |runs: &BTreeMap<&'static str, u64>, name: &str| runs.get(name).copied().unwrap_or_default();
    names.iter().map(|name| ((*name).to_owned(), of(&after, name) - of(&before, name))).collect()
}

#[test]
fn classes_of_one_view_share_gathers_and_scopes_look_only_where_they_see() {
    const CLASSES: usize = 20;
    let mut text = String::new();
    // Five namespaces of twenty services each; clients see their own.
    for namespace in 0..5 {
        let _ = write!(
            text,
            "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: default, namespace: n{namespace}}}\nspec: \
             {{egress: [{{hosts: ['./*']}}]}}\n---\n"
        );
        (0..20).for_each(|index| text.push_str(&service(100 * index + namespace)));
    }
    let bucket = |index: usize| bucket_of(&format!("s{index}.n{}.svc.cluster.local", index % 100));
    let seen: BTreeSet<(usize, u16)> = (0..5)
        .flat_map(|namespace| (0..20).map(move |index| (namespace, 100 * index + namespace)))
        .map(|(namespace, index)| (namespace, bucket(index)))
        .collect();
    let elsewhere = (0..SERVICES)
        .find(|index| index % 100 >= 5 && !seen.iter().any(|(_, seen)| *seen == bucket(*index)))
        .expect("a bucket in which nobody sees anything");
    let mut world = World::new(Options::default());
    let planner = Planner::new(world.apply(change(&text)));
    let plans: Vec<ClassPlan> = (0..5 * CLASSES)
        .map(|index| {
            let namespace = format!("n{}", index % 5);
            let id = format!("sidecar~10.99.0.1~p.{namespace}~{namespace}.svc.cluster.local");
            let labels = serde_json::json!({"LABELS": {"app": format!("app-{index}")}});
            let metadata = labels.as_object().expect("a map");
            let facts = ProxyFacts::parse(&id, "p", metadata, Locality::default()).expect("a node");
            planner.class_plan(Arc::new(Hashed::new(planner.classify(&facts))))
        })
        .collect();
    for plan in &plans {
        planner.resources(plan);
    }
    let started = planner.inspect(|engine| engine.runs());
    let per_bucket =
        ["clusters.bucket", "endpoints.bucket", "listeners.bucket_contributions", "routes.bucket_hosts"];
    for name in per_bucket {
        assert_eq!(started.get(name), Some(&(seen.len() as u64)), "{name}");
    }

    let mut check = |edit: &str, names: &[(&str, u64)]| {
        let ran = runs(
            &mut world,
            &planner,
            &plans,
            edit,
            &names.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        );
        let expected = names.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        assert_eq!(ran, expected, "{edit}");
    };
    // One bucket, the list of its view, and the roots of the classes that have it.
    check(
        &slice(101, 2),
        &[("endpoints.bucket", 1), ("endpoints.seen", 1), ("plan.sidecar_endpoints", CLASSES as u64)],
    );
    check(
        &slice(101, 3),
        &[("clusters.bucket", 0), ("routes.bucket_hosts", 0), ("listeners.bucket_contributions", 0)],
    );
    check(&service(elsewhere), &per_bucket.map(|name| (name, 0)));
}

#[test]
fn what_all_namespaces_see_is_planned_once() {
    planned_once(false);
}

#[test]
fn what_all_namespaces_see_is_planned_once_where_hosts_are_resources() {
    planned_once(true);
}

fn planned_once(split_routes: bool) {
    const NAMESPACES: usize = 20;
    let text: String = (0..1_000).map(service).collect();
    let mut world = World::new(Options::default());
    let planner = Planner::new(world.apply(change(&text)));
    let plans: Vec<ClassPlan> = (0..NAMESPACES)
        .map(|index| {
            let id = format!("sidecar~10.99.0.1~p.n{index}~n{index}.svc.cluster.local");
            let facts =
                ProxyFacts::parse(&id, "p", &serde_json::Map::new(), Locality::default()).expect("a node");
            let facts = ProxyFacts { split_routes, ..facts };
            planner.class_plan(Arc::new(Hashed::new(planner.classify(&facts))))
        })
        .collect();
    for plan in &plans {
        planner.resources(plan);
    }
    let started = planner.inspect(|engine| engine.runs());
    let buckets = u64::from(BUCKETS);
    for (name, count) in [
        ("clusters.bucket", buckets),
        ("endpoints.bucket", buckets),
        ("listeners.bucket_contributions", buckets),
        ("routes.bucket_hosts", buckets),
        ("endpoints.service", 1_000),
    ] {
        assert_eq!(started.get(name), Some(&count), "{name}");
    }

    let mut check = |what: &str, edit: &str, names: &[(&str, u64)], translated_max: u64| {
        let misses = || planner.inspect(|engine| engine.memo().counts().misses);
        let before = misses();
        let names: BTreeMap<String, u64> =
            names.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let ran =
            runs(&mut world, &planner, &plans, edit, &names.keys().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(ran, names, "{what}");
        let translated = misses() - before;
        assert!(translated <= translated_max, "{what}: {translated} inputs, not {translated_max}");
    };
    check("an endpoint", &slice(7, 2), &[("endpoints.service", 1), ("endpoints.bucket", 1)], 1);
    let rule = |namespace: &str, more: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r, namespace: {namespace}}}\nspec: \
             {{host: s7.n7.svc.cluster.local, {more}}}\n"
        )
    };
    let subset = |name: &str| format!("subsets: [{{name: {name}, labels: {{v: '1'}}}}]");
    // The rule of a service's owner is for everybody.
    let once = [("clusters.bucket", 1), ("endpoints.bucket", 1), ("routes.bucket_hosts", 1)];
    check("a rule for everybody", &rule("n7", &subset("a")), &once, 2);
    check("another subset", &rule("n7", &subset("b")), &once, 2);
    // A rule that a namespace has for itself: its clients have the bucket for themselves from now on.
    let twice = once.map(|(name, count)| (name, 2 * count));
    // Its route configuration is made of another list, though of the same virtual hosts.
    check("a rule for oneself", &rule("n3", &subset("c")), &twice, 3);
    check(
        "an endpoint that both have",
        &slice(7, 3),
        &[("endpoints.service", 1), ("endpoints.bucket", 2)],
        2,
    );
    check(
        "an endpoint of another bucket",
        &slice(8, 3),
        &[("endpoints.service", 1), ("endpoints.bucket", 1)],
        1,
    );
    let route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: r, namespace: n9}\nspec: {hosts: [s9], \
                 http: [{timeout: 1s, route: [{destination: {host: s9}}]}]}\n";
    // The virtual host for its own namespace and for the others, and a route configuration for each
    // namespace, or a resource for each of the two.
    let made = if split_routes { 2 } else { NAMESPACES as u64 };
    check("a route", route, &[("routes.bucket_hosts", 1)], 3 + made);
}

#[test]
fn a_gateway_of_two_thousand_hosts_translates_the_host_that_changed() {
    one_of_two_thousand_hosts(false);
}

#[test]
fn a_gateway_of_two_thousand_hosts_is_sent_the_host_that_changed_where_it_is_a_resource() {
    one_of_two_thousand_hosts(true);
}

fn one_of_two_thousand_hosts(split_routes: bool) {
    let host = |index: usize, timeout: u32| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: h{index}, namespace: n{}}}\nspec: {{hosts: \
             [h{index}.example.com], gateways: [edge/gw], http: [{{timeout: {timeout}s, route: [{{destination: {{host: s{index}}}}}]}}]}}\n---\n",
            index % 100
        )
    };
    let mut text = String::from(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: gw, namespace: edge}\nspec: {selector: {a: gw}, servers: \
         [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*/*']}]}\n---\n",
    );
    (0..2_000).for_each(|index| text.push_str(&(service(index) + &host(index, 1))));
    let mut world = World::new(Options::default());
    let planner = Planner::new(world.apply(change(&text)));
    let labels = serde_json::json!({ "LABELS": { "a": "gw" } });
    let metadata = labels.as_object().cloned().unwrap_or_default();
    let id = "router~10.99.0.1~gw.edge~edge.svc.cluster.local";
    let facts = ProxyFacts::parse(id, "gw", &metadata, Locality::default()).expect("a node");
    let facts = ProxyFacts { split_routes, ..facts };
    let plan = planner.class_plan(Arc::new(Hashed::new(planner.classify(&facts))));
    let before = planner.resources(&plan);
    assert_eq!(before.set(XdsType::Rds).len(), 1, "one route configuration for the port");

    let misses = || planner.inspect(|engine| engine.memo().counts().misses);
    let known = misses();
    planner.advance(world.apply(change(&host(1_234, 2))));
    let after = planner.resources(&plan);
    for ty in XdsType::ALL {
        let delta = diff(before.set(ty), after.set(ty));
        let expected = usize::from(ty == if split_routes { XdsType::Vhds } else { XdsType::Rds });
        assert_eq!(delta.changed.len() + delta.removed.len(), expected, "{}", ty.short());
    }
    let translated = misses() - known;
    assert!(translated <= 8, "{translated} inputs were translated for one host of two thousand");
}
