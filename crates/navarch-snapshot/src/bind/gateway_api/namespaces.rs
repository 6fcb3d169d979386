//! Which namespaces a gateway means.

use navarch_model::gateway_api::NamespacesFrom;
use navarch_model::listener::NO_NAMESPACE;
use navarch_model::mesh::LabelSelector;
use navarch_model::{ClusterId, Kind, Labels, Name, ObjectKey};

use crate::namespaces::matches;
use crate::registry::store::Reader;

/// The label that the API server gives every namespace. It is there even if a file leaves it out.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The namespaces that may attach something to an object of `own`, as hosts of listeners state them: `None`
/// stands for all.
pub fn chosen(
    reader: &Reader<'_>,
    own: &Name,
    from: NamespacesFrom,
    selector: Option<&LabelSelector>,
) -> Vec<Option<Name>> {
    let selected = match (from, selector) {
        (NamespacesFrom::All, _) | (NamespacesFrom::Selector, None) => return vec![None],
        (NamespacesFrom::Same, _) => return vec![Some(own.clone())],
        (NamespacesFrom::None, _) => Vec::new(),
        (NamespacesFrom::Selector, Some(selector)) => {
            let namespaces = reader.namespaces();
            let selected =
                namespaces.filter(|object| is_selected(selector, &object.key.name, &object.metadata.labels));
            selected.map(|object| Some(object.key.name.clone())).collect()
        }
    };
    match selected.is_empty() {
        true => vec![Some(Name::from(NO_NAMESPACE))],
        false => selected,
    }
}

/// Whether an object of `namespace` may be attached to one of `own`.
pub fn includes(
    reader: &Reader<'_>,
    own: &Name,
    namespace: &Name,
    from: NamespacesFrom,
    selector: Option<&LabelSelector>,
) -> bool {
    match (from, selector) {
        (NamespacesFrom::All, _) => true,
        (NamespacesFrom::Same, _) => own == namespace,
        (NamespacesFrom::None, _) | (NamespacesFrom::Selector, None) => false,
        (NamespacesFrom::Selector, Some(selector)) => {
            let key = ObjectKey::of(ClusterId::LOCAL, Kind::Namespace, "", namespace);
            let object = reader.object(&key);
            object.is_some_and(|object| is_selected(selector, namespace, &object.metadata.labels))
        }
    }
}

fn is_selected(selector: &LabelSelector, namespace: &Name, labels: &Labels) -> bool {
    let named = labels.get(NAME_LABEL).is_some_and(|stated| stated == namespace);
    if named {
        return matches(selector, labels);
    }
    let own = labels.iter().map(|(key, value)| (key.clone(), value.clone()));
    let labels: Labels = own.chain([(Name::from(NAME_LABEL), namespace.clone())]).collect();
    matches(selector, &labels)
}
