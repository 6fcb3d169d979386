//! The domains under which clients reach a service (the `domains` of its virtual host).

use std::net::IpAddr;

use navarch_model::proxy::IpMode;
use navarch_model::service::{Registry, Resolution, Service};

/// The address that stands for "none".
const UNSPECIFIED: &str = "0.0.0.0";

/// One domain of a virtual host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Domain {
    pub text: String,
    /// Derived from the host's full name. Where it is the full name of another service, that one has it.
    pub alternative: bool,
}

/// What domains depend on besides the service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DomainView {
    /// `<namespace>.svc.<suffix>`: decides how short a name the client may use.
    pub dns_domain: navarch_model::Name,
    pub ip_mode: IpMode,
    /// The client resolves names itself and so uses addresses that were allocated for hosts without any.
    pub auto_allocated_addresses: bool,
}

/// The domain of a client who has no short names; `None` if the domain is not that of its namespace,
/// `<namespace>.svc.<suffix>`.
pub fn elsewhere(dns_domain: &str, namespace: &str) -> Option<navarch_model::Name> {
    let suffix = dns_domain.strip_prefix(namespace)?.strip_prefix(".svc.")?;
    (!namespace.is_empty() && !namespace.contains('.')).then(|| format!(".svc.{suffix}").into())
}

/// Namespaces whose clients may have other names for a host than clients elsewhere: shorter ones.
pub fn short_name_namespaces(host: &str) -> impl Iterator<Item = &str> {
    let before = host.match_indices(".svc.").filter_map(|(index, _)| host.get(..index)?.rsplit_once('.'));
    before.map(|(_, namespace)| namespace).filter(|namespace| !namespace.is_empty())
}

impl DomainView {
    /// The view for a host that is not a service.
    pub fn without_service(&self) -> Self {
        DomainView { dns_domain: "".into(), ip_mode: IpMode::V4, auto_allocated_addresses: false }
    }

    /// The view as far as this service goes: only services of the client's own namespace care which namespace
    /// that is. Clients in other namespaces share the virtual host.
    pub fn narrowed(&self, service: &Service) -> Self {
        let Some((namespace, suffix)) = self.dns_domain.split_once(".svc.") else { return self.clone() };
        let infix = format!(".{namespace}.svc.");
        let has_short_names =
            std::iter::once(&service.hostname).chain(&service.aliases).any(|host| host.contains(&infix));
        let dns_domain =
            if has_short_names { self.dns_domain.clone() } else { format!(".svc.{suffix}").into() };
        let has_auto = !service.auto_allocated_addresses.is_empty();
        DomainView {
            dns_domain,
            ip_mode: self.ip_mode,
            auto_allocated_addresses: self.auto_allocated_addresses && has_auto,
        }
    }
}

/// All domains of a service, most specific form first.
///
/// With a `port` each domain is there with and without it: for listeners that serve all ports. Others ignore
/// the port of the request's host.
pub fn of_service(service: &Service, view: &DomainView, port: Option<u16>) -> Vec<Domain> {
    let mut out = Vec::new();
    for host in std::iter::once(&service.hostname).chain(&service.aliases) {
        push(&mut out, bracketed(host), host, port, false);
        alternatives(&mut out, host, &view.dns_domain, port);
    }
    if service.resolution == Resolution::Passthrough && service.registry == Registry::Kubernetes {
        // Pods of headless services have names below the service's.
        let below: Vec<_> = out
            .iter()
            .map(|domain| Domain { text: format!("*.{}", domain.text), alternative: false })
            .collect();
        out.extend(below);
    }
    for address in addresses(service, view) {
        if address != UNSPECIFIED && !address.is_empty() {
            push(&mut out, bracketed(address), address, port, false);
        }
    }
    out
}

/// Other forms of a host name that clients in `dns_domain` may use, without port.
pub fn alternative_hosts(host: &str, dns_domain: &str) -> Vec<String> {
    let mut out = Vec::new();
    alternatives(&mut out, host, dns_domain, None);
    out.into_iter().map(|domain| domain.text).collect()
}

/// The domains of a host that routes name and that is not a service.
pub fn of_host(host: &str) -> Vec<Domain> {
    vec![Domain { text: bracketed(host), alternative: false }]
}

/// `host:port`, with brackets around an IPv6 address.
pub fn with_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn push(out: &mut Vec<Domain>, text: String, host: &str, port: Option<u16>, alternative: bool) {
    out.push(Domain { text, alternative });
    if let Some(port) = port {
        out.push(Domain { text: with_port(host, port), alternative });
    }
}

