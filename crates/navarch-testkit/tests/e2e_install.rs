//! `navarch install` and the webhooks of `navarch serve`, with a real API server.

use anyhow::{Context, Result, ensure};
use navarch_testkit::{kubernetes::ApiServer, navarch, navarch::Server, ports, wait, workspace};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;

const IMAGE: &str = "registry.example.com/navarch:1";
const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";
const NAMESPACE: &str = "/api/v1/namespaces/istio-system";

/// Runs `navarch` against the API server; what it prints.
fn navarch(cluster: &ApiServer, args: &[&str]) -> Result<String> {
    let kubeconfig = cluster.kubeconfig();
    let kubeconfig = ["--kubeconfig", kubeconfig.to_str().context("a path")?];
    navarch::stdout(args.iter().chain(&kubeconfig))
}

async fn api_server(name: &str) -> Result<ApiServer> {
    ApiServer::start(name, &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_is_tried_made_changed_and_removed() -> Result<()> {
    let cluster = api_server("install").await?;
    let said = navarch(&cluster, &["precheck", "--inject-policy"])?;
    ensure!(said.contains("Kubernetes v1.36.3") && said.contains("nothing is in the way"), "{said}");

    // Before there is a namespace, what is in it cannot be tried.
    let install = ["install", "--image", IMAGE, "--tag", "prod"];
    let dry_run = [install.as_slice(), &["--dry-run"]].concat();
    let said = navarch(&cluster, &dry_run)?;
    ensure!(said.contains("Deployment istio-system/navarch would be applied; the API server"), "{said}");
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system"}});
    cluster.apply(NAMESPACE, &namespace).await?;
    let said = navarch(&cluster, &dry_run)?;
    ensure!(said.contains("Deployment istio-system/navarch would be applied\n"), "{said}");
    ensure!(said.contains("Secret istio-system/cacerts would be made"), "{said}");
    ensure!(!said.contains("cannot try"), "{said}");
    ensure!(
        cluster.get(&format!("{NAMESPACE}/services/navarch")).await.is_err(),
        "a trial has made something"
    );

    let said = navarch(&cluster, &install)?;
    ensure!(said.contains("CustomResourceDefinition virtualservices.networking.istio.io applied"), "{said}");
    ensure!(said.contains("Secret istio-system/cacerts made"), "{said}");
    let deployment = "/apis/apps/v1/namespaces/istio-system/deployments/navarch";
    let made = cluster.get(deployment).await?;
    let container = &made["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], IMAGE);
    let tag = format!("{ADMISSION}/mutatingwebhookconfigurations/navarch-tag-prod-istio-system");
    cluster.get(&tag).await?;

    // Again: nothing is another. The authority stays.
    let secret = cluster.get(&format!("{NAMESPACE}/secrets/cacerts")).await?;
    let said = navarch(&cluster, &install)?;
    ensure!(said.contains("Secret istio-system/cacerts is there, and stays"), "{said}");
    ensure!(!said.contains("removed"), "{said}");
    let again = cluster.get(deployment).await?;
    assert_eq!(again["metadata"]["generation"], made["metadata"]["generation"]);
    assert_eq!(cluster.get(&format!("{NAMESPACE}/secrets/cacerts")).await?["data"], secret["data"]);

    // With less: what is left over goes.
    let said = navarch(&cluster, &["upgrade", "--image", "other:2", "--no-network-policy"])?;
    ensure!(said.contains("NetworkPolicy navarch removed"), "{said}");
    ensure!(said.contains("MutatingWebhookConfiguration navarch-tag-prod-istio-system removed"), "{said}");
    let upgraded = cluster.get(deployment).await?;
    assert_eq!(upgraded["spec"]["template"]["spec"]["containers"][0]["image"], "other:2");

    // Another revision beside it, which another one's removal does not touch.
    navarch(&cluster, &["install", "--image", IMAGE, "--revision", "canary"])?;
    let said = navarch(&cluster, &["uninstall"])?;
    ensure!(said.contains("Deployment navarch removed") && !said.contains("canary"), "{said}");
    cluster.get("/apis/apps/v1/namespaces/istio-system/deployments/navarch-canary").await?;
    cluster.get(&format!("{NAMESPACE}/secrets/cacerts")).await?;
    ensure!(navarch(&cluster, &["uninstall"]).is_err(), "there is nothing left");
    Ok(())
}

/// The files of the Secret that the installer has made, as a pod gets them.
async fn authority(cluster: &ApiServer, directory: &Path) -> Result<()> {
    use base64::Engine;
    let secret = cluster.get(&format!("{NAMESPACE}/secrets/cacerts")).await?;
    for (name, bytes) in secret["data"].as_object().context("data")? {
        let bytes = base64::engine::general_purpose::STANDARD.decode(bytes.as_str().context("a text")?)?;
        std::fs::write(directory.join(name), bytes)?;
    }
    Ok(())
}

/// The configurations of webhooks that are printed, leading to an address in place of a Service.
async fn apply_configurations(cluster: &ApiServer, address: SocketAddr) -> Result<()> {
    let printed: Value =
        serde_json::from_str(&navarch::stdout(["install", "--image", IMAGE, "-o", "json"])?)?;
    for object in printed["items"].as_array().context("items")? {
        let mut object = object.clone();
        let Some(hooks) = object["webhooks"].as_array_mut() else { continue };
        for hook in hooks {
            let path = hook["clientConfig"]["service"]["path"].as_str().context("a path")?.to_owned();
            hook["clientConfig"] = json!({"url": format!("https://{address}{path}")});
        }
        let plural = format!("{}s", object["kind"].as_str().context("a kind")?.to_lowercase());
        let name = object["metadata"]["name"].as_str().context("a name")?.to_owned();
        cluster.apply(&format!("{ADMISSION}/{plural}/{name}"), &object).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_asks_about_pods_and_configuration() -> Result<()> {
    let cluster = api_server("webhooks").await?;
    navarch(&cluster, &["install", "--image", IMAGE])?;
    navarch(&cluster, &["uninstall"])?;
    let directory = workspace::scratch("webhooks-server")?;
    for name in ["ca", "config"] {
        std::fs::create_dir_all(directory.join(name))?;
    }
    authority(&cluster, &directory.join("ca")).await?;
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let (secure, hooks) = (local(ports::free_port()?), local(ports::free_port()?));
    apply_configurations(&cluster, hooks).await?;
    let (kubeconfig, state, ca) = (cluster.kubeconfig(), directory.join("state"), directory.join("ca"));
    let (secure, address) = (secure.to_string(), hooks.to_string());
    let text = |path: &Path| path.to_str().unwrap_or_default().to_owned();
    let configurations = "mutating/navarch-istio-system-injector,validating/navarch-istio-system-validator";
    let args = [
        "--kubernetes",
        "--kubeconfig",
        &text(&kubeconfig),
        "--state",
        &text(&state),
        "--ca-dir",
        &text(&ca),
        "--secure-addr",
        &secure,
        "--webhook-addr",
        &address,
        "--webhook-configuration",
        configurations,
    ];
    let config = directory.join("config");
    let (xds, admin) = (local(ports::free_port()?), local(ports::free_port()?));
    let mut server = Server::start_on("webhooks-server", &config, xds, admin, &args).await?;

    // Our roots are written into the configurations, without which the API server asks nobody.
    let shop = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "shop", "labels": {"istio-injection": "enabled"}},
    });
    cluster.apply("/api/v1/namespaces/shop", &shop).await?;
    let pod = |name: &str, labels: Value, annotations: Value| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop", "labels": labels, "annotations": annotations},
            // Elsewhere an admission plugin fills in the account; it needs a controller, which is not here.
            "spec": {"serviceAccountName": "web", "containers": [{
                "name": "web", "image": "example.com/web:1",
                "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}},
            }]},
        })
    };
    let path = |name: &str| format!("/api/v1/namespaces/shop/pods/{name}");
    let created = wait::until("a pod to be injected", wait::STEP, || {
        let (cluster, pod, path) = (&cluster, pod("web", json!({"app": "web"}), json!({})), path("web"));
        async move { cluster.apply(&path, &pod).await?.json() }
    })
    .await?;
    let names = |of: &Value| -> Vec<String> {
        let items = of.as_array().into_iter().flatten();
        items.filter_map(|item| Some(item["name"].as_str()?.to_owned())).collect()
    };
    let spec = &created["spec"];
    assert_eq!(names(&spec["initContainers"]), ["istio-init", "istio-proxy"]);
    assert_eq!(names(&spec["containers"]), ["web"]);
    assert_eq!(spec["initContainers"][1]["restartPolicy"], "Always");
    assert_eq!(spec["containers"][0]["readinessProbe"]["httpGet"]["path"], "/app-health/web/readyz");
    let out = pod("out", json!({"sidecar.istio.io/inject": "false"}), json!({}));
    let out = cluster.apply(&path("out"), &out).await?.json()?;
    assert_eq!(names(&out["spec"]["initContainers"]), [""; 0]);
    let wrong = pod("wrong", json!({}), json!({"sidecar.istio.io/proxyCPU": "lots"}));
    let refused = cluster.apply(&path("wrong"), &wrong).await.map(|_| ()).unwrap_err();
    ensure!(format!("{refused:#}").contains("is not a quantity"), "{refused:#}");

    // Configuration: the same words as those of `navarch analyze`.
    let rule = |name: &str, spec: Value| {
        let metadata = json!({"name": name, "namespace": "shop"});
        let rule = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": metadata, "spec": spec,
        });
        (format!("/apis/networking.istio.io/v1/namespaces/shop/destinationrules/{name}"), rule)
    };
    let (place, good) = rule("good", json!({"host": "web"}));
    cluster.apply(&place, &good).await?;
    let (place, bad) = rule("bad", json!({"host": 5}));
    wait::until("bad configuration to be refused", wait::STEP, || async {
        let refused = cluster.apply(&place, &bad).await.err().context("it is taken")?;
        ensure!(format!("{refused:#}").contains("spec.host"), "{refused:#}");
        Ok(())
    })
    .await?;
    ensure!(
        server.metric_with("navarch_webhook_answers_total", "webhook=\"validate\"").await? > 0.0,
        "no metric"
    );

    // Without an answer configuration is taken, and pods that are to be injected are not made.
    server.kill();
    let (place, bad) = rule("taken", json!({"host": 5}));
    cluster.apply(&place, &bad).await?;
    ensure!(
        cluster.apply(&path("later"), &pod("later", json!({}), json!({}))).await.is_err(),
        "it has no proxy"
    );
    cluster
        .apply(&path("later"), &pod("later", json!({"sidecar.istio.io/inject": "false"}), json!({})))
        .await?;
    Ok(())
}

