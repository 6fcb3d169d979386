//! A cluster while it is made, and its name in statistics.

use navarch_envoy::any::any;
use navarch_envoy::proto::envoy::config::cluster::v3::Cluster;
use navarch_envoy::proto::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType,
};
use navarch_envoy::proto::envoy::config::core::v3::Http1ProtocolOptions;
use navarch_envoy::proto::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use navarch_envoy::proto::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
};
use navarch_model::service::{Registry, Service};

/// Key of the HTTP options of a cluster.
pub(super) const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// A cluster being made, with the HTTP options that Envoy wants packed inside.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub cluster: Cluster,
    pub http: Option<HttpProtocolOptions>,
    /// Resolves the name of each request.
    pub dynamic: bool,
}

impl Draft {
    pub fn new(name: String, discovery: DiscoveryType) -> Self {
        Draft {
            cluster: Cluster {
                alt_stat_name: stat_name(&name),
                name,
                cluster_discovery_type: Some(ClusterDiscoveryType::Type(discovery as i32)),
                common_lb_config: Some(CommonLbConfig::default()),
                ..Cluster::default()
            },
            ..Draft::default()
        }
    }

    pub fn http(&mut self) -> &mut HttpProtocolOptions {
        self.http.get_or_insert_with(HttpProtocolOptions::default)
    }

    pub fn common_lb(&mut self) -> &mut CommonLbConfig {
        self.cluster.common_lb_config.get_or_insert_with(CommonLbConfig::default)
    }

    pub fn discovery_type(&self) -> Option<DiscoveryType> {
        match self.cluster.cluster_discovery_type {
            Some(ClusterDiscoveryType::Type(discovery)) => DiscoveryType::try_from(discovery).ok(),
            _ => None,
        }
    }

    pub fn is_original_dst(&self) -> bool {
        self.discovery_type() == Some(DiscoveryType::OriginalDst)
    }

    pub fn finish(self) -> Cluster {
        let Draft { mut cluster, http, .. } = self;
        if let Some(http) = http {
            cluster
                .typed_extension_protocol_options
                .insert(HTTP_OPTIONS.to_owned(), any(&with_version(http)));
        }
        cluster
    }
}

/// The name of a cluster in statistics. The delimiter ends it, so that tags can be extracted from names with
/// dots.
pub(super) fn stat_name(name: &str) -> String {
    format!("{name};")
}

/// A pattern of `outboundClusterStatName` or `inboundClusterStatName`, filled in.
pub(super) fn stat_name_of(
    pattern: &str,
    service: &Service,
    subset: &str,
    port: u32,
    port_name: &str,
    target_port: u32,
) -> String {
    stat_name(&stat_pattern(pattern, service, subset, port, port_name, target_port))
}

/// A pattern for names of statistics (`outboundClusterStatName`, `inboundClusterStatName`), filled in.
pub fn stat_pattern(
    pattern: &str,
    service: &Service,
    subset: &str,
    port: u32,
    port_name: &str,
    target_port: u32,
) -> String {
    let kubernetes = service.registry == Registry::Kubernetes;
    let short = if kubernetes {
        format!("{}.{}", service.name, service.namespace)
    } else {
        service.hostname.to_string()
    };
    let name = if kubernetes { &service.name } else { &service.hostname };
    pattern
        .replace("%SERVICE%", &short)
        .replace("%SERVICE_NAME%", name)
        .replace("%SERVICE_FQDN%", &service.hostname)
        .replace("%SUBSET_NAME%", subset)
        .replace("%TARGET_PORT%", &target_port.to_string())
        .replace("%SERVICE_PORT%", &port.to_string())
        .replace("%SERVICE_PORT_NAME%", port_name)
}

/// Envoy requires a version in the HTTP options; without another choice it is HTTP/1.
fn with_version(mut options: HttpProtocolOptions) -> HttpProtocolOptions {
    options.upstream_protocol_options.get_or_insert_with(|| {
        explicit(ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default()))
    });
    options
}

pub(super) fn explicit(config: ProtocolConfig) -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) })
}
