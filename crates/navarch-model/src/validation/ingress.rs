//! Ingress and IngressClass, as the Kubernetes API server checks them.

use super::checks::{missing, port};
use super::gateway_api::hostname;
use super::{Report, Validate};
use crate::finding::Code;
use crate::kubernetes::{
    HttpIngressPath, Ingress, IngressBackend, IngressClass, IngressServiceBackend, PathType,
};

impl Validate for IngressClass {
    fn validate(&self, report: &mut Report<'_>) {
        if self.controller.is_empty() {
            missing(report, "controller", "name the controller, `example.com/name`");
        }
    }
}

impl Validate for Ingress {
    fn validate(&self, report: &mut Report<'_>) {
        let Ingress { ingress_class_name: _, default_backend, tls, rules } = self;
        if rules.is_empty() && default_backend.is_none() {
            missing(report, "rules", "state rules or a default backend");
        }
        report.each_set("defaultBackend", default_backend.as_ref(), backend);
        report.each("tls", tls, |report, tls| {
            for (index, host) in tls.hosts.iter().enumerate() {
                hostname(report, &format!("hosts[{index}]"), host);
            }
            if tls.secret_name.is_empty() {
                report.within("secretName", |report| {
                    let message = "no Secret is named; the hosts are not served with TLS";
                    report.warning(Code::NoEffect, message, "name the Secret with the certificate");
                });
            }
        });
        report.each("rules", rules, |report, rule| {
            if !rule.host.is_empty() {
                hostname(report, "host", &rule.host);
            }
            report.each_set("http", rule.http.as_ref(), |report, http| {
                if http.paths.is_empty() {
                    missing(report, "paths", "state a path with a backend");
                }
                report.each("paths", &http.paths, path);
            });
        });
    }
}

fn path(report: &mut Report<'_>, path: &HttpIngressPath) {
    let HttpIngressPath { path, path_type, backend: to } = path;
    match path_type {
        None => missing(report, "pathType", "write Prefix, Exact or ImplementationSpecific"),
        Some(PathType::Exact | PathType::Prefix) if !path.starts_with('/') => {
            report.within("path", |report| {
                let message = format!("{path:?} does not start with a slash");
                report.error(Code::InvalidValue, message, "write the whole path");
            });
        }
        Some(_) => {}
    }
    report.within("backend", |report| backend(report, to));
}

fn backend(report: &mut Report<'_>, backend: &IngressBackend) {
    let IngressBackend { service, resource } = backend;
    match (service, resource) {
        (Some(_), Some(_)) => {
            let message = "a backend is a Service or a resource, not both";
            report.error(Code::ExclusiveFields, message, "remove one of the two");
        }
        (None, None) => missing(report, "service", "name the Service and its port"),
        (None, Some(_)) => report.within("resource", |report| {
            let message = "resources that are no Services are not served; requests fail";
            report.warning(Code::NoEffect, message, "name a Service");
        }),
        (Some(service), None) => report.within("service", |report| {
            let IngressServiceBackend { name, port: to } = service;
            if name.is_empty() {
                missing(report, "name", "name the Service");
            }
            match (to.name.is_empty(), to.number) {
                (true, 0) => missing(report, "port", "state the port of the Service by name or number"),
                (true, number) => port(report, "port.number", number),
                (false, 0) => {}
                (false, _) => report.within("port", |report| {
                    let message = "the port has a name and a number";
                    report.error(Code::ExclusiveFields, message, "remove one of the two");
                }),
            }
        }),
    }
}
