//! DestinationRule: what happens to traffic once its destination is known.

use std::collections::BTreeMap;
use std::time::Duration;

use super::PortSelector;
use crate::types::WorkloadSelector;
use crate::values::{Decimal, Percent};
use crate::yaml::{closed_enum, message, oneof};

message! {
    /// What happens to traffic for a host after routing: load balancing, connection pools, TLS, subsets.
    pub struct DestinationRule {
        host: String,
        traffic_policy: Option<TrafficPolicy>,
        subsets: Vec<Subset>,
        /// Empty means the default of the mesh settings.
        export_to: Vec<String>,
        workload_selector: Option<WorkloadSelector>,
    }
}

message! {
    /// Settings for traffic to a host, or to a subset of it. A field that is set in a subset replaces the
    /// host's.
    pub struct TrafficPolicy {
        load_balancer: Option<LoadBalancerSettings>,
        connection_pool: Option<ConnectionPoolSettings>,
        outlier_detection: Option<OutlierDetection>,
        tls: Option<ClientTlsSettings>,
        port_level_settings: Vec<PortTrafficPolicy>,
        tunnel: Option<TunnelSettings>,
        proxy_protocol: Option<ProxyProtocol>,
        retry_budget: Option<RetryBudget>,
    }
}

message! {
    /// Settings for one port. They replace those of the policy around them, field by field, and inherit
    /// nothing.
    ///
    /// Istio: `TrafficPolicy.PortTrafficPolicy`.
    pub struct PortTrafficPolicy {
        port: Option<PortSelector>,
        load_balancer: Option<LoadBalancerSettings>,
        connection_pool: Option<ConnectionPoolSettings>,
        outlier_detection: Option<OutlierDetection>,
        tls: Option<ClientTlsSettings>,
    }
}

message! {
    /// Sends TCP through an HTTP tunnel, which the destination opens to `target_host`. Istio:
    /// `TrafficPolicy.TunnelSettings`.
    pub struct TunnelSettings {
        protocol: String,
        target_host: String,
        target_port: u32,
    }
}

message! {
    /// Sends the PROXY protocol header upstream. Istio: `TrafficPolicy.ProxyProtocol`.
    pub struct ProxyProtocol {
        version: ProxyProtocolVersion,
    }
}

closed_enum! {
    /// The version of the PROXY protocol: text or binary. Istio: `TrafficPolicy.ProxyProtocol.VERSION`.
    pub enum ProxyProtocolVersion {
        V1 = 0 "V1",
        V2 = 1 "V2",
    }
}

message! {
    /// Limits retries to a share of the active requests. Istio: `TrafficPolicy.RetryBudget`.
    pub struct RetryBudget {
        percent: Option<Percent>,
        min_retry_concurrency: u32,
        budget_interval: Option<Duration>,
    }
}

message! {
    /// A named part of a host's endpoints, chosen by labels.
    pub struct Subset {
        name: String,
        labels: BTreeMap<String, String>,
        traffic_policy: Option<TrafficPolicy>,
    }
}

message! {
    /// How an endpoint is chosen.
    pub struct LoadBalancerSettings {
        locality_lb_setting: Option<LocalityLoadBalancerSetting>,
        zone_aware_lb_setting: Option<ZoneAwareLoadBalancerSetting>,
        /// Deprecated: `warmup.duration`.
        warmup_duration_secs: Option<Duration>,
        warmup: Option<WarmupConfiguration>,
        ;
        oneof lb_policy: LbPolicy,
    }
}

oneof! {
    /// The algorithm; unset means the default, least request.
    pub enum LbPolicy {
        simple => Simple(SimpleLb),
        consistent_hash => ConsistentHash(ConsistentHashLb),
    }
}

closed_enum! {
    /// Algorithms without settings. `LeastConn` is an old name of `LeastRequest`. Istio:
    /// `LoadBalancerSettings.SimpleLB`.
    pub enum SimpleLb {
        Unspecified = 0 "UNSPECIFIED",
        LeastConn = 1 "LEAST_CONN",
        Random = 2 "RANDOM",
        Passthrough = 3 "PASSTHROUGH",
        RoundRobin = 4 "ROUND_ROBIN",
        LeastRequest = 5 "LEAST_REQUEST",
    }
}

message! {
    /// Keeps requests with an equal key on one endpoint. Without an algorithm it is a hash ring.
    ///
    /// Istio: `LoadBalancerSettings.ConsistentHashLB`.
    pub struct ConsistentHashLb {
        /// Deprecated: `hash_algorithm`.
        minimum_ring_size: u64,
        ;
        oneof hash_key: HashKey,
        oneof hash_algorithm: HashAlgorithm,
    }
}

oneof! {
    /// What is hashed.
    pub enum HashKey {
        http_header_name => HttpHeaderName(String),
        http_cookie => HttpCookie(HttpCookie),
        use_source_ip => UseSourceIp(bool),
        http_query_parameter_name => HttpQueryParameterName(String),
    }
}

oneof! {
    /// How hashes are mapped to endpoints.
    pub enum HashAlgorithm {
        ring_hash => RingHash(RingHash),
        maglev => Maglev(MagLev),
    }
}

message! {
    /// A hash ring. Istio: `LoadBalancerSettings.ConsistentHashLB.RingHash`.
    pub struct RingHash {
        minimum_ring_size: u64,
    }
}

message! {
    /// Maglev: faster than a ring and less stable when endpoints change. Istio:
    /// `LoadBalancerSettings.ConsistentHashLB.MagLev`.
    pub struct MagLev {
        table_size: u64,
    }
}

