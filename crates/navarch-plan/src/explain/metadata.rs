//! What a resource says of itself: the metadata `istio`.

use navarch_model::kinds::Kind;
use navarch_model::networking::VirtualService;
use navarch_model::object::ObjectKey;
use serde_json::Value;

use super::{Explainer, Part};

/// Adds the objects that anything below `value` names.
pub(super) fn add_sources(explainer: &Explainer<'_>, value: &Value, part: &mut Part) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| add_sources(explainer, item, part)),
        Value::Object(fields) => {
            let istio =
                fields.get("metadata").and_then(|metadata| metadata.get("filterMetadata")?.get("istio"));
            if let Some(key) = istio.and_then(|istio| istio.get("config")?.as_str()).and_then(config_key) {
                let route = fields.get("name").and_then(Value::as_str).unwrap_or_default();
                let field = route_field(explainer, &key, route);
                let role = match route {
                    "" => "shapes it".to_owned(),
                    route => format!("makes route {route}"),
                };
                if explainer.snapshot.object(&key).is_some() {
                    part.add(key, field, role);
                }
            }
            fields.values().for_each(|item| add_sources(explainer, item, part));
        }
        _ => {}
    }
}

/// The field of a VirtualService that a named route stems from.
fn route_field(explainer: &Explainer<'_>, key: &ObjectKey, route: &str) -> String {
    let object = explainer.snapshot.object(key);
    let Some(rule) = object.and_then(|object| object.spec::<VirtualService>()) else {
        return "spec".to_owned();
    };
    let named = |name: &str| !name.is_empty() && (route == name || route.starts_with(&format!("{name}.")));
    match rule.http.iter().position(|http| named(&http.name)) {
        Some(position) => format!("spec.http[{position}]"),
        None if rule.http.len() == 1 => "spec.http[0]".to_owned(),
        None => "spec.http".to_owned(),
    }
}

/// `/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews`
pub(super) fn config_key(path: &str) -> Option<ObjectKey> {
    let mut parts = path.strip_prefix("/apis/")?.split('/');
    let group = parts.next()?;
    let (_version, _namespaces) = (parts.next()?, parts.next()?);
    let (namespace, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
    let kind: String = kind.split('-').map(capitalised).collect();
    Some(ObjectKey::new(Kind::find(group, &kind)?, namespace, name))
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}

pub(super) fn text(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_an_object_is_its_key() {
        let key = config_key("/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews");
        assert_eq!(key, Some(ObjectKey::new(Kind::VirtualService, "default", "reviews")));
        assert_eq!(config_key("/apis/networking.istio.io/v1/namespaces/default/virtual-service"), None);
        assert_eq!(config_key("outbound|80||a"), None);
    }
}
