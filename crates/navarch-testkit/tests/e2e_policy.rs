//! Injection by a MutatingAdmissionPolicy, in a real API server: it makes what `navarch inject` makes.

use anyhow::{Context, Result, anyhow, ensure};
use navarch_model::values::Json;
use navarch_testkit::kubernetes::ApiServer;
use navarch_testkit::{navarch, wait, workspace};
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/shop/pods";

/// What an API server says of a pod that it would create, without what differs each time.
async fn tried(cluster: &ApiServer, pod: &Value) -> Result<Value> {
    let mut made = cluster.create(&format!("{PODS}?dryRun=All"), pod).await?.json()?;
    let metadata = made["metadata"].as_object_mut().context("metadata")?;
    for field in ["uid", "creationTimestamp", "managedFields"] {
        metadata.remove(field);
    }
    Ok(made)
}

/// A pod of a Deployment, with what a row states over it.
fn pod(name: &str, over: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "shop",
            "labels": {"app": "web", "version": "v2", "pod-template-hash": "5d4f"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f", "uid": "1", "controller": true,
            }],
        },
        "spec": {
            "serviceAccountName": "web",
            "containers": [{
                "name": "web", "image": "example.com/web:1",
                "ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 9090, "protocol": "UDP"}],
                "readinessProbe": {"httpGet": {
                    "path": "/ready?a=\"b\\", "port": "http", "httpHeaders": [{"name": "X-A", "value": "b\"c"}],
                }},
                "livenessProbe": {"tcpSocket": {"port": 8080}, "timeoutSeconds": 3},
                "startupProbe": {"grpc": {"port": 9000, "service": "s"}},
            }],
        },
    });
    merge(&mut pod, over);
    pod
}

fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match value {
                    Value::Null => _ = base.remove(key),
                    value => merge(base.entry(key).or_insert(Value::Null), value),
                }
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// What `navarch inject` makes of a pod.
fn injected(settings: &str, pod: &Value) -> Result<Value> {
    let directory = workspace::scratch("policy-inject")?;
    let (file, settings_file) = (directory.join("pod.json"), directory.join("settings.yaml"));
    std::fs::write(&file, pod.to_string())?;
    std::fs::write(&settings_file, settings)?;
    let text = |path: &std::path::Path| path.display().to_string();
    let printed =
        navarch::stdout(["inject", "-f", &text(&file), "--settings", &text(&settings_file), "-n", "shop"])?;
    let parsed = Json::parse(printed.trim_start_matches("---\n"));
    Ok(parsed.map_err(|error| anyhow!("{error}: `navarch inject` printed {printed}"))?.to_serde())
}

