//! Mesh settings out of text: what is stated goes over the defaults.

use std::sync::Arc;

use super::{ExtensionProvider, MeshConfig, MeshNetworks, MeshSettings, ProxyConfig, StatedProxyConfig};
use crate::finding::{Code, Finding, Severity};
use crate::kubernetes::ConfigMap;
use crate::object::{Metadata, Object};
use crate::place::{Position, Span};
use crate::validation::{Report, Validate, extension_providers};
use crate::yaml::{self, Budget, Decode, Decoder, Node, ProblemKind};

/// Reads the mesh settings that a ConfigMap holds under the keys `mesh` and `meshNetworks`; `None` if the
/// object is no ConfigMap.
///
/// The findings are sorted. If one is an error, the settings are not as their author meant them and the last
/// good ones should stay.
pub fn parse_config_map(object: &Object) -> Option<(MeshSettings, Vec<Finding>)> {
    let config_map = object.spec::<ConfigMap>()?;
    let mut findings = Vec::new();
    let section = |key: &str| {
        let text = config_map.data.get(key)?;
        Some((text, object.locate(&format!("data.{key}"))))
    };
    let mut settings = MeshSettings::default();
    if let Some((text, start)) = section("mesh") {
        findings.extend(read(
            &mut settings.config,
            text,
            start.as_ref(),
            apply_mesh_config,
            check_mesh_config,
        ));
    }
    if let Some((text, _)) = section("mesh") {
        settings.default_config = StatedProxyConfig::of_mesh(text);
    }
    if let Some((text, start)) = section("meshNetworks") {
        findings.extend(read(&mut settings.networks, text, start.as_ref(), apply_networks, check));
    }
    for finding in &mut findings {
        finding.object = Some(object.key.clone());
    }
    findings.sort();
    Some((settings, findings))
}

/// Reads a MeshConfig over the defaults. `first_line` is the line of `file` on which `text` starts.
///
/// A field that is stated replaces the default, except that `defaultConfig` and `defaultProviders` are merged
/// field by field, `extensionProviders` by name, and `trustDomainAliases` add up.
pub fn parse_mesh_config(text: &str, file: &str, first_line: u32) -> (MeshConfig, Vec<Finding>) {
    let mut mesh = MeshConfig::default();
    let findings =
        read(&mut mesh, text, Some(&start_of_line(file, first_line)), apply_mesh_config, check_mesh_config);
    (mesh, findings)
}

/// Reads a MeshNetworks. `first_line` is the line of `file` on which `text` starts.
pub fn parse_mesh_networks(text: &str, file: &str, first_line: u32) -> (MeshNetworks, Vec<Finding>) {
    let mut networks = MeshNetworks::default();
    let findings = read(&mut networks, text, Some(&start_of_line(file, first_line)), apply_networks, check);
    (networks, findings)
}

/// Reads a ProxyConfig over `base`, as the annotation `proxy.istio.io/config` of a workload does.
pub fn parse_proxy_config(
    base: &ProxyConfig,
    text: &str,
    file: &str,
    first_line: u32,
) -> (ProxyConfig, Vec<Finding>) {
    let mut proxy = base.clone();
    let findings = read(&mut proxy, text, Some(&start_of_line(file, first_line)), apply_proxy_config, check);
    (proxy, findings)
}

/// The ProxyConfig in which nothing is set but what is stated, and what is wrong with that.
pub fn read_stated(stated: &StatedProxyConfig) -> (ProxyConfig, Vec<Finding>) {
    let text = stated.to_json().to_serde().to_string();
    let mut config = ProxyConfig::unstated();
    let start = start_of_line("ProxyConfig", 1);
    let findings = read(&mut config, &text, Some(&start), apply_proxy_config, |config, _, report| {
        // No port is a port that nobody states.
        let mut stated = config.clone();
        let default = ProxyConfig::default();
        for (port, default) in [
            (&mut stated.proxy_admin_port, default.proxy_admin_port),
            (&mut stated.status_port, default.status_port),
        ] {
            if *port == 0 {
                *port = default;
            }
        }
        stated.validate(report);
    });
    (config, findings)
}

fn start_of_line(file: &str, line: u32) -> Position {
    Span { file: Arc::from(file), line, column: 1 }.into()
}

