//! Resources by name, decoded. A resource that is not what its type says counts as missing: Envoy would have
//! rejected it.

use navarch_envoy::any::{type_url, unpack};
use navarch_envoy::hosts::whole_routes;
use navarch_envoy::proto::envoy::config::cluster::v3::Cluster;
use navarch_envoy::proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use navarch_envoy::proto::envoy::config::listener::v3::Listener;
use navarch_envoy::proto::envoy::config::route::v3::RouteConfiguration;
use navarch_envoy::{Any, ProxyResources, XdsType};

pub fn listeners(resources: &ProxyResources) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = resources
        .set(XdsType::Lds)
        .iter()
        .filter_map(|found| unpack(&Any { type_url: type_url::<Listener>(), value: found.body() }).ok())
        .collect();
    // The order of layers says nothing; names make the choice among equals the same every time.
    listeners.sort_by(|a, b| a.name.cmp(&b.name));
    listeners
}

pub fn routes(resources: &ProxyResources, name: &str) -> Option<RouteConfiguration> {
    let found = whole_routes(resources, name)?;
    unpack(&Any { type_url: type_url::<RouteConfiguration>(), value: found.body() }).ok()
}

pub fn cluster(resources: &ProxyResources, name: &str) -> Option<Cluster> {
    let found = resources.set(XdsType::Cds).get(name)?;
    unpack(&Any { type_url: type_url::<Cluster>(), value: found.body() }).ok()
}

pub fn load_assignment(resources: &ProxyResources, name: &str) -> Option<ClusterLoadAssignment> {
    let found = resources.set(XdsType::Eds).get(name)?;
    unpack(&Any { type_url: type_url::<ClusterLoadAssignment>(), value: found.body() }).ok()
}
