//! DestinationRule: what happens to traffic once its destination is known.

use std::collections::BTreeMap;
use std::time::Duration;

use super::PortSelector;
use crate::types::WorkloadSelector;
use crate::values::{Decimal, Percent};
use crate::yaml::{closed_enum, message, oneof};

message! {
    /// Istio: `DestinationRule`.
    pub struct DestinationRule {
        host: String,
        traffic_policy: Option<TrafficPolicy>,
        subsets: Vec<Subset>,
        export_to: Vec<String>,
        workload_selector: Option<WorkloadSelector>,
    }
}

message! {
    /// Istio: `TrafficPolicy`.
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
    /// Istio: `TrafficPolicy.TunnelSettings`.
    pub struct TunnelSettings {
        protocol: String,
        target_host: String,
        target_port: u32,
    }
}

message! {
    /// Istio: `TrafficPolicy.ProxyProtocol`.
    pub struct ProxyProtocol {
        version: ProxyProtocolVersion,
    }
}

closed_enum! {
    /// Istio: `TrafficPolicy.ProxyProtocol.VERSION`.
    pub enum ProxyProtocolVersion {
        V1 = 0 "V1",
        V2 = 1 "V2",
    }
}

message! {
    /// Istio: `TrafficPolicy.RetryBudget`.
    pub struct RetryBudget {
        percent: Option<Percent>,
        min_retry_concurrency: u32,
        budget_interval: Option<Duration>,
    }
}

message! {
    /// Istio: `Subset`.
    pub struct Subset {
        name: String,
        labels: BTreeMap<String, String>,
        traffic_policy: Option<TrafficPolicy>,
    }
}

message! {
    /// Istio: `LoadBalancerSettings`.
    pub struct LoadBalancerSettings {
        locality_lb_setting: Option<LocalityLoadBalancerSetting>,
        zone_aware_lb_setting: Option<ZoneAwareLoadBalancerSetting>,
        warmup_duration_secs: Option<Duration>,
        warmup: Option<WarmupConfiguration>,
        ;
        oneof lb_policy: LbPolicy,
    }
}

oneof! {
    /// Istio: the `oneof lb_policy` of `LoadBalancerSettings`.
    pub enum LbPolicy {
        simple => Simple(SimpleLb),
        consistent_hash => ConsistentHash(ConsistentHashLb),
    }
}

closed_enum! {
    /// Istio: `LoadBalancerSettings.SimpleLB`.
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
    /// Istio: `LoadBalancerSettings.ConsistentHashLB`.
    pub struct ConsistentHashLb {
        minimum_ring_size: u64,
        ;
        oneof hash_key: HashKey,
        oneof hash_algorithm: HashAlgorithm,
    }
}

oneof! {
    /// Istio: the `oneof hash_key` of `LoadBalancerSettings.ConsistentHashLB`.
    pub enum HashKey {
        http_header_name => HttpHeaderName(String),
        http_cookie => HttpCookie(HttpCookie),
        use_source_ip => UseSourceIp(bool),
        http_query_parameter_name => HttpQueryParameterName(String),
    }
}

oneof! {
    /// Istio: the `oneof hash_algorithm` of `LoadBalancerSettings.ConsistentHashLB`.
    pub enum HashAlgorithm {
        ring_hash => RingHash(RingHash),
        maglev => Maglev(MagLev),
    }
}

message! {
    /// Istio: `LoadBalancerSettings.ConsistentHashLB.RingHash`.
    pub struct RingHash {
        minimum_ring_size: u64,
    }
}

message! {
    /// Istio: `LoadBalancerSettings.ConsistentHashLB.MagLev`.
    pub struct MagLev {
        table_size: u64,
    }
}

message! {
    /// Istio: `LoadBalancerSettings.ConsistentHashLB.HTTPCookie`.
    pub struct HttpCookie {
        name: String,
        path: String,
        ttl: Option<Duration>,
        attributes: Vec<HttpCookieAttribute>,
    }
}

message! {
    /// Istio: `LoadBalancerSettings.ConsistentHashLB.HTTPCookie.Attribute`.
    pub struct HttpCookieAttribute {
        name: String,
        value: String,
    }
}

message! {
    /// Istio: `WarmupConfiguration`.
    pub struct WarmupConfiguration {
        duration: Option<Duration>,
        minimum_percent: Option<Percent>,
        aggression: Option<Decimal>,
    }
}

message! {
    /// Istio: `ConnectionPoolSettings`.
    pub struct ConnectionPoolSettings {
        tcp: Option<TcpSettings>,
        http: Option<HttpSettings>,
    }
}

message! {
    /// Istio: `ConnectionPoolSettings.TCPSettings`.
    pub struct TcpSettings {
        max_connections: i32,
        connect_timeout: Option<Duration>,
        tcp_keepalive: Option<TcpKeepalive>,
        max_connection_duration: Option<Duration>,
        idle_timeout: Option<Duration>,
    }
}

message! {
    /// Istio: `ConnectionPoolSettings.TCPSettings.TcpKeepalive`.
    pub struct TcpKeepalive {
        probes: u32,
        time: Option<Duration>,
        interval: Option<Duration>,
    }
}

message! {
    /// Istio: `ConnectionPoolSettings.HTTPSettings`.
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
    /// Istio: `ConnectionPoolSettings.HTTPSettings.H2UpgradePolicy`.
    pub enum H2UpgradePolicy {
        Default = 0 "DEFAULT",
        DoNotUpgrade = 1 "DO_NOT_UPGRADE",
        Upgrade = 2 "UPGRADE",
    }
}

message! {
    /// Istio: `ConnectionPoolSettings.HTTPSettings.ConnectionKeepalive`.
    pub struct ConnectionKeepalive {
        interval: Option<Duration>,
        timeout: Option<Duration>,
    }
}

message! {
    /// Istio: `OutlierDetection`.
    pub struct OutlierDetection {
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
    /// Istio: `ClientTLSSettings`.
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
    /// Istio: `ClientTLSSettings.TLSmode`.
    pub enum ClientTlsMode {
        Disable = 0 "DISABLE",
        Simple = 1 "SIMPLE",
        Mutual = 2 "MUTUAL",
        IstioMutual = 3 "ISTIO_MUTUAL",
    }
}

message! {
    /// Istio: `LocalityLoadBalancerSetting`.
    pub struct LocalityLoadBalancerSetting {
        distribute: Vec<LocalityDistribute>,
        failover: Vec<LocalityFailover>,
        failover_priority: Vec<String>,
        enabled: Option<bool>,
    }
}

message! {
    /// Istio: `LocalityLoadBalancerSetting.Distribute`.
    pub struct LocalityDistribute {
        from: String,
        to: BTreeMap<String, u32>,
    }
}

message! {
    /// Istio: `LocalityLoadBalancerSetting.Failover`.
    pub struct LocalityFailover {
        from: String,
        to: String,
    }
}

message! {
    /// Istio: `ZoneAwareLoadBalancerSetting`.
    pub struct ZoneAwareLoadBalancerSetting {
        enabled: Option<bool>,
        failover: Vec<LocalityFailover>,
        failover_priority: Vec<String>,
        min_cluster_size: Option<u64>,
    }
}
