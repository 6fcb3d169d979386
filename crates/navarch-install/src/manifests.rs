//! All objects of an installation.

use serde_json::{Value, json};

use crate::options::{Options, Rule};
use crate::{control_plane, webhooks};

/// All objects of an installation, in the order in which they are applied. `rules` are the permissions that
/// the control plane needs, and `definitions` the CustomResourceDefinitions that the cluster has to be given.
pub fn manifests(options: &Options, rules: &[Rule], definitions: Vec<Value>) -> Vec<Value> {
    let mut objects = definitions;
    objects.extend(control_plane::namespace(options));
    objects.extend(control_plane::objects(options, rules));
    objects.extend(webhooks::configurations(options));
    for object in &mut objects {
        label(options, object);
    }
    objects
}

/// Labels by which an upgrade finds what an installation before has left behind.
fn label(options: &Options, object: &mut Value) {
    // These outlive the installation: others may rely on them.
    if is_kept(object) {
        return;
    }
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let labels = metadata.entry("labels").or_insert(json!({}));
    if let Some(labels) = labels.as_object_mut() {
        labels.extend(options.labels());
    }
}

/// Whether an object stays when the control plane is uninstalled: its removal would take away what others
/// have made.
pub fn is_kept(object: &Value) -> bool {
    object
        .get("kind")
        .and_then(Value::as_str)
        .is_some_and(|kind| matches!(kind, "Namespace" | "CustomResourceDefinition"))
}

/// Objects as a text in YAML, a document each.
///
/// # Errors
/// None that can be brought about by input: the values are plain.
pub fn to_yaml(objects: &[Value]) -> Result<String, serde_saphyr::ser::Error> {
    let mut text = String::new();
    for object in objects {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(object)?);
    }
    Ok(text)
}
