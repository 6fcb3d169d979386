//! What the annotations of a pod wish.

use std::collections::BTreeMap;

use navarch_model::mesh::{InboundInterceptionMode, ProxyConfig};
use navarch_model::validation::annotation_misses;
use navarch_model::values::Json;
use serde_json::{Map, Value};

use crate::pod::ResourceNeeds;
use crate::terms::Fault;
use crate::{Settings, SidecarForm};

/// Which of the templates a pod gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Template {
    /// A proxy beside an application.
    Sidecar,
    /// A pod that is a gateway.
    Gateway,
}

/// What the annotations of a pod wish, over the settings.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wishes {
    pub template: Template,
    /// `defaultConfig` with `proxy.istio.io/config` over it, as written and as read.
    pub proxy_config: Map<String, Value>,
    pub proxy: ProxyConfig,
    pub interception: InboundInterceptionMode,
    pub image: String,
    pub resources: ResourceNeeds,
    pub form: SidecarForm,
    /// The application starts when the proxy is ready.
    pub hold: bool,
    pub status_port: u16,
    pub readiness: Readiness,
    pub rewrite_probes: bool,
    pub merge_metrics: bool,
    pub log_level: String,
    pub component_log_level: String,
    pub agent_log_level: Option<String>,
    pub drain: Option<String>,
    pub redirect: Redirect,
    pub volumes: Map<String, Value>,
    pub mounts: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Readiness {
    pub initial_delay_seconds: Option<u32>,
    pub period_seconds: u32,
    pub failure_threshold: u32,
}

/// What is redirected, in the words of the annotations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Redirect {
    pub include_inbound_ports: String,
    pub exclude_inbound_ports: String,
    pub include_outbound_ranges: String,
    pub exclude_outbound_ranges: String,
    pub include_outbound_ports: String,
    pub exclude_outbound_ports: String,
    pub exclude_interfaces: String,
    pub reroute_interfaces: String,
}

/// What Go's strconv.ParseBool takes for true.
pub(crate) const SET: [&str; 6] = ["1", "t", "T", "TRUE", "true", "True"];

/// Annotations that say what the proxy needs: of which resource, and whether it is a limit.
pub(crate) const RESOURCES: [(&str, &str, bool); 4] = [
    ("sidecar.istio.io/proxyCPU", "cpu", false),
    ("sidecar.istio.io/proxyMemory", "memory", false),
    ("sidecar.istio.io/proxyCPULimit", "cpu", true),
    ("sidecar.istio.io/proxyMemoryLimit", "memory", true),
];

/// Annotations that are one number or text; what they may say is in the table of the model.
struct Said<'a>(&'a BTreeMap<String, String>);

impl<'a> Said<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).map(|text| text.trim())
    }

    /// The first of several names that stand for the same.
    fn text(&self, names: &[&str], otherwise: &str) -> String {
        names.iter().find_map(|name| self.get(name)).unwrap_or(otherwise).to_owned()
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.get(name)?.parse().ok()
    }

    fn flag(&self, name: &str) -> Option<bool> {
        self.get(name).map(|text| SET.contains(&text))
    }

    fn object(&self, name: &str) -> Result<Map<String, Value>, Fault> {
        let Some(text) = self.get(name) else { return Ok(Map::new()) };
        let wrong = || Fault::annotation(name, text, "an object in JSON");
        match Json::parse(text).map_err(|_| wrong())?.to_serde() {
            Value::Object(entries) if entries.values().all(Value::is_object) => Ok(entries),
            _ => Err(wrong()),
        }
    }
}

