//! The objects that run the control plane.

use navarch_inject::pod::{
    Capabilities, Container, EmptyDir, Env, HttpGet, Named, Probe, ResourceNeeds, Seccomp, SecurityContext,
    Volume, VolumeMount, VolumeSource,
};
use serde_json::{Value, json};

use crate::options::{Options, Rule};
use crate::webhooks::{injection_configuration, validation_configuration};

/// The user that the control plane runs as.
const USER: u32 = 1337;

/// The Secret with the authority that signs for workloads, as Istio has it.
pub(crate) const AUTHORITY: &str = "cacerts";

/// Where the ports are served.
const SECURE: u16 = 15012;
const WEBHOOKS: u16 = 15017;
const ADMIN: u16 = 15014;

pub(crate) fn namespace(options: &Options) -> Option<Value> {
    (options.namespace != "default")
        .then(|| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": options.namespace}}))
}

pub(crate) fn objects(options: &Options, rules: &[Rule]) -> Vec<Value> {
    let mut all = vec![
        object(options, "v1", "ServiceAccount", json!({})),
        role(options, rules, false),
        binding(options, false),
        role(options, rules, true),
        binding(options, true),
        settings(options),
        service(options),
        deployment(options),
        object(
            options,
            "policy/v1",
            "PodDisruptionBudget",
            json!({"spec": {
                "minAvailable": 1,
                "selector": {"matchLabels": selector(options)},
            }}),
        ),
        autoscaler(options),
    ];
    if options.network_policy {
        all.push(network_policy(options));
    }
    if options.monitor {
        all.push(object(
            options,
            "monitoring.coreos.com/v1",
            "ServiceMonitor",
            json!({"spec": {
                "selector": {"matchLabels": options.labels()},
                "endpoints": [{"port": "http-monitoring", "path": "/metrics", "interval": "15s"}],
            }}),
        ));
        all.push(board(options));
    }
    all
}

/// An object of the installation in its namespace, with these fields.
fn object(options: &Options, version: &str, kind: &str, fields: Value) -> Value {
    let mut made = json!({
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": options.name(), "namespace": options.namespace},
    });
    if let (Some(made), Value::Object(fields)) = (made.as_object_mut(), fields) {
        made.extend(fields);
    }
    made
}

/// The board, where the sidecar of Grafana's chart looks for some.
fn board(options: &Options) -> Value {
    let text = format!("{:#}", crate::board::board());
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": format!("{}-board", options.name()),
            "namespace": options.namespace,
            "labels": {"grafana_dashboard": "1"},
        },
        "data": {"navarch.json": text},
    })
}

/// What selects the pods of this control plane. It can never be changed in a Deployment.
fn selector(options: &Options) -> Value {
    json!({"app": "navarch", "istio.io/rev": options.revision})
}

fn role(options: &Options, rules: &[Rule], own_namespace: bool) -> Value {
    let mut stated: Vec<Value> = rules
        .iter()
        .filter(|rule| rule.own_namespace == own_namespace)
        .map(|Rule { group, resource, names, verbs, .. }| {
            let mut rule = json!({"apiGroups": [group], "resources": [resource], "verbs": verbs});
            if !names.is_empty() {
                rule["resourceNames"] = json!(names);
            }
            rule
        })
        .collect();
    let kind = if own_namespace { "Role" } else { "ClusterRole" };
    if own_namespace {
        return object(options, "rbac.authorization.k8s.io/v1", kind, json!({"rules": stated}));
    }
    stated.extend(webhook_rules(options));
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": options.cluster_name()},
        "rules": stated,
    })
}

/// The roots of the authority are written into our own configurations of webhooks, and no others.
fn webhook_rules(options: &Options) -> Vec<Value> {
    let rule = |resource: &str, names: Vec<String>| {
        json!({
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": [resource],
            "resourceNames": names,
            "verbs": ["get", "patch"],
        })
    };
    let of_tags = options.tags.iter().map(|tag| injection_configuration(options, Some(tag)));
    let injection = [injection_configuration(options, None)].into_iter().chain(of_tags).collect();
    let mut rules = Vec::new();
    if options.injection {
        rules.push(rule("mutatingwebhookconfigurations", injection));
    }
    if options.validation {
        rules.push(rule("validatingwebhookconfigurations", vec![validation_configuration(options)]));
    }
    rules
}

fn binding(options: &Options, own_namespace: bool) -> Value {
    let subjects =
        json!([{"kind": "ServiceAccount", "name": options.name(), "namespace": options.namespace}]);
    let to = |kind: &str, name: String| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    if own_namespace {
        let fields = json!({"roleRef": to("Role", options.name()), "subjects": subjects});
        return object(options, "rbac.authorization.k8s.io/v1", "RoleBinding", fields);
    }
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": options.cluster_name()},
        "roleRef": to("ClusterRole", options.cluster_name()),
        "subjects": subjects,
    })
}

/// The settings of injection, as the server reads them.
fn settings(options: &Options) -> Value {
    let text = serde_json::to_string_pretty(&options.injection_settings()).unwrap_or_default();
    object(options, "v1", "ConfigMap", json!({"data": {"injection": text}}))
}

fn service(options: &Options) -> Value {
    let port = |name: &str, port: u16, target: u16| json!({"name": name, "port": port, "targetPort": target, "protocol": "TCP"});
    object(
        options,
        "v1",
        "Service",
        json!({"spec": {
            "selector": selector(options),
            "ports": [
                port("https-dns", SECURE, SECURE),
                port("https-webhook", 443, WEBHOOKS),
                port("http-monitoring", ADMIN, ADMIN),
            ],
        }}),
    )
}

