//! What an edit costs a gateway that serves thousands of routes or Ingresses: counted, not timed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use navarch_envoy::{ProxyResources, XdsType, diff};
use navarch_model::change::ChangeSet;
use navarch_model::endpoint::Locality;
use navarch_model::proxy::ProxyFacts;
use navarch_model::{Hashed, parse_text};
use navarch_plan::{ClassPlan, Planner};
use navarch_snapshot::World;
use navarch_snapshot::world::Options;

const ROUTES: usize = 5_000;
const INGRESSES: usize = 1_000;

fn change(text: &str) -> ChangeSet {
    let parsed = parse_text("test.yaml", text);
    assert!(parsed.rejected.is_empty() && !parsed.incomplete, "{:?}", parsed.findings);
    ChangeSet::upserting(parsed.objects)
}

/// A world with a gateway, and the plan of the proxies that serve it.
struct Rig {
    world: World,
    planner: Planner,
    plan: ClassPlan,
    last: Arc<ProxyResources>,
}

impl Rig {
    fn new(text: &str, labels: &serde_json::Value, split_routes: bool) -> Self {
        let mut world = World::new(Options::default());
        let planner = Planner::new(world.apply(change(text)));
        let metadata = serde_json::json!({ "LABELS": labels, "INSTANCE_IPS": "10.99.0.1" });
        let metadata = metadata.as_object().cloned().unwrap_or_default();
        let id = "router~10.99.0.1~gw.edge~edge.svc.cluster.local";
        let facts = ProxyFacts::parse(id, "gw", &metadata, Locality::default()).expect("a node");
        let facts = ProxyFacts { split_routes, ..facts };
        let plan = planner.class_plan(Arc::new(Hashed::new(planner.classify(&facts))));
        let last = planner.resources(&plan);
        Rig { world, planner, plan, last }
    }

    /// Applies an edit; says which resources changed, by type, how often gathers ran that did more than once,
    /// and how many inputs were translated. Returns how often gathers ran in all, and how often the memo was
    /// asked.
    #[track_caller]
    fn check(
        &mut self,
        what: &str,
        edit: &str,
        changed: &str,
        gathers: &[(&str, u64)],
        translated_max: u64,
    ) -> (u64, u64) {
        let runs = |planner: &Planner| planner.inspect(|engine| engine.runs());
        let counts = |planner: &Planner| planner.inspect(|engine| engine.memo().counts());
        let (before, known) = (runs(&self.planner), counts(&self.planner));
        self.planner.advance(self.world.apply(change(edit)));
        let now = self.planner.resources(&self.plan);
        let mut found = String::new();
        for ty in XdsType::ALL {
            let delta = diff(self.last.set(ty), now.set(ty));
            let count = delta.changed.len() + delta.removed.len();
            if count > 0 {
                let _ = write!(found, "{}{} {count}", if found.is_empty() { "" } else { ", " }, ty.short());
            }
        }
        assert_eq!(found, changed, "{what}");
        let after = runs(&self.planner);
        let of = |runs: &BTreeMap<&'static str, u64>, name: &str| runs.get(name).copied().unwrap_or_default();
        for (name, count) in gathers {
            assert_eq!(of(&after, name) - of(&before, name), *count, "{what}: {name}");
        }
        let counts = counts(&self.planner);
        let translated = counts.misses - known.misses;
        assert!(translated <= translated_max, "{what}: {translated} inputs, not {translated_max}");
        self.last = now;
        let all = |runs: &BTreeMap<&'static str, u64>| runs.values().sum::<u64>();
        (all(&after) - all(&before), translated + counts.hits - known.hits)
    }
}

fn service(index: usize) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: s{index}, namespace: shop}}\nspec: {{clusterIP: 10.1.{}.{}, ports: \
         [{{name: http, port: 80}}]}}\n---\n",
        index / 250,
        index % 250 + 1
    )
}

/// A gateway by the Service that its proxies are behind.
const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: edge}
spec:
  gatewayClassName: navarch
  listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]
---
apiVersion: v1
kind: Service
metadata: {name: gw-navarch, namespace: edge}
spec: {clusterIP: 10.96.0.1, selector: {a: gw}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: gw, namespace: edge, labels: {a: gw}}
status: {phase: Running, podIP: 10.99.0.1, podIPs: [{ip: 10.99.0.1}], conditions: [{type: Ready, status: 'True'}]}
---
";

/// An HTTPRoute. Every tenth shares its host with the one before.
fn route(index: usize, more: &str) -> String {
    let host = index - usize::from(index % 10 == 9);
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r{index}, namespace: shop}}\nspec: {{parentRefs: \
         [{{name: gw, namespace: edge}}], hostnames: [h{host}.example.com], rules: [{{matches: [{{path: {{value: /p{index}}}}}], \
         {more}backendRefs: [{{name: s{}, port: 80}}]}}]}}\n---\n",
        index % 100
    )
}

fn gateway_of(routes: usize, split_routes: bool) -> Rig {
    let mut text = GATEWAY.to_owned();
    (0..100).for_each(|index| text.push_str(&service(index)));
    (0..routes).for_each(|index| text.push_str(&route(index, "")));
    let rig = Rig::new(&text, &serde_json::json!({"a": "gw"}), split_routes);
    assert_eq!(rig.last.set(XdsType::Rds).len(), 1, "one route configuration for the port");
    rig
}

