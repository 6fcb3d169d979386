//! Texts that many objects have in common, such as keys of labels, held once.

use std::collections::HashSet;
use std::sync::Arc;

use navarch_model::object::Object;
use navarch_model::{Labels, Name};

/// The texts of a list while it is read. Objects that have been shared keep what they need of it.
#[derive(Debug, Default)]
pub(crate) struct Pool(HashSet<Name>);

impl Pool {
    /// Has an object share labels, annotations and its namespace with those before it.
    pub(crate) fn share(&mut self, object: &mut Object) {
        object.key.namespace = self.name(&object.key.namespace);
        // Nobody else has seen it yet.
        let Some(metadata) = Arc::get_mut(&mut object.metadata) else { return };
        metadata.namespace = object.key.namespace.clone();
        metadata.name = object.key.name.clone();
        metadata.labels = self.labels(&metadata.labels);
        metadata.annotations = self.labels(&metadata.annotations);
    }

    fn labels(&mut self, labels: &Labels) -> Labels {
        labels.iter().map(|(key, value)| (self.name(key), self.name(value))).collect()
    }

    fn name(&mut self, name: &Name) -> Name {
        if let Some(known) = self.0.get(&**name) {
            return known.clone();
        }
        self.0.insert(name.clone());
        name.clone()
    }
}

#[cfg(test)]
mod tests {
    use navarch_model::parse_text;

    use super::*;

    #[test]
    fn what_objects_have_in_common_is_there_once() {
        let pod = |name: &str| {
            let labels = "labels: {app: web, version: v1}, annotations: {note: web}";
            let text =
                format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, {labels}}}\n");
            parse_text("a.yaml", &text).objects.remove(0)
        };
        let mut pool = Pool::default();
        let [one, other] = ["a", "b"].map(|name| {
            let mut shared = pod(name);
            pool.share(&mut shared);
            assert_eq!(shared.metadata, pod(name).metadata);
            shared
        });
        let value = |labels: &Labels, key: &str| labels.get(key).cloned().expect("a value");
        let web = value(&one.metadata.labels, "app");
        assert!(Arc::ptr_eq(&web, &value(&other.metadata.labels, "app")));
        assert!(Arc::ptr_eq(&web, &value(&other.metadata.annotations, "note")));
        assert!(Arc::ptr_eq(&one.key.namespace, &other.metadata.namespace));
    }
}