impl Wishes {
    /// Reads the annotations of a pod.
    pub fn read(settings: &Settings, annotations: &BTreeMap<String, String>) -> Result<Self, Fault> {
        // What a Gateway says of itself means nothing at a pod.
        for (name, value) in annotations.iter().filter(|(name, _)| !name.starts_with("gateway.istio.io/")) {
            if let Some(wanted) = annotation_misses(name, value) {
                return Err(Fault::annotation(name, value, wanted));
            }
        }
        let said = Said(annotations);
        let config = "proxy.istio.io/config";
        let stated = said.get(config);
        let (proxy_config, proxy) = settings
            .proxy(stated)
            .map_err(|reason| Fault::annotation(config, stated.unwrap_or_default(), reason))?;
        let interception = match said.get("sidecar.istio.io/interceptionMode") {
            None => proxy.interception_mode,
            Some("NONE") => InboundInterceptionMode::None,
            Some("TPROXY") => InboundInterceptionMode::Tproxy,
            Some(_) => InboundInterceptionMode::Redirect,
        };
        let status_port = match said.get("status.sidecar.istio.io/port") {
            None => settings.status_port,
            Some(text) => {
                text.parse().map_err(|_| Fault::annotation("status.sidecar.istio.io/port", text, "a port"))?
            }
        };
        let form = match said.flag("sidecar.istio.io/nativeSidecar") {
            Some(true) => SidecarForm::Native,
            Some(false) => SidecarForm::Container,
            None => settings.sidecar_form,
        };
        let seconds = |name: &str| said.number(&format!("readiness.status.sidecar.istio.io/{name}"));
        let traffic = |name: &str, otherwise: &str| {
            said.text(&[&format!("traffic.sidecar.istio.io/{name}")], otherwise)
        };
        Ok(Wishes {
            template: template(&said)?,
            interception,
            image: said.text(&["sidecar.istio.io/proxyImage"], &settings.image),
            resources: resources(settings, &said)?,
            form,
            hold: proxy.hold_application_until_proxy_starts.unwrap_or(false),
            status_port,
            readiness: Readiness {
                initial_delay_seconds: seconds("initialDelaySeconds"),
                period_seconds: seconds("periodSeconds").unwrap_or(15),
                failure_threshold: seconds("failureThreshold").unwrap_or(4),
            },
            rewrite_probes: said
                .flag("sidecar.istio.io/rewriteAppHTTPProbers")
                .unwrap_or(settings.rewrite_probes),
            merge_metrics: said.flag("prometheus.istio.io/merge-metrics").unwrap_or(settings.merge_metrics),
            log_level: said.text(&["sidecar.istio.io/logLevel"], &settings.log_level),
            component_log_level: said
                .text(&["sidecar.istio.io/componentLogLevel"], &settings.component_log_level),
            agent_log_level: said.get("sidecar.istio.io/agentLogLevel").map(str::to_owned),
            drain: proxy
                .termination_drain_duration
                .filter(|_| proxy_config.contains_key("terminationDrainDuration"))
                .map(|drain| format!("{}ms", drain.as_millis())),
            redirect: Redirect {
                include_inbound_ports: traffic("includeInboundPorts", "*"),
                exclude_inbound_ports: traffic("excludeInboundPorts", &settings.exclude_inbound_ports),
                include_outbound_ranges: traffic(
                    "includeOutboundIPRanges",
                    &settings.include_outbound_ranges,
                ),
                exclude_outbound_ranges: traffic(
                    "excludeOutboundIPRanges",
                    &settings.exclude_outbound_ranges,
                ),
                include_outbound_ports: traffic("includeOutboundPorts", ""),
                exclude_outbound_ports: traffic("excludeOutboundPorts", &settings.exclude_outbound_ports),
                exclude_interfaces: traffic("excludeInterfaces", ""),
                reroute_interfaces: said.text(
                    &["istio.io/reroute-virtual-interfaces", "traffic.sidecar.istio.io/kubevirtInterfaces"],
                    "",
                ),
            },
            volumes: said.object("sidecar.istio.io/userVolume")?,
            mounts: said.object("sidecar.istio.io/userVolumeMount")?,
            proxy_config,
            proxy,
        })
    }
}

fn template(said: &Said<'_>) -> Result<Template, Fault> {
    let name = "inject.istio.io/templates";
    match said.get(name) {
        None | Some("" | "sidecar") => Ok(Template::Sidecar),
        Some("gateway") => Ok(Template::Gateway),
        Some(other) => {
            Err(Fault::annotation(name, other, "sidecar or gateway, the templates that there are"))
        }
    }
}

