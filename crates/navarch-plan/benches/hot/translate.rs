//! Translators and the memo, on the inputs that plans ask for. A time is the mean of these inputs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use criterion::Criterion;
use navarch_plan::memo::Miss;
use navarch_plan::{Memo, Planner};
use navarch_snapshot::world::Options;
use navarch_snapshot::{Snapshot, World};
use navarch_testkit::mesh;
use parking_lot::Mutex;
use serde_json::json;

use crate::{USUAL, change, class_plan};

/// A mesh with something for every translator.
const SHOP: &str = include_str!("mesh.yaml");
const SHOP_SERVICES: usize = 5;

/// Proxies of the shop: node id and labels.
const SHOP_PROXIES: [(&str, &str, &str); 4] = [
    ("sidecar~10.1.0.1~web-1.shop~shop.svc.cluster.local", "app", "web"),
    ("sidecar~10.1.0.3~cart-1.shop~shop.svc.cluster.local", "app", "cart"),
    ("sidecar~10.1.1.1~pay-1.back~back.svc.cluster.local", "app", "pay"),
    ("router~10.1.2.1~gateway-1.edge~edge.svc.cluster.local", "istio", "edge"),
];

const ALONE: (&str, &str, &str) = ("sidecar~10.99.0.1~p.n0~n0.svc.cluster.local", "app", "p");

/// The translator whose input grows with the mesh.
const GROWING: &str = "routes.configuration";

/// A mesh, and the proxies that are planned in it.
struct Mesh {
    services: usize,
    snapshot: Arc<Snapshot>,
    proxies: &'static [(&'static str, &'static str, &'static str)],
}

impl Mesh {
    fn new(
        services: usize,
        text: &str,
        proxies: &'static [(&'static str, &'static str, &'static str)],
    ) -> Self {
        let snapshot = World::new(Options::default()).apply(change(text));
        Mesh { services, snapshot, proxies }
    }

    /// Plans everything; `look` sees each translation.
    fn plan(&self, look: impl Fn(&Miss<'_>) + Send + Sync + 'static) {
        let planner = Planner::with_memo(self.snapshot.clone(), Arc::new(Memo::watched(look)));
        let mut plans = Vec::new();
        for (id, key, value) in self.proxies {
            let plan = class_plan(&planner, id, json!({ *key: value }));
            planner.resources(&plan);
            plans.push(plan);
        }
    }

    fn translators(&self) -> BTreeSet<&'static str> {
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let noted = seen.clone();
        self.plan(move |miss| _ = noted.lock().insert(miss.translator));
        std::mem::take(&mut seen.lock())
    }

    /// How long it takes to do something so many times with an input of this translator.
    fn mean(&self, translator: &'static str, times: u64, work: fn(&Miss<'_>)) -> Duration {
        let spent = Arc::new(Mutex::new((Duration::ZERO, 0)));
        let counted = spent.clone();
        self.plan(move |miss| {
            if miss.translator == translator {
                let start = Instant::now();
                (0..times).for_each(|_| work(miss));
                let mut counted = counted.lock();
                counted.0 += start.elapsed();
                counted.1 += 1;
            }
        });
        let (time, inputs) = *spent.lock();
        time / inputs
    }

    fn bench(&self, c: &mut Criterion, piece: &str, translator: &'static str, work: fn(&Miss<'_>)) {
        c.bench_function(&format!("{piece} {translator}/{}", self.services), |b| {
            b.iter_custom(|times| self.mean(translator, times, work));
        });
    }
}

pub fn translators(c: &mut Criterion) {
    let shop = Mesh::new(SHOP_SERVICES, &(secret("edge", "shop") + SHOP), &SHOP_PROXIES);
    let large = Mesh::new(USUAL, &mesh::services(USUAL), &[ALONE]);
    for translator in shop.translators() {
        shop.bench(c, "translate", translator, |miss| (miss.translate)());
        shop.bench(c, "memo", translator, |miss| (miss.get)());
    }
    large.bench(c, "translate", GROWING, |miss| (miss.translate)());
    large.bench(c, "memo", GROWING, |miss| (miss.get)());
}

/// A certificate with its key, of the form and size of RSA with 2,048 bits.
fn secret(namespace: &str, name: &str) -> String {
    const INTEGER: u8 = 0x02;
    const SEQUENCE: u8 = 0x30;
    let der = |tag: u8, content: &[u8]| {
        let len = u16::try_from(content.len()).unwrap_or_default().to_be_bytes();
        [&[tag, 0x82], &len[..], content].concat()
    };
    let pem = |label: &str, der: &[u8]| {
        format!("-----BEGIN {label}-----\\n{}\\n-----END {label}-----\\n", STANDARD.encode(der))
    };
    let modulus = [&[0][..], &[0x5a; 256]].concat();
    let key = der(SEQUENCE, &[&[INTEGER, 1, 0][..], &der(INTEGER, &modulus), &[0; 900]].concat());
    let certificate = pem("CERTIFICATE", &der(SEQUENCE, &[&[0; 400][..], &modulus, &[0; 600]].concat()));
    format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: {name}, namespace: {namespace}}}
stringData: {{tls.crt: \"{certificate}\", tls.key: \"{}\", ca.crt: \"{certificate}\"}}
---
",
        pem("PRIVATE KEY", &key)
    )
}