/// A Gateway, and what an API server makes of what runs it.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_deployed_and_again_without_a_change() -> Result<()> {
    let printed: Value = serde_json::from_str(&navarch::stdout(["crds", "--gateway-api"])?)?;
    let definitions = printed["items"].as_array().context("a list")?;
    let cluster = ApiServer::start("gateways", definitions).await?;
    for name in ["istio-system", "shop"] {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        cluster.apply(&format!("/api/v1/namespaces/{name}"), &object).await?;
    }
    let parameters = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "edge", "namespace": "shop"},
        "data": {
            "deployment": "spec: {template: {spec: {containers: [{name: istio-proxy, env: [{name: A, value: b}]}]}}}",
            "horizontalPodAutoscaler": "spec: {minReplicas: 2, maxReplicas: 5}",
            "podDisruptionBudget": "spec: {minAvailable: 1}",
        },
    });
    cluster.apply("/api/v1/namespaces/shop/configmaps/edge", &parameters).await?;
    let gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "edge", "namespace": "shop", "labels": {"team": "shop"}},
        "spec": {
            "gatewayClassName": "istio",
            "infrastructure": {"parametersRef": {"group": "", "kind": "ConfigMap", "name": "edge"}},
            "listeners": [
                {"name": "http", "port": 80, "protocol": "HTTP"},
                {"name": "dns", "port": 53, "protocol": "UDP"},
            ],
        },
    });
    let own = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/gateways/edge";
    let gateway = cluster.apply(own, &gateway).await?.json()?;
    let directory = workspace::scratch("gateways-server")?;
    std::fs::create_dir_all(directory.join("config"))?;
    let settings = directory.join("settings.yaml");
    std::fs::write(&settings, format!("image: {IMAGE}\n"))?;
    let (kubeconfig, settings) = (cluster.kubeconfig(), settings.to_str().context("a path")?.to_owned());
    let kubeconfig = kubeconfig.to_str().context("a path")?;
    let args =
        ["--kubernetes", "--kubeconfig", kubeconfig, "--deploy-gateways", "--inject-settings", &settings];
    let serve = async || -> Result<Server> {
        let (xds, admin) = (ports::free_port()?, ports::free_port()?);
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Server::start_on("gateways-server", &directory.join("config"), local(xds), local(admin), &args).await
    };
    let of = |group: &str, plural: &str| format!("/{group}/namespaces/shop/{plural}/edge-istio");
    let paths = [
        of("api/v1", "serviceaccounts"),
        of("apis/apps/v1", "deployments"),
        of("api/v1", "services"),
        of("apis/autoscaling/v2", "horizontalpodautoscalers"),
        of("apis/policy/v1", "poddisruptionbudgets"),
    ];
    let mut server = serve().await?;
    let made = wait::until("what runs the gateway", wait::STEP, || async {
        let mut made = Vec::new();
        for path in &paths {
            made.push(cluster.get(path).await?);
        }
        Ok(made)
    })
    .await?;
    for object in &made {
        let metadata = &object["metadata"];
        assert_eq!(metadata["ownerReferences"][0]["uid"], gateway["metadata"]["uid"], "{metadata}");
        assert_eq!(metadata["labels"]["gateway.istio.io/managed"], "istio.io-gateway-controller");
        assert_eq!(metadata["labels"]["team"], "shop");
    }
    let ports: Vec<String> = made[2]["spec"]["ports"]
        .as_array()
        .context("ports")?
        .iter()
        .map(|port| format!("{}/{}", port["port"], port["protocol"]))
        .collect();
    assert_eq!(ports, ["15021/\"TCP\"", "80/\"TCP\"", "53/\"UDP\""]);
    let pod = &made[1]["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["image"], IMAGE);
    assert_eq!(pod["serviceAccountName"], "edge-istio");

    // Another replica looks at all of it, and nothing becomes another. It goes by name, so that it has looked
    // when there is what runs the other Gateway.
    server.kill();
    let mut before = Vec::new();
    for path in &paths {
        before.push(cluster.get(path).await?);
    }
    let later = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "later", "namespace": "shop"},
        "spec": {
            "gatewayClassName": "istio",
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
        },
    });
    cluster.apply("/apis/gateway.networking.k8s.io/v1/namespaces/shop/gateways/later", &later).await?;
    let server = serve().await?;
    wait::until("the other replica to write", wait::STEP, || async {
        ensure!(server.metric("navarch_writer").await? == 1.0, "it does not");
        Ok(())
    })
    .await?;
    wait::until("what runs the other gateway", wait::STEP, || {
        cluster.get("/apis/apps/v1/namespaces/shop/deployments/later-istio")
    })
    .await?;
    for (path, before) in paths.iter().zip(&before) {
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        let after = cluster.get(path).await?;
        ensure!(version(&after) == version(before), "{path} was written: {before} {after}");
    }
    let labelled = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "edge", "namespace": "shop", "annotations": {"sidecar.istio.io/logLevel": "info"}},
        "spec": gateway["spec"],
    });
    cluster.apply(own, &labelled).await?;
    wait::until("the annotation to be heeded", wait::STEP, || async {
        let made = cluster.get(&paths[1]).await?;
        let text = made["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
        ensure!(text.contains("--envoy-log-level\",\"info"), "{text}");
        Ok(())
    })
    .await?;

    // What somebody changes is put right at the next look, which is not often.
    let scaled = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "edge-istio", "namespace": "shop"}, "spec": {"minAvailable": 7},
    });
    cluster.apply(&paths[4], &scaled).await?;
    wait::until("the budget to be put right", 4 * wait::STEP, || async {
        let least = cluster.get(&paths[4]).await?["spec"]["minAvailable"].clone();
        ensure!(least == 1, "{least}");
        Ok(())
    })
    .await
}

