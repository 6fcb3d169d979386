//! Which pods and objects an API server asks the webhooks about, or has a policy for.

use navarch_inject::decide::{INJECT, INJECTION, REVISION};
use navarch_inject::policy::{Selected, policies};
use navarch_model::revision::DEFAULT;
use serde_json::{Value, json};

use crate::options::{Injection, Options};

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
    let of_tags = options.tags.iter().map(|tag| Some(tag.as_str()));
    let names = [None].into_iter().chain(of_tags);
    match options.injection {
        Injection::Webhook => all.extend(names.map(|tag| injection(options, tag))),
        Injection::Policy => all.extend(policy(options, names)),
        Injection::None => {}
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

/// Which pods the revision, or one of its tags, is asked about: a name, selectors of the labels of namespaces
/// and of those of pods. No two select the same pod.
fn selected(options: &Options, tag: Option<&str>) -> Vec<(&'static str, Vec<Value>, Vec<Value>)> {
    let called = tag.unwrap_or(&options.revision);
    let not_false = is(INJECT, "NotIn", &["false"]);
    // What `navarch_inject::decide::is_asked_about` says, in the order in which it says it.
    let mut all = vec![
        (
            "rev.namespace",
            vec![is(REVISION, "In", &[called]), is(INJECTION, "DoesNotExist", &[])],
            vec![not_false.clone()],
        ),
        (
            "rev.object",
            vec![is(REVISION, "DoesNotExist", &[]), is(INJECTION, "DoesNotExist", &[])],
            vec![not_false.clone(), is(REVISION, "In", &[called])],
        ),
    ];
    if called == DEFAULT {
        all.push(("namespace", vec![is(INJECTION, "In", &["enabled"])], vec![not_false]));
        all.push((
            "object",
            vec![is(INJECTION, "DoesNotExist", &[]), is(REVISION, "DoesNotExist", &[])],
            vec![is(INJECT, "In", &["true"]), is(REVISION, "DoesNotExist", &[])],
        ));
    }
    all
}

/// The policies, a pair for the revision with all of its tags, bound to what a webhook would be asked about.
fn policy<'a>(options: &Options, names: impl Iterator<Item = Option<&'a str>>) -> Vec<Value> {
    let bound = names.flat_map(|tag| {
        let name = injection_configuration(options, tag);
        selected(options, tag).into_iter().map(move |(hook, namespaces, pods)| Selected {
            name: format!("{name}.{hook}"),
            namespaces: json!({"matchExpressions": namespaces}),
            pods: json!({"matchExpressions": pods}),
        })
    });
    let (settings, name) = (options.injection_settings(), injection_configuration(options, None));
    // Settings that cannot be used are found before (`Options::check`).
    let mut made = policies(&settings, &name, &bound.collect::<Vec<_>>()).unwrap_or_default();
    for object in &mut made {
        object["metadata"]["labels"] = json!({REVISION: options.revision});
    }
    made
}

fn injection(options: &Options, tag: Option<&str>) -> Value {
    let called = tag.unwrap_or(&options.revision);
    let hooks: Vec<Value> = selected(options, tag)
        .iter()
        .map(|(name, namespaces, pods)| hook(options, name, namespaces, pods))
        .collect();
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
    let names = options.tags.iter().map(String::as_str).chain([options.revision.as_str()]);
    let called = is(REVISION, "In", &names.collect::<Vec<_>>());
    let unnamed = is(REVISION, "DoesNotExist", &[]);
    // Whoever acts upon an object (`navarch_model::Revision::whose`) says what is wrong with it.
    let (unnamed, called) = (std::slice::from_ref(&unnamed), std::slice::from_ref(&called));
    let mut hooks = vec![
        validator(options, "rev.object", &groups, &[], called),
        validator(options, "rev.namespace", &groups, called, unnamed),
    ];
    if options.is_default() {
        hooks.push(validator(options, "default", &groups, unnamed, unnamed));
    }
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": validation_configuration(options), "labels": {REVISION: options.revision}},
        "webhooks": hooks,
    })
}

fn validator(
    options: &Options,
    name: &str,
    groups: &[&str],
    namespaces: &[Value],
    objects: &[Value],
) -> Value {
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
        "namespaceSelector": {"matchExpressions": namespaces},
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
    use navarch_model::Whose;

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
            let revision = options.injection_settings().called();
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
                            let decided = is_asked_about(&revision, &namespace, &pod);
                            assert_eq!(
                                asked > 0,
                                decided.is_ok(),
                                "{revision:?} {namespace:?} {pod:?} {decided:?}"
                            );
                            assert!(asked < 2, "{revision:?} {namespace:?} {pod:?}: asked {asked} times");
                            tried += 1;
                        }
                    }
                }
            }
        }
        assert_eq!(tried, 3 * 3 * 5 * 4 * 3);
    }

    /// One webhook of one revision is asked about an object: that of whoever acts upon it.
    #[test]
    fn objects_are_shown_to_whom_they_belong() {
        let names = ["", "default", "canary", "prod", "other"];
        let labels = |name: &str| -> BTreeMap<String, String> {
            let label = (!name.is_empty()).then(|| (REVISION.to_owned(), name.to_owned()));
            label.into_iter().collect()
        };
        for (revision, tags) in [("default", vec![]), ("canary", vec![]), ("canary", vec!["prod", "default"])]
        {
            let tags = tags.into_iter().map(str::to_owned).collect();
            let options = Options { revision: revision.to_owned(), tags, ..Options::default() };
            let revision = options.injection_settings().called();
            let hooks = validation(&options)["webhooks"].as_array().unwrap().clone();
            for (namespace, object) in names.iter().flat_map(|of| names.map(|object| (*of, object))) {
                let asked = hooks.iter().filter(|hook| {
                    selects(&hook["namespaceSelector"], &labels(namespace))
                        && selects(&hook["objectSelector"], &labels(object))
                });
                let ours = revision.whose(object, namespace) == Whose::Ours;
                assert_eq!(asked.count(), usize::from(ours), "{revision:?} {namespace:?} {object:?}");
            }
        }
    }

    fn selects(selector: &Value, labels: &BTreeMap<String, String>) -> bool {
        let selector: Selector = serde_json::from_value(selector.clone()).unwrap();
        // One of an API server that says nothing selects everything.
        selector == Selector::default() || selector.selects(labels)
    }
}
