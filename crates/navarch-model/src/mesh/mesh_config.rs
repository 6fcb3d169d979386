//! MeshConfig: settings of the whole mesh.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{
    EnvoyFileAccessLogProvider, ExtensionProvider, PrometheusMetricsProvider, Provider, ProxyConfig,
    StackdriverProvider,
};
use crate::networking::{
    ClientTlsSettings, ConnectionPoolSettings, HttpRetry, LocalityLoadBalancerSetting, OutlierDetection,
    TcpKeepalive, ZoneAwareLoadBalancerSetting,
};
use crate::yaml::{closed_enum, message, oneof, union_message};

message! {
    /// Settings of the whole mesh. The default value is what istiod assumes without any configuration.
    pub struct MeshConfig defaults by hand {
        proxy_listen_port: i32,
        proxy_inbound_listen_port: i32,
        proxy_http_port: i32,
        connect_timeout: Option<Duration>,
        hbone_idle_timeout: Option<Duration>,
        protocol_detection_timeout: Option<Duration>,
        tcp_keepalive: Option<TcpKeepalive>,
        ingress_class: String,
        ingress_service: String,
        ingress_controller_mode: IngressControllerMode,
        ingress_selector: String,
        enable_tracing: bool,
        access_log_file: String,
        access_log_format: String,
        access_log_encoding: AccessLogEncoding,
        enable_envoy_access_log_service: bool,
        disable_envoy_listener_log: bool,
        default_config: Option<ProxyConfig>,
        outbound_traffic_policy: Option<OutboundTrafficPolicy>,
        inbound_traffic_policy: Option<InboundTrafficPolicy>,
        config_sources: Vec<ConfigSource>,
        enable_auto_mtls: Option<bool>,
        trust_domain: String,
        trust_domain_aliases: Vec<String>,
        ca_certificates: Vec<CertificateData>,
        default_service_export_to: Vec<String>,
        default_virtual_service_export_to: Vec<String>,
        default_destination_rule_export_to: Vec<String>,
        root_namespace: String,
        locality_lb_setting: Option<LocalityLoadBalancerSetting>,
        zone_aware_lb_setting: Option<ZoneAwareLoadBalancerSetting>,
        dns_refresh_rate: Option<Duration>,
        h2_upgrade_policy: H2UpgradePolicy,
        inbound_cluster_stat_name: String,
        outbound_cluster_stat_name: String,
        certificates: Vec<Certificate>,
        service_settings: Vec<ServiceSettings>,
        service_scope_configs: Vec<ServiceScopeConfigs>,
        enable_prometheus_merge: Option<bool>,
        verify_certificate_at_client: Option<bool>,
        ca: Option<Ca>,
        extension_providers: Vec<ExtensionProvider>,
        default_providers: Option<DefaultProviders>,
        discovery_selectors: Vec<LabelSelector>,
        path_normalization: Option<ProxyPathNormalization>,
        default_http_retry_policy: Option<HttpRetry>,
        /// For requests that a sidecar accepts.
        default_inbound_http_retry_policy: Option<HttpRetry>,
        /// Limits on TLS between workloads.
        mesh_mtls as "meshMTLS": Option<TlsConfig>,
        /// Limits on TLS with everybody else.
        tls_defaults: Option<TlsConfig>,
        default_traffic_policy: Option<DefaultTrafficPolicy>,
        service_entry_visibility: Option<ServiceEntryVisibility>,
    }
}

closed_enum! {
    /// Which Kubernetes Ingresses are served. Istio: `MeshConfig.IngressControllerMode`.
    pub enum IngressControllerMode {
        Unspecified = 0 "UNSPECIFIED",
        Off = 1 "OFF",
        Default = 2 "DEFAULT",
        Strict = 3 "STRICT",
    }
}

closed_enum! {
    /// How access logs are written. Istio: `MeshConfig.AccessLogEncoding`.
    pub enum AccessLogEncoding {
        Text = 0 "TEXT",
        Json = 1 "JSON",
    }
}

message! {
    /// What happens to traffic for hosts that nobody knows, where no Sidecar says otherwise.
    ///
    /// Istio: `MeshConfig.OutboundTrafficPolicy`.
    pub struct OutboundTrafficPolicy {
        mode: OutboundTrafficPolicyMode,
        tls: Option<ClientTlsSettings>,
    }
}

closed_enum! {
    /// Whether unknown hosts may be reached. Istio: `MeshConfig.OutboundTrafficPolicy.Mode`.
    pub enum OutboundTrafficPolicyMode {
        RegistryOnly = 0 "REGISTRY_ONLY",
        AllowAny = 1 "ALLOW_ANY",
        AllowAnyDynamicDns = 3 "ALLOW_ANY_DYNAMIC_DNS",
    }
}

message! {
    /// Which address inbound traffic is passed on to. Istio: `MeshConfig.InboundTrafficPolicy`.
    pub struct InboundTrafficPolicy {
        mode: InboundTrafficPolicyMode,
    }
}

