//! What one edit costs, piece by piece: `cargo bench -p navarch-plan`.

use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use navarch_envoy::{Resource, XdsType, diff};
use navarch_model::change::ChangeSet;
use navarch_model::endpoint::Locality;
use navarch_model::proxy::ProxyFacts;
use navarch_model::{Hashed, parse_text};
use navarch_plan::{ClassPlan, Planner};
use navarch_snapshot::World;
use navarch_snapshot::world::Options;

const SERVICES: usize = 1_000;

fn slice(index: usize, host: usize) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s{index}, namespace: n, labels: \
         {{kubernetes.io/service-name: s{index}}}}}\naddressType: IPv4\nendpoints: [{{addresses: [10.200.{}.{host}], conditions: \
         {{ready: true}}}}]\nports: [{{name: http, port: 8080, protocol: TCP}}]\n---\n",
        index % 250
    )
}

fn change(text: &str) -> ChangeSet {
    ChangeSet::upserting(parse_text("bench.yaml", text).objects)
}

fn world() -> World {
    let mut text = String::new();
    for index in 0..SERVICES {
        let _ = write!(
            text,
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s{index}, namespace: n}}\nspec:\n  clusterIP: 10.1.{}.{}\n  ports: [{{name: \
             http, port: 80, targetPort: 8080, protocol: TCP}}]\n---\n{}",
            index / 250,
            index % 250 + 1,
            slice(index, 1)
        );
    }
    let mut world = World::new(Options::default());
    world.apply(change(&text));
    world
}

/// A sidecar that sees everything.
fn class_plan(planner: &Planner) -> ClassPlan {
    let id = "sidecar~10.99.0.1~p.n~n.svc.cluster.local";
    let facts = ProxyFacts::parse(id, "p", &serde_json::Map::new(), Locality::default())
        .expect("a node that is valid");
    planner.class_plan(Arc::new(Hashed::new(planner.classify(&facts))))
}

fn pieces(c: &mut Criterion) {
    let mut world = world();
    let edits = [change(&slice(7, 2)), change(&slice(7, 3))];
    let mut turns = edits.iter().cycle();
    let mut next = move || turns.next().cloned().unwrap_or_default();

    c.bench_function("apply an endpoint to the world", |b| b.iter(|| black_box(world.apply(next()))));

    let planner = Planner::new(world.snapshot().clone());
    let plan = class_plan(&planner);
    planner.resources(&plan);
    c.bench_function("apply and plan an endpoint", |b| {
        b.iter(|| {
            planner.advance(world.apply(next()));
            black_box(planner.resources(&plan))
        });
    });
    c.bench_function("plan where nothing changed", |b| b.iter(|| black_box(planner.resources(&plan))));

    let before = planner.resources(&plan);
    planner.advance(world.apply(next()));
    let after = planner.resources(&plan);
    c.bench_function("compare 1,000 assignments of which one differs", |b| {
        b.iter(|| black_box(diff(before.set(XdsType::Eds), after.set(XdsType::Eds))));
    });

    let cluster = after.set(XdsType::Cds).iter().next().expect("a cluster").body();
    c.bench_function("encode and hash a cluster", |b| {
        b.iter(|| black_box(Resource::of(XdsType::Cds, "outbound|80||s0.n.svc.cluster.local", &cluster)));
    });
}

fn from_scratch(c: &mut Criterion) {
    let world = world();
    let mut group = c.benchmark_group("from scratch");
    group.sample_size(10);
    group.bench_function("plan 1,000 services for one class", |b| {
        b.iter(|| {
            let planner = Planner::new(world.snapshot().clone());
            let plan = class_plan(&planner);
            black_box(planner.resources(&plan))
        });
    });
    group.finish();
}

criterion_group!(hot, pieces, from_scratch);
criterion_main!(hot);
