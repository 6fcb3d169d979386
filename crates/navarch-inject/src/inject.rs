//! A pod to one with a proxy.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::former;
use crate::json::{self, Object};
use crate::pod::{Container, Env};
use crate::probes;
use crate::template;
use crate::terms::{Fault, INIT, OVERRIDES, PROMETHEUS, PROXY, STATUS, Workload};
use crate::wishes::{Template, Wishes};
use crate::{Settings, SidecarForm};

/// Injects a pod, or a template of pods: an object with `metadata` and `spec`. What an injection before has
/// put there is taken out first, so that doing it again changes nothing.
///
/// # Errors
/// If it is not a pod, or its annotations wish what cannot be.
pub fn inject(
    settings: &Settings,
    namespace: &str,
    workload: &Workload,
    pod: &Value,
) -> Result<Value, Fault> {
    let mut pod = pod.as_object().cloned().ok_or_else(|| Fault::object("the pod"))?;
    check_shape(&mut pod)?;
    former::take_out(&mut pod);
    let annotations = json::object(&mut pod, "metadata")
        .map(|metadata| json::texts(metadata, "annotations"))
        .unwrap_or_default();
    let wishes = Wishes::read(settings, &annotations)?;
    let overrides = Overrides::take(&mut pod);
    let mut made = template::make(settings, &wishes, namespace, workload, &pod);
    if wishes.template == Template::Gateway && overrides.is_empty() {
        return Err(Fault::NoProxy);
    }
    if overrides.is_empty() && spec(&mut pod)?.get("containers").is_none_or(|list| list == &json!([])) {
        return Err(Fault::NoContainers);
    }
    let env = &mut made.proxy.env;
    if wishes.rewrite_probes
        && let Some(probers) = probes::rewrite(spec(&mut pod)?, wishes.status_port)
    {
        env.push(Env::text(probes::PROBERS, probers));
    }
    if wishes.merge_metrics
        && let Some(said) = lead_prometheus(&mut pod, &annotations, wishes.status_port)
    {
        env.push(Env::text(PROMETHEUS, said));
    }
    put(&mut pod, settings, &wishes, made, &overrides)?;
    Ok(Value::Object(pod))
}

