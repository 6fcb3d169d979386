//! Meshes of any size, as YAML: services with a pod and an EndpointSlice each, in ten namespaces.
//!
//! Every text is a complete document with the separator behind it, so that texts can be joined. Writing an
//! object again with another argument is an edit.

use std::net::Ipv4Addr;

/// Addresses of services: 10.64.0.0/10.
const SERVICES: u32 = 0x0a40_0000;
/// Addresses of pods: 10.128.0.0/10.
const PODS: u32 = 0x0a80_0000;
/// Addresses of endpoints that have no pod: 10.192.0.0/10.
const OTHERS: u32 = 0x0ac0_0000;

/// The objects of a mesh of so many services.
pub fn services(count: usize) -> String {
    (0..count).map(|index| service(index) + &pod(index, "default") + &slice(index, 0)).collect()
}

/// The namespace of a service.
pub fn namespace(index: usize) -> String {
    format!("n{}", index % 10)
}

/// The host of a service.
pub fn host(index: usize) -> String {
    format!("s{index}.{}.svc.cluster.local", namespace(index))
}

/// A Service with one HTTP port.
pub fn service(index: usize) -> String {
    let (namespace, address) = (namespace(index), address(SERVICES, index));
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: s{index}, namespace: {namespace}}}
spec: {{clusterIP: {address}, selector: {{app: s{index}}}, ports: [{{name: http, port: 80, targetPort: 8080, protocol: TCP}}]}}
---
"
    )
}

/// The pod of a service, which runs as this service account.
pub fn pod(index: usize, account: &str) -> String {
    let (namespace, address) = (namespace(index), address(PODS, index));
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: p{index}, namespace: {namespace}, labels: {{app: s{index}, team: same}}}}
spec: {{serviceAccountName: {account}}}
status: {{phase: Running, podIP: {address}}}
---
"
    )
}

/// The EndpointSlice of a service: its pod, and so many other endpoints.
pub fn slice(index: usize, others: usize) -> String {
    let (namespace, pod) = (namespace(index), address(PODS, index));
    let others: String = (0..others)
        .map(|other| format!(", {{addresses: [{}], conditions: {{ready: true}}}}", address(OTHERS, other)))
        .collect();
    format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: e{index}, namespace: {namespace}, labels: {{kubernetes.io/service-name: s{index}}}}}
addressType: IPv4
endpoints: [{{addresses: [{pod}], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: p{index}, namespace: {namespace}}}}}{others}]
ports: [{{name: http, port: 8080, protocol: TCP}}]
---
"
    )
}

fn address(network: u32, index: usize) -> Ipv4Addr {
    Ipv4Addr::from(network + u32::try_from(index).unwrap_or_default() + 1)
}