#[test]
fn one_route_of_five_thousand_on_a_gateway_translates_what_reads_it() {
    let mut rig = gateway_of(ROUTES, false);
    // The set, the hosts of its bucket, and the configuration that has it.
    let one = [("routes.gateway_set", 1), ("routes.gateway_hosts_in", 1), ("routes.gateway", 1)];
    rig.check("a timeout", &route(1_234, "timeouts: {request: 1s}, "), "RDS 1", &one, 3);
    rig.check("of two for a host", &route(1_239, "timeouts: {request: 1s}, "), "RDS 1", &one, 4);
    rig.check("nothing", &route(1_239, "timeouts: {request: 1s}, "), "", &[("routes.gateway", 0)], 0);
    rig.check("one more", &route(ROUTES, ""), "RDS 1", &one, 3);
    let elsewhere = route(ROUTES + 1, "").replace("name: gw,", "name: other,");
    rig.check("of another gateway", &elsewhere, "", &[("routes.gateway", 0)], 0);
}

#[test]
fn one_route_on_a_gateway_costs_its_bucket_where_hosts_are_resources() {
    let counted = [100, ROUTES].map(|routes| {
        let mut rig = gateway_of(routes, true);
        assert!(rig.last.set(XdsType::Vhds).len() > routes / 2, "a resource for each host");
        let one = [("routes.gateway_set", 1), ("routes.gateway_hosts_in", 1), ("routes.gateway_hosts", 1)];
        let timeout = "timeouts: {request: 1s}, ";
        let counts = [
            rig.check("a timeout", &route(34, timeout), "VHDS 1", &one, 2),
            rig.check("of two for a host", &route(39, timeout), "VHDS 1", &one, 3),
            rig.check("one more", &route(ROUTES, ""), "VHDS 1", &one, 2),
            rig.check("nothing", &route(39, timeout), "", &[("routes.gateway_hosts_in", 0)], 0),
        ];
        for (runs, asked) in counts {
            assert!(runs <= 12, "{runs} gathers ran");
            // The other hosts of its bucket are asked for, some twenty of five thousand.
            assert!(asked <= 64, "the memo was asked {asked} times");
        }
        counts.map(|(runs, _)| runs)
    });
    // With few, one more route may be the first in its bucket.
    let is_more = counted[0].iter().zip(&counted[1]).any(|(few, many)| many > few);
    assert!(!is_more, "gathers that ran, with few routes and with many: {counted:?}");
}

#[test]
fn one_ingress_of_a_thousand_with_certificates_concerns_its_own_host() {
    let ingress = |index: usize, path: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: i{index}, namespace: shop, annotations: \
             {{kubernetes.io/ingress.class: istio}}}}\nspec: {{tls: [{{hosts: [h{index}.example.com], secretName: c{index}}}], \
             rules: [{{host: h{index}.example.com, http: {{paths: [{{path: {path}, pathType: Prefix, backend: {{service: \
             {{name: s{}, port: {{number: 80}}}}}}}}]}}}}]}}\n---\n",
            index % 100
        )
    };
    let mut text = String::new();
    (0..100).for_each(|index| text.push_str(&service(index)));
    (0..INGRESSES).for_each(|index| text.push_str(&ingress(index, "/")));
    let mut rig = Rig::new(&text, &serde_json::json!({"istio": "ingressgateway"}), false);
    assert_eq!(
        rig.last.set(XdsType::Rds).len(),
        INGRESSES + 1,
        "one for each certificate, and one for port 80"
    );

    // Its own configuration, and that of port 80, which has all hosts.
    let own = [("routes.gateway_set", 2), ("routes.gateway", 2)];
    rig.check("a path", &ingress(123, "/new"), "RDS 2", &own, 6);
    rig.check("one more", &ingress(INGRESSES, "/"), "LDS 1, RDS 2", &own, 8);
}

#[test]
fn beside_a_set_with_hosts_everywhere_an_edit_costs_its_bucket() {
    let virtual_service = |name: &str, hosts: &str, more: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{hosts: \
             [{hosts}], gateways: [edge/gw], http: [{{{more}route: [{{destination: {{host: s1.shop.svc.cluster.local}}}}]}}]}}\n---\n"
        )
    };
    let counted = [100, ROUTES / 5].map(|routes| {
        let mut text = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: gw, namespace: edge}\nspec: {selector: \
                        {istio: ingressgateway}, servers: [{hosts: ['*'], port: {number: 80, name: http, protocol: HTTP}}]}\n---\n"
            .to_owned();
        text.push_str(&service(1));
        let wide: Vec<String> = (0..2_000).map(|index| format!("w{index}.example.com")).collect();
        text.push_str(&virtual_service("wide", &wide.join(", "), ""));
        for index in 0..routes {
            text.push_str(&virtual_service(&format!("r{index}"), &format!("h{index}.example.com"), ""));
        }
        let mut rig = Rig::new(&text, &serde_json::json!({"istio": "ingressgateway"}), true);
        assert_eq!(rig.last.set(XdsType::Vhds).len(), routes + 1, "one for each, and one for all the others");
        let one = [("routes.gateway_set", 1), ("routes.gateway_hosts_in", 1), ("routes.gateway_hosts", 1)];
        let edit = virtual_service("r34", "h34.example.com", "timeout: 1s, ");
        let (runs, asked) = rig.check("a timeout", &edit, "VHDS 1", &one, 2);
        assert!(asked <= 64, "the memo was asked {asked} times");
        runs
    });
    assert_eq!(counted[0], counted[1], "gathers that ran, with few hosts and with many");
}
