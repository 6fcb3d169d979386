//! What runs in other clusters, for the proxies of each: endpoints, networks and their gateways, and hosts
//! that stay in their cluster. Two API servers in memory, of which one dies.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use common::Form;
use common::cluster::{collection, options, start};
use navarch_kubernetes::Access;
use navarch_kubernetes::Kubernetes;
use navarch_kubernetes::remote::{self, RemoteClusters, Remotes, State};
use navarch_model::Kind;
use navarch_server::debounce::Changes as _;
use navarch_server::inputs::Inputs;
use navarch_server::load::Loaded;
use navarch_snapshot::World;
use navarch_testkit::cluster::Cluster;
use navarch_testkit::{wait, workspace};
use serde_json::{Value, json};

/// A Service with one pod.
fn serve(cluster: &Cluster, host: &str, address: &str) {
    let (name, namespace) = host.split_once('.').unwrap_or((host, "default"));
    let metadata = |name: &str| json!({"name": name, "namespace": namespace});
    cluster.put(
        &collection(Kind::Service),
        &json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata(name),
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
        }),
    );
    let mut slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": metadata(&format!("{name}-1")),
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    });
    slice["metadata"]["labels"] = json!({"kubernetes.io/service-name": name});
    cluster.put(&collection(Kind::EndpointSlice), &slice);
}

/// The network of a cluster, and where it is entered.
fn network(cluster: &Cluster, network: &str, gateway: &str) {
    let labels = json!({"topology.istio.io/network": network});
    cluster.put(
        &collection(Kind::Namespace),
        &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system", "labels": labels}}),
    );
    cluster.put(
        &collection(Kind::Service),
        &json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "eastwest", "namespace": "istio-system", "labels": labels},
            "spec": {
                "type": "LoadBalancer", "clusterIP": "10.96.0.9",
                "ports": [{"name": "tls", "port": 15443, "protocol": "TCP"}],
            },
            "status": {"loadBalancer": {"ingress": [{"ip": gateway}]}},
        }),
    );
}

/// The world of the cluster `main` and the others.
struct Mesh {
    inputs: Inputs,
    world: World,
    remotes: Remotes,
}

impl Mesh {
    async fn start(main: &Cluster, directory: &Path) -> Result<Self> {
        let kubeconfig = Cluster::kubeconfig(directory, main.address())?;
        let access = Access { kubeconfig: Some(kubeconfig.clone()), context: None };
        let local = options(kubeconfig);
        let others = RemoteClusters::follow(remote::Options {
            local: local.cluster.clone(),
            secrets: Some((access, "istio-system".to_owned())),
            files: BTreeMap::new(),
            namespaces: BTreeSet::new(),
            kept: None,
            patience: Duration::from_secs(15),
        })
        .await?;
        let remotes = others.remotes();
        let mut inputs = Inputs::new(vec![Box::new(Kubernetes::follow(&local).await?), Box::new(others)]);
        let world = World::new(navarch_snapshot::world::Options {
            cluster_name: local.cluster.clone(),
            system_namespace: Some("istio-system".into()),
            ..Default::default()
        });
        let deadline = tokio::time::Instant::now() + wait::STEP;
        let mut mesh = loop {
            let (changes, errors) = inputs.read();
            ensure!(errors.is_empty(), "{errors:?}");
            match inputs.waits_for() {
                None => {
                    let mut mesh = Mesh { inputs, world, remotes };
                    mesh.world.apply(changes);
                    break mesh;
                }
                Some(name) => ensure!(tokio::time::Instant::now() < deadline, "{name}"),
            }
            inputs.changed().await;
        };
        mesh.read();
        Ok(mesh)
    }

    fn read(&mut self) {
        let (changes, _) = self.inputs.read();
        self.world.apply(changes);
    }

    /// The addresses that a proxy in a cluster has for a host, with their weights if they have one.
    fn endpoints(&self, cluster: &str, network: &str, host: &str) -> Result<Vec<String>> {
        let metadata = json!({
            "NAMESPACE": "shop", "INSTANCE_IPS": "192.0.2.9", "CLUSTER_ID": cluster, "NETWORK": network,
        });
        let node = json!({"id": "sidecar~192.0.2.9~a.shop~shop.svc.cluster.local", "metadata": metadata});
        let loaded = Loaded { snapshot: self.world.snapshot().clone(), findings: Vec::new() };
        let resources = common::resources(&loaded, &json!({"node": node}), Form::Sent)?;
        let name = format!("outbound|80||{host}.svc.cluster.local");
        let found = resources.get("endpoints").into_iter().flatten();
        let found = found.filter(|assignment| assignment["clusterName"] == name.as_str());
        let mut addresses: Vec<String> = found
            .flat_map(|assignment| assignment["endpoints"].as_array().into_iter().flatten())
            .flat_map(|locality| locality["lbEndpoints"].as_array().into_iter().flatten())
            .map(|endpoint| address(&endpoint["endpoint"]["address"]["socketAddress"]))
            .collect();
        addresses.sort();
        Ok(addresses)
    }

    async fn until(&mut self, what: &str, done: impl Fn(&Mesh) -> Result<bool>) -> Result<()> {
        let deadline = tokio::time::Instant::now() + wait::STEP;
        while !done(self)? {
            ensure!(tokio::time::Instant::now() < deadline, "{what}");
            let pause = tokio::time::sleep(Duration::from_millis(50));
            tokio::select! {
                () = self.inputs.changed() => self.read(),
                () = pause => {}
            }
        }
        Ok(())
    }
}

