//! Which namespaces the mesh looks at (Istio: MeshConfig, `discoverySelectors`).

use navarch_model::kinds::Kind;
use navarch_model::mesh::{LabelSelector, MeshConfig};
use navarch_model::object::{Object, ObjectKey};
use navarch_model::{ClusterId, Labels};

use crate::bound::selects;

/// Whether objects of a namespace are in force, by the labels that it has in their cluster. The root
/// namespace always is; without selectors every one is.
pub(crate) fn is_selected<'a>(
    mesh: &MeshConfig,
    cluster: ClusterId,
    namespace: &str,
    find: impl FnOnce(&ObjectKey) -> Option<&'a Object>,
) -> bool {
    if mesh.discovery_selectors.is_empty() || namespace == mesh.root_namespace || namespace.is_empty() {
        return true;
    }
    let none = Labels::default();
    let object = find(&ObjectKey::of(cluster, Kind::Namespace, "", namespace));
    let labels = object.map_or(&none, |object| &object.metadata.labels);
    mesh.discovery_selectors.iter().any(|selector| matches(selector, labels))
}

/// Kubernetes' label selector: all of its requirements hold. An empty selector matches everything.
pub(crate) fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    selects(&selector.match_labels, labels)
        && selector.match_expressions.iter().all(|requirement| {
            let value = labels.get(requirement.key.as_str());
            let listed =
                || value.is_some_and(|value| requirement.values.iter().any(|listed| **listed == **value));
            match requirement.operator.as_str() {
                "In" => listed(),
                "NotIn" => !listed(),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                // Validation reports other operators.
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use navarch_model::mesh::LabelSelectorRequirement;

    #[test]
    fn label_selectors() {
        let labels: Labels = [("env".into(), "prod".into()), ("tier".into(), "web".into())].into();
        let check = |key: &str, operator: &str, values: &[&str], expected: bool| {
            let selector = LabelSelector {
                match_labels: [("env".to_owned(), "prod".to_owned())].into(),
                match_expressions: vec![LabelSelectorRequirement {
                    key: key.into(),
                    operator: operator.into(),
                    values: values.iter().map(|value| (*value).to_owned()).collect(),
                }],
            };
            assert_eq!(matches(&selector, &labels), expected, "{key} {operator} {values:?}");
        };
        check("tier", "In", &["web", "db"], true);
        check("tier", "In", &["db"], false);
        check("tier", "NotIn", &["db"], true);
        check("other", "NotIn", &["db"], true);
        check("tier", "Exists", &[], true);
        check("tier", "DoesNotExist", &[], false);
        check("tier", "Nonsense", &[], false);
        assert!(matches(&LabelSelector::default(), &labels));
    }
}
