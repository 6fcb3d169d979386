//! What an injection before has put into a pod, ours or Istio's, is taken out of it.

use serde_json::{Value, json};

use crate::json::{self, Object};
use crate::probes;
use crate::terms::{OVERRIDES, PROMETHEUS, PROXY, STATUS};

/// Takes it out: the pod is as if it had never been injected, but for labels, whose values do not depend on
/// the injection.
pub(crate) fn take_out(pod: &mut Object) {
    let Some(metadata) = json::object(pod, "metadata") else { return };
    let Some(annotations) = json::object(metadata, "annotations") else { return };
    let (stated, kept) = (annotations.shift_remove(STATUS), annotations.shift_remove(OVERRIDES));
    let stated = stated.and_then(|text| serde_json::from_str::<Value>(text.as_str()?).ok());
    let Some(Value::Object(stated)) = stated else {
        json::remove_empty(metadata, "annotations");
        return;
    };
    let kept = kept.and_then(|text| serde_json::from_str::<Value>(text.as_str()?).ok());
    let Some(spec) = json::object(pod, "spec") else { return };
    let env = proxy_env(spec);
    let said = |name: &str| env.iter().find(|item| json::name(item) == name)?.get("value")?.as_str();
    let (probers, prometheus) = (said(probes::PROBERS), said(PROMETHEUS));
    if let Some(probers) = probers {
        probes::restore(spec, probers);
    }
    for key in ["initContainers", "containers", "volumes", "imagePullSecrets"] {
        let names: Vec<&str> = json::items(&stated, key).iter().filter_map(Value::as_str).collect();
        if let Some(items) = json::list(spec, key) {
            items.retain(|item| !names.contains(&json::name(item)));
        }
        if let Some(items) = json::list(spec, key) {
            let own = kept.as_ref().and_then(|kept| kept.get(key)).and_then(Value::as_array);
            items.extend(own.into_iter().flatten().filter(|item| item.is_object()).cloned());
        }
        json::remove_empty(spec, key);
    }
    restore_prometheus(pod, prometheus);
}

/// The environment of the proxy that was injected.
fn proxy_env(spec: &Object) -> Vec<Value> {
    let all = json::items(spec, "containers").iter().chain(json::items(spec, "initContainers"));
    let proxy = all.filter(|item| json::name(item) == PROXY).find_map(Value::as_object);
    proxy.map(|proxy| json::items(proxy, "env").to_vec()).unwrap_or_default()
}

/// Puts the annotations back that led Prometheus to the application.
fn restore_prometheus(pod: &mut Object, kept: Option<&str>) {
    let Some(metadata) = json::object(pod, "metadata") else { return };
    let Some(annotations) = json::object(metadata, "annotations") else { return };
    let says = |name: &str, value: &str| annotations.get(name).is_some_and(|said| said == value);
    // Who is not to be scraped was left as it was, whatever else is said.
    if says("prometheus.io/path", "/stats/prometheus") && says("prometheus.io/scrape", "true") {
        for name in ["port", "scrape", "path"] {
            annotations.shift_remove(&format!("prometheus.io/{name}"));
        }
        let kept = kept.and_then(|text| serde_json::from_str::<Value>(text).ok());
        for (name, value) in kept.as_ref().and_then(Value::as_object).into_iter().flatten() {
            if let Some(text) = value.as_str() {
                annotations.insert(format!("prometheus.io/{name}"), json!(text));
            }
        }
    }
    json::remove_empty(metadata, "annotations");
}
