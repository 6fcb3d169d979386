//! Gateways of the Gateway API, and what they refer to: what their CRDs demand, expressions (CEL) included.

use std::collections::{BTreeMap, BTreeSet};

use super::checks::{labels, missing, port};
use super::metadata::{label_problem, subdomain_problem};
use super::{Report, Validate};
use crate::finding::Code;
use crate::gateway_api::{
    AllowedRoutes, FrontendTlsValidation, Gateway, GatewayAddress, GatewayClass, GatewayInfrastructure,
    GatewayTlsConfig, Listener, ListenerSet, ListenerTlsConfig, NamespaceChoice, NamespacesFrom,
    ReferenceGrant, SecretObjectReference, TlsConfig, TlsMode,
};
use crate::mesh::LabelSelector;

/// Listeners of a Gateway or ListenerSet.
const LISTENERS_MAX: usize = 64;
const CERTIFICATES_MAX: usize = 64;
const OPTIONS_MAX: usize = 16;
const ROUTE_KINDS_MAX: usize = 8;
const ADDRESSES_MAX: usize = 16;
const CA_CERTIFICATES_MAX: usize = 16;
const GRANT_ITEMS_MAX: usize = 16;

impl Validate for GatewayClass {
    fn validate(&self, report: &mut Report<'_>) {
        let GatewayClass { controller_name, parameters_ref: _, description } = self;
        report.within("controllerName", |report| {
            let named = controller_name.split_once('/');
            if !named.is_some_and(|(domain, path)| subdomain_problem(domain).is_none() && !path.is_empty()) {
                let message = format!("{controller_name:?} is not the name of a controller");
                report.error(Code::InvalidName, message, "write a domain and a path, `example.com/name`");
            }
        });
        if description.chars().count() > 64 {
            report.within("description", |report| {
                let message = "the description is longer than 64 characters";
                report.error(Code::OutOfRange, message, "shorten it");
            });
        }
    }
}

impl Validate for Gateway {
    fn validate(&self, report: &mut Report<'_>) {
        let Gateway {
            gateway_class_name,
            listeners,
            addresses,
            infrastructure,
            allowed_listeners,
            tls,
            default_scope,
        } = self;
        if gateway_class_name.is_empty() {
            missing(report, "gatewayClassName", "name the GatewayClass");
        }
        self::listeners(report, listeners);
        for listener in listeners.iter().enumerate().filter(|(_, listener)| listener.port == 0) {
            report.within(&format!("listeners[{}].port", listener.0), |report| {
                report.error(Code::MissingField, "the listener has no port", "state it");
            });
        }
        self::addresses(report, addresses);
        report.each_set("infrastructure", infrastructure.as_ref(), self::infrastructure);
        report.each_set("allowedListeners", allowed_listeners.as_ref(), |report, allowed| {
            report.each_set("namespaces", allowed.namespaces.as_ref(), |report, choice| {
                namespaces(report, choice, true);
            });
        });
        report.each_set("tls", tls.as_ref(), gateway_tls);
        if !default_scope.is_empty() && !matches!(default_scope.as_str(), "All" | "None") {
            report.within("defaultScope", |report| {
                let message = format!("{default_scope:?} is not a scope");
                report.error(Code::InvalidValue, message, "write All or None");
            });
        }
    }
}

impl Validate for ListenerSet {
    fn validate(&self, report: &mut Report<'_>) {
        let ListenerSet { parent_ref, listeners } = self;
        report.within("parentRef", |report| {
            if parent_ref.name.is_empty() {
                missing(report, "name", "name the Gateway that the listeners are for");
            }
        });
        self::listeners(report, listeners);
    }
}

impl Validate for ReferenceGrant {
    fn validate(&self, report: &mut Report<'_>) {
        let ReferenceGrant { from, to } = self;
        for (field, count) in [("from", from.len()), ("to", to.len())] {
            if count == 0 {
                missing(report, field, "say which objects may refer to which");
            }
            at_most(report, field, count, GRANT_ITEMS_MAX);
        }
        report.each("from", from, |report, from| {
            for (field, value) in [("kind", from.kind.as_str()), ("namespace", &from.namespace)] {
                if value.is_empty() {
                    missing(report, field, "name what may refer");
                }
            }
        });
        report.each("to", to, |report, to| {
            if to.kind.is_empty() {
                missing(report, "kind", "name what may be referred to");
            }
        });
    }
}

