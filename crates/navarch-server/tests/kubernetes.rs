//! What an API server serves (the one of `navarch_testkit::cluster`, in memory) means what it means
//! in files, and what is between us and it changes nothing.

mod common;

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use common::{
    Form,
    cluster::{collection, differences, objects, options, serving, start},
};
use navarch_kubernetes::Kubernetes;
use navarch_model::Kind;
use navarch_server::{debounce::Changes as _, inputs::Inputs, load::Loaded, serve as server};
use navarch_snapshot::{Snapshot, World};
use navarch_sources::{Health, Source};
use navarch_testkit::{
    cluster::Cluster,
    envoy::bootstrap::Resources,
    faults::FaultProxy,
    golden::{self, Case},
    wait, workspace,
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

#[tokio::test(flavor = "multi_thread")]
async fn golden_cases_mean_the_same_in_an_api_server() -> Result<()> {
    let cluster = start().await?;
    let kubeconfig = Cluster::kubeconfig(&workspace::scratch("kubernetes-golden")?, cluster.address())?;
    let mut report = String::new();
    for case in golden::cases(common::root())? {
        serve(&cluster, &case).with_context(|| case.name.clone())?;
        let source = Kubernetes::follow(&options(kubeconfig.clone())).await?;
        report += &differences(&case, Box::new(source)).await?;
    }
    ensure!(report.is_empty(), "{report}");
    Ok(())
}

/// Has the API server serve what is in the case's files, and nothing else.
fn serve(cluster: &Cluster, case: &Case) -> Result<()> {
    for kind in Kind::ALL {
        cluster.clear(&collection(*kind));
    }
    for (kind, object) in objects(case)? {
        cluster.put(&collection(kind), &object);
    }
    Ok(())
}

/// The first start with a cluster and an authority, whose directory is there for both.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_kept_beside_an_authority_from_the_first_start_on() -> Result<()> {
    let (cluster, directory) = (start().await?, workspace::scratch("kubernetes-state")?);
    let state = directory.join("state");
    let mut kubernetes = options(Cluster::kubeconfig(&directory, cluster.address())?);
    kubernetes.kept = Some(state.join("kubernetes"));
    let serving = server::serve(serving(&state, kubernetes, false)?);
    let both = wait::until("an authority, and what the cluster said", wait::STEP, || async {
        for file in ["authority.json", "kubernetes/Secret", "kubernetes/VirtualService"] {
            ensure!(state.join(file).exists(), "{file} is not there");
        }
        Ok(())
    });
    tokio::select! {
        served = serving => Err(anyhow::anyhow!("it does not serve: {served:?}")),
        both = both => both,
    }
}

const CONFIG_MAPS: &str = "/api/v1/configmaps";

