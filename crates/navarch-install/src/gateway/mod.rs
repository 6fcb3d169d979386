//! The objects that run a gateway.
//!
//! A Gateway that names no host to be reached at gets proxies of its own: a Deployment of them with a
//! ServiceAccount and a Service, and what ConfigMaps of parameters ask for beside it. All of them are owned
//! by the Gateway, so that they go when it goes, except an account that it names, which others may use too.
//! Names, labels and parameters are those of istiod (`kube-gateway.yaml`), so that one control plane can take
//! over from the other.

mod merge;

use std::collections::BTreeMap;

use navarch_inject::{Fault, Settings, Workload, gateway_pod};
use navarch_model::gateway_api;
use navarch_model::object::Metadata;
use navarch_model::service::Labels;
use navarch_model::validation::annotation_misses;
use navarch_model::values::Json;
use serde_json::{Map, Value, json};

use self::merge::merge;

/// Marks what is made for gateways; what has it not is somebody else's.
pub const MANAGED_LABEL: &str = "gateway.istio.io/managed";
/// The label of a ConfigMap in the system namespace with parameters for all gateways of a class.
pub const DEFAULTS_LABEL: &str = "gateway.istio.io/defaults-for-class";

const NAME_LABEL: &str = "gateway.networking.k8s.io/gateway-name";
const CLASS_LABEL: &str = "gateway.networking.k8s.io/gateway-class-name";
const ACCOUNT_ANNOTATION: &str = "gateway.istio.io/service-account";
const TYPE_ANNOTATION: &str = "networking.istio.io/service-type";

/// Annotations of a Gateway that are about itself.
const OWN_ANNOTATIONS: [&str; 4] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "gateway.istio.io/name-override",
    ACCOUNT_ANNOTATION,
    "gateway.istio.io/controller-version",
];

/// Where Envoy answers for readiness.
const READY_PORT: u16 = 15021;

/// Longest value of a label, and longest name of a port of a Service.
const LABEL_MAX: usize = 63;

/// A gateway, and what of the cluster says how it is run.
#[derive(Clone, Debug)]
pub struct Gateway<'a> {
    pub metadata: &'a Metadata,
    pub spec: &'a gateway_api::Gateway,
    /// The controller of its class.
    pub controller: &'a str,
    /// What is made for it is called this.
    pub name: &'a str,
    pub ports: Vec<Port<'a>>,
    /// ConfigMaps with parameters; later ones count over earlier ones.
    pub parameters: Vec<Parameters<'a>>,
}

/// A port that clients connect to.
#[derive(Clone, Debug)]
pub struct Port<'a> {
    /// The name of its listener.
    pub name: &'a str,
    pub port: u16,
    /// As the listener states it.
    pub protocol: &'a str,
}

/// What is written over the objects, by the kind of object.
#[derive(Clone, Debug)]
pub struct Parameters<'a> {
    /// What people call the ConfigMap.
    pub from: String,
    pub data: &'a BTreeMap<String, String>,
}

