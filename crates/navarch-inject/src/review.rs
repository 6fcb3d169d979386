//! What an API server asks a webhook, and what it is answered (`admission.k8s.io/v1` AdmissionReview).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use navarch_model::document::{WrittenIn, parse_objects};
use navarch_model::{Finding, Severity};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::Settings;
use crate::decide;
use crate::inject::inject;
use crate::objects::{candidate, owner_of};
use crate::patch::patch;

/// Bytes of a question. An object has at most three megabytes, and a question may hold it twice.
pub const REVIEW_BYTES_MAX: usize = 8 << 20;

/// Findings that an answer tells; the API server cuts long lists itself.
const WARNINGS_MAX: usize = 20;

/// What is asked.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Question {
    #[serde(default)]
    api_version: String,
    request: Option<Asked>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Asked {
    uid: String,
    namespace: String,
    operation: String,
    object: Value,
}

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Why it is refused, if it is.
    pub refused: Option<String>,
    /// What is told to whoever made the request.
    pub warnings: Vec<String>,
    /// What is changed.
    pub patch: Vec<Value>,
}

/// What the webhooks do, by the path that they are asked on.
///
/// `/inject` may go on with settings of its own, `/inject/cluster/<name>/net/<name>`: the webhook
/// configuration of a remote cluster says so whose pods they are.
///
/// # Errors
/// If there is no webhook at this path, or the question is not one.
pub fn answer(settings: &Settings, path: &str, body: &[u8]) -> Result<Value, String> {
    let mut steps = path.trim_matches('/').split('/');
    match steps.next() {
        Some("inject") => {
            let rest: Vec<&str> = steps.collect();
            let mut settings = settings.clone();
            for pair in rest.chunks(2) {
                match *pair {
                    ["cluster", name] => settings.cluster = name.to_owned(),
                    ["net", name] => settings.network = name.to_owned(),
                    _ => {}
                }
            }
            review(body, |namespace, operation, object| injected(&settings, namespace, operation, object))
        }
        Some("validate") => review(body, |_, operation, object| validated(operation, object)),
        _ => Err(format!("there is no webhook at {path}")),
    }
}

/// Reads a question, has it answered, and writes the answer. `answer` is given the namespace, the operation
/// and the object.
///
/// # Errors
/// If the question is not one.
pub fn review(body: &[u8], answer: impl FnOnce(&str, &str, &Value) -> Answer) -> Result<Value, String> {
    if body.len() > REVIEW_BYTES_MAX {
        return Err(format!("the question has more than {REVIEW_BYTES_MAX} bytes"));
    }
    let question: Question =
        serde_json::from_slice(body).map_err(|error| format!("this is no AdmissionReview: {error}"))?;
    let asked = question.request.ok_or("the AdmissionReview asks nothing")?;
    let Answer { refused, warnings, patch } = answer(&asked.namespace, &asked.operation, &asked.object);
    let mut response = Map::new();
    response.insert("uid".to_owned(), json!(asked.uid));
    response.insert("allowed".to_owned(), json!(refused.is_none()));
    if let Some(message) = refused {
        response
            .insert("status".to_owned(), json!({"code": 400, "reason": "BadRequest", "message": message}));
    } else if !patch.is_empty() {
        response.insert("patchType".to_owned(), json!("JSONPatch"));
        response.insert("patch".to_owned(), json!(STANDARD.encode(json!(patch).to_string())));
    }
    if !warnings.is_empty() {
        response.insert("warnings".to_owned(), json!(warnings));
    }
    Ok(json!({"apiVersion": question.api_version, "kind": "AdmissionReview", "response": response}))
}

fn injected(settings: &Settings, namespace: &str, operation: &str, object: &Value) -> Answer {
    // Containers of a pod that is there cannot be changed.
    if !matches!(operation, "" | "CREATE") || object.get("spec").is_none() {
        return Answer::default();
    }
    let stated =
        object.get("metadata").and_then(|metadata| metadata.get("namespace")).and_then(Value::as_str);
    let namespace = stated.filter(|stated| !stated.is_empty()).unwrap_or(namespace);
    if decide::decide(settings, &candidate(namespace, object)).is_err() {
        return Answer::default();
    }
    match inject(settings, namespace, &owner_of(object), object) {
        Ok(injected) => Answer { patch: patch(object, &injected), ..Answer::default() },
        Err(fault) => {
            Answer { refused: Some(format!("no proxy can be injected: {fault}")), ..Answer::default() }
        }
    }
}

