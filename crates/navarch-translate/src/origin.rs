//! How resources name the object that they stem from: metadata `istio`, for people and tools that read dumps.

use navarch_envoy::proto::envoy::config::core::v3::Metadata;
use navarch_envoy::wkt;
use navarch_model::ObjectKey;

/// Metadata that names an object.
pub(crate) fn metadata(version: &str, key: &ObjectKey) -> Metadata {
    wkt::metadata("istio", wkt::structure([("config", wkt::string(path(version, key)))]))
}

/// `/apis/networking.istio.io/v1/namespaces/default/destination-rule/reviews`. The version is the one that
/// istiod writes in this place, not the one of the object.
pub(crate) fn path(version: &str, key: &ObjectKey) -> String {
    let (group, kind) = (key.kind.group(), hyphenated(key.kind.as_str()));
    format!("/apis/{group}/{version}/namespaces/{}/{kind}/{}", key.namespace, key.name)
}

/// `DestinationRule` as `destination-rule`, `HTTPRoute` as `http-route`.
fn hyphenated(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let letters: Vec<char> = name.chars().collect();
    for (index, letter) in letters.iter().enumerate() {
        let after_lower = index > 0 && letters.get(index - 1).is_some_and(|c| c.is_ascii_lowercase());
        let before_lower = index > 0 && letters.get(index + 1).is_some_and(|c| c.is_ascii_lowercase());
        if letter.is_ascii_uppercase() && (after_lower || before_lower) {
            out.push('-');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use navarch_model::Kind;

    #[test]
    fn objects_are_named_as_istiod_names_them() {
        let key = ObjectKey::new(Kind::DestinationRule, "default", "reviews");
        assert_eq!(
            path("v1", &key),
            "/apis/networking.istio.io/v1/namespaces/default/destination-rule/reviews"
        );
        for (name, expected) in [
            ("Sidecar", "sidecar"),
            ("DestinationRule", "destination-rule"),
            ("HTTPRoute", "http-route"),
            ("TLSRoute", "tls-route"),
        ] {
            assert_eq!(hyphenated(name), expected);
        }
    }
}
