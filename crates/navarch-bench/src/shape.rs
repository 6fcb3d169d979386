//! How large the simulated mesh is, and what belongs where.
//!
//! Everything follows from a few numbers, so that two runs of one shape are the same mesh.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use serde::Serialize;

/// The size of a mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shape {
    pub name: String,
    pub services: usize,
    /// Endpoints of all services together. Every proxy is one of them.
    pub endpoints: usize,
    pub proxies: usize,
    /// Deployments that have proxies. The replicas of one get the same configuration.
    pub classes: usize,
    pub namespaces: usize,
    /// Every namespace has a `Sidecar` that imports `./*`; otherwise every proxy sees every service.
    pub scoped: bool,
    /// HTTPRoutes, each with a host and a file of its own, on one Gateway whose proxies are the first class.
    /// Without any the proxies are sidecars.
    pub routes: usize,
    /// Endpoints are Pods, as they are in a cluster.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pods: bool,
}

/// Addresses of services: 10.64.0.0/10.
const SERVICES: u32 = 0x0a40_0000;
/// Addresses of pods: 10.128.0.0/10.
const PODS: u32 = 0x0a80_0000;

impl Shape {
    /// 10 services with 50 endpoints, each with a proxy that sees everything.
    #[must_use]
    pub fn small() -> Self {
        Shape::of("small", 10, 50, 50, 10, 1, false)
    }

    /// 1,000 services, 1,000 proxies of 100 deployments that see everything.
    #[must_use]
    pub fn medium() -> Self {
        Shape::of("medium", 1_000, 2_000, 1_000, 100, 10, false)
    }

    /// 10,000 services with 100,000 endpoints, 10,000 proxies of 500 deployments that see the 100 services of
    /// their namespace.
    #[must_use]
    pub fn large() -> Self {
        Shape::of("large", 10_000, 100_000, 10_000, 500, 100, true)
    }

    /// A Gateway with 5,000 HTTPRoutes to 100 services, and one proxy that serves it.
    #[must_use]
    pub fn gateway() -> Self {
        Shape { routes: 5_000, ..Shape::of("gateway", 100, 100, 1, 1, 1, false) }
    }

    fn of(
        name: &str,
        services: usize,
        endpoints: usize,
        proxies: usize,
        classes: usize,
        namespaces: usize,
        scoped: bool,
    ) -> Self {
        let name = name.to_owned();
        Shape { name, services, endpoints, proxies, classes, namespaces, scoped, routes: 0, pods: false }
    }