/// The template of the pods of a gateway that is deployed for its own sake: the container that an injected
/// gateway gets, and nothing beside it. `labels` and `annotations` are what the pods are to have; the
/// annotations are heeded as those of a pod are.
///
/// # Errors
/// If the annotations wish what cannot be.
pub fn gateway_pod(
    settings: &Settings,
    namespace: &str,
    workload: &Workload,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Result<Value, Fault> {
    let mut pod = Object::new();
    pod.insert("metadata".to_owned(), json!({"labels": labels, "annotations": annotations}));
    pod.insert("spec".to_owned(), json!({}));
    let wishes = Wishes { template: Template::Gateway, ..Wishes::read(settings, annotations)? };
    let mut made = template::make(settings, &wishes, namespace, workload, &pod);
    if wishes.merge_metrics
        && let Some(said) = lead_prometheus(&mut pod, annotations, wishes.status_port)
    {
        made.proxy.env.push(Env::text(PROMETHEUS, said));
    }
    // A gateway for a network is for what is in it (Istio: `kube-gateway.yaml`).
    if let Some(network) = labels.get("topology.istio.io/network") {
        made.proxy.env.push(Env::text("ISTIO_META_REQUESTED_NETWORK_VIEW", network));
    }
    put(&mut pod, settings, &wishes, made, &Overrides::default())?;
    // It is nobody's pod that something was put into.
    if let Some(annotations) = self::annotations(&mut pod) {
        annotations.shift_remove(STATUS);
    }
    Ok(Value::Object(pod))
}

fn spec(pod: &mut Object) -> Result<&mut Object, Fault> {
    json::object(pod, "spec").ok_or_else(|| Fault::object("spec"))
}

/// Sees to it that whatever is looked at later has the shape that it is expected to have.
fn check_shape(pod: &mut Object) -> Result<(), Fault> {
    let metadata = json::object(pod, "metadata").ok_or_else(|| Fault::object("metadata"))?;
    for key in ["labels", "annotations"] {
        let texts = match metadata.get(key) {
            None | Some(Value::Null) => continue,
            Some(Value::Object(texts)) => texts,
            Some(_) => return Err(Fault::object(&format!("metadata.{key}"))),
        };
        if let Some((name, _)) = texts.iter().find(|(_, value)| !value.is_string()) {
            return Err(Fault::Shape { path: format!("metadata.{key}.{name}"), wanted: "a text" });
        }
    }
    let spec = spec(pod)?;
    for key in ["containers", "initContainers", "volumes", "imagePullSecrets"] {
        match spec.get(key) {
            None | Some(Value::Null) => {}
            Some(Value::Array(items)) if items.iter().all(Value::is_object) => {}
            Some(_) => return Err(Fault::list(&format!("spec.{key}"))),
        }
    }
    match spec.get("securityContext") {
        None | Some(Value::Null | Value::Object(_)) => Ok(()),
        Some(_) => Err(Fault::object("spec.securityContext")),
    }
}

/// What the user wrote of the proxy's own containers, to count over the template.
#[derive(Default)]
struct Overrides {
    containers: Vec<Value>,
    init_containers: Vec<Value>,
}

impl Overrides {
    fn take(pod: &mut Object) -> Self {
        let mut take = |key: &str| -> Vec<Value> {
            let Some(items) = json::object(pod, "spec").and_then(|spec| json::list(spec, key)) else {
                return Vec::new();
            };
            items.extract_if(.., |item| [PROXY, INIT].contains(&json::name(item))).collect()
        };
        Overrides { containers: take("containers"), init_containers: take("initContainers") }
    }

    fn is_empty(&self) -> bool {
        !self.all().any(|item| json::name(item) == PROXY)
    }

    fn all(&self) -> impl Iterator<Item = &Value> {
        self.containers.iter().chain(&self.init_containers)
    }

    /// A container as it is with what the user wrote.
    fn over(&self, container: &Container) -> Value {
        let mut made = json::value(container);
        for over in self.all().filter(|item| json::name(item) == container.name) {
            let mut over = over.clone();
            if let Some(fields) = over.as_object_mut()
                && json::text(fields, "image") == "auto"
            {
                fields.shift_remove("image");
            }
            json::merge(&mut made, &over);
        }
        made
    }

    /// As the annotation keeps it.
    fn kept(&self) -> Option<String> {
        let Overrides { containers, init_containers } = self;
        let mut kept = Map::new();
        for (key, items) in [("containers", containers), ("initContainers", init_containers)] {
            if !items.is_empty() {
                kept.insert(key.to_owned(), json!(items));
            }
        }
        (!kept.is_empty()).then(|| Value::Object(kept).to_string())
    }
}

/// Leads Prometheus to the agent, and gives what the pod said before, for the agent.
fn lead_prometheus(pod: &mut Object, said: &BTreeMap<String, String>, port: u16) -> Option<String> {
    let of = |name: &str| said.get(&format!("prometheus.io/{name}"));
    let off = |text: &String| text == "false";
    if of("scrape").is_some_and(off) || port == 0 {
        return None;
    }
    let stated: BTreeMap<&str, &String> =
        ["scrape", "path", "port", "scheme"].into_iter().filter_map(|name| Some((name, of(name)?))).collect();
    let kept = (!stated.is_empty()).then(|| json::value(&stated).to_string());
    let annotations = annotations(pod)?;
    for (name, value) in lead(port) {
        // Always at the same place, so that injecting again changes nothing.
        annotations.shift_remove(&format!("prometheus.io/{name}"));
        annotations.insert(format!("prometheus.io/{name}"), json!(value));
    }
    kept
}

/// What leads Prometheus to the agent, by the end of the name of the annotation.
pub(crate) fn lead(port: u16) -> [(&'static str, String); 3] {
    [("port", port.to_string()), ("scrape", "true".to_owned()), ("path", "/stats/prometheus".to_owned())]
}

fn annotations(pod: &mut Object) -> Option<&mut Object> {
    json::object(json::object(pod, "metadata")?, "annotations")
}

/// Puts everything where it belongs.
fn put(
    pod: &mut Object,
    settings: &Settings,
    wishes: &Wishes,
    made: template::Made,
    overrides: &Overrides,
) -> Result<(), Fault> {
    let template::Made { proxy, init, volumes, labels, annotations: notes, sysctls } = made;
    let is_native = wishes.form == SidecarForm::Native && wishes.template == Template::Sidecar;
    let proxy = overrides.over(&proxy);
    let init = init.map(|container| overrides.over(&container));
    let spec = spec(pod)?;
    let mut put = Added::default();
    let list = |spec: &'_ mut Object, key: &str| -> Result<Vec<Value>, Fault> {
        Ok(std::mem::take(json::list(spec, key).ok_or_else(|| Fault::list(key))?))
    };
    let (own, own_init) = (list(spec, "containers")?, list(spec, "initContainers")?);
    put.init_containers.extend(init.iter().map(|_| INIT));
    if is_native {
        // Redirection first, then the proxy, so that the init containers of the application are in the mesh.
        put.init_containers.push(PROXY);
        let all = init.into_iter().chain([proxy]).chain(own_init).collect();
        spec.insert("initContainers".to_owned(), Value::Array(all));
        spec.insert("containers".to_owned(), Value::Array(own));
    } else {
        // Redirection last, so that the init containers of the application are heard without a proxy.
        put.containers.push(PROXY);
        let all = own_init.into_iter().chain(init).collect();
        spec.insert("initContainers".to_owned(), Value::Array(all));
        // `kubectl exec` and the like mean the first container, so that it is the application's unless the
        // order is what holds the application back.
        let all: Vec<Value> = match wishes.hold {
            true => [proxy].into_iter().chain(own).collect(),
            false => own.into_iter().chain([proxy]).collect(),
        };
        spec.insert("containers".to_owned(), Value::Array(all));
    }
    let there = json::list(spec, "volumes").ok_or_else(|| Fault::list("spec.volumes"))?;
    for volume in &volumes {
        let made = json::value(volume);
        match there.iter_mut().find(|item| json::name(item) == volume.name) {
            Some(stated) => *stated = made,
            None => there.push(made),
        }
    }
    put.volumes.extend(volumes.iter().map(|volume| volume.name.as_str()));
    let secrets = json::list(spec, "imagePullSecrets").ok_or_else(|| Fault::list("spec.imagePullSecrets"))?;
    for name in &settings.image_pull_secrets {
        if !secrets.iter().any(|secret| json::name(secret) == name) {
            secrets.push(json!({"name": name}));
            put.image_pull_secrets.push(name);
        }
    }
    if !sysctls.is_empty() {
        // Always last, so that injecting again changes nothing.
        let stated = spec.shift_remove("securityContext").unwrap_or_default();
        spec.insert("securityContext".to_owned(), stated);
        if let Some(context) = json::object(spec, "securityContext") {
            let of = |(name, value)| json!({"name": name, "value": value});
            context.entry("sysctls").or_insert_with(|| sysctls.into_iter().map(of).collect());
        }
    }
    for key in ["volumes", "imagePullSecrets", "initContainers", "containers"] {
        json::remove_empty(spec, key);
    }
    let metadata = json::object(pod, "metadata").ok_or_else(|| Fault::object("metadata"))?;
    let there = json::object(metadata, "labels").ok_or_else(|| Fault::object("metadata.labels"))?;
    for (name, value) in labels {
        there.entry(name).or_insert(json!(value));
    }
    let there = json::object(metadata, "annotations").ok_or_else(|| Fault::object("metadata.annotations"))?;
    for (name, value) in notes {
        let value = there.shift_remove(&name).unwrap_or(json!(value));
        there.insert(name, value);
    }
    if let Some(kept) = overrides.kept() {
        there.insert(OVERRIDES.to_owned(), json!(kept));
    }
    there.insert(STATUS.to_owned(), json!(put.told(&settings.revision)));
    Ok(())
}

/// The names of what is put into a pod.
#[derive(Default)]
pub(crate) struct Added<'a> {
    pub init_containers: Vec<&'static str>,
    pub containers: Vec<&'static str>,
    pub volumes: Vec<&'a str>,
    pub image_pull_secrets: Vec<&'a str>,
}

impl Added<'_> {
    /// As the annotation tells them.
    pub fn told(&self, revision: &str) -> String {
        let Added { init_containers, containers, volumes, image_pull_secrets } = self;
        let some = |items: &[&str]| if items.is_empty() { Value::Null } else { json!(items) };
        json!({
            "initContainers": some(init_containers),
            "containers": some(containers),
            "volumes": some(volumes),
            "imagePullSecrets": some(image_pull_secrets),
            "revision": revision,
        })
        .to_string()
    }
}
