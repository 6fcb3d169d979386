//! Which pods and objects an API server asks the webhooks about.

use navarch_inject::decide::{INJECT, INJECTION, REVISION};
use serde_json::{Value, json};

use crate::options::Options;

/// The name of the configuration of injection for a revision or one of its tags.
pub fn injection_configuration(options: &Options, tag: Option<&str>) -> String {
    match tag {
        None => format!("{}-injector", options.cluster_name()),
        Some(tag) => format!("navarch-tag-{tag}-{}", options.namespace),
    }
}

/// The name of the configuration of validation.
pub fn validation_configuration(options: &Options) -> String {
    format!("{}-validator", options.cluster_name())
}

pub(crate) fn configurations(options: &Options) -> Vec<Value> {
    let mut all = Vec::new();
    if options.validation {
        all.push(validation(options));
    }
    if options.injection {
        let of_tags = options.tags.iter().map(|tag| injection(options, Some(tag)));
        all.push(injection(options, None));
        all.extend(of_tags);
    }
    all
}

/// A condition of a selector.
fn is(key: &str, operator: &str, values: &[&str]) -> Value {
    match values {
        [] => json!({"key": key, "operator": operator}),
        values => json!({"key": key, "operator": operator, "values": values}),
    }
}

fn injection(options: &Options, tag: Option<&str>) -> Value {
    let called = tag.unwrap_or(&options.revision);
    let not_false = is(INJECT, "NotIn", &["false"]);
    // What `navarch_inject::decide::is_asked_about` says, in the order in which it says it.
    let mut hooks = vec![
        hook(
            options,
            "rev.namespace",
            &[is(REVISION, "In", &[called]), is(INJECTION, "DoesNotExist", &[])],
            std::slice::from_ref(&not_false),
        ),
        hook(
            options,
            "rev.object",
            &[is(REVISION, "DoesNotExist", &[]), is(INJECTION, "DoesNotExist", &[])],
            &[not_false.clone(), is(REVISION, "In", &[called])],
        ),
    ];
    if called == "default" {
        hooks.push(hook(options, "namespace", &[is(INJECTION, "In", &["enabled"])], &[not_false]));
        hooks.push(hook(
            options,
            "object",
            &[is(INJECTION, "DoesNotExist", &[]), is(REVISION, "DoesNotExist", &[])],
            &[is(INJECT, "In", &["true"]), is(REVISION, "DoesNotExist", &[])],
        ));
    }
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {
            "name": injection_configuration(options, tag),
            "labels": {REVISION: options.revision, "istio.io/tag": called},
        },
        "webhooks": hooks,
    })
}

fn hook(options: &Options, name: &str, namespaces: &[Value], pods: &[Value]) -> Value {
    json!({
        "name": format!("{name}.sidecar-injector.istio.io"),
        "admissionReviewVersions": ["v1"],
        "clientConfig": client(options, "/inject"),
        // Without an answer there is no pod: one without a proxy would be outside of the mesh unseen.
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
        "reinvocationPolicy": "Never",
        "sideEffects": "None",
        "timeoutSeconds": 10,
        "namespaceSelector": {"matchExpressions": namespaces},
        "objectSelector": {"matchExpressions": pods},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "*"}],
    })
}

fn validation(options: &Options) -> Value {
    let groups = ["networking.istio.io", "security.istio.io", "telemetry.istio.io", "extensions.istio.io"];
    let mut hooks = vec![validator(options, "rev", &groups, &[is(REVISION, "In", &[&options.revision])])];
    if options.is_default() {
        hooks.push(validator(options, "default", &groups, &[is(REVISION, "DoesNotExist", &[])]));
    }
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": validation_configuration(options), "labels": {REVISION: options.revision}},
        "webhooks": hooks,
    })
}

fn validator(options: &Options, name: &str, groups: &[&str], objects: &[Value]) -> Value {
    json!({
        "name": format!("{name}.validation.istio.io"),
        "admissionReviewVersions": ["v1"],
        "clientConfig": client(options, "/validate"),
        // A control plane that is away must not be the reason that nothing can be changed; what is wrong is
        // a finding then.
        "failurePolicy": "Ignore",
        "matchPolicy": "Equivalent",
        "sideEffects": "None",
        "timeoutSeconds": 5,
        "objectSelector": {"matchExpressions": objects},
        "rules": [{
            "apiGroups": groups,
            "apiVersions": ["*"],
            "operations": ["CREATE", "UPDATE"],
            "resources": ["*"],
            "scope": "*",
        }],
    })
}

/// Where the API server asks. The roots that it trusts for that (`caBundle`) are the control plane's to
/// write.
fn client(options: &Options, path: &str) -> Value {
    json!({"service": {"name": options.name(), "namespace": options.namespace, "path": path, "port": 443}})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use navarch_inject::Selector;
    use navarch_inject::decide::is_asked_about;

    use super::*;

    /// The selectors of the configurations select what the decision says, whatever the labels are.
    #[test]
    fn configurations_ask_about_what_is_decided() {
        let values = |key: &str, values: &[&str]| -> Vec<Option<(String, String)>> {
            let some = values.iter().map(|value| Some((key.to_owned(), (*value).to_owned())));
            some.chain([None]).collect()
        };
        let mut tried = 0;
        for (revision, tags) in [("default", vec![]), ("canary", vec![]), ("canary", vec!["prod", "default"])]
        {
            let tags = tags.into_iter().map(str::to_owned).collect();
            let options = Options { revision: revision.to_owned(), tags, ..Options::default() };
            let settings = options.injection_settings();
            let hooks: Vec<Value> = configurations(&options)
                .iter()
                .filter(|object| object["kind"] == "MutatingWebhookConfiguration")
                .flat_map(|object| object["webhooks"].as_array().unwrap().clone())
                .collect();
            for injection in values(INJECTION, &["enabled", "disabled"]) {
                for of_namespace in values(REVISION, &["default", "canary", "prod", "other"]) {
                    for of_pod in values(REVISION, &["default", "canary", "prod"]) {
                        for inject in values(INJECT, &["true", "false"]) {
                            let namespace: BTreeMap<_, _> =
                                injection.iter().chain(&of_namespace).cloned().collect();
                            let pod: BTreeMap<_, _> = of_pod.iter().chain(&inject).cloned().collect();
                            let asked = hooks.iter().filter(|hook| {
                                selects(&hook["namespaceSelector"], &namespace)
                                    && selects(&hook["objectSelector"], &pod)
                            });
                            let asked = asked.count();
                            let decided = is_asked_about(&settings, &namespace, &pod);
                            assert_eq!(
                                asked > 0,
                                decided.is_ok(),
                                "{revision} {namespace:?} {pod:?} {decided:?}"
                            );
                            assert!(asked < 2, "{revision} {namespace:?} {pod:?}: asked {asked} times");
                            tried += 1;
                        }
                    }
                }
            }
        }
        assert_eq!(tried, 3 * 3 * 5 * 4 * 3);
    }

    fn selects(selector: &Value, labels: &BTreeMap<String, String>) -> bool {
        let selector: Selector = serde_json::from_value(selector.clone()).unwrap();
        selector.selects(labels)
    }
}
