//! ServiceEntry, WorkloadEntry, WorkloadGroup.

use std::collections::BTreeSet;

use super::checks::{self, ExportTo, labels, missing, not_negative, port, port_name, protocol};
use super::hosts::{
    fqdn_problem, is_ip, is_ip_or_range, partial_wildcard, unix_problem, wildcard_domain_problem,
};
use super::{Report, Validate};
use crate::finding::Code;
use crate::networking::{
    HealthCheckMethod, ReadinessProbe, Resolution, ServiceEntry, WorkloadEntry, WorkloadGroup,
    WorkloadSelector,
};
use crate::service::Protocol;

impl Validate for ServiceEntry {
    fn validate(&self, report: &mut Report<'_>) {
        report.each_set("workloadSelector", self.workload_selector.as_ref(), workload_selector);
        if self.workload_selector.is_some() && !self.endpoints.is_empty() {
            report.within("endpoints", |report| {
                let message = "workloadSelector and endpoints exclude each other";
                report.error(Code::ExclusiveFields, message, "keep one of the two");
            });
        }
        self.validate_hosts(report);
        self.validate_addresses(report);
        self.validate_ports(report);
        match self.resolution {
            Resolution::None => self.validate_none(report),
            Resolution::Static => {
                let names = self.ports.iter().map(|port| port.name.as_str()).collect();
                report.each("endpoints", &self.endpoints, |report, entry| {
                    workload_entry(report, entry, Some(&names), false);
                });
            }
            Resolution::Dns | Resolution::DnsRoundRobin => self.validate_dns(report),
            Resolution::DynamicDns => self.validate_dynamic_dns(report),
        }
        let layered = |protocol: &str| Protocol::known(protocol).is_some_and(|p| p.is_http() || p.is_tls());
        if self.resolution != Resolution::None
            && self.hosts.len() > 1
            && let Some(index) = self.ports.iter().position(|port| !layered(&port.protocol))
        {
            report.within(&format!("ports[{index}].protocol"), |report| {
                let message = "several hosts on one port need HTTP or TLS to tell them apart";
                report.error(
                    Code::InvalidCombination,
                    message,
                    "use one ServiceEntry per host, or HTTP or TLS",
                );
            });
        }
        checks::export_to(report, &ExportTo { values: &self.export_to, allow_none: true, private: false });
    }
}

impl ServiceEntry {
    fn validate_hosts(&self, report: &mut Report<'_>) {
        if self.hosts.is_empty() {
            missing(report, "hosts", "name at least one host");
        }
        report.each("hosts", &self.hosts, |report, host| {
            if host == "*" {
                report.error(Code::InvalidHost, "`*` is not a service", "name the host");
            } else if let Some(problem) = wildcard_domain_problem(host) {
                report.error(Code::InvalidHost, format!("{host:?} is not a valid host: {problem}"), "");
            } else if self.resolution != Resolution::DynamicDns {
                partial_wildcard(report, host, false);
            }
        });
    }

    fn validate_addresses(&self, report: &mut Report<'_>) {
        let ranges_allowed = matches!(self.resolution, Resolution::None | Resolution::Static);
        report.each("addresses", &self.addresses, |report, address| {
            if !is_ip_or_range(address) {
                let message = format!("{address:?} is not an address or range");
                report.error(Code::InvalidAddress, message, "write 10.0.0.0/8 or 10.1.2.3");
            } else if address.contains('/') && !ranges_allowed {
                let message = "ranges of addresses need resolution NONE or STATIC";
                report.error(
                    Code::InvalidCombination,
                    message,
                    "list single addresses, or change the resolution",
                );
            }
        });
    }

    fn validate_ports(&self, report: &mut Report<'_>) {
        let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
        report.each("ports", &self.ports, |report, p| {
            port_name(report, &p.name);
            protocol(report, &p.protocol, false);
            port(report, "number", p.number);
            if p.target_port != 0 {
                port(report, "targetPort", p.target_port);
            }
            if !names.insert(p.name.as_str()) {
                report.within("name", |report| {
                    let message = format!("the port name {:?} is there twice", p.name);
                    report.error(Code::DuplicateItem, message, "name each port differently");
                });
            }
            if !numbers.insert(p.number) {
                report.within("number", |report| {
                    let message = format!("the port {} is there twice", p.number);
                    report.error(Code::DuplicateItem, message, "remove one of the two");
                });
            }
        });
    }