pub(super) fn at_most(report: &mut Report<'_>, field: &str, count: usize, max: usize) {
    if count > max {
        report.within(field, |report| {
            let message = format!("{count} items, of which there may be {max}");
            report.error(Code::OutOfRange, message, "split the object");
        });
    }
}

/// Checks the listeners of a Gateway or a ListenerSet.
fn listeners(report: &mut Report<'_>, listeners: &[Listener]) {
    if listeners.is_empty() {
        missing(report, "listeners", "add a listener with name, port and protocol");
    }
    at_most(report, "listeners", listeners.len(), LISTENERS_MAX);
    let mut names = BTreeSet::new();
    let mut sockets: BTreeMap<(u32, &str, Option<&str>), &str> = BTreeMap::new();
    report.each("listeners", listeners, |report, listener| {
        self::listener(report, listener);
        if !listener.name.is_empty() && !names.insert(&listener.name) {
            report.within("name", |report| {
                let message = format!("the name {:?} is there twice", listener.name);
                report.error(Code::DuplicateItem, message, "give each listener its own name");
            });
        }
        let socket = (listener.port, &*listener.protocol, listener.hostname.as_deref());
        if let Some(other) = sockets.insert(socket, &listener.name).filter(|_| listener.port != 0) {
            let message = format!("the listener {other:?} has the same port, protocol and hostname");
            report.error(Code::DuplicateItem, message, "remove one, or give it another hostname");
        }
    });
}

fn listener(report: &mut Report<'_>, listener: &Listener) {
    let Listener { name, hostname, port: number, protocol, tls, allowed_routes } = listener;
    report.within("name", |report| match subdomain_problem(name) {
        _ if name.is_empty() => report.error(Code::MissingField, "the listener has no name", "name it"),
        Some(problem) => {
            let message = format!("{name:?} is not a name for a listener: {problem}");
            report.error(Code::InvalidName, message, "use lower-case letters, digits, `-` and `.`");
        }
        None => {}
    });
    if let Some(hostname) = hostname.as_deref().filter(|hostname| !hostname.is_empty()) {
        self::hostname(report, "hostname", hostname);
        if matches!(&**protocol, "TCP" | "UDP") {
            report.within("hostname", |report| {
                let message = format!("a {protocol} listener cannot tell hosts apart");
                report.error(Code::InvalidCombination, message, "remove the hostname");
            });
        }
    }
    if *number != 0 {
        port(report, "port", *number);
    }
    self::protocol(report, protocol);
    match tls {
        Some(_) if matches!(&**protocol, "HTTP" | "TCP" | "UDP") => report.within("tls", |report| {
            let message = format!("a {protocol} listener has no TLS");
            report.error(Code::InvalidCombination, message, "use protocol HTTPS or TLS, or remove tls");
        }),
        Some(tls) => report.within("tls", |report| listener_tls(report, tls, protocol)),
        None if &**protocol == "TLS" => {
            missing(report, "tls", "say by `mode` who ends TLS: Terminate or Passthrough");
        }
        None => {}
    }
    report.each_set("allowedRoutes", allowed_routes.as_ref(), |report, allowed| {
        let AllowedRoutes { namespaces: choice, kinds } = allowed;
        report.each_set("namespaces", choice.as_ref(), |report, choice| namespaces(report, choice, false));
        at_most(report, "kinds", kinds.len(), ROUTE_KINDS_MAX);
        report.each("kinds", kinds, |report, kind| {
            if kind.kind.is_empty() {
                missing(report, "kind", "name a kind of routes, for example HTTPRoute");
            }
        });
    });
}