fn address(socket: &Value) -> String {
    format!("{}:{}", socket["address"].as_str().unwrap_or_default(), socket["portValue"])
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_those_of_all_clusters_and_stay_when_one_of_them_dies() -> Result<()> {
    let directory = workspace::scratch("remote-clusters")?;
    let (main, mut west, near) = (start().await?, start().await?, start().await?);
    let mut data = serde_json::Map::new();
    for (name, cluster) in [("west", &west), ("near", &near)] {
        let text = std::fs::read(Cluster::kubeconfig(&directory, cluster.address())?)?;
        data.insert(name.to_owned(), BASE64.encode(text).into());
    }
    main.put(
        "/api/v1/namespaces/istio-system/secrets",
        &json!({
            "apiVersion": "v1", "kind": "Secret", "data": data,
            "metadata": {
                "name": "others", "namespace": "istio-system", "labels": {"istio/multiCluster": "true"},
            },
        }),
    );
    // `near` is on the network of `main`, and `west` is on one of its own.
    serve(&main, "web.shop", "10.0.0.1");
    serve(&near, "web.shop", "10.0.1.1");
    serve(&west, "web.shop", "10.0.0.1");
    serve(&near, "only-near.shop", "10.0.1.2");
    serve(&near, "dns.kube-system", "10.0.1.3");
    serve(&main, "dns.kube-system", "10.0.0.3");
    network(&main, "net-main", "203.0.113.1");
    network(&west, "net-west", "203.0.113.2");
    let labels = json!({"topology.istio.io/network": "net-main"});
    near.put(
        &collection(Kind::Namespace),
        &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system", "labels": labels}}),
    );
    let mut mesh = Mesh::start(&main, &directory).await?;

    let check = |mesh: &Mesh, cluster: &str, network: &str, host: &str, expected: &[&str]| -> Result<()> {
        let found = mesh.endpoints(cluster, network, host)?;
        ensure!(found == expected, "{host} in {cluster}: {found:?} and not {expected:?}");
        Ok(())
    };
    let table = |mesh: &Mesh| -> Result<()> {
        check(mesh, "under-test", "net-main", "only-near.shop", &["10.0.1.2:8080"])?;
        // What stays in its cluster.
        check(mesh, "under-test", "net-main", "dns.kube-system", &["10.0.0.3:8080"])?;
        check(mesh, "near", "net-main", "dns.kube-system", &["10.0.1.3:8080"])?;
        check(mesh, "west", "net-west", "dns.kube-system", &[])
    };
    let direct = ["10.0.0.1:8080", "10.0.1.1:8080"];
    check(&mesh, "under-test", "net-main", "web.shop", &direct)?;
    table(&mesh)?;

    // The other network is behind its gateway, for whoever can be asked for by name there: not without
    // mutual TLS, which these pods have not.
    check(&mesh, "west", "net-west", "web.shop", &["10.0.0.1:8080"])?;
    let pod = |name: &str, ip: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "namespace": "shop",
                "labels": {"app": "web", "security.istio.io/tlsMode": "istio"},
            },
            "spec": {"serviceAccountName": "web"},
            "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]},
        })
    };
    west.put(&collection(Kind::Pod), &pod("web-1", "10.0.0.1"));
    near.put(&collection(Kind::Pod), &pod("web-1", "10.0.1.1"));
    let all = ["10.0.0.1:8080", "10.0.1.1:8080", "203.0.113.2:15443"];
    let seen = |mesh: &Mesh| mesh.endpoints("under-test", "net-main", "web.shop");
    mesh.until("the gateway of the other network", |mesh| Ok(seen(mesh)? == all)).await?;
    let of_west = |mesh: &Mesh| mesh.endpoints("west", "net-west", "web.shop");
    mesh.until("the gateway of the first network", |mesh| {
        Ok(of_west(mesh)? == ["10.0.0.1:8080", "203.0.113.1:15443"])
    })
    .await?;

    // One dies. The others go on, and what it said stays.
    west.stop();
    let state = |remotes: &Remotes, name: &str| {
        let report = remotes.reports().into_iter().find(|report| report.name == name);
        report.map(|report| report.state)
    };
    let remotes = mesh.remotes.clone();
    mesh.until("that it is silent", |_| Ok(state(&remotes, "west") == Some(State::Silent))).await?;
    serve(&near, "later.shop", "10.0.1.7");
    let later = |mesh: &Mesh| mesh.endpoints("under-test", "net-main", "later.shop");
    mesh.until("a change of another cluster", |mesh| Ok(later(mesh)? == ["10.0.1.7:8080"])).await?;
    ensure!(seen(&mesh)? == all, "{:?}", seen(&mesh)?);
    table(&mesh)?;
    ensure!(state(&remotes, "near") == Some(State::Synced), "{:?}", remotes.reports());

    // It is back with less.
    west.remove(&collection(Kind::EndpointSlice), "shop", "web-1");
    west.forget();
    west.start_again().await?;
    mesh.until("that it has gone", |mesh| Ok(seen(mesh)? == direct)).await?;
    let report = remotes.reports().into_iter().find(|report| report.name == "west").context("west")?;
    ensure!(report.from == "Secret istio-system/others", "{report:?}");
    Ok(())
}