closed_enum! {
    /// The address that the client chose, or localhost. Istio: `MeshConfig.InboundTrafficPolicy.Mode`.
    pub enum InboundTrafficPolicyMode {
        Passthrough = 0 "PASSTHROUGH",
        Localhost = 1 "LOCALHOST",
    }
}

message! {
    /// Root certificates besides the mesh's own. Istio: `MeshConfig.CertificateData`.
    pub struct CertificateData {
        cert_signers: Vec<String>,
        trust_domains: Vec<String>,
        ;
        oneof certificate_data: CertificateSource,
    }
}

oneof! {
    /// Where the certificates come from.
    pub enum CertificateSource {
        pem => Pem(String),
        spiffe_bundle_url => SpiffeBundleUrl(String),
    }
}

/// The URL that roots are fetched with (`spiffeBundleUrl`). Istio takes it without a scheme too, and means
/// HTTPS then.
#[must_use]
pub fn bundle_url(stated: &str) -> String {
    if stated.contains("://") { stated.to_owned() } else { format!("https://{stated}") }
}

closed_enum! {
    /// Whether HTTP/1.1 is sent upstream as HTTP/2, where no DestinationRule says otherwise. Istio:
    /// `MeshConfig.H2UpgradePolicy`.
    pub enum H2UpgradePolicy {
        DoNotUpgrade = 0 "DO_NOT_UPGRADE",
        Upgrade = 1 "UPGRADE",
    }
}

message! {
    /// Settings of services by host. Istio: `MeshConfig.ServiceSettings`.
    pub struct ServiceSettings {
        settings: Option<ServiceSettingsValues>,
        hosts: Vec<String>,
    }
}

message! {
    /// `cluster_local`: the service is reached only within a cluster. Istio:
    /// `MeshConfig.ServiceSettings.Settings`.
    pub struct ServiceSettingsValues {
        cluster_local: bool,
    }
}

message! {
    /// Which services of ambient mode are visible to other clusters. Istio: `MeshConfig.ServiceScopeConfigs`.
    pub struct ServiceScopeConfigs {
        namespace_selector: Option<LabelSelector>,
        services_selector: Option<LabelSelector>,
        scope: ServiceScope,
    }
}

closed_enum! {
    /// Within the cluster, or everywhere. Istio: `MeshConfig.ServiceScopeConfigs.Scope`.
    pub enum ServiceScope {
        Local = 0 "LOCAL",
        Global = 1 "GLOBAL",
    }
}

message! {
    /// An external certificate authority. Istio: `MeshConfig.CA`.
    pub struct Ca {
        address: String,
        tls_settings: Option<ClientTlsSettings>,
        request_timeout: Option<Duration>,
        istiod_side: bool,
    }
}

message! {
    /// Providers that are used where no Telemetry says otherwise. Istio: `MeshConfig.DefaultProviders`.
    pub struct DefaultProviders {
        tracing: Vec<String>,
        metrics: Vec<String>,
        access_logging: Vec<String>,
    }
}

message! {
    /// How paths are normalised before they are matched. Istio: `MeshConfig.ProxyPathNormalization`.
    pub struct ProxyPathNormalization {
        normalization: PathNormalizationType,
    }
}

closed_enum! {
    /// How much is normalised. Istio: `MeshConfig.ProxyPathNormalization.NormalizationType`.
    pub enum PathNormalizationType {
        Default = 0 "DEFAULT",
        None = 1 "NONE",
        Base = 2 "BASE",
        MergeSlashes = 3 "MERGE_SLASHES",
        DecodeAndMergeSlashes = 4 "DECODE_AND_MERGE_SLASHES",
    }
}

message! {
    /// Limits on TLS. Istio: `MeshConfig.TLSConfig`.
    pub struct TlsConfig {
        min_protocol_version: TlsProtocol,
        ecdh_curves: Vec<String>,
        cipher_suites: Vec<String>,
    }
}

closed_enum! {
    /// The lowest version of TLS. Istio: `MeshConfig.TLSConfig.TLSProtocol`.
    pub enum TlsProtocol {
        TlsAuto = 0 "TLS_AUTO",
        Tlsv12 = 1 "TLSV1_2",
        Tlsv13 = 2 "TLSV1_3",
    }
}

message! {
    /// What a DestinationRule says if it says nothing. Istio: `MeshConfig.DefaultTrafficPolicy`.
    pub struct DefaultTrafficPolicy {
        connection_pool: Option<ConnectionPoolSettings>,
        outlier_detection: Option<OutlierDetection>,
    }
}

closed_enum! {
    /// What a configuration source delivers.
    pub enum Resource {
        ServiceRegistry = 0 "SERVICE_REGISTRY",
    }
}

message! {
    /// Objects whose labels fulfil all conditions. An empty selector selects everything.
    pub struct LabelSelector {
        match_labels: BTreeMap<String, String>,
        match_expressions: Vec<LabelSelectorRequirement>,
    }
}

