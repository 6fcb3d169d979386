//! Annotations of Istio: which there are, on what, and what they may say.
//!
//! Source: Istio's reference of resource annotations, whose list is the table below.

use super::Report;
use super::metadata::{label_problem, subdomain_problem};
use crate::finding::Code;
use crate::kinds::Kind;
use crate::yaml::closest;

/// Where an annotation has a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    /// Everywhere.
    Any,
    Kinds(&'static [Kind]),
}

/// What an annotation may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Anything,
    Bool,
    Number,
    /// Numbers of ports, separated by commas.
    Ports,
    /// As `Ports`, or `*`.
    PortsOrAll,
    /// Ranges of addresses, separated by commas.
    Ranges,
    /// As `Ranges`, or `*`.
    RangesOrAll,
    OneOf(&'static [&'static str]),
    /// The name of a Service.
    Label,
    /// The name of most other objects.
    Subdomain,
}

struct Annotation {
    name: &'static str,
    on: On,
    says: Says,
    /// What to use in its place, of one that is deprecated.
    instead: Option<&'static str>,
}

const fn of_pod(name: &'static str, says: Says) -> Annotation {
    Annotation { name, on: On::Kinds(&[Kind::Pod]), says, instead: None }
}

const fn of(name: &'static str, kinds: &'static [Kind]) -> Annotation {
    Annotation { name, on: On::Kinds(kinds), says: Says::Anything, instead: None }
}

impl Annotation {
    const fn instead(self, instead: &'static str) -> Self {
        Annotation { instead: Some(instead), ..self }
    }

    const fn says(self, says: Says) -> Self {
        Annotation { says, ..self }
    }

    const fn anywhere(self) -> Self {
        Annotation { on: On::Any, ..self }
    }
}

const STATS: &str = "proxyStatsMatcher in proxy.istio.io/config";
const ACCOUNTS: &str = "the serviceAccounts of a DestinationRule's subjectAltNames";
const SERVICES: &[Kind] = &[Kind::Service, Kind::ServiceEntry, Kind::Namespace];
const GATEWAYS: &[Kind] = &[Kind::KubernetesGateway, Kind::GatewayClass];
const ENTRIES: &[Kind] = &[Kind::WorkloadEntry];

