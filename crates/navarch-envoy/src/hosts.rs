//! Virtual hosts as resources of their own (VHDS): their names, and the route configurations that they make
//! together.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;

use crate::proto::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use crate::resource::Resource;
use crate::set::{ProxyResources, ResourceSet};
use crate::types::XdsType;

/// What stands for a slash in the name of a host: the last slash of a resource name ends the name of the
/// route configuration.
const SLASH: &str = "%2F";

/// The name of the resource that is a virtual host of a route configuration: `<routes>/<host>`. It is also
/// the name inside the resource, by which Envoy removes the host.
#[must_use]
pub fn resource_name(routes: &str, host: &str) -> String {
    format!("{routes}/{}", host.replace('/', SLASH))
}

/// The name of the route configuration that a virtual host is for.
#[must_use]
pub fn routes_of(name: &str) -> Option<&str> {
    name.rsplit_once('/').map(|(routes, _)| routes)
}

/// The name that a virtual host has within its route configuration.
#[must_use]
pub fn host_of(name: &str) -> Cow<'_, str> {
    let host = name.rsplit_once('/').map_or(name, |(_, host)| host);
    if host.contains(SLASH) { host.replace(SLASH, "/").into() } else { host.into() }
}

/// The virtual hosts of a route configuration.
pub fn of_routes<'s>(hosts: &'s ResourceSet, routes: &'s str) -> impl Iterator<Item = &'s Arc<Resource>> {
    let below = hosts.with_prefix(format!("{routes}/").into());
    below.filter(move |host| routes_of(host.name()) == Some(routes))
}

/// The same resources with the virtual hosts in their route configurations, by name: for those who read
/// routes as a whole.
#[must_use]
pub fn joined(resources: &ProxyResources) -> Cow<'_, ProxyResources> {
    let hosts = resources.set(XdsType::Vhds);
    if hosts.is_empty() {
        return Cow::Borrowed(resources);
    }
    let whole = resources.set(XdsType::Rds).iter().map(|routes| join(routes, hosts));
    let whole = ResourceSet::of(whole.collect::<Vec<_>>());
    Cow::Owned(resources.clone().with(XdsType::Rds, whole).with(XdsType::Vhds, ResourceSet::default()))
}

/// One route configuration, with its virtual hosts in it.
#[must_use]
pub fn whole_routes(resources: &ProxyResources, name: &str) -> Option<Arc<Resource>> {
    resources.set(XdsType::Rds).get(name).map(|routes| join(routes, resources.set(XdsType::Vhds)))
}

/// One route configuration with its virtual hosts in it.
fn join(routes: &Arc<Resource>, hosts: &ResourceSet) -> Arc<Resource> {
    let Ok(mut configuration) = RouteConfiguration::decode(routes.body()) else { return routes.clone() };
    if configuration.vhds.take().is_none() {
        return routes.clone();
    }
    let found = of_routes(hosts, routes.name()).filter_map(|host| VirtualHost::decode(host.body()).ok());
    // The host for everything else is for no port, and comes last.
    let place = |name: &str| (!name.contains(':'), name.to_owned());
    let found: BTreeMap<(bool, String), VirtualHost> =
        found.map(|host| (place(&host_of(&host.name)), host)).collect();
    let named = found.into_iter().map(|((_, name), host)| VirtualHost { name, ..host });
    configuration.virtual_hosts.extend(named);
    Arc::new(Resource::of(XdsType::Rds, routes.name().clone(), &configuration.encode_to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::envoy::config::route::v3::Vhds;

    #[test]
    fn names_say_which_routes_and_which_host() {
        for (routes, host, expected) in [
            ("80", "a.test:80", "80/a.test:80"),
            ("unix:///run/a", "b", "unix:///run/a/b"),
            ("80", "made/by hand", "80/made%2Fby hand"),
        ] {
            let name = resource_name(routes, host);
            assert_eq!(name, expected);
            assert_eq!((routes_of(&name), &*host_of(&name)), (Some(routes), host));
        }
        assert_eq!(routes_of("a"), None);
    }

    #[test]
    fn routes_are_joined_with_their_own_hosts() {
        let routes = |name: &str, vhds: bool| {
            let vhds = vhds.then(Vhds::default);
            let routes = RouteConfiguration { name: name.to_owned(), vhds, ..RouteConfiguration::default() };
            Arc::new(Resource::of(XdsType::Rds, name, &routes.encode_to_vec()))
        };
        let host = |name: &str| {
            let host = VirtualHost { name: name.to_owned(), ..VirtualHost::default() };
            Arc::new(Resource::of(XdsType::Vhds, name, &host.encode_to_vec()))
        };
        let resources = ProxyResources::new(1)
            .with(XdsType::Rds, ResourceSet::of([routes("80", true), routes("8", true), routes("9", false)]))
            .with(XdsType::Vhds, ResourceSet::of(["80/b", "80/a", "8/c", "80/x/d", "9/e"].map(host)));
        let joined = joined(&resources);
        assert!(joined.set(XdsType::Vhds).is_empty());
        let check = |name: &str, expected: &[&str]| {
            let body = joined.set(XdsType::Rds).get(name).expect("routes").body();
            let routes = RouteConfiguration::decode(body).expect("routes");
            let names: Vec<_> = routes.virtual_hosts.iter().map(|host| &*host.name).collect();
            assert_eq!(names, expected);
            assert!(routes.vhds.is_none());
        };
        check("80", &["a", "b"]);
        check("8", &["c"]);
        check("9", &[]);
    }
}