/// What `navarch analyze` says of the object alone: errors refuse it, the rest is told.
fn validated(operation: &str, object: &Value) -> Answer {
    if operation == "DELETE" || object.is_null() {
        return Answer::default();
    }
    let findings = parse_objects(&WrittenIn::File("object".into()), &object.to_string()).findings;
    let (errors, others): (Vec<_>, Vec<_>) =
        findings.iter().partition(|finding| finding.severity == Severity::Error);
    let warnings = others.into_iter().filter(|finding| finding.severity == Severity::Warning);
    Answer {
        refused: (!errors.is_empty())
            .then(|| errors.iter().map(|error| said(error)).collect::<Vec<_>>().join("; ")),
        warnings: warnings.take(WARNINGS_MAX).map(said).collect(),
        patch: Vec::new(),
    }
}

fn said(finding: &Finding) -> String {
    let Finding { code, path, message, hint, .. } = finding;
    let path = if path.is_empty() { String::new() } else { format!("{path}: ") };
    let hint = hint.as_ref().map(|hint| format!("; help: {hint}")).unwrap_or_default();
    format!("{path}{message}{hint} ({code})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(path: &str, operation: &str, object: Value) -> Value {
        let question = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {"uid": "1", "namespace": "shop", "operation": operation, "object": object},
        });
        answer(&Settings::default(), path, question.to_string().as_bytes()).unwrap()["response"].clone()
    }

    fn pod(annotations: Value) -> Value {
        json!({"metadata": {"name": "web", "annotations": annotations}, "spec": {"containers": [{"name": "web"}]}})
    }

    #[test]
    fn pods_are_patched() {
        let response = ask("/inject", "CREATE", pod(json!({})));
        assert_eq!((&response["uid"], &response["allowed"]), (&json!("1"), &json!(true)));
        let patch = STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
        let patch: Vec<Value> = serde_json::from_slice(&patch).unwrap();
        assert!(patch.iter().any(|step| step["path"] == "/spec/initContainers"), "{patch:?}");
        let response = ask("/inject/cluster/east/net/n1", "CREATE", pod(json!({})));
        let patch = STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
        let text = String::from_utf8(patch).unwrap();
        assert!(text.contains(r#""value":"east""#) && text.contains(r#""value":"n1""#), "{text}");
        // What is left alone is not changed.
        let out = ask("/inject", "CREATE", pod(json!({"sidecar.istio.io/inject": "false"})));
        assert_eq!(out, json!({"uid": "1", "allowed": true}));
        assert_eq!(ask("/inject", "UPDATE", pod(json!({}))), json!({"uid": "1", "allowed": true}));
        let refused = ask("/inject", "CREATE", pod(json!({"sidecar.istio.io/proxyCPU": "lots"})));
        assert_eq!(refused["allowed"], false);
        assert!(refused["status"]["message"].as_str().unwrap().contains("proxyCPU"), "{refused}");
    }

    #[test]
    fn objects_are_validated() {
        let rule = |spec: Value| {
            let object = json!({
                "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
                "metadata": {"name": "web", "namespace": "shop"}, "spec": spec,
            });
            ask("/validate", "CREATE", object)
        };
        assert_eq!(rule(json!({"host": "web"}))["allowed"], true);
        let refused = rule(json!({"host": 5}));
        assert_eq!(refused["allowed"], false);
        assert!(refused["status"]["message"].as_str().unwrap().contains("spec.host"), "{refused}");
        let told = rule(json!({"host": "web", "hots": "web"}));
        assert_eq!(told["allowed"], true);
        assert!(told["warnings"][0].as_str().unwrap().contains("hots"), "{told}");
        assert_eq!(ask("/validate", "DELETE", Value::Null)["allowed"], true);
    }

    #[test]
    fn what_is_no_question_is_said_to_be_none() {
        let check = |path: &str, body: &str, expected: &str| {
            let said = answer(&Settings::default(), path, body.as_bytes()).unwrap_err();
            assert!(said.contains(expected), "{said}");
        };
        check("/inject", "", "no AdmissionReview");
        check("/inject", "{}", "asks nothing");
        check("/other", "{}", "no webhook");
    }
}
