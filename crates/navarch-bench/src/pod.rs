//! Pods as an API server has them: about as large as those of a real cluster, most of which is of no use to a
//! control plane.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::shape::Shape;

/// An endpoint of a service.
pub struct Endpoint {
    pub address: Ipv4Addr,
    /// The pod that it is, by its number.
    pub pod: Option<usize>,
}

impl Endpoint {
    /// One that is no pod.
    pub fn bare(address: Ipv4Addr) -> Self {
        Endpoint { address, pod: None }
    }
}

/// The Pod with this number, of a service: an application with a proxy beside it. No scheduler looks for a
/// place for it.
pub fn object(shape: &Shape, service: usize, pod: usize) -> String {
    let (app, namespace) = (format!("s{service}"), shape.namespace(shape.namespace_of(service)));
    let address = shape.pod_address(pod).to_string();
    let object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": format!("p{pod}"),
            "namespace": namespace,
            "labels": {
                "app": app,
                "version": "v1",
                "pod-template-hash": "7c9d5f6b8d",
                "service.istio.io/canonical-name": app,
                "service.istio.io/canonical-revision": "v1",
            },
            "annotations": {
                "prometheus.io/path": "/stats/prometheus",
                "prometheus.io/port": "15020",
                "prometheus.io/scrape": "true",
                "kubectl.kubernetes.io/default-container": "app",
                "kubectl.kubernetes.io/restartedAt": "2026-11-01T12:00:00Z",
            },
        },
        "spec": {
            "schedulerName": "navarch-bench",
            "serviceAccountName": "default",
            "automountServiceAccountToken": false,
            "containers": [application(&app), proxy(&app)],
            "volumes": [
                {"name": "data", "emptyDir": {}},
                {"name": "podinfo", "downwardAPI": {"items": [
                    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                    {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}},
                ]}},
                {"name": "roots", "configMap": {"name": "istio-ca-root-cert"}},
            ],
        },
        "status": status(&address),
    });
    format!("{object}\n---\n")
}

fn probe(path: &str, port: u16) -> Value {
    json!({"httpGet": {"path": path, "port": port}, "periodSeconds": 10, "failureThreshold": 4})
}

fn resources(cpu: &str, memory: &str) -> Value {
    json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": "2", "memory": "1Gi"}})
}

fn application(app: &str) -> Value {
    json!({
        "name": "app",
        "image": format!("registry.example.com/shop/{app}:v1.4.2"),
        "ports": [{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090}],
        "env": [
            {"name": "LOG_LEVEL", "value": "info"},
            {"name": "DATABASE_URL", "value": "postgres://database.shop.svc.cluster.local:5432/shop"},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "resources": resources("100m", "128Mi"),
        "readinessProbe": probe("/ready", 8080),
        "livenessProbe": probe("/live", 8080),
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    })
}

fn proxy(app: &str) -> Value {
    json!({
        "name": "istio-proxy",
        "image": "registry.example.com/mesh/proxy:1",
        "args": ["proxy", "sidecar", "--domain", "$(POD_NAMESPACE).svc.cluster.local", "--log_output_level=default:info"],
        "ports": [{"name": "http-envoy-prom", "containerPort": 15090}],
        "env": [
            {"name": "CA_ADDR", "value": "istiod.istio-system.svc:15012"},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "INSTANCE_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "ISTIO_META_WORKLOAD_NAME", "value": app},
            {"name": "ISTIO_META_MESH_ID", "value": "cluster.local"},
        ],
        "resources": resources("10m", "64Mi"),
        "readinessProbe": probe("/healthz/ready", 15021),
        "securityContext": {"runAsUser": 1337, "runAsGroup": 1337, "readOnlyRootFilesystem": true},
        "volumeMounts": [
            {"name": "podinfo", "mountPath": "/etc/istio/pod"},
            {"name": "roots", "mountPath": "/var/run/secrets/istio"},
        ],
    })
}

fn status(address: &str) -> Value {
    const SINCE: &str = "2026-11-01T12:00:00Z";
    let condition = |ty: &str| json!({"type": ty, "status": "True", "lastTransitionTime": SINCE});
    let container = |name: &str| {
        json!({
            "name": name,
            "image": format!("registry.example.com/{name}:1"),
            "imageID": format!("registry.example.com/{name}@sha256:{}", "0123456789abcdef".repeat(4)),
            "containerID": format!("containerd://{}", "fedcba9876543210".repeat(4)),
            "ready": true,
            "started": true,
            "restartCount": 0,
            "state": {"running": {"startedAt": SINCE}},
        })
    };
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(condition);
    let containers = ["app", "istio-proxy"].map(container);
    json!({
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "hostIP": "192.0.2.10",
        "hostIPs": [{"ip": "192.0.2.10"}],
        "startTime": SINCE,
        "qosClass": "Burstable",
        "conditions": conditions,
        "containerStatuses": containers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_an_endpoint_of_its_service() {
        let shape = Shape { pods: true, ..Shape::small() };
        let text = object(&shape, 3, 13);
        let pod: Value = serde_json::from_str(text.trim_end_matches("---\n")).expect("JSON");
        assert_eq!(pod["metadata"]["labels"]["app"], "s3");
        assert_eq!(pod["status"]["podIP"], shape.pod_address(13).to_string());
        // About what one of a real cluster has.
        assert!((3_000..6_000).contains(&text.len()), "{}", text.len());
    }
}