fn annotated(pairs: &[(&str, &str)]) -> Value {
    let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), json!(value)));
    json!({"metadata": {"annotations": pairs.collect::<serde_json::Map<_, _>>()}})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_makes_what_the_injection_makes() -> Result<()> {
    let rows = [
        ("usual", json!({})),
        (
            "alone",
            json!({"metadata": {"ownerReferences": null, "labels": null}, "spec": {"containers": [{"name": "a", "image": "a"}]}}),
        ),
        (
            "job",
            json!({"metadata": {"ownerReferences": [{
                "apiVersion": "batch/v1", "kind": "Job", "name": "nightly-28123456", "uid": "1", "controller": true,
            }]}}),
        ),
        (
            "set",
            json!({"metadata": {"ownerReferences": [{
            "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "1", "controller": true,
        }], "labels": {"app": null, "topology.istio.io/network": "n2", "app.kubernetes.io/name": "database"}}}),
        ),
        (
            "lists",
            json!({"spec": {
                "initContainers": [
                    {"name": "first", "image": "a"},
                    {"name": "beside", "image": "b", "restartPolicy": "Always", "ports": [{"containerPort": 81}],
                     "readinessProbe": {"httpGet": {"port": 81}}},
                ],
                "volumes": [{"name": "data", "emptyDir": {}}],
                "imagePullSecrets": [{"name": "theirs"}],
            }}),
        ),
        (
            "probes",
            json!({"spec": {"containers": [{
                "name": "web", "image": "a",
                "readinessProbe": {"httpGet": {"path": "/", "port": 8443, "scheme": "HTTPS"}},
                "livenessProbe": {"exec": {"command": ["true"]}},
                "startupProbe": {"httpGet": {"path": "/", "port": 80, "host": "other"}},
            }]}}),
        ),
        (
            "named",
            annotated(&[
                ("sidecar.istio.io/proxyImage", "example.com/proxy:2"),
                ("sidecar.istio.io/logLevel", "debug"),
                ("sidecar.istio.io/proxyCPU", "200m"),
                ("sidecar.istio.io/proxyMemoryLimit", "1Gi"),
                ("kubectl.kubernetes.io/default-container", "other"),
            ]),
        ),
        (
            "redirected",
            annotated(&[
                ("traffic.sidecar.istio.io/includeInboundPorts", "80,81"),
                ("traffic.sidecar.istio.io/excludeInboundPorts", "9000"),
                ("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.0.0.0/8"),
                ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "10.1.0.0/16"),
                ("traffic.sidecar.istio.io/includeOutboundPorts", "443"),
                ("traffic.sidecar.istio.io/excludeOutboundPorts", "25,26"),
                ("traffic.sidecar.istio.io/excludeInterfaces", "eth1"),
                ("istio.io/reroute-virtual-interfaces", "net1"),
            ]),
        ),
        (
            "scraped",
            annotated(&[
                ("prometheus.io/scrape", "true"),
                ("prometheus.io/port", "8080"),
                ("prometheus.io/path", "/m\"x"),
            ]),
        ),
        ("not-scraped", annotated(&[("prometheus.io/scrape", "false")])),
        (
            "not-rewritten",
            annotated(&[
                ("sidecar.istio.io/rewriteAppHTTPProbers", "false"),
                ("prometheus.istio.io/merge-metrics", "false"),
            ]),
        ),
        ("asked", json!({"metadata": {"labels": {"sidecar.istio.io/inject": "Yes"}}})),
    ];
    let settings = [
        (
            "native",
            "imagePullSecrets: [ours, theirs]\nnetwork: n1\nproxyConfig: {concurrency: 2, proxyMetadata: {A: b}}\n",
        ),
        (
            "container",
            "sidecarForm: container\nproxyConfig: {holdApplicationUntilProxyStarts: true}\nexcludeInboundPorts: '7'\n",
        ),
        ("node", "redirectedByNode: true\nmergeMetrics: false\nmeshId: m\n"),
    ];
    let cluster = ApiServer::start("policy", &[]).await?;
    let shop = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"istio-injection": "enabled"}},
    });
    cluster.apply("/api/v1/namespaces/shop", &shop).await?;
    let mut plain = Vec::new();
    for (name, over) in &rows {
        let pod = pod(name, over);
        plain.push((pod.clone(), tried(&cluster, &pod).await.with_context(|| (*name).to_owned())?));
    }
    for (form, text) in settings {
        let file = workspace::scratch("policy-settings")?.join("settings.yaml");
        std::fs::write(&file, text)?;
        let file = file.display().to_string();
        let kubeconfig = cluster.kubeconfig().display().to_string();
        let installed =
            ["install", "--image", "registry.example.com/navarch:1", "--inject-policy", "--no-crds"];
        navarch::stdout(installed.iter().chain(&["--settings", &file, "--kubeconfig", &kubeconfig]))?;
        let settings = cluster.get("/api/v1/namespaces/istio-system/configmaps/navarch").await?;
        let settings = settings["data"]["injection"].as_str().context("settings")?.to_owned();
        for ((name, _), (pod, plain)) in rows.iter().zip(&plain) {
            let mut plain = plain.clone();
            plain.as_object_mut().context("a pod")?.remove("status");
            // What has been injected elsewhere passes, and is filled in by the API server.
            let expected = injected(&settings, &plain)?;
            let said = format!("{form} {name}");
            wait::until(&said, wait::STEP, || async {
                let expected = tried(&cluster, &expected).await?;
                let made = tried(&cluster, pod).await?;
                let differs = differences("", &expected, &made);
                ensure!(differs.is_empty(), "{}", differs.join("\n"));
                Ok(())
            })
            .await?;
        }
    }
    Ok(())
}

