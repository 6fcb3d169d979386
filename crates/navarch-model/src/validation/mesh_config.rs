//! MeshConfig and the ProxyConfig in it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::checks::{duration, missing, port};
use super::destination_rule::{client_tls, connection_pool, locality, outlier_detection};
use super::hosts::{fqdn_problem, is_ip, wildcard_domain_problem};
use super::service_entry::readiness_probe;
use super::virtual_service::retries;
use super::{Report, Validate};
use crate::finding::Code;
use crate::key_pair::has_certificates;
use crate::mesh::{
    CertificateData, CertificateSource, ExtensionProvider, FileLogFormat, MeshConfig, MeshNetworks, Provider,
    ProxyConfig, bundle_url,
};

/// The longest time to wait for a connection, as in Istio.
const LONGEST_CONNECT: Duration = Duration::from_secs(3600);

impl Validate for MeshConfig {
    fn validate(&self, report: &mut Report<'_>) {
        for (field, number) in [
            ("proxyListenPort", self.proxy_listen_port),
            ("proxyInboundListenPort", self.proxy_inbound_listen_port),
        ] {
            signed_port(report, field, number);
        }
        duration(report, "connectTimeout", self.connect_timeout);
        if self.connect_timeout.is_some_and(|timeout| timeout > LONGEST_CONNECT) {
            report.within("connectTimeout", |report| {
                report.error(Code::OutOfRange, "is too long", format!("the limit is {LONGEST_CONNECT:?}"));
            });
        }
        // 0 turns the detection's timeout off.
        duration(
            report,
            "protocolDetectionTimeout",
            self.protocol_detection_timeout.filter(|t| !t.is_zero()),
        );
        report
            .each_set("defaultConfig", self.default_config.as_ref(), |report, proxy| proxy.validate(report));
        report.each_set("localityLbSetting", self.locality_lb_setting.as_ref(), |report, lb| {
            locality(report, lb, true)
        });
        report.each_set("defaultHttpRetryPolicy", self.default_http_retry_policy.as_ref(), retries);
        report.each_set(
            "defaultInboundHttpRetryPolicy",
            self.default_inbound_http_retry_policy.as_ref(),
            retries,
        );
        report.each_set("defaultTrafficPolicy", self.default_traffic_policy.as_ref(), |report, policy| {
            report.each_set("connectionPool", policy.connection_pool.as_ref(), connection_pool);
            report.each_set("outlierDetection", policy.outlier_detection.as_ref(), outlier_detection);
        });
        report.each("serviceSettings", &self.service_settings, |report, settings| {
            report.each("hosts", &settings.hosts, |report, host| {
                if let Some(problem) = wildcard_domain_problem(host) {
                    report.error(Code::InvalidHost, format!("{host:?} is not a valid host: {problem}"), "");
                }
            });
        });
        trust_domains(report, self);
        report.each("caCertificates", &self.ca_certificates, certificates);
        let names: BTreeSet<&str> =
            self.extension_providers.iter().map(|provider| provider.name.as_str()).collect();
        if let Some(default) = &self.default_providers {
            for (field, chosen) in [
                ("tracing", &default.tracing),
                ("metrics", &default.metrics),
                ("accessLogging", &default.access_logging),
            ] {
                for (index, name) in
                    chosen.iter().enumerate().filter(|(_, name)| !names.contains(name.as_str()))
                {
                    report.within(&format!("defaultProviders.{field}[{index}]"), |report| {
                        let message = format!("there is no extension provider {name:?}");
                        report.warning(Code::InvalidReference, message, "define it in extensionProviders");
                    });
                }
            }
        }
    }
}

/// Checks the providers that a text states. [`MeshConfig`] holds them merged with the defaults, in other
/// places of the list.
pub(crate) fn extension_providers(report: &mut Report<'_>, providers: &[ExtensionProvider]) {
    let mut names = BTreeSet::new();
    report.each("extensionProviders", providers, |report, provider| {
        extension_provider(report, provider);
        if !provider.name.is_empty() && !names.insert(provider.name.as_str()) {
            report.within("name", |report| {
                let message = format!("the provider {:?} is there twice", provider.name);
                report.warning(Code::DuplicateItem, message, "give each provider its own name");
            });
        }
    });
}

fn signed_port(report: &mut Report<'_>, field: &str, number: i32) {
    port(report, field, u32::try_from(number).unwrap_or(0));
}

fn trust_domains(report: &mut Report<'_>, mesh: &MeshConfig) {
    if let Some(problem) = fqdn_problem(&mesh.trust_domain) {
        report.within("trustDomain", |report| {
            let message = format!("{:?} is not a trust domain: {problem}", mesh.trust_domain);
            report.error(Code::InvalidHost, message, "use a domain name such as cluster.local");
        });
    }
    for alias in &mesh.trust_domain_aliases {
        if let Some(problem) = wildcard_domain_problem(alias) {
            report.within("trustDomainAliases", |report| {
                report.error(Code::InvalidHost, format!("{alias:?} is not a trust domain: {problem}"), "");
            });
        }
    }
}

