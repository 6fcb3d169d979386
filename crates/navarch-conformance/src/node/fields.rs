//! What a pod may ask of itself: fields in the environment of its containers and in its files.

use crate::{
    names::NODE,
    objects::{name, namespace, text, uid},
};
use anyhow::{Result, bail};
use navarch_testkit::network::Network;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr};

/// A field of a pod with an address, as the downward API gives it.
pub fn field(pod: &Value, address: IpAddr, path: &str) -> Result<String> {
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        return Ok(text(pod, &format!("/{}/{}", map.replace('.', "/"), escaped(key))).to_owned());
    }
    Ok(match path {
        "metadata.name" => name(pod).to_owned(),
        "metadata.namespace" => namespace(pod).to_owned(),
        "metadata.uid" => uid(pod).to_owned(),
        "metadata.labels" | "metadata.annotations" => all(&pod["metadata"][&path["metadata.".len()..]]),
        "spec.serviceAccountName" => text(pod, "/spec/serviceAccountName").to_owned(),
        "spec.nodeName" => NODE.to_owned(),
        "status.podIP" | "status.podIPs" => address.to_string(),
        "status.hostIP" => Ipv4Addr::from(Network::HUB).to_string(),
        other => bail!("the field {other} of a pod is not known here"),
    })
}

/// A key as a part of a JSON pointer.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// A line for each entry of a map, with its value in quotes.
fn all(map: &Value) -> String {
    let entries = map.as_object().into_iter().flatten();
    entries.map(|(key, value)| format!("{key}={value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_those_of_the_downward_api() {
        let metadata = json!({"name": "web-1", "namespace": "shop", "labels": {"a.io/b": "c", "d": "e"}});
        let pod = json!({"metadata": metadata, "spec": {"serviceAccountName": "web"}});
        for (path, expected) in [
            ("metadata.name", Some("web-1")),
            ("metadata.labels['a.io/b']", Some("c")),
            ("metadata.labels['none']", Some("")),
            ("metadata.labels", Some("a.io/b=\"c\"\nd=\"e\"\n")),
            ("metadata.annotations", Some("")),
            ("status.podIP", Some("10.77.0.9")),
            ("spec.serviceAccountName", Some("web")),
            ("spec.restartPolicy", None),
        ] {
            let found = field(&pod, [10, 77, 0, 9].into(), path).ok();
            assert_eq!(found.as_deref(), expected, "{path}");
        }
    }
}