/// Sorted by name.
const ANNOTATIONS: &[Annotation] = &[
    of("alpha.istio.io/canonical-serviceaccounts", &[Kind::Service]).instead(ACCOUNTS),
    of("alpha.istio.io/kubernetes-serviceaccounts", &[Kind::Service]).instead(ACCOUNTS),
    of_pod("ambient.istio.io/bypass-inbound-capture", Says::Bool),
    of_pod("ambient.istio.io/dns-capture", Says::Bool),
    of_pod("ambient.istio.io/redirection", Says::Anything),
    of("ambient.istio.io/waypoint-inbound-binding", GATEWAYS),
    of("galley.istio.io/analyze-suppress", &[]).anywhere(),
    of("gateway.istio.io/controller-version", &[]).anywhere(),
    of("gateway.istio.io/name-override", GATEWAYS).says(Says::Label),
    of("gateway.istio.io/service-account", GATEWAYS).says(Says::Subdomain),
    of_pod("inject.istio.io/templates", Says::Anything),
    of("istio.io/autoRegistrationGroup", ENTRIES),
    of("istio.io/connectedAt", ENTRIES),
    of("istio.io/disconnectedAt", ENTRIES),
    // What it says is checked with the policy.
    of("istio.io/dry-run", &[Kind::AuthorizationPolicy]),
    of_pod("istio.io/reroute-virtual-interfaces", Says::Anything),
    of("istio.io/rev", &[]).anywhere(),
    of("istio.io/use-waypoint-canary-weight", SERVICES),
    of("istio.io/workloadController", ENTRIES),
    of("kubernetes.io/ingress.class", &[Kind::Ingress]),
    of("networking.istio.io/exportTo", &[Kind::Service]),
    of("networking.istio.io/service-type", GATEWAYS).says(Says::OneOf(&[
        "ClusterIP",
        "NodePort",
        "LoadBalancer",
        "ExternalName",
    ])),
    of("networking.istio.io/traffic-distribution", SERVICES),
    of_pod("prometheus.istio.io/merge-metrics", Says::Bool),
    of_pod("proxy.istio.io/config", Says::Anything),
    of_pod("proxy.istio.io/overrides", Says::Anything),
    of_pod("readiness.status.sidecar.istio.io/applicationPorts", Says::Ports),
    of_pod("readiness.status.sidecar.istio.io/failureThreshold", Says::Number),
    of_pod("readiness.status.sidecar.istio.io/initialDelaySeconds", Says::Number),
    of_pod("readiness.status.sidecar.istio.io/periodSeconds", Says::Number),
    of_pod("sidecar.istio.io/agentLogLevel", Says::Anything),
    of_pod("sidecar.istio.io/bootstrapOverride", Says::Anything),
    of_pod("sidecar.istio.io/componentLogLevel", Says::Anything),
    of_pod("sidecar.istio.io/discoveryAddress", Says::Anything)
        .instead("discoveryAddress in proxy.istio.io/config"),
    of_pod("sidecar.istio.io/extraStatTags", Says::Anything)
        .instead("extraStatTags in proxy.istio.io/config"),
    of_pod("sidecar.istio.io/inject", Says::Bool).instead("the label of this name"),
    of_pod("sidecar.istio.io/interceptionMode", Says::OneOf(&["REDIRECT", "TPROXY", "NONE"])),
    of_pod("sidecar.istio.io/logLevel", Says::Anything),
    of_pod("sidecar.istio.io/nativeSidecar", Says::Bool),
    of_pod("sidecar.istio.io/proxyCPU", Says::Anything),
    of_pod("sidecar.istio.io/proxyCPULimit", Says::Anything),
    of_pod("sidecar.istio.io/proxyImage", Says::Anything),
    of_pod("sidecar.istio.io/proxyImageType", Says::Anything),
    of_pod("sidecar.istio.io/proxyMemory", Says::Anything),
    of_pod("sidecar.istio.io/proxyMemoryLimit", Says::Anything),
    of_pod("sidecar.istio.io/rewriteAppHTTPProbers", Says::Bool),
    of_pod("sidecar.istio.io/statsCompression", Says::Bool)
        .instead("statsCompression in proxy.istio.io/config"),
    of_pod("sidecar.istio.io/statsEvictionInterval", Says::Anything),
    of_pod("sidecar.istio.io/statsFlushInterval", Says::Anything),
    of_pod("sidecar.istio.io/statsHistogramBins", Says::Anything),
    of_pod("sidecar.istio.io/statsHistogramBuckets", Says::Anything),
    of_pod("sidecar.istio.io/statsInclusionPrefixes", Says::Anything).instead(STATS),
    of_pod("sidecar.istio.io/statsInclusionRegexps", Says::Anything).instead(STATS),
    of_pod("sidecar.istio.io/statsInclusionSuffixes", Says::Anything).instead(STATS),
    of_pod("sidecar.istio.io/status", Says::Anything),
    of_pod("sidecar.istio.io/userVolume", Says::Anything),
    of_pod("sidecar.istio.io/userVolumeMount", Says::Anything),
    of_pod("status.sidecar.istio.io/port", Says::Number),
    of("topology.istio.io/controlPlaneClusters", &[Kind::Namespace]),
    of("traffic.istio.io/nodeSelector", &[Kind::Service]),
    of_pod("traffic.sidecar.istio.io/excludeInboundPorts", Says::Ports),
    of_pod("traffic.sidecar.istio.io/excludeInterfaces", Says::Anything),
    of_pod("traffic.sidecar.istio.io/excludeOutboundIPRanges", Says::Ranges),
    of_pod("traffic.sidecar.istio.io/excludeOutboundPorts", Says::Ports),
    of_pod("traffic.sidecar.istio.io/includeInboundPorts", Says::PortsOrAll),
    of_pod("traffic.sidecar.istio.io/includeOutboundIPRanges", Says::RangesOrAll),
    of_pod("traffic.sidecar.istio.io/includeOutboundPorts", Says::PortsOrAll),
    of_pod("traffic.sidecar.istio.io/kubevirtInterfaces", Says::Anything)
        .instead("istio.io/reroute-virtual-interfaces"),
];

