//! What proxies of a namespace have refused is left out of what they get, as long as it says the same.

use std::sync::Arc;

use navarch_envoy::XdsType;
use navarch_model::change::ChangeSet;
use navarch_model::endpoint::Locality;
use navarch_model::fact::{Fact, Rejected};
use navarch_model::proxy::ProxyFacts;
use navarch_model::{Hashed, Kind, ObjectKey, Origin, parse_text};
use navarch_plan::rejected::content_at;
use navarch_plan::{Planner, TranslationFindings};
use navarch_snapshot::world::Options;
use navarch_snapshot::{Snapshot, World};

fn patch(name: &str) -> String {
    format!(
        "  - applyTo: HTTP_FILTER
    match: {{context: SIDECAR_OUTBOUND, listener: {{filterChain: {{filter: {{name: envoy.filters.network.http_connection_manager}}}}}}}}
    patch: {{operation: INSERT_FIRST, value: {{name: {name}, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua, inline_code: 'x = 1'}}}}}}
"
    )
}

fn mesh(second: &str) -> String {
    let (one, two) = (patch("patch-a"), patch(second));
    format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: far, namespace: shop}}
spec: {{hosts: [far.test], resolution: DNS, ports: [{{number: 80, name: http, protocol: HTTP}}]}}
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {{name: patches, namespace: istio-system}}
spec:
  configPatches:
{one}{two}---
apiVersion: extensions.istio.io/v1alpha1
kind: TrafficExtension
metadata: {{name: script, namespace: istio-system}}
spec: {{lua: {{inlineCode: 'x = 1'}}}}
"
    )
}

/// The names of the filters of the listener of port 80 that configuration adds, for a sidecar in a namespace.
fn filters(snapshot: &Arc<Snapshot>, namespace: &str) -> Vec<&'static str> {
    let id = format!("sidecar~10.9.0.1~web.{namespace}~{namespace}.svc.cluster.local");
    let facts = ProxyFacts::parse(&id, "web", &serde_json::Map::new(), Locality::default()).expect("a node");
    let planner = Planner::new(snapshot.clone());
    let plan = planner.class_plan(Arc::new(Hashed::new(planner.classify(&facts))));
    let resources = planner.resources(&plan);
    let listener = resources.set(XdsType::Lds).get("0.0.0.0_80").expect("a listener").body();
    let has = |name: &&str| listener.windows(name.len()).any(|window| window == name.as_bytes());
    ["patch-a", "patch-b", "patch-c", "script"].into_iter().filter(has).collect()
}

#[test]
fn it_is_left_out_for_the_namespace_until_it_changes_and_that_is_said() {
    let apply = |world: &mut World, text: &str| {
        let parsed = parse_text("mesh.yaml", text);
        assert!(parsed.rejected.is_empty() && !parsed.incomplete, "{:?}", parsed.findings);
        world.apply(ChangeSet::upserting(parsed.objects))
    };
    let mut world = World::new(Options::default());
    let snapshot = apply(&mut world, &mesh("patch-b"));
    let all = ["patch-a", "patch-b", "script"];
    assert_eq!((filters(&snapshot, "shop"), filters(&snapshot, "other")), (all.to_vec(), all.to_vec()));

    let patches = ObjectKey::new(Kind::EnvoyFilter, "istio-system", "patches");
    let script = ObjectKey::new(Kind::TrafficExtension, "istio-system", "script");
    let origins = [Origin::field(patches, "spec.configPatches[1]"), Origin::object(script)];
    let rejected = origins.map(|origin| Rejected {
        namespace: "shop".into(),
        content: content_at(&snapshot.view(), &origin).expect("it is written"),
        origin,
        resource: "listener 0.0.0.0_80".into(),
        words: "no".into(),
    });
    let snapshot = world.apply(ChangeSet::stating([Fact::Rejected(Arc::new(rejected.to_vec()))]));
    assert_eq!((filters(&snapshot, "shop"), filters(&snapshot, "other")), (vec!["patch-a"], all.to_vec()));
    let findings = || TranslationFindings::default().about(&world.snapshot().clone(), &Arc::default());
    let said: Vec<String> = findings().iter().map(|finding| finding.path.clone()).collect();
    assert_eq!(said, ["spec.configPatches[1].patch", "spec"]);
    assert!(
        findings()[0]
            .message
            .starts_with("proxies of namespace shop refuse the listener 0.0.0.0_80 with it: no")
    );

    let snapshot = apply(&mut world, &mesh("patch-c"));
    assert_eq!(filters(&snapshot, "shop"), ["patch-a", "patch-c"], "what is changed is tried again");
    let findings = TranslationFindings::default().about(&snapshot, &Arc::default());
    assert_eq!(findings.iter().map(|finding| &*finding.path).collect::<Vec<_>>(), ["spec"]);
}