fn protocol(report: &mut Report<'_>, protocol: &str) {
    if protocol.is_empty() {
        return missing(report, "protocol", "write HTTP, HTTPS, TLS, TCP or UDP");
    }
    let word = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let valid = match protocol.split_once('/') {
        Some((domain, name)) => subdomain_problem(domain).is_none() && word(name),
        None => word(protocol) && !protocol.starts_with('-') && !protocol.ends_with('-'),
    };
    if !valid || protocol.len() > 255 {
        report.within("protocol", |report| {
            let message = format!("{protocol:?} is not a protocol");
            report.error(Code::InvalidValue, message, "write HTTP, HTTPS, TLS, TCP or UDP");
        });
    }
}

fn listener_tls(report: &mut Report<'_>, tls: &ListenerTlsConfig, protocol: &str) {
    let ListenerTlsConfig { mode, certificate_refs, options } = tls;
    if protocol == "HTTPS" && *mode == Some(TlsMode::Passthrough) {
        report.within("mode", |report| {
            let message = "an HTTPS listener ends TLS";
            report.error(Code::InvalidCombination, message, "use protocol TLS, or mode Terminate");
        });
    }
    if protocol == "TLS" && mode.is_none() {
        missing(report, "mode", "write Terminate or Passthrough");
    }
    if tls.mode() == TlsMode::Terminate && certificate_refs.is_empty() && options.is_empty() {
        missing(report, "certificateRefs", "name the Secret with the certificate");
    }
    at_most(report, "certificateRefs", certificate_refs.len(), CERTIFICATES_MAX);
    at_most(report, "options", options.len(), OPTIONS_MAX);
    report.each("certificateRefs", certificate_refs, secret_reference);
}

fn secret_reference(report: &mut Report<'_>, reference: &SecretObjectReference) {
    if reference.name.is_empty() {
        missing(report, "name", "name the Secret");
    }
    reference_namespace(report, reference.namespace.as_deref());
}

fn reference_namespace(report: &mut Report<'_>, namespace: Option<&str>) {
    let Some((namespace, problem)) = namespace.and_then(|name| Some((name, label_problem(name)?))) else {
        return;
    };
    report.within("namespace", |report| {
        let message = format!("{namespace:?} is not a namespace: {problem}");
        report.error(Code::InvalidName, message, "use lower-case letters, digits and `-`");
    });
}

/// Checks which namespaces are chosen. `none` may be.
fn namespaces(report: &mut Report<'_>, choice: &NamespaceChoice, none: bool) {
    let NamespaceChoice { from, selector } = choice;
    match (from, selector) {
        (Some(NamespacesFrom::None), _) if !none => report.within("from", |report| {
            let message = "routes have to be from somewhere";
            report.error(Code::InvalidValue, message, "write All, Same or Selector");
        }),
        (Some(NamespacesFrom::Selector), None) => {
            missing(report, "selector", "say by labels which namespaces are meant");
        }
        (_, Some(selector)) => report.within("selector", |report| {
            label_selector(report, selector);
            if *from != Some(NamespacesFrom::Selector) {
                let message = "the selector has no effect";
                report.warning(Code::NoEffect, message, "write `from: Selector`");
            }
        }),
        _ => {}
    }
}

/// Checks a label selector of Kubernetes.
fn label_selector(report: &mut Report<'_>, selector: &LabelSelector) {
    let LabelSelector { match_labels, match_expressions } = selector;
    labels(report, "matchLabels", match_labels);
    report.each("matchExpressions", match_expressions, |report, requirement| {
        let listed = !requirement.values.is_empty();
        let wrong = match requirement.operator.as_str() {
            "In" | "NotIn" => !listed,
            "Exists" | "DoesNotExist" => listed,
            other => {
                return report.within("operator", |report| {
                    let message = format!("{other:?} is not an operator");
                    report.error(Code::InvalidValue, message, "write In, NotIn, Exists or DoesNotExist");
                });
            }
        };
        if wrong {
            report.within("values", |report| {
                let message = format!("the operator {} takes other values", requirement.operator);
                let hint = "list values for In and NotIn, none for Exists and DoesNotExist";
                report.error(Code::InvalidCombination, message, hint);
            });
        }
    });
}

