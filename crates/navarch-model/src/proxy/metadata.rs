//! Node metadata: what values mean, and what is said of those that mean nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::Hashed;
use crate::duration::parse_duration;
use crate::finding::Severity;
use crate::mesh::{ProxyConfig, parse_proxy_config};
use crate::service::{Labels, Name};

/// Files of certificates that a workload brings itself; a name is empty where it uses those of the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    /// The certificate and what leads to its root.
    pub chain: Name,
    pub key: Name,
    pub roots: Name,
}

/// A port of a container of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodPort {
    pub name: Name,
    pub number: u16,
    /// `TCP`, `UDP` or `SCTP`
    pub protocol: Name,
}

/// How traffic reaches a sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InterceptionMode {
    #[default]
    Redirect,
    Tproxy,
    /// Nothing is intercepted: listeners bind real ports.
    None,
}

/// Characters of a value that a problem repeats.
const QUOTED_MAX: usize = 64;

/// Where the name server beside a proxy listens unless the node says otherwise.
const NAME_SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15053);

/// A value of the node's metadata that cannot be used. It counts as not stated, everywhere; of
/// `PROXY_CONFIG`, what cannot be read of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataProblem {
    pub key: &'static str,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for MetadataProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MetadataProblem { key, problem } = self;
        write!(f, "metadata {key} of the node: {problem}")
    }
}

/// The metadata of a node while it is read.
pub(super) struct Metadata {
    pub values: BTreeMap<Name, Name>,
    pub problems: Vec<MetadataProblem>,
}

impl Metadata {
    /// Values may be strings, booleans, numbers or JSON objects.
    pub fn new(stated: &serde_json::Map<String, Value>) -> Self {
        let values = stated.iter().map(|(key, value)| (Name::from(key.as_str()), as_text(value))).collect();
        Metadata { values, problems: Vec::new() }
    }

    fn stated(&self, key: &str) -> Option<&Name> {
        self.values.get(key).filter(|value| !value.is_empty())
    }

    /// A text, or the empty one.
    pub fn text(&self, key: &str) -> Name {
        self.values.get(key).cloned().unwrap_or_default()
    }