/// What istiod applies for a Gateway, as far as it is something else than ours: it is taken over in place.
#[tokio::test(flavor = "multi_thread")]
async fn what_istiod_has_deployed_is_taken_over_in_place() -> Result<()> {
    let printed: Value = serde_json::from_str(&navarch::stdout(["crds", "--gateway-api"])?)?;
    let cluster = ApiServer::start("takeover", printed["items"].as_array().context("a list")?).await?;
    for name in ["istio-system", "shop"] {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        cluster.apply(&format!("/api/v1/namespaces/{name}"), &object).await?;
    }
    let gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {
            "name": "edge", "namespace": "shop", "annotations": {"gateway.istio.io/controller-version": "5"},
        },
        "spec": {
            "gatewayClassName": "istio",
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
        },
    });
    let own = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/gateways/edge";
    let gateway = cluster.apply(own, &gateway).await?.json()?;
    let named = json!({
        "gateway.networking.k8s.io/gateway-name": "edge",
        "gateway.networking.k8s.io/gateway-class-name": "istio",
        "gateway.istio.io/managed": "istio.io-gateway-controller",
        "istio.io/dataplane-mode": "none",
    });
    let selector = json!({"gateway.networking.k8s.io/gateway-name": "edge"});
    let object = |version: &str, kind: &str, fields: Value| {
        let mut object = json!({
            "apiVersion": version, "kind": kind,
            "metadata": {
                "name": "edge-istio", "namespace": "shop", "labels": named, "annotations": {},
                "ownerReferences": [{
                    "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "edge",
                    "uid": gateway["metadata"]["uid"],
                }],
            },
        });
        for (key, value) in fields.as_object().into_iter().flatten() {
            object[key] = value.clone();
        }
        object
    };
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path});
    let container = json!({
        "name": "istio-proxy", "image": "docker.io/istio/proxyv2:1.27.0",
        "args": ["proxy", "router", "--domain", "$(POD_NAMESPACE).svc.cluster.local", "--proxyLogLevel", "warning"],
        "env": [
            {"name": "PILOT_CERT_PROVIDER", "value": "istiod"},
            {"name": "CA_ADDR", "value": "istiod.istio-system.svc:15012"},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "PROXY_CONFIG", "value": "{\"discoveryAddress\":\"istiod.istio-system.svc:15012\"}\n"},
        ],
        "ports": [
            {"containerPort": 15020, "name": "metrics", "protocol": "TCP"},
            {"containerPort": 15021, "name": "status-port", "protocol": "TCP"},
            {"containerPort": 15090, "name": "http-envoy-prom", "protocol": "TCP"},
        ],
        "startupProbe": {
            "failureThreshold": 30, "initialDelaySeconds": 1, "periodSeconds": 1, "successThreshold": 1,
            "httpGet": {"path": "/healthz/ready", "port": 15021, "scheme": "HTTP"},
        },
        "volumeMounts": [
            mount("workload-socket", "/var/run/secrets/workload-spiffe-uds"), mount("istio-envoy", "/etc/istio/proxy"),
            mount("istio-data", "/var/lib/istio/data"),
        ],
    });
    let deployment = object(
        "apps/v1",
        "Deployment",
        json!({"spec": {
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {
                    "labels": {"gateway.networking.k8s.io/gateway-name": "edge", "sidecar.istio.io/inject": "false"},
                    "annotations": {"istio.io/rev": "default", "prometheus.io/port": "15020"},
                },
                "spec": {
                    "serviceAccountName": "edge-istio",
                    "containers": [container],
                    "volumes": [
                        {"name": "workload-socket", "emptyDir": {}},
                        {"name": "istio-envoy", "emptyDir": {"medium": "Memory"}},
                        {"name": "istio-data", "emptyDir": {}},
                    ],
                },
            },
        }}),
    );
    let service = object(
        "v1",
        "Service",
        json!({"spec": {
            "ipFamilyPolicy": "PreferDualStack", "type": "LoadBalancer", "selector": selector,
            "ports": [
                {"name": "status-port", "port": 15021, "protocol": "TCP", "appProtocol": "tcp"},
                {"name": "http", "port": 80, "protocol": "TCP", "appProtocol": "http"},
            ],
        }}),
    );
    let account = object("v1", "ServiceAccount", json!({}));
    let of = |group: &str, plural: &str| format!("/{group}/namespaces/shop/{plural}/edge-istio");
    let paths =
        [of("api/v1", "serviceaccounts"), of("apis/apps/v1", "deployments"), of("api/v1", "services")];
    let mut before = Vec::new();
    for (path, object) in paths.iter().zip([&account, &deployment, &service]) {
        let path = format!("{path}?fieldManager=istio.io/gateway-controller&force=true");
        let body = object.to_string();
        let made = cluster.send(http::Method::PATCH, &path, ("application/apply-patch+yaml", &body)).await?;
        before.push(made.json()?);
    }

    let directory = workspace::scratch("takeover-server")?;
    std::fs::create_dir_all(directory.join("config"))?;
    let settings = directory.join("settings.yaml");
    std::fs::write(&settings, format!("image: {IMAGE}\n"))?;
    let (kubeconfig, settings) = (cluster.kubeconfig(), settings.to_str().context("a path")?.to_owned());
    let kubeconfig = kubeconfig.to_str().context("a path")?;
    let args =
        ["--kubernetes", "--kubeconfig", kubeconfig, "--deploy-gateways", "--inject-settings", &settings];
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let (xds, admin) = (local(ports::free_port()?), local(ports::free_port()?));
    let server = Server::start_on("takeover-server", &directory.join("config"), xds, admin, &args).await?;
    let after = wait::until("our pods", wait::STEP, || async {
        let made = cluster.get(&paths[1]).await?;
        let image = &made["spec"]["template"]["spec"]["containers"][0]["image"];
        ensure!(image == IMAGE, "{image}: {}", server.log());
        Ok(made)
    })
    .await?;
    assert_eq!(after["metadata"]["uid"], before[1]["metadata"]["uid"], "it was made again");
    assert_eq!(after["metadata"]["generation"], 2, "it is rolled out once");
    // Nothing of istiod's pods is left in ours.
    let text = after["spec"].to_string();
    for theirs in ["workload-socket", "CA_ADDR", "istiod.istio-system", "PILOT_CERT_PROVIDER", "router"] {
        ensure!(!text.contains(theirs), "{theirs} is left: {text}");
    }
    let service = wait::until("our Service", wait::STEP, || async {
        let found = cluster.get(&paths[2]).await?;
        let managers = found["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        ensure!(managers.iter().any(|fields| fields["manager"] == "navarch"), "{found}");
        Ok(found)
    })
    .await?;
    assert_eq!(service["metadata"]["uid"], before[2]["metadata"]["uid"]);
    assert_eq!(service["spec"]["clusterIP"], before[2]["spec"]["clusterIP"], "clients know its address");
    Ok(())
}
