//! Routes whose virtual hosts are resources of their own: a change of one host is one small resource.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use navarch_envoy::proto::envoy::config::route::v3::RouteConfiguration;
use navarch_envoy::{Resource, XdsType, hosts};
use navarch_model::{Hashed, Name};
use prost::Message;

use super::route_configuration::{discovered, without_hosts};
use super::virtual_host::VirtualHost;
use crate::pure::{Pure, Sealed};

/// The key of [`RoutesWithoutHosts`].
#[derive(Clone, Debug, Hash)]
pub struct RoutesWithoutHostsInput {
    pub name: Name,
    pub ignore_port_in_host_matching: bool,
}

/// A route configuration that has all of its virtual hosts from elsewhere.
pub struct RoutesWithoutHosts;

impl Sealed for RoutesWithoutHosts {}

impl Pure for RoutesWithoutHosts {
    const NAME: &'static str = "routes.without_hosts";
    type Input = RoutesWithoutHostsInput;
    type Output = Resource;

    fn run(input: &RoutesWithoutHostsInput) -> Resource {
        without_hosts(&input.name, input.ignore_port_in_host_matching)
    }
}

/// The key of [`HostResource`].
#[derive(Clone, Debug, Hash)]
pub struct HostResourceInput {
    /// Name of the route configuration.
    pub routes: Name,
    pub host: Arc<Hashed<VirtualHost>>,
    /// The domains that are left to it, if others have some of its own.
    pub domains: Option<Vec<String>>,
}

/// A virtual host as a resource of its own.
pub struct HostResource;

impl Sealed for HostResource {}

impl Pure for HostResource {
    const NAME: &'static str = "routes.host";
    type Input = HostResourceInput;
    type Output = Resource;

    fn run(input: &HostResourceInput) -> Resource {
        match &input.domains {
            Some(domains) => input.host.resource(&input.routes, domains.iter().map(String::as_str)),
            None => {
                let all = input.host.domains.iter().map(|domain| domain.text.as_str());
                input.host.resource(&input.routes, all)
            }
        }
    }
}

/// The key of [`SplitRoutes`].
#[derive(Clone, Debug)]
pub struct SplitRoutesInput {
    pub resource: Arc<Resource>,
}

impl Hash for SplitRoutesInput {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let SplitRoutesInput { resource } = self;
        // The version is the content.
        (resource.name(), resource.version()).hash(state);
    }
}

/// A route configuration and its virtual hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    pub routes: Arc<Resource>,
    pub hosts: Arc<Vec<Arc<Resource>>>,
}

/// Takes a whole route configuration apart, where the whole had to be looked at: EnvoyFilters change it as a
/// whole.
pub struct SplitRoutes;

impl Sealed for SplitRoutes {}

impl Pure for SplitRoutes {
    const NAME: &'static str = "routes.split";
    type Input = SplitRoutesInput;
    type Output = Split;

    fn run(SplitRoutesInput { resource }: &SplitRoutesInput) -> Split {
        let whole = || Split { routes: resource.clone(), hosts: Arc::default() };
        let Ok(mut routes) = RouteConfiguration::decode(resource.body()) else { return whole() };
        // Without hosts there is nothing to discover, and Envoy would wait for some.
        if routes.virtual_hosts.is_empty() || routes.vhds.is_some() {
            return whole();
        }
        let mut made = BTreeMap::new();
        for mut host in std::mem::take(&mut routes.virtual_hosts) {
            host.name = hosts::resource_name(&routes.name, &host.name);
            let resource = Resource::of(XdsType::Vhds, host.name.as_str(), &host.encode_to_vec());
            made.insert(host.name, Arc::new(resource));
        }
        routes.vhds = Some(discovered());
        let resource = Resource::of(XdsType::Rds, routes.name.as_str(), &routes.encode_to_vec());
        Split { routes: Arc::new(resource), hosts: Arc::new(made.into_values().collect()) }
    }
}

#[cfg(test)]
mod tests {
    use navarch_envoy::hosts::joined;
    use navarch_envoy::proto::envoy::config::route::v3 as envoy;
    use navarch_envoy::{ProxyResources, ResourceSet};

    use super::*;

    #[test]
    fn what_is_taken_apart_can_be_joined() {
        let host = |name: &str| envoy::VirtualHost {
            name: name.to_owned(),
            domains: vec![name.to_owned()],
            ..envoy::VirtualHost::default()
        };
        let whole = RouteConfiguration {
            name: "80".to_owned(),
            virtual_hosts: ["a:80", "b/c", "z"].map(host).to_vec(),
            ..RouteConfiguration::default()
        };
        let resource = Arc::new(Resource::of(XdsType::Rds, "80", &whole.encode_to_vec()));
        let split = SplitRoutes::run(&SplitRoutesInput { resource });
        let names: Vec<_> = split.hosts.iter().map(|host| host.name().to_string()).collect();
        assert_eq!(names, ["80/a:80", "80/b%2Fc", "80/z"]);
        let apart = ProxyResources::new(1)
            .with(XdsType::Rds, ResourceSet::of([split.routes]))
            .with(XdsType::Vhds, ResourceSet::of(split.hosts.iter().cloned()));
        let joined = joined(&apart);
        let body = joined.set(XdsType::Rds).get("80").expect("routes").body();
        assert_eq!(RouteConfiguration::decode(body).expect("routes"), whole);
    }

    #[test]
    fn routes_without_hosts_stay_whole() {
        let whole = RouteConfiguration { name: "80".to_owned(), ..RouteConfiguration::default() };
        let resource = Arc::new(Resource::of(XdsType::Rds, "80", &whole.encode_to_vec()));
        let split = SplitRoutes::run(&SplitRoutesInput { resource: resource.clone() });
        assert_eq!(split, Split { routes: resource, hosts: Arc::default() });
    }
}
