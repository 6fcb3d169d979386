//! Sidecar.

use std::collections::BTreeSet;

use super::checks::{missing, port, port_name, protocol};
use super::destination_rule::connection_pool;
use super::gateway::{bind, server_tls};
use super::hosts::{fqdn_problem, namespace_host, unix_problem};
use super::service_entry::workload_selector;
use super::virtual_service::destination;
use super::{Report, Validate};
use crate::finding::Code;
use crate::networking::{
    CaptureMode, IstioEgressListener, IstioIngressListener, OutboundTrafficPolicyMode, ServerTlsMode,
    ServerTlsSettings, Sidecar, SidecarPort,
};
use crate::service::Protocol;

impl Validate for Sidecar {
    fn validate(&self, report: &mut Report<'_>) {
        report.each_set("workloadSelector", self.workload_selector.as_ref(), workload_selector);
        let empty = self.egress.is_empty()
            && self.ingress.is_empty()
            && self.outbound_traffic_policy.is_none()
            && self.inbound_connection_pool.is_none();
        if empty {
            let message = "the Sidecar configures nothing";
            report.error(
                Code::MissingField,
                message,
                "set egress, ingress, outboundTrafficPolicy or inboundConnectionPool",
            );
        }
        let mut ports = BTreeSet::new();
        report.each("ingress", &self.ingress, |report, listener| {
            ingress(report, listener);
            if let Some(port) = &listener.port {
                unique_port(report, port, &mut ports);
            }
        });
        report.each_set("inboundConnectionPool", self.inbound_connection_pool.as_ref(), connection_pool);
        self.validate_egress(report);
        self.validate_outbound(report);
    }
}

impl Sidecar {
    fn validate_egress(&self, report: &mut Report<'_>) {
        let last = self.egress.len().saturating_sub(1);
        let mut index = 0;
        let (mut ports, mut sockets) = (BTreeSet::new(), BTreeSet::new());
        report.each("egress", &self.egress, |report, listener| {
            match &listener.port {
                None if index != last => {
                    let message = "a listener without port takes everything that is left";
                    report.error(Code::Unreachable, message, "put it last; there can be only one");
                }
                None => {}
                Some(p) => {
                    egress_port(report, p, listener);
                    if p.number != 0 {
                        unique_port(report, p, &mut ports);
                    } else if !sockets.insert(listener.bind.as_str()) {
                        report.within("bind", |report| {
                            report.error(
                                Code::DuplicateItem,
                                format!("{:?} is there twice", listener.bind),
                                "",
                            );
                        });
                    }
                }
            }
            egress_hosts(report, listener);
            index += 1;
        });
    }

    fn validate_outbound(&self, report: &mut Report<'_>) {
        let Some(policy) = &self.outbound_traffic_policy else { return };
        let Some(proxy) = &policy.egress_proxy else { return };
        report.within("outboundTrafficPolicy.egressProxy", |report| {
            if policy.mode != OutboundTrafficPolicyMode::AllowAny {
                let message = "an egress proxy is for unknown hosts, which REGISTRY_ONLY refuses";
                report.error(Code::InvalidCombination, message, "set mode: ALLOW_ANY");
            }
            if let Some(problem) = fqdn_problem(&proxy.host) {
                report.within("host", |report| {
                    report.error(
                        Code::InvalidHost,
                        format!("{:?} is not a valid host: {problem}", proxy.host),
                        "",
                    );
                });
            } else {
                destination(report, proxy);
            }
            if proxy.port.is_none() {
                missing(report, "port", "say which port of the proxy");
            }
        });
    }
}

fn unique_port(report: &mut Report<'_>, port: &SidecarPort, ports: &mut BTreeSet<u32>) {
    if !ports.insert(port.number) {
        report.within("port.number", |report| {
            let message = format!("the port {} is there twice", port.number);
            report.error(Code::DuplicateItem, message, "use each port once");
        });
    }
}

/// Checks what both directions' ports have in common.
fn sidecar_port(report: &mut Report<'_>, p: &SidecarPort) {
    if !p.name.is_empty() {
        port_name(report, &p.name);
    }
    protocol(report, &p.protocol, false);
    if p.target_port > 0 {
        report.within("targetPort", |report| {
            report.error(Code::NoEffect, "targetPort has no effect in a Sidecar", "remove it");
        });
    }
}

fn ingress(report: &mut Report<'_>, listener: &IstioIngressListener) {
    let Some(p) = &listener.port else {
        missing(report, "port", "say which port the listener is for");
        return;
    };
    report.within("port", |report| {
        sidecar_port(report, p);
        port(report, "number", p.number);
    });
    bind(report, &listener.bind, true);
    default_endpoint(report, &listener.default_endpoint);
    report.each_set("tls", listener.tls.as_ref(), |report, tls| ingress_tls(report, tls, p));
    report.each_set("connectionPool", listener.connection_pool.as_ref(), |report, pool| {
        connection_pool(report, pool);
        if pool.http.is_some() && !Protocol::known(&p.protocol).is_some_and(|protocol| protocol.is_http()) {
            report.within("http", |report| {
                let message = format!("the port's protocol is {:?}, not HTTP", p.protocol);
                report.warning(Code::NoEffect, message, "set tcp, or an HTTP protocol");
            });
        }
    });
}