message! {
    /// A cookie, which the proxy sets if `ttl` is set and the request has none.
    ///
    /// Istio: `LoadBalancerSettings.ConsistentHashLB.HTTPCookie`.
    pub struct HttpCookie {
        name: String,
        path: String,
        ttl: Option<Duration>,
        attributes: Vec<HttpCookieAttribute>,
    }
}

message! {
    /// An attribute of the cookie that the proxy sets. Istio:
    /// `LoadBalancerSettings.ConsistentHashLB.HTTPCookie.Attribute`.
    pub struct HttpCookieAttribute {
        name: String,
        value: String,
    }
}

message! {
    /// New endpoints get their share of traffic little by little.
    pub struct WarmupConfiguration {
        duration: Option<Duration>,
        minimum_percent: Option<Percent>,
        aggression: Option<Decimal>,
    }
}

message! {
    /// Limits on connections to a host; 0 means unlimited or default.
    pub struct ConnectionPoolSettings {
        tcp: Option<TcpSettings>,
        http: Option<HttpSettings>,
    }
}

message! {
    /// Limits that apply to every protocol. Istio: `ConnectionPoolSettings.TCPSettings`.
    pub struct TcpSettings {
        max_connections: i32,
        connect_timeout: Option<Duration>,
        tcp_keepalive: Option<TcpKeepalive>,
        max_connection_duration: Option<Duration>,
        idle_timeout: Option<Duration>,
    }
}

message! {
    /// Keep-alive probes of the kernel; unset fields keep the system's values.
    ///
    /// Istio: `ConnectionPoolSettings.TCPSettings.TcpKeepalive`.
    pub struct TcpKeepalive {
        probes: u32,
        time: Option<Duration>,
        interval: Option<Duration>,
    }
}

message! {
    /// Limits on HTTP. Istio: `ConnectionPoolSettings.HTTPSettings`.
    pub struct HttpSettings {
        http1_max_pending_requests: i32,
        http2_max_requests: i32,
        max_requests_per_connection: i32,
        max_retries: i32,
        idle_timeout: Option<Duration>,
        h2_upgrade_policy: H2UpgradePolicy,
        use_client_protocol: bool,
        max_concurrent_streams: i32,
        http2_keep_alive: Option<ConnectionKeepalive>,
    }
}

closed_enum! {
    /// Whether HTTP/1.1 is sent upstream as HTTP/2. Istio:
    /// `ConnectionPoolSettings.HTTPSettings.H2UpgradePolicy`.
    pub enum H2UpgradePolicy {
        Default = 0 "DEFAULT",
        DoNotUpgrade = 1 "DO_NOT_UPGRADE",
        Upgrade = 2 "UPGRADE",
    }
}

message! {
    /// HTTP/2 PING frames on idle connections. Istio:
    /// `ConnectionPoolSettings.HTTPSettings.ConnectionKeepalive`.
    pub struct ConnectionKeepalive {
        interval: Option<Duration>,
        timeout: Option<Duration>,
    }
}

message! {
    /// Takes failing endpoints out for a while.
    pub struct OutlierDetection {
        /// Deprecated: `consecutive_gateway_errors`.
        consecutive_errors: i32,
        split_external_local_origin_errors: bool,
        consecutive_local_origin_failures: Option<u32>,
        consecutive_gateway_errors: Option<u32>,
        consecutive_5xx_errors: Option<u32>,
        interval: Option<Duration>,
        base_ejection_time: Option<Duration>,
        max_ejection_percent: i32,
        min_health_percent: i32,
        outlier_detection_http_error_codes: Vec<u32>,
    }
}

message! {
    /// TLS of connections to a host. Istio: `ClientTLSSettings`.
    pub struct ClientTlsSettings {
        mode: ClientTlsMode,
        client_certificate: String,
        private_key: String,
        ca_certificates: String,
        credential_name: String,
        subject_alt_names: Vec<String>,
        sni: String,
        insecure_skip_verify: Option<bool>,
        ca_crl: String,
    }
}

closed_enum! {
    /// What kind of TLS a client uses. `IstioMutual` takes the mesh's own certificates. Istio:
    /// `ClientTLSSettings.TLSmode`.
    pub enum ClientTlsMode {
        Disable = 0 "DISABLE",
        Simple = 1 "SIMPLE",
        Mutual = 2 "MUTUAL",
        IstioMutual = 3 "ISTIO_MUTUAL",
    }
}

message! {
    /// Prefers endpoints that are near. `distribute` and `failover` exclude each other.
    pub struct LocalityLoadBalancerSetting {
        distribute: Vec<LocalityDistribute>,
        failover: Vec<LocalityFailover>,
        failover_priority: Vec<String>,
        enabled: Option<bool>,
    }
}

message! {
    /// Shares of the traffic of one locality, in percent by destination locality (`region/zone/subzone`, `*`
    /// at the end).
    ///
    /// Istio: `LocalityLoadBalancerSetting.Distribute`.
    pub struct LocalityDistribute {
        from: String,
        to: BTreeMap<String, u32>,
    }
}

message! {
    /// Which region takes over for another. Istio: `LocalityLoadBalancerSetting.Failover`.
    pub struct LocalityFailover {
        from: String,
        to: String,
    }
}

message! {
    /// Lets Envoy keep traffic in its zone as far as capacity allows.
    pub struct ZoneAwareLoadBalancerSetting {
        enabled: Option<bool>,
        failover: Vec<LocalityFailover>,
        failover_priority: Vec<String>,
        min_cluster_size: Option<u64>,
    }
}
