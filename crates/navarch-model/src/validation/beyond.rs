//! APIs that build on Services and on the Gateway API: services of several clusters, servers of models.

use super::checks::{labels, missing, port};
use super::{Report, Validate};
use crate::finding::Code;
use crate::inference::{EndpointPickerRef, InferencePool};
use crate::multicluster::{ServiceExport, ServiceImport};

const PORTS_MAX: usize = 8;

impl Validate for ServiceImport {
    fn validate(&self, report: &mut Report<'_>) {
        report.each("ports", &self.ports, |report, stated| {
            port(report, "port", u32::try_from(stated.port).unwrap_or(0));
        });
        let message = "services of other clusters are not known; the name means the Service of this one";
        report.warning(Code::NoEffect, message, "add a ServiceEntry with the endpoints elsewhere");
    }
}

impl Validate for ServiceExport {
    fn validate(&self, report: &mut Report<'_>) {
        let message = "nobody else is told of the Service";
        report.warning(Code::NoEffect, message, "make it known where it is needed with a ServiceEntry");
    }
}

impl Validate for InferencePool {
    fn validate(&self, report: &mut Report<'_>) {
        let InferencePool { selector, target_ports, endpoint_picker_ref } = self;
        if selector.match_labels.is_empty() {
            missing(report, "selector", "say by labels which pods are meant");
        }
        labels(report, "selector.matchLabels", &selector.match_labels);
        if target_ports.is_empty() || target_ports.len() > PORTS_MAX {
            report.within("targetPorts", |report| {
                let message =
                    format!("{} ports, of which there have to be 1 to {PORTS_MAX}", target_ports.len());
                report.error(Code::OutOfRange, message, "state the ports of the pods");
            });
        }
        report.each("targetPorts", target_ports, |report, stated| {
            port(report, "number", u32::try_from(stated.number).unwrap_or(0));
        });
        match endpoint_picker_ref {
            None => missing(report, "endpointPickerRef", "name the service that picks"),
            Some(picker) => report.within("endpointPickerRef", |report| self::picker(report, picker)),
        }
        let message = "endpoint pickers are not asked; a route to the pool fails";
        report.warning(Code::NoEffect, message, "use a Service with the same selector");
    }
}

fn picker(report: &mut Report<'_>, picker: &EndpointPickerRef) {
    let EndpointPickerRef { group, kind, name, port: stated, failure_mode: _ } = picker;
    if name.is_empty() {
        missing(report, "name", "name the service that picks");
    }
    let is_service =
        group.as_deref().unwrap_or_default().is_empty() && kind.as_deref().unwrap_or("Service") == "Service";
    if is_service && stated.is_none() {
        missing(report, "port", "state the port of the Service");
    }
}