/// Domains whose annotations are Istio's own business, and not written by users.
const INTERNAL: [&str; 3] = ["internal.istio.io/", "install.operator.istio.io/", "operator.istio.io/"];

/// Checks the annotations of an object that are Istio's.
pub(crate) fn validate_annotations(report: &mut Report<'_>, kind: Kind) {
    let metadata = report.metadata;
    for (name, value) in &metadata.annotations {
        report.within("metadata", |report| {
            report.within_key("annotations", name, |report| annotation(report, kind, name, value));
        });
    }
}

/// What was wanted of an annotation of Istio, if its value is not that.
pub fn annotation_misses(name: &str, value: &str) -> Option<String> {
    let known = ANNOTATIONS.binary_search_by(|known| known.name.cmp(name)).ok()?;
    ANNOTATIONS.get(known)?.says.misses(value)
}

fn annotation(report: &mut Report<'_>, kind: Kind, name: &str, value: &str) {
    let domain = name.split_once('/').map_or("", |(domain, _)| domain);
    let is_istio = domain == "istio.io" || domain.ends_with(".istio.io");
    let Ok(position) = ANNOTATIONS.binary_search_by(|known| known.name.cmp(name)) else {
        if is_istio && !INTERNAL.iter().any(|internal| name.starts_with(internal)) {
            let hint = match closest(name, ANNOTATIONS.iter().map(|known| known.name.to_owned())) {
                Some(meant) => format!("did you mean {meant}?"),
                None => "remove it; nothing reads it".to_owned(),
            };
            report.warning(Code::UnknownField, "Istio has no annotation of this name; it is ignored", hint);
        }
        return;
    };
    let known = &ANNOTATIONS[position];
    // What is said of pods on a Gateway is said of those that are deployed for it.
    let is_of_its_pods = |kinds: &[Kind]| kind == Kind::KubernetesGateway && kinds.contains(&Kind::Pod);
    if let On::Kinds(kinds) = known.on
        && !kinds.contains(&kind)
        && !is_of_its_pods(kinds)
    {
        let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
        let message = format!("the annotation means nothing on a {}", kind.as_str());
        report.warning(Code::NoEffect, message, format!("move it to a {}", kinds.join(" or ")));
        return;
    }
    if let Some(instead) = known.instead {
        report.warning(Code::Deprecated, "the annotation is deprecated", format!("use {instead}"));
    }
    if let Some(wanted) = known.says.misses(value) {
        report.warning(Code::InvalidValue, format!("{value:?} is not {wanted}"), format!("write {wanted}"));
    }
}

impl Says {
    /// What was wanted, if the value is not that.
    fn misses(self, value: &str) -> Option<String> {
        let ports = |value: &str| items(value).all(|item| item.parse::<u16>().is_ok());
        let ranges = |value: &str| items(value).all(is_range);
        let (fits, wanted) = match self {
            Says::Anything => return None,
            // As Go's strconv.ParseBool has it, by which Istio reads them.
            Says::Bool => {
                let bools = ["1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"];
                (bools.contains(&value), "true or false".to_owned())
            }
            Says::Number => (value.parse::<u32>().is_ok(), "a number".to_owned()),
            Says::Ports => (ports(value), "ports, separated by commas".to_owned()),
            Says::PortsOrAll => (value == "*" || ports(value), "* or ports, separated by commas".to_owned()),
            Says::Ranges => (ranges(value), "ranges of addresses (CIDR), separated by commas".to_owned()),
            Says::RangesOrAll => (
                value == "*" || ranges(value),
                "* or ranges of addresses (CIDR), separated by commas".to_owned(),
            ),
            Says::OneOf(values) => (values.contains(&value), format!("one of {}", values.join(", "))),
            Says::Label => (
                label_problem(value).is_none(),
                "a name of lower-case letters, digits and inner hyphens, at most 63".to_owned(),
            ),
            Says::Subdomain => (
                subdomain_problem(value).is_none(),
                "a name of lower-case letters, digits, inner hyphens and dots, at most 253".to_owned(),
            ),
        };
        (!fits).then_some(wanted)
    }
}

