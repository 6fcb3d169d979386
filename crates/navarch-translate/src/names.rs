//! Names of clusters. They appear in clusters, endpoints, listeners and routes, and in what users see of all
//! of them; Istio's formats, so that dashboards, EnvoyFilters and habits keep working.

use navarch_model::route::ServiceBackend;

/// Traffic to destinations that no route knows is sent where the application wanted to go.
pub const PASSTHROUGH: &str = "PassthroughCluster";
/// Traffic to destinations that no route knows is dropped.
pub const BLACK_HOLE: &str = "BlackHoleCluster";
/// Inbound traffic to ports that no service declares.
pub const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";
/// HTTP to destinations that no route knows is resolved by the name in the request.
pub const ALLOW_ANY_DYNAMIC_DNS: &str = "AllowAnyDynamicDNSCluster";
/// The DNS cache that the dynamic forward proxy's filter and cluster share for [`ALLOW_ANY_DYNAMIC_DNS`].
pub const ALLOW_ANY_DNS_CACHE: &str = "allow_any_dfp_dns_cache";
/// Stands for a backend that cannot take requests. No cluster has the name, so that they fail.
pub const UNKNOWN_SERVICE: &str = "UnknownService";
/// A server of secrets on the proxy's machine, reached over a Unix socket.
pub const SDS_EXTERNAL: &str = "sds-external";

/// A port of a service, or a subset of it: `outbound|80|v1|reviews.default.svc.cluster.local`.
pub fn outbound(port: u16, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// The service that a route names: its port is the stated one, else the only one of the service, else the
/// listener's. `external` is the host that an ExternalName service stands for.
pub fn backend(to: &ServiceBackend, external: Option<&str>, only_port: Option<u16>, listener: u16) -> String {
    outbound(to.port_of(only_port, listener), &to.subset, external.unwrap_or(&to.host))
}

/// A port of a service for datagrams (UDP). A port for connections may have the same number.
pub fn datagrams(port: u16, host: &str) -> String {
    format!("outbound_udp|{port}||{host}")
}

/// The server name of mesh TLS to a service, and the cluster a gateway forwards such connections to without
/// terminating them: `outbound_.80_.v1_.reviews.default.svc.cluster.local`.
pub fn sni(port: u16, subset: &str, host: &str) -> String {
    format!("outbound_.{port}_.{subset}_.{host}")
}

/// A port of the proxy's own workload.
pub fn inbound(port: u32) -> String {
    format!("inbound|{port}||")
}

/// The DNS cache of a service that is resolved by the name in the request.
pub fn dns_cache(host: &str) -> String {
    format!("{host}_dfp_dns_cache")
}