    /// Whether the numbers go together.
    ///
    /// # Errors
    /// Says which two do not.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.services > 0 && self.proxies > 0 && self.classes > 0 && self.namespaces > 0,
            "a size is 0"
        );
        ensure!(
            self.namespaces <= self.services,
            "{} namespaces have no service",
            self.namespaces - self.services
        );
        ensure!(
            self.classes <= self.services,
            "{} classes need as many services, not {}: the proxies of a class are the endpoints of one service",
            self.classes,
            self.services
        );
        ensure!(
            self.classes <= self.proxies,
            "{} classes need at least as many proxies, not {}",
            self.classes,
            self.proxies
        );
        ensure!(
            self.proxies <= self.endpoints,
            "{} proxies need as many endpoints, not {}: each proxy is an endpoint",
            self.proxies,
            self.endpoints
        );
        ensure!(
            self.routes == 0 || self.classes == 1 && !self.scoped,
            "the proxies of a gateway are one class that sees everything, not {} classes",
            self.classes
        );
        ensure!(
            self.services < 1 << 20 && self.endpoints < 1 << 20,
            "at most a million services and endpoints"
        );
        Ok(())
    }

    /// This shape with another number of services. Endpoints per service stay about the same, and so do the
    /// number of proxies that a change concerns and what each of them sees: where a proxy sees its namespace
    /// only, there are more namespaces of the same size, with as many proxies each.
    #[must_use]
    pub fn with_services(&self, services: usize) -> Self {
        let in_proportion = |size: usize| (size * services).div_ceil(self.services.max(1)).max(1);
        let of_namespaces = |size: usize| if self.scoped { in_proportion(size) } else { size };
        let proxies = of_namespaces(self.proxies);
        Shape {
            name: format!("{} ({services} services)", self.name),
            services,
            endpoints: in_proportion(self.endpoints).max(proxies),
            proxies,
            classes: of_namespaces(self.classes).min(services),
            namespaces: of_namespaces(self.namespaces).min(services),
            ..self.clone()
        }
    }

    /// This shape with another number of proxies.
    #[must_use]
    pub fn with_proxies(&self, proxies: usize) -> Self {
        Shape {
            name: format!("{} ({proxies} proxies)", self.name),
            proxies,
            endpoints: self.endpoints.max(proxies),
            classes: self.classes.min(proxies),
            ..self.clone()
        }
    }

    /// The namespace with this number.
    #[must_use]
    pub fn namespace(&self, number: usize) -> String {
        format!("n{number}")
    }

    /// The number of the namespace that a service is in.
    #[must_use]
    pub fn namespace_of(&self, service: usize) -> usize {
        service % self.namespaces
    }

    /// The fully qualified name of a service.
    #[must_use]
    pub fn host(&self, service: usize) -> String {
        format!("s{service}.n{}.svc.cluster.local", self.namespace_of(service))
    }

    /// The class of a proxy, which is also the service that it is an endpoint of.
    #[must_use]
    pub fn class_of(&self, proxy: usize) -> usize {
        proxy % self.classes
    }

    /// The service of a namespace that is edited: its last one, which usually has no proxies of its own.
    #[must_use]
    pub fn edited(&self, namespace: usize) -> usize {
        let last = self.services - 1;
        last - (last + self.namespaces - namespace) % self.namespaces
    }

    /// How many proxies are in a namespace.
    #[must_use]
    pub fn proxies_in(&self, namespace: usize) -> usize {
        (0..self.proxies).filter(|proxy| self.namespace_of(self.class_of(*proxy)) == namespace).count()
    }

    /// Namespaces that have proxies, which are the first ones.
    #[must_use]
    pub fn inhabited(&self) -> usize {
        self.namespaces.min(self.classes)
    }

    /// The address of a service.
    #[must_use]
    pub fn service_address(&self, service: usize) -> Ipv4Addr {
        Ipv4Addr::from(SERVICES + u32::try_from(service).unwrap_or_default() + 1)
    }

    /// The address of a pod; the first ones have the proxies.
    #[must_use]
    pub fn pod_address(&self, pod: usize) -> Ipv4Addr {
        Ipv4Addr::from(PODS + u32::try_from(pod).unwrap_or_default() + 1)
    }

    /// The pods behind each service.
    #[must_use]
    pub fn pods(&self) -> Vec<Vec<usize>> {
        let mut pods = vec![Vec::new(); self.services];
        for proxy in 0..self.proxies {
            pods[self.class_of(proxy)].push(proxy);
        }
        for pod in self.proxies..self.endpoints {
            pods[(pod - self.proxies) % self.services].push(pod);
        }
        pods
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_adds_up() {
        let shapes = [
            Shape::small(),
            Shape::medium(),
            Shape::large(),
            Shape::medium().with_services(100),
            Shape::large().with_services(1_000),
            Shape::small().with_proxies(7),
            Shape::gateway(),
            Shape::gateway().with_services(1_000),
        ];
        for shape in shapes {
            shape.check().expect("sizes go together");
            let pods = shape.pods();
            assert_eq!(pods.iter().map(Vec::len).sum::<usize>(), shape.endpoints, "{}", shape.name);
            let inhabitants: usize = (0..shape.namespaces).map(|n| shape.proxies_in(n)).sum();
            assert_eq!(inhabitants, shape.proxies, "{}", shape.name);
            for namespace in 0..shape.namespaces {
                let edited = shape.edited(namespace);
                assert!(edited < shape.services && shape.namespace_of(edited) == namespace, "{}", shape.name);
                assert_eq!(shape.proxies_in(namespace) > 0, namespace < shape.inhabited(), "{}", shape.name);
            }
        }
    }

    #[test]
    fn among_more_services_a_change_concerns_as_many_proxies() {
        for services in [100, 1_000, 20_000] {
            let other = Shape::large().with_services(services);
            assert_eq!(other.proxies_in(0), Shape::large().proxies_in(0), "{}", other.name);
        }
    }

    #[test]
    fn what_does_not_go_together_is_said() {
        for (change, expected) in [
            (Shape { proxies: 51, ..Shape::small() }, "51 proxies need"),
            (Shape { classes: 11, ..Shape::small() }, "11 classes need"),
            (Shape { services: 0, ..Shape::small() }, "0"),
            (Shape { routes: 1, ..Shape::small() }, "10 classes"),
        ] {
            let error = change.check().expect_err("impossible").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
