//! What is made for Gateways that have no proxies: `gateways/<case>/input.yaml` beside `objects.yaml`, which
//! has what cannot be made as comments at its end.
//!
//! `cargo xtask golden --update` writes the second; look at the difference before you keep it.

mod common;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use common::cluster::{options, serving, start};
use serde_json::{Value, json};

use navarch_inject::Settings;
use navarch_install::to_yaml;
use navarch_model::change::ChangeSet;
use navarch_model::document::{WrittenIn, parse_objects};
use navarch_server::gateways::wanted;
use navarch_server::serve as server;
use navarch_snapshot::{Snapshot, World};
use navarch_testkit::cluster::{Cluster, Write};
use navarch_testkit::golden::updating;
use navarch_testkit::{wait, workspace};

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateways");
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

fn snapshot(text: &str) -> Snapshot {
    let parsed = parse_objects(&WrittenIn::File("input.yaml".into()), text);
    assert!(parsed.findings.is_empty(), "{:?}", parsed.findings);
    (*World::new(Default::default()).apply(ChangeSet::upserting(parsed.objects))).clone()
}

#[test]
fn golden_gateways_are_made_as_they_were() {
    let settings = Settings { image: "registry.example.com/navarch:1".to_owned(), ..Settings::default() };
    let mut wrong = String::new();
    for case in cases() {
        let text = std::fs::read_to_string(case.join("input.yaml")).unwrap();
        let (mut objects, mut said) = (Vec::new(), String::new());
        for wanted in wanted(&snapshot(&text), &settings, "istio-system") {
            match wanted.objects {
                Ok(made) => objects.extend(made.iter().cloned()),
                Err(reason) => {
                    let reason = reason.lines().collect::<Vec<_>>().join("; ");
                    said.push_str(&format!("# {}: {reason}\n", wanted.gateway));
                }
            }
        }
        let made = to_yaml(&objects).unwrap() + &said;
        let golden = case.join("objects.yaml");
        if updating() {
            std::fs::write(&golden, &made).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != made {
            wrong.push_str(&format!("{} differs\n", golden.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong}`cargo xtask golden --update` rewrites them; read the difference");
}

const GATEWAYS: &str = "/apis/gateway.networking.k8s.io/v1/gateways";
const DEPLOYMENTS: &str = "/apis/apps/v1/deployments";

fn gateway(name: &str, uid: &str, infrastructure: Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": "shop", "uid": uid},
        "spec": {
            "gatewayClassName": "istio",
            "infrastructure": infrastructure,
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
        },
    })
}

/// The path of an object in the namespace `shop`.
fn path(group: &str, plural: &str, name: &str) -> String {
    format!("/{group}/namespaces/shop/{plural}/{name}")
}

/// One of two servers makes what runs gateways, once; what is somebody else's stays so.
#[tokio::test(flavor = "multi_thread")]
async fn gateways_get_proxies_from_one_replica_and_nobody_loses_any() -> Result<()> {
    let (cluster, directory) = (start().await?, workspace::scratch("gateways-deployed")?);
    let kubeconfig = Cluster::kubeconfig(&directory, cluster.address())?;
    let by_hand = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "taken-istio", "namespace": "shop"},
        "spec": {"replicas": 7},
    });
    cluster.put(DEPLOYMENTS, &by_hand);
    cluster.put(GATEWAYS, &gateway("edge", "1", json!({})));
    cluster.put(GATEWAYS, &gateway("taken", "2", json!({})));
    // Their accounts: one that somebody has made, and one that two of them name.
    let account = json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "till", "namespace": "shop"},
    });
    cluster.put("/api/v1/serviceaccounts", &account);
    for (name, uid, account) in [("one", "4", "till"), ("two", "5", "both"), ("three", "6", "both")] {
        let mut named = gateway(name, uid, json!({}));
        named["metadata"]["annotations"] = json!({"gateway.istio.io/service-account": account});
        cluster.put(GATEWAYS, &named);
    }
    let replica = |name: &str| -> Result<server::Options> {
        let candidate = navarch_kubernetes::Candidate {
            namespace: "istio-system".to_owned(),
            lease: "navarch-default".to_owned(),
            name: name.to_owned(),
        };
        let kubernetes =
            navarch_kubernetes::Options { candidate: Some(candidate), ..options(kubeconfig.clone()) };
        let served = serving(&directory.join(name), kubernetes, true)?;
        Ok(server::Options { deploy_gateways: true, ..served })
    };
    let deployment = path("apis/apps/v1", "deployments", "edge-istio");
    let service = path("api/v1", "services", "edge-istio");
    let looked = async {
        wait::until("what runs both gateways", wait::STEP, || async {
            for name in ["edge-istio", "taken-istio"] {
                for (group, plural) in [("api/v1", "services"), ("api/v1", "serviceaccounts")] {
                    cluster.object(&path(group, plural, name)).with_context(|| format!("{plural} {name}"))?;
                }
            }
            cluster.object(&deployment).context("a deployment")
        })
        .await?;
        wait::until("what runs those with accounts of others", wait::STEP, || async {
            for (name, account) in [("one", "till"), ("two", "both"), ("three", "both")] {
                let made = path("apis/apps/v1", "deployments", &format!("{name}-istio"));
                let made = cluster.object(&made).with_context(|| format!("a deployment of {name}"))?;
                ensure!(made["spec"]["template"]["spec"]["serviceAccountName"] == account, "{made}");
            }
            Ok(())
        })
        .await?;
        // Told at the Gateway, for who has the Deployment by that name wants to know.
        let mut writes = until_told(&cluster, "belongs to somebody else").await?;
        let taken =
            cluster.object(&path("apis/apps/v1", "deployments", "taken-istio")).context("it is gone")?;
        ensure!(taken["spec"] == by_hand["spec"], "{taken}");

        // The cluster gives the Service an address, and there is a proxy behind it.
        let mut given = cluster.object(&service).context("a service")?;
        given["status"] = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}});
        given["spec"]["clusterIP"] = json!("10.0.0.1");
        cluster.put("/api/v1/services", &given);
        cluster.put(
            "/apis/discovery.k8s.io/v1/endpointslices",
            &json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": "edge-istio-1",
                    "namespace": "shop",
                    "labels": {"kubernetes.io/service-name": "edge-istio"},
                },
                "addressType": "IPv4",
                "endpoints": [{"addresses": ["10.1.0.1"], "conditions": {"ready": true}}],
                "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
            }),
        );
        let own = path("apis/gateway.networking.k8s.io/v1", "gateways", "edge");
        wait::until("the gateway to be programmed", wait::STEP, || async {
            let status = cluster.object(&own).context("a gateway")?["status"].clone();
            let conditions = status["conditions"].as_array().context("conditions")?;
            let programmed = conditions.iter().find(|condition| condition["type"] == "Programmed");
            ensure!(programmed.context("Programmed")?["status"] == "True", "{status}");
            ensure!(status["addresses"][0]["value"] == "203.0.113.7", "{status}");
            Ok(())
        })
        .await?;
        writes.extend(cluster.take_writes());
        let applied = writes.iter().filter(|write| write.path == deployment).count();
        ensure!(applied == 1, "written {applied} times");
        for (name, times) in [("till", 0), ("both", 1)] {
            let account = path("api/v1", "serviceaccounts", name);
            let applied = writes.iter().filter(|write| write.path == account).count();
            ensure!(applied == times, "{name}: written {applied} times");
            let owners =
                cluster.object(&account).context("an account")?["metadata"]["ownerReferences"].clone();
            ensure!(owners.is_null(), "{name}: {owners}");
        }

        // Parameters come, and change what there is.
        let parameters =
            json!({"deployment": "spec: {replicas: 3}", "podDisruptionBudget": "{spec: {minAvailable: 1}}"});
        cluster.put(
            "/api/v1/configmaps",
            &json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "many", "namespace": "shop"},
                "data": parameters,
            }),
        );
        let reference = json!({"parametersRef": {"group": "", "kind": "ConfigMap", "name": "many"}});
        cluster.put(GATEWAYS, &gateway("edge", "1", reference));
        wait::until("the parameters to be followed", wait::STEP, || async {
            let made = cluster.object(&deployment).context("a deployment")?;
            ensure!(made["spec"]["replicas"] == 3, "{made}");
            let budget = path("apis/policy/v1", "poddisruptionbudgets", "edge-istio");
            cluster.object(&budget).map(|_| ()).context("a budget")
        })
        .await?;

        // A Gateway of the same name that is another one: what belongs to the former is not taken over.
        cluster.remove(GATEWAYS, "shop", "edge");
        cluster.put(GATEWAYS, &gateway("edge", "3", json!({})));
        until_told(&cluster, "edge-istio belongs to somebody else").await?;
        let owner = &cluster.object(&deployment).context("a deployment")?["metadata"]["ownerReferences"][0];
        ensure!(owner["uid"] == "1", "{owner}");
        Ok(())
    };
    tokio::select! {
        served = server::serve(replica("one")?) => Err(anyhow::anyhow!("one does not serve: {served:?}")),
        served = server::serve(replica("other")?) => Err(anyhow::anyhow!("the other does not serve: {served:?}")),
        looked = looked => looked,
    }
}

/// What has been written until an Event says something.
async fn until_told(cluster: &Cluster, says: &str) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    wait::until("an event", wait::STEP, || {
        writes.extend(cluster.take_writes());
        let mut messages = writes.iter().filter_map(|write: &Write| write.body["message"].as_str());
        let told = messages.any(|message| message.contains(says));
        async move {
            ensure!(told, "nobody says {says:?}");
            Ok(())
        }
    })
    .await?;
    Ok(writes)
}