/// Checks where an ingress listener passes traffic on to.
fn default_endpoint(report: &mut Report<'_>, endpoint: &str) {
    if endpoint.is_empty() {
        return;
    }
    let problem = match endpoint.strip_prefix("unix://") {
        Some(path) => unix_problem(path).map(str::to_owned),
        None => match endpoint.rsplit_once(':') {
            None => Some("it has no port".to_owned()),
            Some((host, port)) => {
                let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
                if !matches!(host, "" | "127.0.0.1" | "0.0.0.0" | "::1" | "::") {
                    Some(format!("{host:?} is not the workload itself"))
                } else if !port.parse::<u16>().is_ok_and(|port| port > 0) {
                    Some(format!("{port:?} is not a port"))
                } else {
                    None
                }
            }
        },
    };
    if let Some(problem) = problem {
        report.within("defaultEndpoint", |report| {
            let message = format!("{endpoint:?} cannot be used: {problem}");
            let hint = "write 127.0.0.1:<port>, 0.0.0.0:<port>, [::1]:<port>, [::]:<port> or unix://<path>";
            report.error(Code::InvalidAddress, message, hint);
        });
    }
}

fn ingress_tls(report: &mut Report<'_>, tls: &ServerTlsSettings, port: &SidecarPort) {
    for (field, set) in [
        ("subjectAltNames", !tls.subject_alt_names.is_empty()),
        ("httpsRedirect", tls.https_redirect),
        ("credentialName", !tls.credential_name.is_empty()),
        ("credentialNames", !tls.credential_names.is_empty()),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
        ("mode", matches!(tls.mode, ServerTlsMode::IstioMutual | ServerTlsMode::AutoPassthrough)),
    ] {
        if set {
            report.within(field, |report| {
                let message = "is not supported in the TLS settings of a Sidecar";
                report.error(
                    Code::InvalidCombination,
                    message,
                    "use SIMPLE or MUTUAL with certificate files",
                );
            });
        }
    }
    if !Protocol::known(&port.protocol).is_some_and(|protocol| protocol.is_tls()) {
        let message = "the port's protocol has no TLS";
        report.error(Code::InvalidCombination, message, "use protocol HTTPS or TLS, or remove tls");
    }
    server_tls(report, tls);
}

fn egress_port(report: &mut Report<'_>, p: &SidecarPort, listener: &IstioEgressListener) {
    report.within("port", |report| sidecar_port(report, p));
    if p.number != 0 {
        port(report, "port.number", p.number);
        bind(report, &listener.bind, true);
        return;
    }
    match listener.bind.strip_prefix("unix://") {
        Some(path) => {
            if let Some(problem) = unix_problem(path) {
                report.within("bind", |report| {
                    let message = format!("{:?} is not a socket: {problem}", listener.bind);
                    report.error(Code::InvalidAddress, message, "");
                });
            }
        }
        None => report.within("port.number", |report| {
            let message = "0 is only possible with a unix domain socket";
            report.error(Code::OutOfRange, message, "set the port, or bind: unix://<path>");
        }),
    }
    if listener.capture_mode == CaptureMode::Iptables {
        report.within("captureMode", |report| {
            let message = "traffic to a socket cannot be captured";
            report.error(Code::InvalidCombination, message, "use DEFAULT or NONE");
        });
    }
}

fn egress_hosts(report: &mut Report<'_>, listener: &IstioEgressListener) {
    if listener.hosts.is_empty() {
        missing(report, "hosts", "list namespace/host pairs; `*/*` is everything");
    }
    let own = report.metadata.namespace.to_string();
    let (mut seen, mut namespaces) = (BTreeSet::new(), BTreeSet::new());
    for (index, host) in listener.hosts.iter().enumerate() {
        report.within(&format!("hosts[{index}]"), |report| {
            namespace_host(report, host, false);
            let Some((namespace, name)) = host.split_once('/') else { return };
            if namespace.starts_with('~') {
                return;
            }
            let namespace = if namespace == "." { own.as_str() } else { namespace };
            let covered = seen.contains(&(namespace, name))
                || seen.contains(&(namespace, "*"))
                || (name == "*" && namespaces.contains(namespace));
            if covered {
                let message = format!("{host:?} overlaps with another host of the list");
                report.warning(Code::DuplicateItem, message, "remove what is already included");
            }
            seen.insert((namespace, name));
            namespaces.insert(namespace);
        });
    }
    if seen.contains(&("*", "*")) && namespaces.len() > 1 {
        report.within("hosts", |report| {
            let message = "`*/*` already includes every other host";
            report.warning(Code::DuplicateItem, message, "keep only `*/*`, or remove it");
        });
    }
}
