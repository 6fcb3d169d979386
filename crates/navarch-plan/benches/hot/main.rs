//! What the hot pieces cost, from an edit to a resource: `cargo bench -p navarch-plan -- apply`.
//!
//! Names are `piece/size`; the size is the number of services in the mesh.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

mod translate;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use navarch_envoy::{Resource, XdsType, diff};
use navarch_model::change::ChangeSet;
use navarch_model::endpoint::Locality;
use navarch_model::proxy::ProxyFacts;
use navarch_model::{Hashed, parse_text};
use navarch_plan::{ClassPlan, Memo, Planner};
use navarch_snapshot::World;
use navarch_snapshot::world::Options;
use navarch_testkit::mesh;

/// The size at which everything is measured.
const USUAL: usize = 1_000;
/// Sizes at which it is measured what an edit costs: as much in a large mesh as in a small one.
const SIZES: [usize; 2] = [USUAL, 10_000];

/// The service that is edited.
const EDITED: usize = 7;

fn change(text: &str) -> ChangeSet {
    let parsed = parse_text("bench.yaml", text);
    assert!(parsed.rejected.is_empty() && !parsed.incomplete, "{:?}", parsed.findings);
    ChangeSet::upserting(parsed.objects)
}

fn world(services: usize) -> World {
    let mut world = World::new(Options::default());
    world.apply(change(&mesh::services(services)));
    world
}

/// The plan of a proxy without metadata but these labels.
fn class_plan(planner: &Planner, id: &str, labels: serde_json::Value) -> ClassPlan {
    let metadata = serde_json::json!({ "LABELS": labels });
    let metadata = metadata.as_object().cloned().unwrap_or_default();
    let facts = ProxyFacts::parse(id, "p", &metadata, Locality::default()).expect("a node that is valid");
    planner.class_plan(Arc::new(Hashed::new(planner.classify(&facts))))
}

/// The plan of a sidecar that sees everything.
fn sidecar_plan(planner: &Planner) -> ClassPlan {
    class_plan(planner, "sidecar~10.99.0.1~p.n0~n0.svc.cluster.local", serde_json::json!({}))
}

type Edits = Box<dyn FnMut() -> ChangeSet>;

/// Two states of an object in turn: each is an edit.
fn in_turn(states: [String; 2]) -> Edits {
    let mut turns = states.map(|text| change(&text)).into_iter().cycle();
    Box::new(move || turns.next().unwrap_or_default())
}

/// One more endpoint comes and goes.
fn endpoints() -> Edits {
    in_turn([1, 2].map(|others| mesh::slice(EDITED, others)))
}

/// The world: everything at once, and edits.
fn apply(c: &mut Criterion) {
    for size in SIZES {
        let mut all = None;
        c.bench_function(&format!("load/{size}"), |b| {
            let all = all.get_or_insert_with(|| change(&mesh::services(size)));
            let load = |all| {
                let mut world = World::new(Options::default());
                world.apply(all);
                world
            };
            b.iter_batched(|| all.clone(), load, BatchSize::PerIteration);
        });
        let mut known = None;
        let accounts = in_turn(["one", "other"].map(|account| mesh::pod(EDITED, account)));
        for (what, mut edit) in [("endpoint", endpoints()), ("pod", accounts)] {
            c.bench_function(&format!("apply {what}/{size}"), |b| {
                let world = known.get_or_insert_with(|| world(size));
                b.iter_batched(&mut edit, |edit| world.apply(edit), BatchSize::PerIteration);
            });
        }
    }
}

/// The plan of an edit that was applied.
fn plan_of_an_edit(c: &mut Criterion) {
    for size in SIZES {
        let mut known = None;
        let mut edit = endpoints();
        c.bench_function(&format!("plan endpoint/{size}"), |b| {
            let (world, planner, plan) = known.get_or_insert_with(|| {
                let world = world(size);
                let planner = Planner::new(world.snapshot().clone());
                let plan = sidecar_plan(&planner);
                planner.resources(&plan);
                (world, planner, plan)
            });
            let plan_again = |snapshot| {
                planner.advance(snapshot);
                planner.resources(plan)
            };
            b.iter_batched(|| world.apply(edit()), plan_again, BatchSize::PerIteration);
        });
    }
}

/// A whole plan, and what there is to do when little or nothing of it has changed.
fn plan(c: &mut Criterion) {
    let mut world = world(USUAL);
    let snapshot = world.snapshot().clone();
    let memo = Arc::new(Memo::default());
    let planner = Planner::with_memo(snapshot.clone(), memo.clone());
    let plan = sidecar_plan(&planner);
    let before = planner.resources(&plan);

    let from_scratch = |memo: Arc<Memo>| {
        let planner = Planner::with_memo(snapshot.clone(), memo);
        let plan = sidecar_plan(&planner);
        planner.resources(&plan);
        (planner, plan)
    };
    c.bench_function(&format!("plan/{USUAL}"), |b| {
        b.iter_with_large_drop(|| from_scratch(Arc::new(Memo::default())));
    });
    // All translations are in the memo, since the first plan uses them.
    c.bench_function(&format!("gather/{USUAL}"), |b| b.iter_with_large_drop(|| from_scratch(memo.clone())));
    c.bench_function(&format!("plan nothing/{USUAL}"), |b| b.iter(|| planner.resources(&plan)));

    planner.advance(world.apply(endpoints()()));
    let after = planner.resources(&plan);
    c.bench_function(&format!("diff/{USUAL}"), |b| {
        b.iter(|| diff(black_box(before.set(XdsType::Eds)), after.set(XdsType::Eds)));
    });
    let cluster = after.set(XdsType::Cds).iter().next().expect("a cluster").body();
    c.bench_function("encode/1", |b| {
        b.iter(|| Resource::of(XdsType::Cds, "outbound|80||s0.n0.svc.cluster.local", black_box(&cluster)));
    });
}

criterion_group! {
    name = hot;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = apply, plan_of_an_edit, plan, translate::translators
}
criterion_main!(hot);