/// Two servers that start at once make one authority, and its root is where pods look for it.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_an_authority_and_its_root_is_in_every_namespace() -> Result<()> {
    let (cluster, directory) = (start().await?, workspace::scratch("kubernetes-authority")?);
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    for name in ["shop", "istio-system", "kube-system"] {
        cluster.put("/api/v1/namespaces", &namespace(name));
    }
    let kubeconfig = Cluster::kubeconfig(&directory, cluster.address())?;
    let replica = |name: &str| -> Result<server::Options> {
        let candidate = navarch_kubernetes::Candidate {
            namespace: "istio-system".to_owned(),
            lease: "navarch-default".to_owned(),
            name: name.to_owned(),
        };
        let kubernetes =
            navarch_kubernetes::Options { candidate: Some(candidate), ..options(kubeconfig.clone()) };
        serving(&directory.join(name), kubernetes, true)
    };
    let text = |object: &Value, key: &str| object["data"][key].as_str().unwrap_or_default().to_owned();
    let is_right = |name: &str| -> Result<()> {
        let secret = cluster.object("/api/v1/namespaces/istio-system/secrets/istio-ca-secret");
        let root = BASE64.decode(text(&secret.context("no authority")?, "ca-cert.pem"))?;
        let path = format!("/api/v1/namespaces/{name}/configmaps/istio-ca-root-cert");
        let map = cluster.object(&path).with_context(|| format!("no roots in {name}"))?;
        ensure!(text(&map, "root-cert.pem").as_bytes() == root, "other roots in {name}");
        Ok(())
    };
    let until_right =
        |name: &'static str| wait::until(name, wait::STEP, move || async move { is_right(name) });
    let looked = async {
        until_right("shop").await?;
        until_right("istio-system").await?;
        let path = "/api/v1/namespaces/kube-system/configmaps/istio-ca-root-cert";
        ensure!(cluster.object(path).is_none(), "Kubernetes itself has no use for it");
        let made = cluster.take_writes();
        let secrets = made.iter().filter(|write| write.path.ends_with("/secrets")).count();
        ensure!(secrets == 1, "{secrets} authorities");
        // What somebody else makes of it is put right, and a namespace that is new gets it.
        cluster.put(
            CONFIG_MAPS,
            &json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "istio-ca-root-cert", "namespace": "shop"},
                "data": {"root-cert.pem": "nonsense"},
            }),
        );
        cluster.put("/api/v1/namespaces", &namespace("new"));
        until_right("shop").await?;
        until_right("new").await?;
        // What is wrong with an object is told at it, once.
        let broken = json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "broken", "namespace": "shop", "uid": "7"},
            "spec": {"hosts": ["a.test"], "http": [{"timeout": "soon"}]},
        });
        cluster.put(&collection(Kind::VirtualService), &broken);
        wait::until("an event", wait::STEP, || async {
            let told = cluster.take_writes();
            let mut events =
                told.iter().filter(|write| write.path.contains("/namespaces/shop/events/broken."));
            let about = &events.next().context("no event")?.body["involvedObject"];
            ensure!(about["kind"] == "VirtualService" && about["name"] == "broken", "{about}");
            Ok(())
        })
        .await
    };
    tokio::select! {
        served = server::serve(replica("one")?) => Err(anyhow::anyhow!("one does not serve: {served:?}")),
        served = server::serve(replica("other")?) => Err(anyhow::anyhow!("the other does not serve: {served:?}")),
        looked = looked => looked,
    }
}

/// Services that are there all the time, and that come, change and go.
const STEADY: usize = 30;
const CHANGING: usize = 20;

fn entry(name: &str, port: u16) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "hosts": [format!("{name}.test")],
            "resolution": "STATIC",
            "ports": [{"number": port, "name": "http", "protocol": "HTTP"}],
            "endpoints": [{"address": "192.0.2.1"}],
        },
    })
}

/// A world that follows a cluster, looked at after every single change.
struct Followed {
    inputs: Inputs,
    world: World,
    health: Health,
}

impl Followed {
    async fn start(kubeconfig: PathBuf) -> Result<Self> {
        let source = Kubernetes::follow(&options(kubeconfig)).await?;
        let health = source.health().context("a source that may be out of reach")?;
        let inputs = Inputs::new(vec![Box::new(source)]);
        let mut followed = Followed { inputs, world: World::new(Default::default()), health };
        while followed.inputs.waits_for().is_some() {
            followed.inputs.changed().await;
            let (changes, _) = followed.inputs.read();
            followed.world.apply(changes);
        }
        Ok(followed)
    }

    /// Takes in changes until the world is as it should be. In none of the states on the way may
    /// something be missing that was there all the time.
    async fn until(&mut self, what: &str, done: impl Fn(&Snapshot, &Health) -> bool) -> Result<()> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(180);
        loop {
            let snapshot = self.world.snapshot().clone();
            let steady = snapshot.services().filter(|service| service.hostname.starts_with("steady-"));
            let with_endpoints = steady.filter(|service| {
                let endpoints = snapshot.view().endpoints(&service.hostname, &service.namespace);
                endpoints.is_some_and(|set| !set.endpoints.is_empty())
            });
            let count = with_endpoints.count();
            ensure!(count == STEADY, "{count} of the services that were there all the time, at {what}");
            if done(&snapshot, &self.health) {
                return Ok(());
            }
            // Whether a source is heard is not a change of what it says.
            let pause = tokio::time::sleep(Duration::from_millis(100));
            tokio::select! {
                () = self.inputs.changed() => {
                    let (changes, _) = self.inputs.read();
                    self.world.apply(changes);
                }
                () = pause => {
                    ensure!(tokio::time::Instant::now() < deadline, "{what}: {:?}", self.health.report());
                }
            }
        }
    }
}