/// Roots that a proxy cannot read would make it refuse those of the mesh with them.
fn certificates(report: &mut Report<'_>, data: &CertificateData) {
    match &data.certificate_data {
        Some(CertificateSource::Pem(pem)) if !has_certificates(pem.as_bytes()) => {
            report.within("pem", |report| {
                report.error(Code::InvalidValue, "there is no certificate in PEM form in it", "");
            });
        }
        Some(CertificateSource::SpiffeBundleUrl(url)) if !bundle_url(url).starts_with("https://") => {
            report.within("spiffeBundleUrl", |report| {
                let message =
                    format!("{url:?} is not fetched: on the way, anybody could put roots of his own in");
                report.error(Code::InvalidUrl, message, "use a URL with https");
            });
        }
        _ => {}
    }
    report.each("trustDomains", &data.trust_domains, |report, domain| {
        if let Some(problem) = fqdn_problem(domain) {
            let message = format!("{domain:?} is not a trust domain: {problem}");
            report.error(Code::InvalidHost, message, "use a domain name such as cluster.local");
        }
    });
}

impl Validate for ProxyConfig {
    fn validate(&self, report: &mut Report<'_>) {
        signed_port(report, "proxyAdminPort", self.proxy_admin_port);
        signed_port(report, "statusPort", self.status_port);
        duration(report, "drainDuration", self.drain_duration);
        for (field, address) in [
            ("discoveryAddress", self.discovery_address.as_str()),
            ("statsdUdpAddress", &self.statsd_udp_address),
            ("envoyMetricsServiceAddress", &self.envoy_metrics_service_address),
        ] {
            if !address.is_empty() {
                host_and_port(report, field, address);
            }
        }
        for (field, service) in [
            ("envoyAccessLogService", &self.envoy_access_log_service),
            ("envoyMetricsService", &self.envoy_metrics_service),
        ] {
            report.each_set(field, service.as_ref(), |report, service| {
                if !service.address.is_empty() {
                    host_and_port(report, "address", &service.address);
                }
                report.each_set("tlsSettings", service.tls_settings.as_ref(), client_tls);
            });
        }
        report.each_set("readinessProbe", self.readiness_probe.as_ref(), readiness_probe);
    }
}

fn host_and_port(report: &mut Report<'_>, field: &str, address: &str) {
    let problem = match address.rsplit_once(':') {
        None => Some("it has no port".to_owned()),
        Some((_, port)) if !port.parse::<u16>().is_ok_and(|port| port > 0) => {
            Some(format!("{port:?} is not a port"))
        }
        Some((host, _)) => {
            let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            if is_ip(host) { None } else { fqdn_problem(host) }
        }
    };
    if let Some(problem) = problem {
        report.within(field, |report| {
            let message = format!("{address:?} is not an address: {problem}");
            report.error(Code::InvalidAddress, message, "write host:port");
        });
    }
}

/// Checks a provider. Problems are warnings: a provider that nothing refers to does no harm.
fn extension_provider(report: &mut Report<'_>, provider: &ExtensionProvider) {
    if provider.name.is_empty() {
        report.within("name", |report| {
            report.warning(Code::MissingField, "is required", "policies refer to providers by name");
        });
    }
    let Some(kind) = &provider.provider else {
        let message = "the provider does nothing";
        report.warning(Code::MissingField, message, "set one of its kinds, for example opentelemetry");
        return;
    };
    let (field, service, port) = match kind {
        Provider::EnvoyExtAuthzHttp(p) => ("envoyExtAuthzHttp", &p.service, p.port),
        Provider::EnvoyExtAuthzGrpc(p) => ("envoyExtAuthzGrpc", &p.service, p.port),
        Provider::Zipkin(p) => ("zipkin", &p.service, p.port),
        Provider::Lightstep(p) => ("lightstep", &p.service, p.port),
        Provider::Datadog(p) => ("datadog", &p.service, p.port),
        Provider::Opencensus(p) => ("opencensus", &p.service, p.port),
        Provider::Skywalking(p) => ("skywalking", &p.service, p.port),
        Provider::Opentelemetry(p) => ("opentelemetry", &p.service, p.port),
        Provider::EnvoyHttpAls(p) => ("envoyHttpAls", &p.service, p.port),
        Provider::EnvoyTcpAls(p) => ("envoyTcpAls", &p.service, p.port),
        Provider::EnvoyOtelAls(p) => ("envoyOtelAls", &p.service, p.port),
        Provider::Sds(p) => ("sds", &p.service, p.port),
        Provider::EnvoyFileAccessLog(log) => {
            if let Some(FileLogFormat::Labels(crate::values::Json::Object(labels))) = &log.log_format
                && labels.is_empty()
            {
                report.within("envoyFileAccessLog.logFormat.labels", |report| {
                    report.warning(Code::MissingField, "there are no labels", "name the fields to log");
                });
            }
            return;
        }
        Provider::Stackdriver(_) | Provider::Prometheus(_) => return,
    };
    report.within(field, |report| {
        // `namespace/host` says which of several services of that name is meant.
        let host = service.rsplit('/').next().unwrap_or(service);
        if let Some(problem) = fqdn_problem(host)
            && !is_ip(host)
        {
            report.within("service", |report| {
                let message = format!("{service:?} is not a host: {problem}");
                report.warning(Code::InvalidHost, message, "write host or namespace/host");
            });
        }
        if !(1..=65_535).contains(&port) {
            report.within("port", |report| {
                report.warning(Code::OutOfRange, format!("{port} is not a port"), "ports are 1 to 65535");
            });
        }
    });
}

impl Validate for MeshNetworks {
    fn validate(&self, report: &mut Report<'_>) {
        for (name, network) in &self.networks {
            report.within_key("networks", name, |report| {
                report.each("gateways", &network.gateways, |report, gateway| {
                    port(report, "port", gateway.port);
                    if gateway.gw.is_none() {
                        missing(report, "address", "set address or registryServiceName");
                    }
                });
            });
        }
    }
}