/// Why a gateway cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GatewayFault {
    #[error("its pods cannot be made: {0}")]
    Pod(#[from] Fault),
    #[error("the annotation {TYPE_ANNOTATION}: {0:?} is not LoadBalancer, NodePort or ClusterIP")]
    ServiceType(String),
    #[error("{from} has parameters for {key:?}, and there are some for {} only", keys())]
    UnknownKey { from: String, key: String },
    #[error("{from}, {key}: {reason}")]
    Parameters { from: String, key: &'static str, reason: String },
}

/// The kinds of objects: what parameters call them, and whether they are made without.
const KINDS: [(&str, bool); 5] = [
    ("serviceAccount", true),
    ("deployment", true),
    ("service", true),
    ("horizontalPodAutoscaler", false),
    ("podDisruptionBudget", false),
];

fn keys() -> String {
    KINDS.map(|(key, _)| key).join(", ")
}

/// Makes the objects that run a gateway, in the order in which they are applied.
///
/// # Errors
/// If what is asked for cannot be made: then none of it is.
pub fn gateway_objects(settings: &Settings, gateway: &Gateway<'_>) -> Result<Vec<Value>, GatewayFault> {
    for Parameters { from, data } in &gateway.parameters {
        if let Some(key) = data.keys().find(|key| !KINDS.iter().any(|(known, _)| known == key)) {
            return Err(GatewayFault::UnknownKey { from: from.clone(), key: key.clone() });
        }
    }
    let maker = Maker::new(settings, gateway);
    let mut made = Vec::new();
    for (key, always) in KINDS {
        let object = maker.object(key)?;
        let stated: Vec<(&Parameters<'_>, &String)> = gateway
            .parameters
            .iter()
            .filter_map(|parameters| Some((parameters, parameters.data.get(key)?)))
            .collect();
        if !always && stated.is_empty() {
            continue;
        }
        let mut object = with_parameters(key, object, &stated)?;
        // Whatever parameters make of it, it stays ours to be found.
        if let Some(labels) = object.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
            labels.insert(MANAGED_LABEL.to_owned(), json!(maker.controller_label()));
        }
        made.push(object);
    }
    Ok(made)
}

/// An object as users want it. It stays the object that it is: its kind, name and owner are not theirs to
/// change.
fn with_parameters(
    key: &'static str,
    mut object: Value,
    stated: &[(&Parameters<'_>, &String)],
) -> Result<Value, GatewayFault> {
    let identity = |object: &Value| {
        let mut kept = object.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
        kept.shift_remove("labels");
        kept.shift_remove("annotations");
        (object.get("apiVersion").cloned(), object.get("kind").cloned(), kept)
    };
    let before = identity(&object);
    for (Parameters { from, data: _ }, text) in stated {
        let wrong = |reason| GatewayFault::Parameters { from: from.clone(), key, reason };
        let patch = Json::parse(text).map_err(wrong)?.to_serde();
        match patch {
            Value::Null => continue,
            Value::Object(_) => merge(&mut object, &patch).map_err(wrong)?,
            _ => return Err(wrong("a mapping is expected".to_owned())),
        }
        if identity(&object) != before {
            let reason = "of its metadata only labels and annotations may be changed, and not its kind";
            return Err(wrong(reason.to_owned()));
        }
        if !object.pointer("/metadata/labels").is_some_and(Value::is_object) {
            return Err(wrong("metadata.labels is not a mapping".to_owned()));
        }
    }
    Ok(object)
}

/// Whether an object of a gateway may be that of others too: it is made if there is none, and is theirs to
/// change.
pub fn is_shared(object: &Value) -> bool {
    object.pointer("/metadata/ownerReferences").is_none()
}

/// What the objects of one gateway have in common.
struct Maker<'a> {
    settings: &'a Settings,
    gateway: &'a Gateway<'a>,
    /// Labels and annotations that the author of the gateway wants on everything that is made for it.
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

impl<'a> Maker<'a> {
    fn new(settings: &'a Settings, gateway: &'a Gateway<'a>) -> Self {
        let Gateway { metadata, spec, .. } = gateway;
        let infrastructure = spec.infrastructure.as_ref();
        let of = |stated: Option<&BTreeMap<String, String>>, own: &Labels| match stated {
            Some(stated) if !stated.is_empty() => {
                // Those of the API itself are ours to say.
                let meant = stated.iter().filter(|(key, _)| !key.starts_with("gateway.networking.k8s.io/"));
                meant.map(|(key, value)| (key.clone(), value.clone())).collect()
            }
            // As istiod has it (PILOT_ENABLE_GATEWAY_API_COPY_LABELS_ANNOTATIONS): those of the Gateway.
            _ => own.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        };
        let mut annotations: BTreeMap<String, String> =
            of(infrastructure.map(|stated| &stated.annotations), &metadata.annotations);
        annotations.retain(|key, _| !OWN_ANNOTATIONS.contains(&key.as_str()));
        let mut labels: BTreeMap<String, String> =
            of(infrastructure.map(|stated| &stated.labels), &metadata.labels);
        labels.insert(NAME_LABEL.to_owned(), metadata.name.to_string());
        labels.insert(CLASS_LABEL.to_owned(), spec.gateway_class_name.clone());
        Maker { settings, gateway, labels, annotations }
    }

    /// A value of a label has no slash.
    fn controller_label(&self) -> String {
        self.gateway.controller.replace('/', "-")
    }

    fn object(&self, key: &str) -> Result<Value, GatewayFault> {
        let name = self.gateway.name;
        Ok(match key {
            "serviceAccount" => self.service_account(),
            "deployment" => self.made("apps/v1", "Deployment", name, self.deployment()?),
            "service" => self.made("v1", "Service", name, self.service()?),
            "horizontalPodAutoscaler" => {
                let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name});
                let spec = json!({"scaleTargetRef": target, "maxReplicas": 1});
                self.made("autoscaling/v2", "HorizontalPodAutoscaler", name, json!({"spec": spec}))
            }
            _ => {
                let spec = json!({"selector": {"matchLabels": self.selector()}});
                self.made("policy/v1", "PodDisruptionBudget", name, json!({"spec": spec}))
            }
        })
    }

    /// An object that the gateway owns.
    fn made(&self, version: &str, kind: &str, name: &str, fields: Value) -> Value {
        let Metadata { name: gateway, namespace, uid, .. } = self.gateway.metadata;
        let mut metadata = json!({"name": name, "namespace": namespace, "labels": self.labels});
        if !self.annotations.is_empty() {
            metadata["annotations"] = json!(self.annotations);
        }
        metadata["ownerReferences"] = json!([{
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "name": gateway,
            "uid": uid,
        }]);
        let mut object = json!({"apiVersion": version, "kind": kind, "metadata": metadata});
        if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), fields) {
            object.extend(fields);
        }
        object
    }

    /// One that the author of the gateway names may be that of other gateways too, and of anybody: it
    /// belongs to none of them.
    fn service_account(&self) -> Value {
        let account = self.account();
        let mut object = self.made("v1", "ServiceAccount", account, json!({}));
        if account != self.gateway.name
            && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.shift_remove("ownerReferences");
        }
        object
    }

    /// What is no name is told where the annotation is, and means nothing.
    fn account(&self) -> &str {
        let stated = self.gateway.metadata.annotations.get(ACCOUNT_ANNOTATION);
        let stated = stated.filter(|stated| annotation_misses(ACCOUNT_ANNOTATION, stated).is_none());
        stated.map_or(self.gateway.name, |stated| stated)
    }

    /// It can never be changed in a Deployment.
    fn selector(&self) -> Value {
        json!({NAME_LABEL: self.gateway.metadata.name})
    }

    fn deployment(&self) -> Result<Value, GatewayFault> {
        let Gateway { metadata, name, .. } = self.gateway;
        // A label has at most 63 bytes, and names may have more.
        let service = name.get(..LABEL_MAX).unwrap_or(name).trim_end_matches(['-', '.']);
        // What its author says of pods counts, but not whose they are.
        let mut labels: BTreeMap<String, String> = [
            ("sidecar.istio.io/inject", "false"),
            ("istio.io/dataplane-mode", "none"),
            ("service.istio.io/canonical-name", service),
            ("service.istio.io/canonical-revision", "latest"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        labels.extend(self.labels.clone());
        labels.insert(MANAGED_LABEL.to_owned(), self.controller_label());
        let mut annotations = self.annotations.clone();
        annotations.insert("istio.io/rev".to_owned(), self.settings.revision.clone());
        let workload = Workload {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            name: (*name).to_owned(),
        };
        let mut pod = gateway_pod(self.settings, &metadata.namespace, &workload, &labels, &annotations)?;
        pod["spec"]["serviceAccountName"] = json!(self.account());
        // How many replicas there are is for parameters and autoscalers to say.
        Ok(json!({"spec": {"selector": {"matchLabels": self.selector()}, "template": pod}}))
    }

    fn service(&self) -> Result<Value, GatewayFault> {
        let stated = self.gateway.metadata.annotations.get(TYPE_ANNOTATION);
        let ty = stated.map_or("LoadBalancer", |stated| stated);
        if !matches!(ty, "LoadBalancer" | "NodePort" | "ClusterIP") {
            return Err(GatewayFault::ServiceType(ty.to_owned()));
        }
        let mut spec = Map::new();
        spec.insert("ipFamilyPolicy".to_owned(), json!("PreferDualStack"));
        spec.insert("ports".to_owned(), Value::Array(self.ports()));
        spec.insert("selector".to_owned(), self.selector());
        if let (Some(address), "LoadBalancer") = (self.gateway.spec.addresses.first(), ty)
            && !address.value.is_empty()
        {
            spec.insert("loadBalancerIP".to_owned(), json!(address.value));
        }
        spec.insert("type".to_owned(), json!(ty));
        Ok(json!({"spec": spec}))
    }

    /// That by which load balancers see whether a proxy is ready, and those of the listeners.
    fn ports(&self) -> Vec<Value> {
        let mut names: Vec<String> = vec!["status-port".to_owned()];
        let mut ports = vec![service_port("status-port", READY_PORT, "TCP")];
        let listeners = self.gateway.ports.iter();
        // The other one is there already, and a Service has a port once.
        for Port { name, port, protocol } in
            listeners.filter(|stated| stated.port != READY_PORT || stated.protocol == "UDP")
        {
            let name = port_name(name, *port, protocol, &names);
            ports.push(service_port(&name, *port, protocol));
            names.push(name);
        }
        ports
    }
}

fn service_port(name: &str, port: u16, protocol: &str) -> Value {
    json!({
        "name": name,
        "port": port,
        "protocol": if protocol == "UDP" { "UDP" } else { "TCP" },
        "appProtocol": protocol.to_lowercase(),
    })
}

/// A name that no other port has: listeners have names with dots and of any length, and ports have not.
fn port_name(listener: &str, port: u16, protocol: &str, taken: &[String]) -> String {
    let mut name = listener.replace('.', "-").to_lowercase();
    if name.is_empty() {
        name = format!("{}-{port}", protocol.to_lowercase());
    }
    let cut = |name: &str, room: usize| name.get(..room).unwrap_or(name).trim_end_matches('-').to_owned();
    let mut unique = cut(&name, LABEL_MAX);
    let mut suffix = format!("-{port}");
    while taken.contains(&unique) {
        unique = cut(&name, LABEL_MAX.saturating_sub(suffix.len())) + &suffix;
        suffix.push('x');
    }
    unique
}

#[cfg(test)]
mod tests {
    use navarch_model::Name;

    use super::*;

    #[test]
    fn an_account_that_is_named_is_nobodys() {
        let check = |stated: Option<&str>, expected: &str, shared: bool| {
            let annotations = stated.map(|stated| (Name::from(ACCOUNT_ANNOTATION), Name::from(stated)));
            let metadata = Metadata { annotations: annotations.into_iter().collect(), ..Metadata::default() };
            let (settings, spec) = (Settings::default(), gateway_api::Gateway::default());
            let gateway = Gateway {
                metadata: &metadata,
                spec: &spec,
                controller: "",
                name: "edge",
                ports: Vec::new(),
                parameters: Vec::new(),
            };
            let account = Maker::new(&settings, &gateway).service_account();
            assert_eq!(account["metadata"]["name"], expected, "{stated:?}");
            assert_eq!(is_shared(&account), shared, "{stated:?}");
        };
        check(None, "edge", false);
        check(Some("edge"), "edge", false);
        check(Some("till"), "till", true);
        check(Some("no/name"), "edge", false);
        check(Some(""), "edge", false);
    }

    #[test]
    fn a_port_is_there_once() {
        let (metadata, spec) = (Metadata::default(), gateway_api::Gateway::default());
        let port = |port, protocol| Port { name: "a", port, protocol };
        let gateway = Gateway {
            metadata: &metadata,
            spec: &spec,
            controller: "",
            name: "edge",
            ports: vec![port(15021, "HTTP"), port(80, "HTTP"), port(15021, "UDP")],
            parameters: Vec::new(),
        };
        let settings = Settings::default();
        let made = Maker::new(&settings, &gateway).ports();
        let made: Vec<String> =
            made.iter().map(|port| format!("{}/{}", port["port"], port["protocol"])).collect();
        assert_eq!(made, ["15021/\"TCP\"", "80/\"TCP\"", "15021/\"UDP\""]);
    }

    #[test]
    fn ports_have_names_of_their_own() {
        let check = |listener: &str, taken: &[&str], expected: &str| {
            let taken: Vec<String> = taken.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(port_name(listener, 443, "HTTPS", &taken), expected);
        };
        check("https", &[], "https");
        check("a.example", &[], "a-example");
        check("", &[], "https-443");
        check("a.b", &["a-b"], "a-b-443");
        check("a.b", &["a-b", "a-b-443"], "a-b-443x");
        check(&"a".repeat(70), &[], &"a".repeat(63));
        check(&"a".repeat(70), &[&"a".repeat(63)], &("a".repeat(59) + "-443"));
    }
}