/// Where two values differ.
fn differences(path: &str, expected: &Value, made: &Value) -> Vec<String> {
    match (expected, made) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            let of = |key: &String| {
                let null = Value::Null;
                differences(
                    &format!("{path}.{key}"),
                    a.get(key).unwrap_or(&null),
                    b.get(key).unwrap_or(&null),
                )
            };
            keys.into_iter().flat_map(of).collect()
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let pairs = a.iter().zip(b).enumerate();
            pairs.flat_map(|(index, (a, b))| differences(&format!("{path}[{index}]"), a, b)).collect()
        }
        (a, b) if a == b => Vec::new(),
        (a, b) => vec![format!("{path}: expected {a}, made {b}")],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_opts_out_is_left_and_who_cannot_be_injected_is_refused() -> Result<()> {
    let cluster = ApiServer::start("policy-decides", &[]).await?;
    for (name, labels) in [("shop", json!({"istio-injection": "enabled"})), ("bare", json!({}))] {
        let object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        cluster.apply(&format!("/api/v1/namespaces/{name}"), &object).await?;
    }
    let directory = workspace::scratch("policy-decides-settings")?;
    let file = directory.join("settings.yaml");
    std::fs::write(
        &file,
        "never: [{matchLabels: {kind: batch}}]\nalways: [{matchExpressions: [{key: kind, operator: Exists}]}]\n",
    )?;
    let (file, kubeconfig) = (file.display().to_string(), cluster.kubeconfig().display().to_string());
    let install =
        ["install", "--image", "registry.example.com/navarch:1", "--no-crds", "--kubeconfig", &kubeconfig];
    navarch::stdout(install.iter().chain(&["--inject-policy", "--settings", &file]))?;

    let has_proxy = |made: &Value| {
        let init = made["spec"]["initContainers"].as_array().cloned().unwrap_or_default();
        init.iter().any(|container| container["name"] == "istio-proxy")
    };
    // It takes the API server a moment to know a policy.
    wait::until("the policies to be in force", wait::STEP, || async {
        let refused = annotated(&[("proxy.istio.io/config", "{}")]);
        ensure!(tried(&cluster, &pod("refused", &refused)).await.is_err(), "it is taken");
        ensure!(has_proxy(&tried(&cluster, &pod("web", &json!({}))).await?), "no proxy");
        Ok(())
    })
    .await?;
    let labelled = |name: &str, value: &str| json!({"metadata": {"labels": {name: value}}});
    let left = [
        ("false", labelled("sidecar.istio.io/inject", "false")),
        ("no", labelled("sidecar.istio.io/inject", "no")),
        ("annotated", annotated(&[("sidecar.istio.io/inject", "false")])),
        ("never", labelled("kind", "batch")),
        ("node", json!({"spec": {"hostNetwork": true, "containers": [{"name": "a", "image": "a"}]}})),
        ("bare", json!({"metadata": {"namespace": "bare"}})),
    ];
    for (name, over) in left {
        let pod = pod(name, &over);
        let namespace = pod["metadata"]["namespace"].as_str().context("a namespace")?.to_owned();
        let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
        let made = cluster.create(&path, &pod).await.context(name)?.json()?;
        ensure!(!has_proxy(&made), "{name}: {made}");
    }
    for (name, over) in
        [("always", labelled("kind", "web")), ("label", labelled("sidecar.istio.io/inject", "true"))]
    {
        ensure!(has_proxy(&tried(&cluster, &pod(name, &over)).await?), "{name}");
    }
    let refused = [
        (annotated(&[("proxy.istio.io/config", "{concurrency: 1}")]), "the annotation proxy.istio.io/config"),
        (annotated(&[("inject.istio.io/templates", "gateway")]), "the template of the annotation"),
        (annotated(&[("traffic.sidecar.istio.io/excludeInboundPorts", "http")]), "is not ports"),
        (
            json!({"spec": {"containers": [{"name": "istio-proxy", "image": "auto"}]}}),
            "a container or a volume of a name",
        ),
        (
            json!({"spec": {"volumes": [{"name": "istio-data", "emptyDir": {}}]}}),
            "a container or a volume of a name",
        ),
    ];
    for (over, expected) in refused {
        let error = tried(&cluster, &pod("refused", &over)).await.err().context("it is taken")?;
        ensure!(format!("{error:#}").contains(expected), "{error:#}");
    }

    // In place of the webhook, and the other way round: one of both is there.
    let of = |plural: &str| {
        format!("/apis/admissionregistration.k8s.io/v1/{plural}/navarch-istio-system-injector")
    };
    cluster.get(&of("mutatingadmissionpolicies")).await?;
    ensure!(cluster.get(&of("mutatingwebhookconfigurations")).await.is_err(), "both are there");
    // Another control plane that would be asked about the same pods learns that, and one that would not.
    let canary = ["precheck", "--kubeconfig", &kubeconfig, "--revision", "canary"];
    let said = navarch::stdout(canary)?;
    let injectors = "policies called navarch-istio-system-injector inject pods of revision default";
    ensure!(said.contains(&format!("{injectors}\n")), "{said}");
    let said = navarch::run(canary.iter().chain(&["--tag", "default", "--monitor"]))?;
    let (failed, said) = (!said.status.success(), String::from_utf8(said.stdout)?);
    ensure!(failed && said.contains(&format!("in the way: {injectors} too")), "{said}");
    ensure!(
        said.contains("in the way: the cluster has no ServiceMonitor (monitoring.coreos.com/v1)"),
        "{said}"
    );
    navarch::stdout(install)?;
    cluster.get(&of("mutatingwebhookconfigurations")).await?;
    ensure!(cluster.get(&of("mutatingadmissionpolicies")).await.is_err(), "both are there");
    ensure!(cluster.get(&of("validatingadmissionpolicies")).await.is_err(), "both are there");
    Ok(())
}