fn items(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn is_range(text: &str) -> bool {
    let (address, length) = text.split_once('/').unwrap_or((text, "0"));
    let Ok(address) = address.parse::<std::net::IpAddr>() else { return false };
    let most = if address.is_ipv4() { 32 } else { 128 };
    length.parse::<u8>().is_ok_and(|length| length <= most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;
    use crate::parse_text;

    #[test]
    fn the_table_is_sorted() {
        assert!(ANNOTATIONS.is_sorted_by(|a, b| a.name < b.name));
    }

    /// A kind, an annotation, its value, and what is said of it.
    #[test]
    fn annotations_are_checked() {
        let check = |kind: &str, name: &str, value: &str, expected: Option<(Code, Severity, &str)>| {
            let (api, spec) = match kind {
                "Pod" => ("v1", "{}"),
                "Service" => ("v1", "{ports: [{name: http, port: 80}]}"),
                "Gateway" => (
                    "gateway.networking.k8s.io/v1",
                    "{gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP}]}",
                ),
                _ => ("security.istio.io/v1", "{}"),
            };
            let text = format!(
                "apiVersion: {api}\nkind: {kind}\nmetadata:\n  name: a\n  namespace: b\n  annotations: {{{name}: {value:?}}}\nspec: {spec}\n"
            );
            let found = parse_text("a.yaml", &text).findings;
            let found = found.iter().find(|finding| finding.path.starts_with("metadata.annotations"));
            let said = found.map(|finding| {
                let line = finding.position.as_ref().map(ToString::to_string).unwrap_or_default();
                assert!(line.starts_with("a.yaml:6:"), "{name} at {line}");
                (finding.code, finding.severity, finding.hint.as_deref().unwrap_or_default())
            });
            assert_eq!(said, expected, "{kind} {name} {value}");
        };
        let warning = Severity::Warning;
        check("Pod", "sidecar.istio.io/proxyCPU", "100m", None);
        check("Pod", "example.com/anything", "x", None);
        check("Pod", "internal.istio.io/x", "x", None);
        let meant = "did you mean sidecar.istio.io/proxyCPU?";
        check("Pod", "sidecar.istio.io/proxyCpu", "100m", Some((Code::UnknownField, warning, meant)));
        let nothing = "remove it; nothing reads it";
        check("Service", "whatever.istio.io/x", "x", Some((Code::UnknownField, warning, nothing)));
        check("Service", "proxy.istio.io/config", "{}", Some((Code::NoEffect, warning, "move it to a Pod")));
        let label = "use the label of this name";
        check("Pod", "sidecar.istio.io/inject", "true", Some((Code::Deprecated, warning, label)));
        check("AuthorizationPolicy", "istio.io/dry-run", "true", None);
        let modes = "write one of REDIRECT, TPROXY, NONE";
        check("Pod", "sidecar.istio.io/interceptionMode", "ALL", Some((Code::InvalidValue, warning, modes)));
        check("Pod", "traffic.sidecar.istio.io/excludeInboundPorts", "80, 9090", None);
        check("Pod", "traffic.sidecar.istio.io/includeInboundPorts", "*", None);
        let ports = "write ports, separated by commas";
        let name = "traffic.sidecar.istio.io/excludeInboundPorts";
        check("Pod", name, "*", Some((Code::InvalidValue, warning, ports)));
        check("Pod", "traffic.sidecar.istio.io/excludeOutboundIPRanges", "10.0.0.0/8,fd00::/8", None);
        let ranges = "write ranges of addresses (CIDR), separated by commas";
        let name = "traffic.sidecar.istio.io/excludeOutboundIPRanges";
        check("Pod", name, "10.0.0.0/40", Some((Code::InvalidValue, warning, ranges)));
        check("Gateway", "gateway.istio.io/name-override", "front", None);
        let label = "write a name of lower-case letters, digits and inner hyphens, at most 63";
        let name = "gateway.istio.io/name-override";
        check("Gateway", name, "a.b", Some((Code::InvalidValue, warning, label)));
        check("Gateway", "gateway.istio.io/service-account", "a.b", None);
        let subdomain = "write a name of lower-case letters, digits, inner hyphens and dots, at most 253";
        let name = "gateway.istio.io/service-account";
        check("Gateway", name, "A/b", Some((Code::InvalidValue, warning, subdomain)));
    }
}