    /// What a value that is stated says; `wanted` completes "… is not".
    fn parsed<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.stated(key)?.clone();
        let value = parse(&text);
        if value.is_none() {
            let quoted: String = text.chars().take(QUOTED_MAX).collect();
            self.problems.push(MetadataProblem {
                key,
                problem: format!("{quoted:?} is not {wanted} and counts as not stated"),
            });
        }
        value
    }

    /// A boolean, in the words that Go's `strconv.ParseBool` knows. Not stated is false.
    pub fn flag(&mut self, key: &'static str) -> bool {
        let read = |text: &str| match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
            _ => None,
        };
        self.parsed(key, "true or false", read).unwrap_or_default()
    }

    /// `HTTP10`: only `1` turns it on.
    pub fn http_10(&mut self) -> bool {
        let read = |text: &str| match text {
            "1" => Some(true),
            "0" | "false" => Some(false),
            _ => None,
        };
        self.parsed("HTTP10", "1", read).unwrap_or_default()
    }

    pub fn port(&mut self, key: &'static str) -> Option<u16> {
        self.parsed(key, "a port number", |text| text.parse().ok())
    }

    /// Ports that the bootstrap of the proxy listens on at every address, sorted.
    pub fn bootstrap_ports(&mut self) -> Vec<u16> {
        let keys = [
            "ENVOY_STATUS_PORT",
            "ENVOY_PROMETHEUS_PORT",
            "ENVOY_SECURE_METRICS_PORT",
            "ENVOY_SECURE_MERGED_METRICS_PORT",
        ];
        let stated = keys.into_iter().filter_map(|key| self.port(key));
        let ports: BTreeSet<u16> = stated.filter(|port| *port != 0).collect();
        ports.into_iter().collect()
    }

    pub fn duration(&mut self, key: &'static str) -> Option<Duration> {
        self.parsed(key, "a duration such as 30s", |text| parse_duration(text).ok())
    }

    /// The addresses of `INSTANCE_IPS`, if all of them are valid.
    pub fn instance_addresses(&mut self) -> Option<Vec<IpAddr>> {
        self.parsed("INSTANCE_IPS", "a list of IP addresses", |text| {
            text.split(',').map(|address| address.trim().parse().ok()).collect()
        })
    }

    /// The entries of a text with commas.
    pub fn list(&self, key: &str) -> Vec<Name> {
        let text = self.text(key);
        text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(Name::from).collect()
    }

    /// The texts of an object, such as labels.
    pub fn texts(&mut self, key: &'static str) -> Labels {
        let read = |text: &str| {
            let texts = serde_json::from_str::<serde_json::Map<String, Value>>(text).ok()?;
            Some(texts.iter().map(|(key, value)| (Name::from(key.as_str()), as_text(value))).collect())
        };
        self.parsed(key, "an object", read).unwrap_or_default()
    }

    pub fn interception(&mut self) -> InterceptionMode {
        let read = |text: &str| match text {
            "REDIRECT" => Some(InterceptionMode::Redirect),
            "TPROXY" => Some(InterceptionMode::Tproxy),
            "NONE" => Some(InterceptionMode::None),
            _ => None,
        };
        self.parsed("INTERCEPTION_MODE", "REDIRECT, TPROXY or NONE", read).unwrap_or_default()
    }

    /// The name server beside the proxy, if it takes the workload's questions.
    pub fn dns_capture(&mut self) -> Option<SocketAddr> {
        let captures = self.flag("DNS_CAPTURE");
        let stated = self.parsed("DNS_PROXY_ADDR", "an address with a port", |text| {
            text.replace("localhost", "127.0.0.1").parse().ok()
        });
        captures.then(|| stated.unwrap_or(NAME_SERVER))
    }

    /// Files of certificates, under keys that say whose they are: `TLS_SERVER_CERT_CHAIN`,
    /// `TLS_CLIENT_CERT_CHAIN` and so on.
    pub fn certificate_files(&self, whose: &str) -> CertificateFiles {
        let file = |key: &str| self.text(&format!("TLS_{whose}_{key}"));
        CertificateFiles { chain: file("CERT_CHAIN"), key: file("KEY"), roots: file("ROOT_CERT") }
    }

    /// `POD_PORTS`: a list in JSON, as a text.
    pub fn pod_ports(&mut self) -> Vec<PodPort> {
        let stated =
            self.parsed("POD_PORTS", "a list of ports", |text| serde_json::from_str::<Vec<Value>>(text).ok());
        let text =
            |value: &Value, key: &str| Name::from(value.get(key).and_then(Value::as_str).unwrap_or_default());
        let ports = stated.unwrap_or_default().into_iter().filter_map(|value| {
            let number = value.get("containerPort").and_then(Value::as_u64);
            let Some(number) = number.and_then(|number| u16::try_from(number).ok()) else {
                let problem = "an entry has no containerPort that is a port number".to_owned();
                self.problems.push(MetadataProblem { key: "POD_PORTS", problem });
                return None;
            };
            Some(PodPort { name: text(&value, "name"), number, protocol: text(&value, "protocol") })
        });
        ports.collect()
    }

    /// `PROXY_CONFIG`: the configuration of the proxy, as its agent put it together.
    pub fn proxy_config(&mut self) -> Option<Arc<Hashed<ProxyConfig>>> {
        const KEY: &str = "PROXY_CONFIG";
        let text = self.stated(KEY)?.clone();
        let (config, findings) = parse_proxy_config(&ProxyConfig::default(), &text, KEY, 1);
        // A newer agent may know more fields.
        let wrong = findings.into_iter().filter(|finding| finding.severity == Severity::Error);
        let problems = wrong.map(|finding| finding.message);
        self.problems.extend(problems.map(|problem| MetadataProblem { key: KEY, problem }));
        Some(Arc::new(Hashed::new(config)))
    }
}

/// A value as text: strings as they are, everything else as JSON.
fn as_text(value: &Value) -> Name {
    match value {
        Value::String(text) => Name::from(text.as_str()),
        Value::Null => Name::default(),
        other => Name::from(other.to_string()),
    }
}
