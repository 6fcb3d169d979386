//! Which pods get a proxy, as conditions: what [`crate::decide`] decides. And which of them a policy cannot
//! inject, which are refused.

use serde_json::{Value, json};

use super::cel::{quote, quoted};
use crate::decide::{INJECT, TRUE};
use crate::settings::{Operator, Requirement};
use crate::terms::{INIT, PROXY, STATUS};
use crate::{Selector, Settings};

/// Annotations that a policy cannot heed: what they say is YAML or JSON, or changes what is put into the pod
/// in ways of its own.
pub const UNHEEDED: [&str; 11] = [
    "proxy.istio.io/config",
    "sidecar.istio.io/interceptionMode",
    "sidecar.istio.io/nativeSidecar",
    "sidecar.istio.io/componentLogLevel",
    "sidecar.istio.io/agentLogLevel",
    "sidecar.istio.io/userVolume",
    "sidecar.istio.io/userVolumeMount",
    "status.sidecar.istio.io/port",
    "readiness.status.sidecar.istio.io/initialDelaySeconds",
    "readiness.status.sidecar.istio.io/periodSeconds",
    "readiness.status.sidecar.istio.io/failureThreshold",
];

/// The annotation that names a template.
const TEMPLATES: &str = "inject.istio.io/templates";

/// Annotations that are ports.
const PORTS: [&str; 4] =
    ["includeInboundPorts", "excludeInboundPorts", "includeOutboundPorts", "excludeOutboundPorts"];

/// The names of what is put into pods, which a pod may not have itself.
const VOLUMES: [&str; 5] = ["istio-envoy", "istio-data", "istio-podinfo", "istio-token", "istiod-ca-cert"];

fn condition(name: &str, expression: String) -> Value {
    json!({"name": name, "expression": expression})
}

/// Whether the labels or the annotations of the pod have a name.
fn has(texts: &str, name: &str) -> String {
    format!("(has(object.metadata.{texts}) && {} in object.metadata.{texts})", quote(name))
}

/// What a label or an annotation of the pod says, which is there.
fn says(texts: &str, name: &str) -> String {
    format!("object.metadata.{texts}[{}]", quote(name))
}

/// Whether a pod of those that are asked about gets a proxy. Conditions know no variables.
pub(super) fn conditions(settings: &Settings) -> Vec<Value> {
    let ignored = quoted(settings.ignored_namespaces.iter().map(String::as_str));
    let any = |selectors: &[Selector]| match selectors {
        [] => "false".to_owned(),
        selectors => selectors.iter().map(selects).collect::<Vec<_>>().join(" || "),
    };
    let otherwise = format!(
        "(!({}) && (({}) || {}))",
        any(&settings.never),
        any(&settings.always),
        settings.enabled_by_default
    );
    let (label, annotation) = (has("labels", INJECT), has("annotations", INJECT));
    let stated = |texts: &str| {
        let said = says(texts, INJECT);
        format!("({said} == \"\" ? {otherwise} : {said}.lowerAscii() in {})", quoted(TRUE))
    };
    vec![
        condition("not-of-the-node", "!has(object.spec.hostNetwork) || !object.spec.hostNetwork".to_owned()),
        condition("not-of-the-cluster", format!("!(request.namespace in {ignored})")),
        condition(
            "wanted",
            format!(
                "{label} ? {} : {annotation} ? {} : {otherwise}",
                stated("labels"),
                stated("annotations")
            ),
        ),
    ]
}

/// Whether a selector selects the pod.
fn selects(selector: &Selector) -> String {
    let Selector { match_labels, match_expressions } = selector;
    let is_among = |key: &str, values: String| {
        format!("({} && {} in {values})", has("labels", key), says("labels", key))
    };
    let mut all: Vec<String> =
        match_labels.iter().map(|(key, value)| is_among(key, quoted([value.as_str()]))).collect();
    for Requirement { key, operator, values } in match_expressions {
        let values = quoted(values.iter().map(String::as_str));
        all.push(match operator {
            Operator::In => is_among(key, values),
            Operator::NotIn => format!("!{}", is_among(key, values)),
            Operator::Exists => has("labels", key),
            Operator::DoesNotExist => format!("!{}", has("labels", key)),
        });
    }
    if all.is_empty() { "false".to_owned() } else { format!("({})", all.join(" && ")) }
}

/// Whether the policy can inject a pod that gets a proxy, and has not been injected.
pub(super) fn heeded() -> Vec<Value> {
    vec![
        condition("not-injected", format!("!{}", has("annotations", STATUS))),
        condition("heeded", format!("!{}", unheeded())),
        condition("templates", known_template()),
        condition("names", free_names()),
    ]
}

fn unheeded() -> String {
    let names = quoted(UNHEEDED);
    format!("(has(object.metadata.annotations) && {names}.exists(a, a in object.metadata.annotations))")
}

fn known_template() -> String {
    let said = says("annotations", TEMPLATES);
    format!("(!{} || {said}.trim() in {})", has("annotations", TEMPLATES), quoted(["", "sidecar"]))
}

fn free_names() -> String {
    let containers = quoted([PROXY, INIT]);
    let free = |list: &str, names: &str| {
        format!("(!has(object.spec.{list}) || !object.spec.{list}.exists(x, x.name in {names}))")
    };
    [free("containers", &containers), free("initContainers", &containers), free("volumes", &quoted(VOLUMES))]
        .join(" && ")
}

/// What is refused, and in which words: who has been injected passes.
pub(super) fn validations() -> Vec<Value> {
    let injected = has("annotations", STATUS);
    let refuse = |passes: String, reason: String| {
        let message = format!(
            "no proxy can be injected by the policy: {reason}; inject the pod with `navarch inject`, or use the webhook"
        );
        let expression = format!("{injected} || {passes}");
        json!({"expression": expression, "message": message, "reason": "Invalid"})
    };
    let mut all: Vec<Value> = UNHEEDED
        .iter()
        .map(|name| {
            refuse(
                format!("!{}", has("annotations", name)),
                format!("it does not heed the annotation {name}"),
            )
        })
        .collect();
    all.push(refuse(
        known_template(),
        format!("it does not know the template of the annotation {TEMPLATES}"),
    ));
    all.push(refuse(
        free_names(),
        "the pod has a container or a volume of a name that is put into it".to_owned(),
    ));
    for name in PORTS {
        let name = format!("traffic.sidecar.istio.io/{name}");
        let is_stated = has("annotations", &name);
        let are_ports =
            format!("{}.trim().matches(\"^([*]|[0-9]+(,[0-9]+)*)?$\")", says("annotations", &name));
        all.push(json!({
            "expression": format!("!{is_stated} || {are_ports}"),
            "message": format!("no proxy can be injected: the annotation {name} is not ports"),
            "reason": "Invalid",
        }));
    }
    all.push(json!({
        "expression": injected,
        "message": "no proxy has been injected: the MutatingAdmissionPolicy of this name is not in force",
        "reason": "Invalid",
    }));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template;
    use crate::wishes::Wishes;

    #[test]
    fn the_volumes_are_those_of_the_template() {
        let settings = Settings::default();
        let wishes = Wishes::read(&settings, &Default::default()).unwrap();
        let made = template::make(&settings, &wishes, "", &Default::default(), &Default::default());
        let names: Vec<&str> = made.volumes.iter().map(|volume| volume.name.as_str()).collect();
        assert_eq!(names, VOLUMES);
    }
}