/// Parses `text`, which starts at `start`, hands its root to `apply`, if there is one, and what came out of
/// it to `check`.
///
/// The text of a block scalar is indented in its file as its first line is; columns account for that.
fn read<T>(
    value: &mut T,
    text: &str,
    start: Option<&Position>,
    apply: fn(&mut T, &Node, &mut Decoder),
    check: fn(&T, &Node, &mut Report<'_>),
) -> Vec<Finding> {
    let position = |line: u32, column: u32| start.map(|start| start.within(line, column));
    let (documents, errors) = yaml::parse(text, Budget::default());
    let mut findings: Vec<Finding> = errors
        .into_iter()
        .map(|error| Finding::error(Code::Syntax, error.message).at(position(error.line, error.column)))
        .collect();
    let Some(document) = documents.first() else { return findings };
    for duplicate in &document.duplicates {
        let message = format!("the key `{}` is there twice", duplicate.key);
        let place = position(duplicate.second.0, duplicate.second.1);
        findings.push(Finding::error(Code::DuplicateKey, message).at(place).hint("remove one of the two"));
    }
    if let Some(root) = &document.root {
        let mut decoder = Decoder::new();
        apply(value, root, &mut decoder);
        let usable = !decoder.failed();
        for problem in decoder.into_problems() {
            let (severity, code) = match problem.kind {
                ProblemKind::UnknownField => (Severity::Warning, Code::UnknownField),
                ProblemKind::WrongType => (Severity::Error, Code::WrongType),
                ProblemKind::Invalid => (Severity::Error, Code::InvalidValue),
            };
            let place = position(problem.line, problem.column);
            let mut finding = Finding::new(severity, code, problem.message).at(place).path(problem.path);
            finding.hint = problem.hint;
            findings.push(finding);
        }
        if usable {
            let metadata = Metadata::default();
            let mut report = Report::new(root, &metadata, &position);
            check(value, root, &mut report);
            findings.extend(report.into_findings());
        }
    }
    findings.sort();
    findings
}

fn check<T: Validate>(value: &T, _: &Node, report: &mut Report<'_>) {
    value.validate(report);
}

fn check_mesh_config(mesh: &MeshConfig, node: &Node, report: &mut Report<'_>) {
    mesh.validate(report);
    let stated = stated(node, "extensionProviders", "extension_providers");
    let stated = stated.and_then(|node| Vec::<ExtensionProvider>::decode(node, &mut Decoder::new()));
    extension_providers(report, &stated.unwrap_or_default());
}

fn apply_networks(networks: &mut MeshNetworks, node: &Node, decoder: &mut Decoder) {
    networks.merge(node, decoder);
}

fn apply_mesh_config(mesh: &mut MeshConfig, node: &Node, decoder: &mut Decoder) {
    let before = mesh.clone();
    mesh.extension_providers = Vec::new();
    if !mesh.merge(node, decoder) {
        *mesh = before;
        return;
    }
    mesh.default_config = before.default_config;
    if let Some(stated) = stated(node, "defaultConfig", "default_config") {
        // Its problems are recorded already; this reading only merges.
        apply_proxy_config(mesh.default_config.get_or_insert_default(), stated, &mut Decoder::new());
    }
    mesh.default_providers = before.default_providers;
    if let Some(stated) = stated(node, "defaultProviders", "default_providers") {
        mesh.default_providers.get_or_insert_default().merge(stated, &mut Decoder::new());
    }
    let mut providers = before.extension_providers;
    for stated in std::mem::take(&mut mesh.extension_providers) {
        match providers.iter_mut().find(|provider| provider.name == stated.name) {
            Some(provider) => *provider = stated,
            None => providers.push(stated),
        }
    }
    mesh.extension_providers = providers;
    mesh.trust_domain_aliases.extend(before.trust_domain_aliases);
    mesh.trust_domain_aliases.sort();
    mesh.trust_domain_aliases.dedup();
}

/// The value of a field that is stated and not null.
fn stated<'n>(node: &'n Node, json: &str, proto: &str) -> Option<&'n Node> {
    node.get(json).or_else(|| node.get(proto)).filter(|value| !value.is_null())
}