/// What the proxy needs. As soon as one annotation says something, those of the settings count no more.
fn resources(settings: &Settings, said: &Said<'_>) -> Result<ResourceNeeds, Fault> {
    let mut stated = ResourceNeeds::default();
    for (name, resource, is_limit) in RESOURCES {
        let Some(text) = said.get(name) else { continue };
        if !is_quantity(text) {
            return Err(Fault::annotation(name, text, "a quantity, such as 100m or 128Mi"));
        }
        let of = if is_limit { &mut stated.limits } else { &mut stated.requests };
        of.insert(resource.to_owned(), text.to_owned());
    }
    if !stated.is_empty() {
        return Ok(stated);
    }
    let usual = &settings.resources;
    let needs = |cpu: &str, memory: &str| {
        let all = [("cpu", cpu), ("memory", memory)].map(|(name, text)| (name.to_owned(), text.to_owned()));
        all.into_iter().filter(|(_, text)| !text.is_empty()).collect()
    };
    Ok(ResourceNeeds {
        requests: needs(&usual.cpu, &usual.memory),
        limits: needs(&usual.cpu_limit, &usual.memory_limit),
    })
}

/// A quantity of Kubernetes ("Resource units in Kubernetes").
fn is_quantity(text: &str) -> bool {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let exponent = suffix.strip_prefix(['e', 'E']).is_some_and(|digits| digits.parse::<i8>().is_ok());
    let suffixes = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    number.parse::<f64>().is_ok() && (exponent || suffixes.contains(&suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_those_of_kubernetes() {
        for good in ["1", "100m", "0.5", "128Mi", "1e3", "2E", "1Gi", "10k"] {
            assert!(is_quantity(good), "{good}");
        }
        for bad in ["", "m", "1 Gi", "-1", "1mi", "1e", "lots", "1.2.3"] {
            assert!(!is_quantity(bad), "{bad}");
        }
    }

    #[test]
    fn annotations_are_wishes() {
        let read = |pairs: &[(&str, &str)]| {
            let annotations = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            Wishes::read(&Settings::default(), &annotations.collect())
        };
        let usual = read(&[]).unwrap();
        assert_eq!(usual.interception, InboundInterceptionMode::Redirect);
        assert_eq!((usual.form, usual.hold, usual.status_port), (SidecarForm::Native, false, 15020));
        let config = "{holdApplicationUntilProxyStarts: true, concurrency: 4, interceptionMode: NONE}";
        let wished = read(&[("proxy.istio.io/config", config)]).unwrap();
        assert_eq!((wished.hold, wished.proxy.concurrency), (true, Some(4)));
        assert_eq!(wished.interception, InboundInterceptionMode::None);
        let wished = read(&[("sidecar.istio.io/proxyCPU", "10m")]).unwrap();
        assert_eq!(wished.resources.requests, [("cpu".to_owned(), "10m".to_owned())].into());
        assert!(wished.resources.limits.is_empty());
        let check = |name: &str, value: &str, expected: &str| {
            let said = read(&[(name, value)]).map(|_| ()).unwrap_err().to_string();
            assert!(said.contains(expected) && said.contains(name), "{said}");
        };
        check("sidecar.istio.io/proxyCPU", "lots", "is not a quantity");
        check("sidecar.istio.io/interceptionMode", "ALL", "is not one of REDIRECT, TPROXY, NONE");
        check("traffic.sidecar.istio.io/excludeInboundPorts", "http", "is not ports");
        check("proxy.istio.io/config", "{concurrency: many}", "concurrency");
        check("proxy.istio.io/config", "[1]", "not a mapping");
        check("sidecar.istio.io/userVolume", "[]", "is not an object in JSON");
        check("inject.istio.io/templates", "grpc-agent", "is not sidecar or gateway");
        check("status.sidecar.istio.io/port", "70000", "is not a port");
    }
}
