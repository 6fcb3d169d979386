//! Where objects are in the API of Kubernetes.

use serde_json::Value;

/// Kinds that are installed: group and version, kind, name in URLs, whether they are in namespaces.
const KINDS: &[(&str, &str, &str, bool)] = &[
    ("v1", "Namespace", "namespaces", false),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", false),
    ("v1", "ServiceAccount", "serviceaccounts", true),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", false),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", false),
    ("rbac.authorization.k8s.io/v1", "Role", "roles", true),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings", true),
    ("v1", "ConfigMap", "configmaps", true),
    ("v1", "Service", "services", true),
    ("apps/v1", "Deployment", "deployments", true),
    ("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", true),
    ("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true),
    ("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", true),
    ("monitoring.coreos.com/v1", "ServiceMonitor", "servicemonitors", true),
    (
        "admissionregistration.k8s.io/v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        false,
    ),
    (
        "admissionregistration.k8s.io/v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        false,
    ),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", false),
    (
        "admissionregistration.k8s.io/v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
        false,
    ),
    ("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicy", "mutatingadmissionpolicies", false),
    (
        "admissionregistration.k8s.io/v1",
        "MutatingAdmissionPolicyBinding",
        "mutatingadmissionpolicybindings",
        false,
    ),
];

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The path of all objects of the kind, in the namespace if there are namespaces.
    pub collection: String,
    pub name: String,
    /// As people call it: `Deployment istio-system/navarch`.
    pub title: String,
}

impl Place {
    /// The path of the object.
    pub fn path(&self) -> String {
        format!("{}/{}", self.collection, self.name)
    }
}

/// Where an object of an installation is; `None` if its kind is not one that is installed.
pub fn place(object: &Value) -> Option<Place> {
    let text = |value: &Value, key: &str| Some(value.get(key)?.as_str()?.to_owned());
    let (version, kind) = (text(object, "apiVersion")?, text(object, "kind")?);
    let metadata = object.get("metadata")?;
    let name = text(metadata, "name")?;
    let &(_, _, plural, namespaced) = KINDS.iter().find(|(v, k, ..)| *v == version && *k == kind)?;
    let (collection, title) = match namespaced {
        true => {
            let namespace = text(metadata, "namespace")?;
            let title = format!("{kind} {namespace}/{name}");
            (collection(&version, plural, Some(&namespace)), title)
        }
        false => (collection(&version, plural, None), format!("{kind} {name}")),
    };
    Some(Place { collection, name, title })
}

/// The collections in which an installation in `namespace` may have left objects behind, with the kind of
/// each, the last installed first.
pub fn prunable(namespace: &str) -> Vec<(&'static str, String)> {
    let kinds =
        KINDS.iter().rev().filter(|(_, kind, ..)| !matches!(*kind, "Namespace" | "CustomResourceDefinition"));
    kinds
        .map(|(version, kind, plural, namespaced)| {
            (*kind, collection(version, plural, namespaced.then_some(namespace)))
        })
        .collect()
}

fn collection(version: &str, plural: &str, namespace: Option<&str>) -> String {
    let base = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
    match namespace {
        Some(namespace) => format!("{base}/namespaces/{namespace}/{plural}"),
        None => format!("{base}/{plural}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_have_paths() {
        let check = |version: &str, kind: &str, expected: Option<&str>| {
            let object =
                json!({"apiVersion": version, "kind": kind, "metadata": {"name": "a", "namespace": "b"}});
            assert_eq!(place(&object).map(|place| place.path()).as_deref(), expected);
        };
        check("v1", "Service", Some("/api/v1/namespaces/b/services/a"));
        check("v1", "Namespace", Some("/api/v1/namespaces/a"));
        check("apps/v1", "Deployment", Some("/apis/apps/v1/namespaces/b/deployments/a"));
        check("v1", "Pod", None);
    }

    #[test]
    fn everything_that_is_installed_has_a_place_and_labels() {
        let options = crate::Options { monitor: true, ..crate::Options::default() };
        for object in crate::manifests(&options, &[], Vec::new()) {
            let place = place(&object).unwrap_or_else(|| panic!("{object}"));
            let labels = &object["metadata"]["labels"]["app.kubernetes.io/instance"];
            assert_eq!(labels.is_string(), !crate::is_kept(&object), "{}", place.title);
            let is_found = prunable("istio-system").iter().any(|(_, path)| *path == place.collection);
            assert_eq!(is_found, !crate::is_kept(&object), "{}", place.title);
        }
    }
}
