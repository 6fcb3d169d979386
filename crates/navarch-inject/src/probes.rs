//! Probes of the application, led through the agent.
//!
//! The kubelet has no certificate of the mesh and comes from outside the pod, so that a proxy that demands
//! mutual TLS would refuse its probes. It asks the agent in its place (`/app-health/<container>/readyz`),
//! which asks the application from within. What the probe asked is in a variable of the agent.

use serde_json::{Map, Value, json};

use crate::json::{self, Object};

/// The variable that holds what probes asked, by path.
pub(crate) const PROBERS: &str = "ISTIO_KUBE_APP_PROBERS";

pub(crate) const PROBES: [(&str, &str); 3] =
    [("startupProbe", "startupz"), ("livenessProbe", "livez"), ("readinessProbe", "readyz")];

/// Rewrites the probes of all containers, and gives what they asked as the agent wants it; `None` if there
/// are none.
pub(crate) fn rewrite(spec: &mut Object, status_port: u16) -> Option<String> {
    if status_port == 0 {
        return None;
    }
    let mut probers = Map::new();
    for key in ["initContainers", "containers"] {
        for container in json::list(spec, key)?.iter_mut().filter_map(Value::as_object_mut) {
            let name = json::text(container, "name").to_owned();
            let ports = json::items(container, "ports").to_vec();
            for (field, path) in PROBES {
                let Some(Value::Object(probe)) = container.get_mut(field) else { continue };
                let path = format!("/app-health/{name}/{path}");
                if let Some(asked) = lead(probe, &path, status_port, &ports) {
                    probers.insert(path, asked);
                }
            }
        }
        json::remove_empty(spec, key);
    }
    (!probers.is_empty()).then(|| Value::Object(probers).to_string())
}

/// Leads a probe to the agent; what it asked, unless it is one that stays: one that runs a command, one that
/// asks somebody else than the pod, and one over HTTPS, which the agent does not ask for.
fn lead(probe: &mut Object, path: &str, status_port: u16, ports: &[Value]) -> Option<Value> {
    let key = ["httpGet", "tcpSocket", "grpc"].into_iter().find(|key| probe.contains_key(*key))?;
    let mut asked = probe.get(key)?.as_object()?.clone();
    let port = number(asked.get("port")?, ports)?;
    let is_https = json::text(&asked, "scheme").eq_ignore_ascii_case("https");
    if is_https || !json::text(&asked, "host").is_empty() {
        return None;
    }
    asked.insert("port".to_owned(), json!(port));
    let mut prober = Map::from_iter([(key.to_owned(), Value::Object(asked))]);
    if let Some(timeout) = probe.get("timeoutSeconds") {
        prober.insert("timeoutSeconds".to_owned(), timeout.clone());
    }
    let at = probe.keys().position(|there| there == key)?;
    probe.shift_remove(key);
    probe.shift_insert(at, "httpGet".to_owned(), json!({"path": path, "port": status_port}));
    Some(Value::Object(prober))
}

/// The number of a port that may be named.
fn number(port: &Value, ports: &[Value]) -> Option<u16> {
    let of = |value: &Value| u16::try_from(value.as_u64()?).ok();
    match port {
        Value::Number(_) => of(port),
        Value::String(name) => name.parse().ok().or_else(|| {
            let named = ports.iter().find(|port| json::name(port) == name)?;
            of(named.get("containerPort")?)
        }),
        _ => None,
    }
}

/// Puts the probes back that a former injection has rewritten.
pub(crate) fn restore(spec: &mut Object, probers: &str) {
    let Ok(Value::Object(probers)) = serde_json::from_str(probers) else { return };
    for key in ["initContainers", "containers"] {
        let Some(containers) = json::list(spec, key) else { continue };
        for container in containers.iter_mut().filter_map(Value::as_object_mut) {
            let name = json::text(container, "name").to_owned();
            for (field, path) in PROBES {
                let Some(Value::Object(probe)) = container.get_mut(field) else { continue };
                let path = format!("/app-health/{name}/{path}");
                let asks = probe.get("httpGet").and_then(|get| get.get("path")).and_then(Value::as_str);
                let prober = probers.get(&path).and_then(Value::as_object);
                let (Some(prober), true) = (prober, asks == Some(&path)) else { continue };
                let at = probe.keys().position(|there| there == "httpGet").unwrap_or_default();
                probe.shift_remove("httpGet");
                for (kind, asked) in prober.iter().filter(|(kind, _)| *kind != "timeoutSeconds") {
                    let at = at.min(probe.len());
                    probe.shift_insert(at, kind.clone(), asked.clone());
                }
            }
        }
        json::remove_empty(spec, key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A probe, what becomes of it, and what the agent is told.
    #[test]
    fn probes_are_led_to_the_agent_and_back() {
        let check = |probe: Value, expected: Option<Value>| {
            let containers = json!([{
                "name": "web",
                "ports": [{"name": "http", "containerPort": 8080}],
                "readinessProbe": probe,
            }]);
            let Value::Object(before) = json!({"containers": containers}) else { panic!() };
            let mut spec = before.clone();
            let probers = rewrite(&mut spec, 15020);
            let told: Option<Value> = probers.as_deref().map(|text| serde_json::from_str(text).unwrap());
            let path = "/app-health/web/readyz";
            assert_eq!(told, expected.map(|asked| json!({path: asked})), "{before:?}");
            if let Some(probers) = probers {
                assert_eq!(
                    spec["containers"][0]["readinessProbe"]["httpGet"],
                    json!({"path": path, "port": 15020})
                );
                restore(&mut spec, &probers);
                let again = rewrite(&mut spec.clone(), 15020);
                assert_eq!(again.as_deref(), Some(probers.as_str()));
            } else {
                assert_eq!(spec, before);
            }
        };
        let get = json!({"path": "/ready", "port": 8080});
        check(json!({"httpGet": get}), Some(json!({"httpGet": get})));
        check(json!({"httpGet": {"path": "/ready", "port": "http"}}), Some(json!({"httpGet": get})));
        let timed = json!({"httpGet": get, "timeoutSeconds": 3, "periodSeconds": 5});
        check(timed, Some(json!({"httpGet": get, "timeoutSeconds": 3})));
        let socket = json!({"tcpSocket": {"port": "http"}});
        check(socket, Some(json!({"tcpSocket": {"port": 8080}})));
        let grpc = json!({"grpc": {"port": 9000, "service": "s"}});
        check(grpc.clone(), Some(grpc));
        // What stays.
        check(json!({"exec": {"command": ["true"]}}), None);
        check(json!({"httpGet": {"path": "/", "port": 8443, "scheme": "HTTPS"}}), None);
        check(json!({"httpGet": {"path": "/", "port": 8080, "host": "other"}}), None);
        check(json!({"httpGet": {"path": "/", "port": "unknown"}}), None);
        check(json!({"httpGet": "what"}), None);
    }
}