fn addresses(report: &mut Report<'_>, addresses: &[GatewayAddress]) {
    at_most(report, "addresses", addresses.len(), ADDRESSES_MAX);
    let mut known = BTreeSet::new();
    report.each("addresses", addresses, |report, address| {
        if address.value.is_empty() {
            return;
        }
        match address.kind() {
            "Hostname" => hostname(report, "value", &address.value),
            "IPAddress" if address.value.parse::<std::net::IpAddr>().is_err() => {
                report.within("value", |report| {
                    let message = format!("{:?} is not an IP address", address.value);
                    report.error(Code::InvalidAddress, message, "write an address, or `type: Hostname`");
                });
            }
            _ => {}
        }
        if matches!(address.kind(), "Hostname" | "IPAddress")
            && !known.insert((address.kind(), &address.value))
        {
            report.within("value", |report| {
                let message = format!("the address {:?} is there twice", address.value);
                report.error(Code::DuplicateItem, message, "remove one of the two");
            });
        }
    });
}

fn infrastructure(report: &mut Report<'_>, infrastructure: &GatewayInfrastructure) {
    let GatewayInfrastructure { labels: stated, annotations, parameters_ref } = infrastructure;
    at_most(report, "labels", stated.len(), 8);
    at_most(report, "annotations", annotations.len(), 16);
    labels(report, "labels", stated);
    report.each_set("parametersRef", parameters_ref.as_ref(), |report, reference| {
        if reference.kind.is_empty() {
            missing(report, "kind", "name the kind");
        }
        if reference.name.is_empty() {
            missing(report, "name", "name the object");
        }
    });
}

fn gateway_tls(report: &mut Report<'_>, tls: &GatewayTlsConfig) {
    let GatewayTlsConfig { backend, frontend } = tls;
    report.each_set("backend", backend.as_ref(), |report, backend| {
        report.each_set("clientCertificateRef", backend.client_certificate_ref.as_ref(), secret_reference);
    });
    report.each_set("frontend", frontend.as_ref(), |report, frontend| {
        report.within("default", |report| client_validation(report, &frontend.default));
        at_most(report, "perPort", frontend.per_port.len(), LISTENERS_MAX);
        let mut ports = BTreeSet::new();
        report.each("perPort", &frontend.per_port, |report, own| {
            port(report, "port", own.port);
            if !ports.insert(own.port) {
                report.within("port", |report| {
                    let message = format!("the port {} is there twice", own.port);
                    report.error(Code::DuplicateItem, message, "remove one of the two");
                });
            }
            report.within("tls", |report| client_validation(report, &own.tls));
        });
    });
}

fn client_validation(report: &mut Report<'_>, tls: &TlsConfig) {
    report.each_set("validation", tls.validation.as_ref(), |report, validation| {
        let FrontendTlsValidation { ca_certificate_refs, mode: _ } = validation;
        if ca_certificate_refs.is_empty() {
            missing(report, "caCertificateRefs", "name the ConfigMap with the authority of clients");
        }
        at_most(report, "caCertificateRefs", ca_certificate_refs.len(), CA_CERTIFICATES_MAX);
        report.each("caCertificateRefs", ca_certificate_refs, |report, reference| {
            if reference.name.is_empty() {
                missing(report, "name", "name the object");
            }
            reference_namespace(report, reference.namespace.as_deref());
        });
    });
}

/// Checks a hostname: a name of DNS in lower case, whose first part may be a wildcard.
pub(super) fn hostname(report: &mut Report<'_>, field: &str, text: &str) {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let problem = match subdomain_problem(name) {
        _ if name.parse::<std::net::IpAddr>().is_ok() => "it is an IP address",
        Some(problem) => problem,
        None => return,
    };
    report.within(field, |report| {
        let message = format!("{text:?} is not a hostname: {problem}");
        let hint = "write a name in lower case; only the first part may be `*`";
        report.error(Code::InvalidHost, message, hint);
    });
}