    fn validate_none(&self, report: &mut Report<'_>) {
        if !self.endpoints.is_empty() {
            report.within("endpoints", |report| {
                let message = "with resolution NONE, traffic goes to the address that the client chose";
                report.error(Code::InvalidCombination, message, "remove endpoints, or use resolution STATIC");
            });
        }
        if self.workload_selector.is_some() {
            report.within("workloadSelector", |report| {
                let message = "has no effect with resolution NONE";
                report.warning(Code::NoEffect, message, "remove it, or use resolution STATIC");
            });
        }
    }

    fn validate_dns(&self, report: &mut Report<'_>) {
        if self.endpoints.is_empty() {
            report.each("hosts", &self.hosts, |report, host| {
                if host != "*"
                    && wildcard_domain_problem(host).is_none()
                    && let Some(problem) = fqdn_problem(host)
                {
                    let problem = if host.starts_with('*') { "it is a wildcard" } else { &problem };
                    let message = format!("{host:?} cannot be looked up: {problem}");
                    report.error(
                        Code::InvalidCombination,
                        message,
                        "name a host without wildcard, or add endpoints",
                    );
                }
            });
        }
        if self.resolution == Resolution::DnsRoundRobin && self.endpoints.len() > 1 {
            report.within("endpoints", |report| {
                let message = "DNS_ROUND_ROBIN takes at most one endpoint";
                report.error(Code::InvalidCombination, message, "use resolution DNS for several");
            });
        }
        let names: BTreeSet<&str> = self.ports.iter().map(|port| port.name.as_str()).collect();
        report.each("endpoints", &self.endpoints, |report, entry| {
            if entry.address.starts_with("unix://") {
                report.within("address", |report| {
                    let message = "a socket needs no DNS";
                    report.error(Code::InvalidAddress, message, "use resolution STATIC");
                });
            } else {
                workload_entry(report, entry, Some(&names), true);
            }
        });
        let tcp = self.ports.iter().any(|port| Protocol::known(&port.protocol).is_some_and(Protocol::is_tcp));
        if !self.addresses.is_empty() && tcp && self.hosts.len() > 1 {
            report.within("hosts", |report| {
                let message = "with addresses and a TCP port, all hosts share the addresses";
                report.warning(Code::InvalidCombination, message, "use one ServiceEntry per host");
            });
        }
    }

    fn validate_dynamic_dns(&self, report: &mut Report<'_>) {
        report.each("hosts", &self.hosts, |report, host| {
            if !host.starts_with('*') {
                let message = "DYNAMIC_DNS is for wildcard hosts";
                report.error(Code::InvalidCombination, message, "use a wildcard, or resolution DNS");
            }
        });
        for (field, set) in
            [("addresses", !self.addresses.is_empty()), ("endpoints", !self.endpoints.is_empty())]
        {
            if set {
                report.within(field, |report| {
                    let message = "with DYNAMIC_DNS, addresses come from the requested host";
                    report.error(
                        Code::InvalidCombination,
                        message,
                        "remove the field, or use resolution DNS",
                    );
                });
            }
        }
        report.each("ports", &self.ports, |report, port| {
            let usable = [Protocol::Http, Protocol::Http2, Protocol::Grpc, Protocol::Tls];
            if !Protocol::known(&port.protocol).is_some_and(|protocol| usable.contains(&protocol)) {
                report.within("protocol", |report| {
                    let message = "DYNAMIC_DNS needs a protocol that names the host";
                    report.error(Code::InvalidCombination, message, "use HTTP, HTTP2, GRPC or TLS");
                });
            }
        });
    }
}

/// Checks the labels that select workloads in networking kinds.
pub(crate) fn workload_selector(report: &mut Report<'_>, selector: &WorkloadSelector) {
    checks::selector_labels(report, "labels", &selector.labels, "every workload in the namespace");
}

impl Validate for WorkloadEntry {
    fn validate(&self, report: &mut Report<'_>) {
        workload_entry(report, self, None, true);
    }
}