/// Addresses that the client may dial: those of its families, all of them for Kubernetes, the first of a
/// ServiceEntry.
fn addresses<'s>(service: &'s Service, view: &DomainView) -> Vec<&'s str> {
    let of_family = |address: &str| match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => view.ip_mode != IpMode::V6,
        Ok(IpAddr::V6(_)) => view.ip_mode != IpMode::V4,
        // A block of addresses: no host header looks like that, but istiod names it.
        Err(_) => true,
    };
    let declared = service.addresses.iter().map(|address| &**address);
    let mut found: Vec<&str> = match service.registry {
        Registry::Kubernetes => declared.filter(|address| of_family(address)).collect(),
        Registry::ServiceEntry => declared.take(1).collect(),
    };
    if found.is_empty() && service.addresses.is_empty() && view.auto_allocated_addresses {
        found = service
            .auto_allocated_addresses
            .iter()
            .map(|address| &**address)
            .filter(|a| of_family(a))
            .collect();
    }
    found
}

/// Other forms of a host name: with the final dot of an absolute name, and as short as the client's own
/// domain allows.
///
/// With DNS domain `ns.svc.suffix` only names of services of Kubernetes are shortened: within their own
/// namespace to `name`, elsewhere to `name.ns`. Other hosts would collide with those.
fn alternatives(out: &mut Vec<Domain>, host: &str, dns_domain: &str, port: Option<u16>) {
    if host.parse::<IpAddr>().is_err() {
        let absolute = format!("{host}.");
        push(out, absolute.clone(), &absolute, port, true);
    }
    let mut short = |text: &str| push(out, bracketed(text), text, port, true);
    if let Some((namespace, _)) = dns_domain.split_once(".svc.") {
        let suffix = dns_domain.find(".svc.").map_or(dns_domain, |index| &dns_domain[index..]);
        if !host.ends_with(suffix) {
            return;
        }
        let Some(before_svc) = host.find(".svc.").filter(|index| *index > 0).map(|index| &host[..index])
        else {
            return;
        };
        let Some((name, service_namespace)) = before_svc.split_once('.') else { return };
        let with_svc = format!("{before_svc}.svc");
        if service_namespace == namespace {
            short(name);
            short(&with_svc);
            short(before_svc);
        } else {
            short(before_svc);
            short(&with_svc);
        }
        return;
    }
    let (unique, shared) = split_shared_suffix(host, dns_domain);
    let Some(first_shared) = shared.first() else { return };
    let unique_name = unique.join(".");
    short(&unique_name);
    if unique.len() == 2 {
        short(&format!("{unique_name}.{first_shared}"));
    }
}

/// Splits the labels of `host` into those before the suffix that it shares with `domain`, and the suffix.
fn split_shared_suffix<'h>(host: &'h str, domain: &str) -> (Vec<&'h str>, Vec<&'h str>) {
    let mut labels: Vec<_> = host.split('.').collect();
    let shared = labels.iter().rev().zip(domain.split('.').rev()).take_while(|(a, b)| **a == *b).count();
    let suffix = labels.split_off(labels.len() - shared);
    (labels, suffix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(host: &str, dns_domain: &str, port: Option<u16>) -> Vec<String> {
        let mut out = Vec::new();
        alternatives(&mut out, host, dns_domain, port);
        out.into_iter().map(|domain| domain.text).collect()
    }

    #[test]
    fn names_are_as_short_as_the_clients_domain_allows() {
        let check = |host: &str, dns_domain: &str, expected: &[&str]| {
            assert_eq!(texts(host, dns_domain, None), expected, "{host} from {dns_domain}");
        };
        let cluster = "shop.svc.cluster.local";
        check(
            "cart.shop.svc.cluster.local",
            cluster,
            &["cart.shop.svc.cluster.local.", "cart", "cart.shop.svc", "cart.shop"],
        );
        check(
            "cart.other.svc.cluster.local",
            cluster,
            &["cart.other.svc.cluster.local.", "cart.other", "cart.other.svc"],
        );
        check("a.example.com", cluster, &["a.example.com."]);
        check("svc.cluster.local", cluster, &["svc.cluster.local."]);
        check("10.0.0.1", cluster, &[]);
        check("foo.local.campus.net", "local.campus.net", &["foo.local.campus.net.", "foo"]);
        check(
            "foo.local.campus.net",
            "remote.campus.net",
            &["foo.local.campus.net.", "foo.local", "foo.local.campus"],
        );
        check("foo.example.com", "local.net", &["foo.example.com."]);
        // Narrowed: a client in any other namespace.
        check(
            "cart.other.svc.cluster.local",
            ".svc.cluster.local",
            &["cart.other.svc.cluster.local.", "cart.other", "cart.other.svc"],
        );
    }

    #[test]
    fn listeners_of_all_ports_name_the_port() {
        assert_eq!(
            texts("cart.other.svc.cluster.local", "shop.svc.cluster.local", Some(8080)),
            [
                "cart.other.svc.cluster.local.",
                "cart.other.svc.cluster.local.:8080",
                "cart.other",
                "cart.other:8080",
                "cart.other.svc",
                "cart.other.svc:8080",
            ]
        );
        assert_eq!(with_port("fd00::1", 80), "[fd00::1]:80");
    }
}