message! {
    /// A condition on a label: `In`, `NotIn`, `Exists`, `DoesNotExist`.
    pub struct LabelSelectorRequirement {
        key: String,
        operator: String,
        values: Vec<String>,
    }
}

message! {
    /// Who may see ServiceEntries, whatever they say themselves.
    pub struct ServiceEntryVisibility {
        default_visibility: Visibility,
        apply_to_sidecars: bool,
        policies: Vec<ServiceEntryVisibilityPolicy>,
    }
}

closed_enum! {
    /// How far a ServiceEntry is seen. Istio: `ServiceEntryVisibility.Visibility`.
    pub enum Visibility {
        VisibilityUnspecified = 0 "VISIBILITY_UNSPECIFIED",
        None = 1 "NONE",
        Namespace = 2 "NAMESPACE",
        Public = 3 "PUBLIC",
    }
}

message! {
    /// The visibility of ServiceEntries that match. Istio: `ServiceEntryVisibility.Policy`.
    pub struct ServiceEntryVisibilityPolicy {
        visibility: Visibility,
        matching_rules: Vec<ServiceEntryVisibilityMatchRule>,
    }
}

union_message! {
    /// Which ServiceEntries are meant. Istio: `ServiceEntryVisibility.MatchRule`.
    pub enum ServiceEntryVisibilityMatchRule {
        namespace_selector => NamespaceSelector(LabelSelector),
    }
}

message! {
    /// Where configuration comes from.
    pub struct ConfigSource {
        address: String,
        tls_settings: Option<ClientTlsSettings>,
        subscribed_resources: Vec<Resource>,
    }
}

message! {
    /// A certificate that istiod keeps in a secret.
    pub struct Certificate {
        secret_name: String,
        dns_names: Vec<String>,
    }
}

/// The mesh without any configuration, as istiod starts it.
impl Default for MeshConfig {
    fn default() -> Self {
        let everywhere = || vec!["*".to_owned()];
        let provider =
            |name: &str, provider| ExtensionProvider { name: name.to_owned(), provider: Some(provider) };
        Self {
            proxy_listen_port: 15001,
            proxy_inbound_listen_port: 15006,
            proxy_http_port: 0,
            connect_timeout: Some(Duration::from_secs(10)),
            hbone_idle_timeout: None,
            protocol_detection_timeout: Some(Duration::ZERO),
            tcp_keepalive: None,
            ingress_class: "istio".to_owned(),
            ingress_service: "istio-ingressgateway".to_owned(),
            ingress_controller_mode: IngressControllerMode::Strict,
            ingress_selector: String::new(),
            enable_tracing: true,
            access_log_file: String::new(),
            access_log_format: String::new(),
            access_log_encoding: AccessLogEncoding::Text,
            enable_envoy_access_log_service: false,
            disable_envoy_listener_log: false,
            default_config: Some(ProxyConfig::default()),
            outbound_traffic_policy: Some(OutboundTrafficPolicy {
                mode: OutboundTrafficPolicyMode::AllowAny,
                tls: None,
            }),
            inbound_traffic_policy: Some(InboundTrafficPolicy {
                mode: InboundTrafficPolicyMode::Passthrough,
            }),
            config_sources: Vec::new(),
            enable_auto_mtls: Some(true),
            trust_domain: "cluster.local".to_owned(),
            trust_domain_aliases: Vec::new(),
            ca_certificates: Vec::new(),
            default_service_export_to: everywhere(),
            default_virtual_service_export_to: everywhere(),
            default_destination_rule_export_to: everywhere(),
            root_namespace: "istio-system".to_owned(),
            locality_lb_setting: Some(LocalityLoadBalancerSetting {
                enabled: Some(true),
                ..LocalityLoadBalancerSetting::default()
            }),
            zone_aware_lb_setting: None,
            dns_refresh_rate: Some(Duration::from_secs(60)),
            h2_upgrade_policy: H2UpgradePolicy::DoNotUpgrade,
            inbound_cluster_stat_name: String::new(),
            outbound_cluster_stat_name: String::new(),
            certificates: Vec::new(),
            service_settings: Vec::new(),
            service_scope_configs: Vec::new(),
            enable_prometheus_merge: Some(true),
            verify_certificate_at_client: None,
            ca: None,
            extension_providers: vec![
                provider("prometheus", Provider::Prometheus(PrometheusMetricsProvider::default())),
                provider("stackdriver", Provider::Stackdriver(StackdriverProvider::default())),
                provider(
                    "envoy",
                    Provider::EnvoyFileAccessLog(EnvoyFileAccessLogProvider {
                        path: "/dev/stdout".to_owned(),
                        ..EnvoyFileAccessLogProvider::default()
                    }),
                ),
            ],
            default_providers: Some(DefaultProviders::default()),
            discovery_selectors: Vec::new(),
            path_normalization: None,
            default_http_retry_policy: None,
            default_inbound_http_retry_policy: None,
            mesh_mtls: None,
            tls_defaults: None,
            default_traffic_policy: None,
            service_entry_visibility: None,
        }
    }
}