/// Checks a workload entry. `port_names` are those of the service that it belongs to, if there is one.
fn workload_entry(
    report: &mut Report<'_>,
    entry: &WorkloadEntry,
    port_names: Option<&BTreeSet<&str>>,
    allow_host_name: bool,
) {
    let address = entry.address.as_str();
    let unix = address.strip_prefix("unix://");
    if address.is_empty() {
        match entry.network.as_str() {
            "" => missing(report, "address", "set address, or network for a workload behind a gateway"),
            _ => {
                let message = "the workload has no address and is reached through its network's gateway";
                report.warning(Code::MissingField, message, "set address if it can be reached directly");
            }
        }
    } else if let Some(path) = unix {
        if let Some(problem) = unix_problem(path) {
            report.within("address", |report| {
                report.error(Code::InvalidAddress, format!("{address:?} is not a socket: {problem}"), "");
            });
        }
        if !entry.ports.is_empty() {
            report.within("ports", |report| {
                report.error(Code::ExclusiveFields, "a unix domain socket has no ports", "remove ports");
            });
        }
        if port_names.is_some_and(|names| names.len() != 1) {
            report.within("address", |report| {
                let message = "a unix domain socket serves exactly one port of the service";
                report.error(Code::InvalidCombination, message, "keep one port");
            });
        }
    } else if !is_ip(address) {
        let problem = match allow_host_name {
            true => fqdn_problem(address),
            false => Some("resolution STATIC needs IP addresses".to_owned()),
        };
        if let Some(problem) = problem {
            report.within("address", |report| {
                report.error(Code::InvalidAddress, format!("{address:?} is not an address: {problem}"), "");
            });
        }
    }
    for (name, number) in &entry.ports {
        report.within_key("ports", name, |report| {
            if port_names.is_some_and(|names| !names.contains(name.as_str())) {
                let message = format!("the service has no port named {name:?}");
                report.error(Code::InvalidReference, message, "use the name of one of the service's ports");
            }
            if !super::hosts::is_label(name) {
                report.error(Code::InvalidName, format!("{name:?} is not a valid port name"), "");
            }
            if !(1..=65_535).contains(number) {
                report.error(Code::OutOfRange, format!("{number} is not a port"), "ports are 1 to 65535");
            }
        });
    }
    labels(report, "labels", &entry.labels);
}

impl Validate for WorkloadGroup {
    fn validate(&self, report: &mut Report<'_>) {
        if self.template.is_none() {
            missing(report, "template", "describe the workloads of the group");
        }
        report.each_set("metadata", self.metadata.as_ref(), |report, metadata| {
            labels(report, "labels", &metadata.labels);
        });
        report.each_set("template", self.template.as_ref(), |report, template| {
            labels(report, "labels", &template.labels);
        });
        report.each_set("probe", self.probe.as_ref(), readiness_probe);
    }
}

/// Checks a readiness probe.
pub(crate) fn readiness_probe(report: &mut Report<'_>, probe: &ReadinessProbe) {
    for (field, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        not_negative(report, field, value);
    }
    match &probe.health_check_method {
        Some(HealthCheckMethod::HttpGet(get)) => report.within("httpGet", |report| {
            port(report, "port", get.port);
            if !matches!(get.scheme.as_str(), "" | "HTTP" | "HTTPS") {
                report.within("scheme", |report| {
                    let message = format!("{:?} is not a scheme", get.scheme);
                    report.error(Code::InvalidValue, message, "use HTTP or HTTPS");
                });
            }
            report.each("httpHeaders", &get.http_headers, |report, header| {
                // Kubernetes' rule for probes, which is stricter than HTTP's.
                let valid = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
                if header.name.is_empty() || !header.name.bytes().all(valid) {
                    report.error(Code::InvalidValue, format!("{:?} is not a header name", header.name), "");
                }
            });
        }),
        Some(HealthCheckMethod::TcpSocket(socket)) => port(report, "tcpSocket.port", socket.port),
        Some(HealthCheckMethod::Grpc(grpc)) => port(report, "grpc.port", grpc.port),
        Some(HealthCheckMethod::Exec(exec)) if exec.command.is_empty() => {
            missing(report, "exec.command", "name the command");
        }
        Some(HealthCheckMethod::Exec(_)) => {}
        None => {
            let message = "the probe checks nothing";
            report.error(Code::MissingField, message, "set one of httpGet, tcpSocket, exec, grpc");
        }
    }
}