fn container(options: &Options) -> Container {
    let probe = |path: &str, period, failures| Probe {
        http_get: HttpGet { path: path.to_owned(), port: ADMIN },
        initial_delay_seconds: None,
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        timeout_seconds: Some(5),
    };
    let pairs = [("cpu", &options.cpu), ("memory", &options.memory)];
    let mut args: Vec<String> = [
        "serve",
        "--kubernetes",
        "--state",
        "/var/lib/navarch/state",
        "--ca-dir",
        "/etc/cacerts",
        "--secure-addr",
        "0.0.0.0:15012",
        "--admin-addr",
        "0.0.0.0:15014",
    ]
    .map(str::to_owned)
    .into();
    let mut env = vec![
        Env::text("NAVARCH_REVISION", &options.revision),
        Env::field("NAVARCH_SYSTEM_NAMESPACE", "metadata.namespace"),
        Env::text("NAVARCH_TLS_NAME", format!("{}.{}.svc", options.name(), options.namespace)),
        Env::text("NAVARCH_LOG_LEVEL", &options.log_level),
        Env::text("CLUSTER_ID", &options.cluster),
    ];
    if options.gateways {
        args.push("--deploy-gateways".to_owned());
    }
    if options.injection || options.validation || options.gateways {
        env.push(Env::text("NAVARCH_INJECT_SETTINGS", "/etc/navarch/injection"));
    }
    if options.injection || options.validation {
        args.extend(["--webhook-addr", "0.0.0.0:15017"].map(str::to_owned));
        let of_tags = options.tags.iter().map(|tag| injection_configuration(options, Some(tag)));
        let injection = [injection_configuration(options, None)].into_iter().chain(of_tags);
        let mut configurations: Vec<String> = Vec::new();
        if options.injection {
            configurations.extend(injection.map(|name| format!("mutating/{name}")));
        }
        if options.validation {
            configurations.push(format!("validating/{}", validation_configuration(options)));
        }
        env.push(Env::text("NAVARCH_WEBHOOK_CONFIGURATION", configurations.join(",")));
    }
    Container {
        name: "navarch".to_owned(),
        image: options.image.clone(),
        image_pull_policy: options.image_pull_policy.clone(),
        args,
        env,
        // The configuration of a large mesh takes its time to be read.
        startup_probe: Some(probe("/healthz", 2, 150)),
        readiness_probe: Some(probe("/ready", 3, 2)),
        liveness_probe: Some(probe("/healthz", 10, 6)),
        resources: ResourceNeeds {
            requests: pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).clone())).collect(),
            ..ResourceNeeds::default()
        },
        security_context: SecurityContext {
            capabilities: Capabilities { add: Vec::new(), drop: vec!["ALL"] },
            seccomp_profile: Some(Seccomp { ty: "RuntimeDefault" }),
            ..SecurityContext::unprivileged(USER)
        },
        volume_mounts: vec![
            VolumeMount::new("state", "/var/lib/navarch"),
            VolumeMount::read_only("cacerts", "/etc/cacerts"),
            VolumeMount::read_only("injection", "/etc/navarch"),
        ],
        ..Container::default()
    }
}

fn deployment(options: &Options) -> Value {
    let volume = |name: &str, from| Volume { name: name.to_owned(), from };
    let volumes = [
        volume("state", VolumeSource::EmptyDir(EmptyDir { medium: Some("Memory") })),
        volume("cacerts", VolumeSource::Stated(json!({"secret": {"secretName": AUTHORITY}}))),
        volume("injection", VolumeSource::ConfigMap(Named { name: options.name(), optional: false })),
    ];
    let mut labels = options.labels();
    if let Value::Object(selector) = selector(options) {
        labels.extend(selector);
    }
    labels.insert("sidecar.istio.io/inject".to_owned(), json!("false"));
    let mut pod = json!({
        "serviceAccountName": options.name(),
        "securityContext": {"fsGroup": USER},
        "terminationGracePeriodSeconds": 30,
        "containers": [container(options)],
        "volumes": volumes,
        "topologySpreadConstraints": [{
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(options)},
        }],
    });
    if !options.image_pull_secrets.is_empty() {
        let names = options.image_pull_secrets.iter().map(|name| json!({"name": name}));
        pod["imagePullSecrets"] = names.collect();
    }
    object(
        options,
        "apps/v1",
        "Deployment",
        // How many replicas there are is the autoscaler's to say.
        json!({"spec": {
            "selector": {"matchLabels": selector(options)},
            "strategy": {"rollingUpdate": {"maxSurge": "100%", "maxUnavailable": "25%"}},
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": {
                        "prometheus.io/port": ADMIN.to_string(),
                        "prometheus.io/scrape": "true",
                    },
                },
                "spec": pod,
            },
        }}),
    )
}

fn autoscaler(options: &Options) -> Value {
    let (least, most) = &options.replicas;
    let number = |text: &String| text.parse::<u32>().map_or(json!(text), |number| json!(number));
    object(
        options,
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        json!({"spec": {
            "minReplicas": number(least),
            "maxReplicas": number(most),
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": options.name()},
            "metrics": [{
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
            }],
        }}),
    )
}

/// Proxies, API servers and Prometheus come from anywhere, and to no other ports.
fn network_policy(options: &Options) -> Value {
    let ports = [SECURE, WEBHOOKS, ADMIN].map(|port| json!({"port": port, "protocol": "TCP"}));
    object(
        options,
        "networking.k8s.io/v1",
        "NetworkPolicy",
        json!({"spec": {
            "podSelector": {"matchLabels": selector(options)},
            "policyTypes": ["Ingress"],
            "ingress": [{"ports": ports}],
        }}),
    )
}
