//! What clusters depend on of the mesh and the proxy.

use std::time::Duration;

use navarch_model::Name;
use navarch_model::mesh::{H2UpgradePolicy, InboundTrafficPolicyMode, MeshConfig, TlsConfig};
use navarch_model::networking::{ClientTlsSettings, ConnectionPoolSettings, OutlierDetection, TcpKeepalive};
use navarch_model::proxy::{CertificateFiles, IpMode, ProxyKind};

/// What clusters take from MeshConfig.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClusterMesh {
    pub connect_timeout: Option<Duration>,
    pub tcp_keepalive: Option<TcpKeepalive>,
    pub dns_refresh_rate: Option<Duration>,
    /// Ports declared as HTTP are spoken to in HTTP/2.
    pub h2_upgrade: bool,
    pub auto_mtls: bool,
    pub default_connection_pool: Option<ConnectionPoolSettings>,
    pub default_outlier_detection: Option<OutlierDetection>,
    pub inbound_stat_name: String,
    pub outbound_stat_name: String,
    pub tls_defaults: Option<TlsConfig>,
    /// Inbound traffic goes to the loopback address instead of the address that the client dialled.
    pub inbound_to_localhost: bool,
    /// TLS to unknown destinations (`outboundTrafficPolicy.tls`).
    pub unknown_destination_tls: Option<ClientTlsSettings>,
}

impl ClusterMesh {
    /// Cuts the settings out of MeshConfig.
    pub fn of(mesh: &MeshConfig) -> Self {
        let default_policy = mesh.default_traffic_policy.as_ref();
        ClusterMesh {
            connect_timeout: mesh.connect_timeout,
            tcp_keepalive: mesh.tcp_keepalive.clone(),
            dns_refresh_rate: mesh.dns_refresh_rate,
            h2_upgrade: mesh.h2_upgrade_policy == H2UpgradePolicy::Upgrade,
            auto_mtls: mesh.enable_auto_mtls == Some(true),
            default_connection_pool: default_policy.and_then(|policy| policy.connection_pool.clone()),
            default_outlier_detection: default_policy.and_then(|policy| policy.outlier_detection.clone()),
            inbound_stat_name: mesh.inbound_cluster_stat_name.clone(),
            outbound_stat_name: mesh.outbound_cluster_stat_name.clone(),
            tls_defaults: mesh.tls_defaults.clone(),
            inbound_to_localhost: mesh
                .inbound_traffic_policy
                .as_ref()
                .is_some_and(|policy| policy.mode == InboundTrafficPolicyMode::Localhost),
            unknown_destination_tls: mesh
                .outbound_traffic_policy
                .as_ref()
                .and_then(|policy| policy.tls.clone()),
        }
    }
}

/// What clusters take from the proxy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClusterView {
    pub kind: ProxyKind,
    pub ip_mode: IpMode,
    /// `proxyHeaders.preserveHttp1HeaderCase` of the proxy's own configuration.
    pub preserve_header_case: bool,
    /// Certificates that the proxy was started with, in place of mesh certificates.
    pub client_certificates: Option<CertificateFiles>,
    /// The proxy says to servers in the mesh who it is, so every cluster has to say whether it leads out of
    /// it. (istiod says so of those of subsets nowhere.)
    pub standard_metrics: bool,
    /// The credential that a gateway presents to backends, where a rule asks for TLS without naming one.
    pub backend_certificate: Option<Name>,
}