/// Hosts and ports of the services of the test.
fn served(snapshot: &Snapshot) -> BTreeSet<(String, u16)> {
    let ours = snapshot.services().filter(|service| service.hostname.ends_with(".test"));
    ours.flat_map(|service| service.ports.iter().map(|port| (service.hostname.to_string(), port.port)))
        .collect()
}

/// What a proxy gets when it is planned from scratch.
fn planned(snapshot: Arc<Snapshot>) -> Result<Resources> {
    let metadata = json!({"NAMESPACE": "default", "INSTANCE_IPS": "192.0.2.9"});
    let node = json!({"id": "sidecar~192.0.2.9~a.default~default.svc.cluster.local", "metadata": metadata});
    common::resources(&Loaded { snapshot, findings: Vec::new() }, &json!({"node": node}), Form::Sent)
}

/// Breaks `NAVARCH_FAULTS` connections (200 unless it is set), restarts the API server in between
/// and has it forget what happened, and compares what is left with what is there.
#[tokio::test(flavor = "multi_thread")]
async fn faults_of_the_connection_end_in_what_is_there_and_never_take_anything_away() -> Result<()> {
    let faults = std::env::var("NAVARCH_FAULTS").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    let (mut cluster, entries) = (start().await?, collection(Kind::ServiceEntry));
    (0..STEADY).for_each(|index| cluster.put(&entries, &entry(&format!("steady-{index}"), 80)));
    let proxy = FaultProxy::start(cluster.address(), 7).await?;
    let directory = workspace::scratch("kubernetes-faults")?;
    let mut followed = Followed::start(Cluster::kubeconfig(&directory, proxy.address())?).await?;
    let mut expected: BTreeSet<(String, u16)> = served(followed.world.snapshot());
    ensure!(expected.len() == STEADY, "{expected:?}");

    let (mut broken, mut round) = (0, 0);
    while broken < faults {
        round += 1;
        // Every third time nothing is heard while things change, and every sixth what happened is
        // not kept.
        let away = round % 3 == 2;
        if away {
            cluster.stop();
            proxy.cut();
            followed.until("silence is noticed", |_, health| !health.report().unheard.is_empty()).await?;
        }
        for index in (0..CHANGING).filter(|index| (index + round) % 3 != 0) {
            let (name, port) = (format!("changing-{index}"), 8000 + u16::try_from((index * 7 + round) % 50)?);
            expected.retain(|(host, _)| *host != format!("{name}.test"));
            if (index + round) % 3 == 1 {
                cluster.put(&entries, &entry(&name, port));
                expected.insert((format!("{name}.test"), port));
            } else {
                cluster.remove(&entries, "default", &name);
            }
        }
        if away {
            if round % 6 == 2 {
                cluster.forget();
            }
            cluster.start_again().await?;
        }
        let some = (faults - broken).min(50);
        proxy.break_next(some);
        broken += some;
        proxy.cut();
        let (proxy, expected) = (&proxy, &expected);
        followed
            .until(&format!("round {round}, {broken} faults"), |snapshot, health| {
                // Connections that are not used yet do not break; others take their place.
                if proxy.left() > 0 && health.report().unheard.is_empty() {
                    proxy.cut();
                }
                proxy.left() == 0 && served(snapshot) == *expected && health.report().unheard.is_empty()
            })
            .await?;
    }
    let report = followed.health.report();
    ensure!(report.relists > 0 && report.failures > 0, "{report:?}");

    let directly = Cluster::kubeconfig(&directory, cluster.address())?;
    let from_scratch = Followed::start(directly).await?;
    ensure!(served(from_scratch.world.snapshot()) == expected, "the API server has something else");
    let (was_broken, scratch) = (followed.world.snapshot().clone(), from_scratch.world.snapshot().clone());
    ensure!(planned(was_broken)? == planned(scratch)?, "the plans differ");
    Ok(())
}
