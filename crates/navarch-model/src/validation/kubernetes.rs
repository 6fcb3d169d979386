//! Kubernetes' own kinds. The API server validates them; files have no API server, so what translation relies
//! on is checked here.

use super::hosts::{is_ip, is_label};
use super::{Report, Validate};
use crate::finding::Code;
use crate::kubernetes::{
    ConfigMap, EndpointSlice, Endpoints, IntOrString, Namespace, Node, Pod, Secret, Service, ServicePort,
};
use crate::service::Protocol;

macro_rules! nothing_to_check {
    ($($kind:ty),+) => { $( impl Validate for $kind {
        fn validate(&self, _: &mut Report<'_>) {}
    } )+ };
}

nothing_to_check!(ConfigMap, Namespace, Node, Secret);

impl Validate for Service {
    fn validate(&self, report: &mut Report<'_>) {
        report.within("spec", |report| {
            if self.spec.type_ == "ExternalName" && self.spec.external_name.is_empty() {
                super::checks::missing(report, "externalName", "name the host that the service stands for");
            }
            report.each("ports", &self.spec.ports, service_port);
            if self.spec.type_ == "ExternalName" {
                report.each("ports", &self.spec.ports, port_of_external_name);
            }
            for (index, address) in self.spec.cluster_ips.iter().enumerate() {
                report.within(&format!("clusterIPs[{index}]"), |report| cluster_ip(report, address));
            }
            report.within("clusterIP", |report| cluster_ip(report, &self.spec.cluster_ip));
        });
    }
}

/// Without a protocol the port is one for bytes, whose listener takes all connections to it.
fn port_of_external_name(report: &mut Report<'_>, port: &ServicePort) {
    let prefix = port.name.split('-').next().unwrap_or_default();
    let is_said = !port.app_protocol.is_empty() || Protocol::known(prefix).is_some();
    if !is_said {
        report.within("name", |report| {
            let message = "the name does not say a protocol: connections to this port of any other host go to the external name too";
            report.warning(Code::Risky, message, "call the port http, https-... or as its protocol is called");
        });
    }
}

fn cluster_ip(report: &mut Report<'_>, address: &str) {
    if !matches!(address, "" | "None") && !is_ip(address) {
        let message = format!("{address:?} is not an IP address");
        report.error(Code::InvalidAddress, message, "use an address, or None for a headless service");
    }
}

fn service_port(report: &mut Report<'_>, port: &ServicePort) {
    number(report, "port", i64::from(port.port));
    match &port.target_port {
        Some(IntOrString::Int(target)) => number(report, "targetPort", i64::from(*target)),
        Some(IntOrString::String(name)) if !is_label(name) => report.within("targetPort", |report| {
            let message = format!("{name:?} is neither a port nor a port's name");
            report.error(
                Code::InvalidReference,
                message,
                "write a number, or the name of a container's port",
            );
        }),
        _ => {}
    }
}

fn number(report: &mut Report<'_>, field: &str, number: i64) {
    if !(1..=65_535).contains(&number) {
        report.within(field, |report| {
            report.error(Code::OutOfRange, format!("{number} is not a port"), "ports are 1 to 65535");
        });
    }
}

impl Validate for EndpointSlice {
    fn validate(&self, report: &mut Report<'_>) {
        let addresses = self.address_type != "FQDN";
        report.each("endpoints", &self.endpoints, |report, endpoint| {
            report.each("addresses", &endpoint.addresses, |report, address| {
                if addresses && !is_ip(address) {
                    report.error(Code::InvalidAddress, format!("{address:?} is not an IP address"), "");
                }
            });
        });
        report.each("ports", &self.ports, |report, port| {
            if let Some(port) = port.port {
                number(report, "port", i64::from(port));
            }
        });
    }
}

impl Validate for Endpoints {
    fn validate(&self, report: &mut Report<'_>) {
        report.each("subsets", &self.subsets, |report, subset| {
            for (field, addresses) in
                [("addresses", &subset.addresses), ("notReadyAddresses", &subset.not_ready_addresses)]
            {
                report.each(field, addresses, |report, address| {
                    if !is_ip(&address.ip) {
                        report.error(
                            Code::InvalidAddress,
                            format!("{:?} is not an IP address", address.ip),
                            "",
                        );
                    }
                });
            }
            report.each("ports", &subset.ports, |report, port| number(report, "port", i64::from(port.port)));
        });
    }
}

impl Validate for Pod {
    fn validate(&self, report: &mut Report<'_>) {
        report.within("status", |report| {
            if !self.status.pod_ip.is_empty() && !is_ip(&self.status.pod_ip) {
                report.within("podIP", |report| {
                    let message = format!("{:?} is not an IP address", self.status.pod_ip);
                    report.error(Code::InvalidAddress, message, "");
                });
            }
        });
    }
}