/// Merges what is stated into `proxy`: metadata adds up, and so do the blocks of `proxyHeaders`.
fn apply_proxy_config(proxy: &mut ProxyConfig, node: &Node, decoder: &mut Decoder) {
    let (metadata, headers) = (proxy.proxy_metadata.clone(), proxy.proxy_headers.clone());
    proxy.merge(node, decoder);
    for (key, value) in metadata {
        proxy.proxy_metadata.entry(key).or_insert(value);
    }
    if let (Some(headers), Some(old)) = (&mut proxy.proxy_headers, headers) {
        if headers.forwarded_client_cert == super::ForwardClientCertDetails::default() {
            headers.forwarded_client_cert = old.forwarded_client_cert;
        }
        headers.request_id = headers.request_id.take().or(old.request_id);
        headers.attempt_count = headers.attempt_count.take().or(old.attempt_count);
        headers.server = headers.server.take().or(old.server);
        headers.envoy_debug_headers = headers.envoy_debug_headers.take().or(old.envoy_debug_headers);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::mesh::{ClusterName, Provider, TracingServiceName};

    fn parse(text: &str) -> MeshConfig {
        let (mesh, findings) = parse_mesh_config(text, "mesh.yaml", 1);
        assert_eq!(findings, []);
        mesh
    }

    #[test]
    fn nothing_stated_means_the_defaults() {
        for text in ["", "{}", "# only a comment", "trustDomain: null"] {
            assert_eq!(parse(text), MeshConfig::default(), "{text:?}");
        }
    }

    #[test]
    fn fields_replace_defaults_and_some_are_merged() {
        let mesh = parse(
            "\
connectTimeout: 3s
outboundTrafficPolicy: {}
localityLbSetting: {failoverPriority: [a]}
trustDomainAliases: [b, a, b]
defaultProviders: {tracing: [zipkin]}
extensionProviders:
- {name: zipkin, zipkin: {service: zipkin.default.svc.cluster.local, port: 9411}}
- {name: envoy, envoyFileAccessLog: {path: /dev/null}}
defaultConfig:
  tracingServiceName: CANONICAL_NAME_ONLY
  proxyMetadata: {A: b}
",
        );
        let default = MeshConfig::default();
        assert_eq!(mesh.connect_timeout, Some(Duration::from_secs(3)));
        // A message that is stated replaces the default message.
        assert_eq!(mesh.locality_lb_setting.unwrap().enabled, None);
        assert_eq!(mesh.outbound_traffic_policy.unwrap().mode.as_str(), "REGISTRY_ONLY");
        assert_eq!(mesh.trust_domain_aliases, ["a", "b"]);
        assert_eq!(mesh.default_providers.unwrap().tracing, ["zipkin"]);
        let names: Vec<&str> =
            mesh.extension_providers.iter().map(|provider| provider.name.as_str()).collect();
        assert_eq!(names, ["prometheus", "stackdriver", "envoy", "zipkin"]);
        assert!(matches!(
            &mesh.extension_providers[2].provider,
            Some(Provider::EnvoyFileAccessLog(log)) if log.path == "/dev/null"
        ));
        let proxy = mesh.default_config.unwrap();
        assert_eq!(
            proxy.cluster_name,
            Some(ClusterName::TracingServiceName(TracingServiceName::CanonicalNameOnly))
        );
        assert_eq!(proxy.discovery_address, default.default_config.unwrap().discovery_address);
    }

    #[test]
    fn a_workload_adds_to_the_settings_of_the_mesh() {
        let mesh = parse(
            "defaultConfig: {proxyMetadata: {A: a, B: b}, proxyHeaders: {requestId: {disabled: true}}}",
        );
        let base = mesh.default_config.unwrap();
        let text = "proxyMetadata: {B: c}\nproxyHeaders: {server: {disabled: true}}\nconcurrency: 4\n";
        let (proxy, findings) = parse_proxy_config(&base, text, "annotation", 1);
        assert_eq!(findings, []);
        assert_eq!(
            proxy.proxy_metadata,
            [("A", "a"), ("B", "c")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
        );
        let headers = proxy.proxy_headers.unwrap();
        assert_eq!(headers.request_id.unwrap().disabled, Some(true));
        assert_eq!(headers.server.unwrap().disabled, Some(true));
        assert_eq!(proxy.concurrency, Some(4));
    }

    #[test]
    fn what_nobody_states_is_not_set() {
        let (config, findings) =
            read_stated(&StatedProxyConfig::of_mesh("defaultConfig: {drainDuration: 3s}"));
        assert_eq!(findings, []);
        let expected =
            ProxyConfig { drain_duration: Some(Duration::from_secs(3)), ..ProxyConfig::unstated() };
        assert_eq!(config, expected);
        assert_eq!((config.status_port, config.concurrency), (0, None));
    }

    #[test]
    fn networks_are_read() {
        let text = "networks: {n: {endpoints: [{fromRegistry: Kubernetes}], gateways: [{address: 1.2.3.4, port: 15443}]}}";
        let (networks, findings) = parse_mesh_networks(text, "networks", 1);
        assert_eq!(findings, []);
        assert_eq!(networks.networks["n"].gateways[0].port, 15443);
    }

    /// What a proxy could not read would keep it from reading the roots of the mesh.
    #[test]
    fn roots_are_certificates_and_come_over_https() {
        let check = |data: &str, expected: &[&str]| {
            let (_, findings) = parse_mesh_config(&format!("caCertificates: [{{{data}}}]"), "m", 1);
            let shown: Vec<String> =
                findings.iter().map(|found| format!("{} {}", found.severity, found.path)).collect();
            assert_eq!(shown, expected, "{data}");
        };
        let block =
            |body: &str| format!("\"-----BEGIN CERTIFICATE-----\\n{body}\\n-----END CERTIFICATE-----\\n\"");
        check(&format!("pem: {}", block("MAA=")), &[]);
        check(&format!("pem: {}", block("!")), &["error caCertificates[0].pem"]);
        check("pem: junk", &["error caCertificates[0].pem"]);
        check("spiffeBundleUrl: 'https://a/b'", &[]);
        check("spiffeBundleUrl: a/b, trustDomains: [a.test]", &[]);
        check("spiffeBundleUrl: 'http://a/b'", &["error caCertificates[0].spiffeBundleUrl"]);
        check("spiffeBundleUrl: a, trustDomains: [a/b]", &["error caCertificates[0].trustDomains[0]"]);
    }

    #[test]
    fn values_are_validated() {
        let text = "\
proxyListenPort: 0
connectTimeout: 2h
trustDomain: a/b
defaultConfig: {discoveryAddress: istiod, readinessProbe: {}}
defaultHttpRetryPolicy: {attempts: -1}
extensionProviders:
- {name: a, opentelemetry: {service: 'a b'}}
- {name: a, prometheus: {}}
- {}
defaultProviders: {tracing: [a, b]}
";
        let (_, findings) = parse_mesh_config(text, "m", 1);
        let shown: Vec<String> = findings
            .iter()
            .map(|f| format!("{} {} {}", f.severity, f.position.as_ref().unwrap(), f.path))
            .collect();
        assert_eq!(
            shown,
            [
                "error m:1:18 proxyListenPort",
                "error m:2:17 connectTimeout",
                "error m:3:14 trustDomain",
                "error m:4:35 defaultConfig.discoveryAddress",
                "error m:4:43 defaultConfig.readinessProbe",
                "error m:5:36 defaultHttpRetryPolicy.attempts",
                "warning m:7:13 extensionProviders[0].opentelemetry.port",
                "warning m:7:38 extensionProviders[0].opentelemetry.service",
                "warning m:8:10 extensionProviders[1].name",
                "warning m:9:3 extensionProviders[2]",
                "warning m:9:3 extensionProviders[2].name",
                "warning m:10:33 defaultProviders.tracing[1]",
            ]
        );
    }

    #[test]
    fn problems_in_a_config_map_are_where_they_are_in_its_file() {
        let text = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |-
    trustDomian: x
    defaultConfig:
      concurrency: many
  meshNetworks: 'networks: 3'
";
        let parsed = crate::parse_text("istio.yaml", text);
        let (settings, findings) = parse_config_map(&parsed.objects[0]).unwrap();
        let shown: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "warning[NAV0101] istio.yaml:6:5: ConfigMap istio-system/istio: trustDomian: unknown field `trustDomian`; help: did you \
                 mean `trustDomain`?",
                "error[NAV0102] istio.yaml:8:20: ConfigMap istio-system/istio: defaultConfig.concurrency: expected a 32-bit integer, \
                 found string \"many\"",
                "error[NAV0102] istio.yaml:9:27: ConfigMap istio-system/istio: networks: expected a mapping, found number 3",
            ]
        );
        // What could be read is there; what could not has its default.
        assert_eq!(settings.config, MeshConfig::default());
    }
}
