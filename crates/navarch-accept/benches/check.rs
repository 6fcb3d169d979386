//! What the model costs, beside what encoding costs: both over the resources of the goldens.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use navarch_accept::violations;
use navarch_envoy::dynamic::encode;
use navarch_envoy::json::from_json;
use navarch_envoy::proto::envoy::config::{
    cluster::v3::Cluster, endpoint::v3::ClusterLoadAssignment, listener::v3::Listener,
    route::v3::RouteConfiguration,
};
use navarch_testkit::{golden, workspace};
use prost::{Message, Name};
use serde_json::Value;

/// The encoded resources of a type.
fn resources(stem: &str, full_name: &str) -> Vec<Vec<u8>> {
    let root = workspace::root().join("crates/navarch-server/tests/golden");
    let mut found = Vec::new();
    for case in golden::cases(&root).unwrap_or_default() {
        for entry in std::fs::read_dir(&case.dir).into_iter().flatten().flatten() {
            let Ok(text) = std::fs::read(entry.path().join(format!("{stem}.json"))) else { continue };
            let list: Vec<Value> = serde_json::from_slice(&text).unwrap_or_default();
            let messages = list.iter().filter_map(|json| from_json(full_name, json).ok());
            found.extend(messages.map(|message| encode(&message).to_vec()));
        }
    }
    assert!(!found.is_empty(), "no goldens of {stem}");
    found
}

fn compare<M: Message + Name + Default>(c: &mut Criterion, stem: &str) {
    let full_name = M::full_name();
    let resources = resources(stem, &full_name);
    let bytes: usize = resources.iter().map(Vec::len).sum();
    let typed: Vec<M> = resources.iter().filter_map(|bytes| M::decode(bytes.as_slice()).ok()).collect();
    let mut group = c.benchmark_group(stem);
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("check", |b| {
        b.iter(|| {
            resources.iter().map(|bytes| violations(&full_name, black_box(bytes)).len()).sum::<usize>()
        });
    });
    group.bench_function("encode", |b| {
        b.iter(|| typed.iter().map(|message| black_box(message).encode_to_vec().len()).sum::<usize>());
    });
    group.bench_function("decode", |b| {
        b.iter(|| resources.iter().filter(|bytes| M::decode(black_box(bytes.as_slice())).is_ok()).count());
    });
    group.finish();
}

fn all(c: &mut Criterion) {
    compare::<Listener>(c, "listeners");
    compare::<Cluster>(c, "clusters");
    compare::<RouteConfiguration>(c, "routes");
    compare::<ClusterLoadAssignment>(c, "endpoints");
}

criterion_group!(benches, all);
criterion_main!(benches);
