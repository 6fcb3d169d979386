//! What endpoints depend on of the client and the mesh.

use navarch_model::endpoint::Locality;
use navarch_model::mesh::MeshConfig;
use navarch_model::networking::{LocalityLoadBalancerSetting, ZoneAwareLoadBalancerSetting};
use navarch_model::proxy::{IpMode, ProxyKind};
use navarch_model::service::{Service, TrafficDistribution};
use navarch_model::{Labels, Name};

/// What endpoints take from the client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointView {
    pub kind: ProxyKind,
    pub ip_mode: IpMode,
    pub cluster_id: Name,
    pub network: Name,
    /// Networks that the client asked to see; empty: all.
    pub network_view: Vec<Name>,
    /// Where the client runs; unknown if nothing depends on it.
    pub locality: Locality,
    /// Those labels of the client that priorities are made of.
    pub labels: Labels,
    /// The client's node, if the service is node-local or prefers the same node.
    pub node_name: Name,
}

/// What endpoints take from MeshConfig.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EndpointMesh {
    pub locality_lb: Option<LocalityLoadBalancerSetting>,
    pub zone_aware_lb: Option<ZoneAwareLoadBalancerSetting>,
    /// The mesh-wide default policy detects outliers, which makes failover possible for addresses that
    /// clusters carry.
    pub outlier_detection: bool,
}

/// Whether the answer for a service depends on the client's node.
pub fn needs_node(service: &Service) -> bool {
    service.node_local || service.traffic_distribution == TrafficDistribution::PreferSameNode
}

impl EndpointMesh {
    /// Cuts the settings out of MeshConfig.
    pub fn of(mesh: &MeshConfig) -> Self {
        EndpointMesh {
            locality_lb: mesh.locality_lb_setting.clone(),
            zone_aware_lb: mesh.zone_aware_lb_setting.clone(),
            outlier_detection: mesh
                .default_traffic_policy
                .as_ref()
                .is_some_and(|policy| policy.outlier_detection.is_some()),
        }
    }
}
