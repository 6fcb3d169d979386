//! Which objects have pods in them, and where.

use serde_json::Value;

use crate::Settings;
use crate::decide::{self, Candidate, Reason};
use crate::inject::inject;
use crate::json::{self, Object};
use crate::terms::{Fault, Workload};

/// Kinds with a template of pods, and the way to it.
const TEMPLATES: [(&str, &[&str]); 9] = [
    ("Pod", &[]),
    ("Deployment", &["spec", "template"]),
    ("ReplicaSet", &["spec", "template"]),
    ("ReplicationController", &["spec", "template"]),
    ("StatefulSet", &["spec", "template"]),
    ("DaemonSet", &["spec", "template"]),
    ("Job", &["spec", "template"]),
    ("DeploymentConfig", &["spec", "template"]),
    ("CronJob", &["spec", "jobTemplate", "spec", "template"]),
];

/// What became of an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// It has no pods.
    NoPods,
    Left(Reason),
    Injected(Value),
}

/// Injects what pods an object has.
pub(crate) fn inject_object(settings: &Settings, namespace: &str, object: &Value) -> Result<Outcome, Fault> {
    let empty = Object::new();
    let Some(fields) = object.as_object() else { return Ok(Outcome::NoPods) };
    let kind = json::text(fields, "kind");
    let Some((_, way)) = TEMPLATES.iter().find(|(name, _)| *name == kind) else { return Ok(Outcome::NoPods) };
    let metadata = fields.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    let namespace = match json::text(metadata, "namespace") {
        "" => namespace,
        stated => stated,
    };
    let mut injected = object.clone();
    let mut template = &mut injected;
    for key in *way {
        template = template.get_mut(*key).ok_or_else(|| Fault::object(&way.join(".")))?;
    }
    let candidate = candidate(namespace, template);
    if let Err(reason) = decide::decide(settings, &candidate) {
        return Ok(Outcome::Left(reason));
    }
    let workload = match kind {
        "Pod" => owner_of(template),
        _ => Workload {
            api_version: json::text(fields, "apiVersion").to_owned(),
            kind: kind.to_owned(),
            name: json::text(metadata, "name").to_owned(),
        },
    };
    *template = inject(settings, namespace, &workload, template)?;
    Ok(Outcome::Injected(injected))
}

/// What decides about a pod.
pub(crate) fn candidate<'a>(namespace: &'a str, pod: &Value) -> Candidate<'a> {
    let empty = Object::new();
    let at = |key: &str| pod.get(key).and_then(Value::as_object).unwrap_or(&empty);
    Candidate {
        namespace,
        labels: json::texts(at("metadata"), "labels"),
        annotations: json::texts(at("metadata"), "annotations"),
        host_network: at("spec").get("hostNetwork").and_then(Value::as_bool).unwrap_or(false),
    }
}

/// The workload that a pod belongs to: what controls it, and behind a ReplicaSet or a Job the Deployment or
/// CronJob, whose names are in theirs.
pub(crate) fn owner_of(pod: &Value) -> Workload {
    let empty = Object::new();
    let metadata = pod.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    let own = || Workload {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: match json::text(metadata, "name") {
            "" => json::text(metadata, "generateName").trim_end_matches('-').to_owned(),
            name => name.to_owned(),
        },
    };
    let controls = |owner: &&Object| owner.get("controller").and_then(Value::as_bool).unwrap_or(false);
    let owners = json::items(metadata, "ownerReferences").iter().filter_map(Value::as_object);
    let Some(owner) = owners.into_iter().find(controls) else { return own() };
    let of = |key| json::text(owner, key).to_owned();
    let (api_version, kind, name) = (of("apiVersion"), of("kind"), of("name"));
    let behind = |kind: &str, name: &str| Workload {
        api_version: api_version.clone(),
        kind: kind.to_owned(),
        name: name.to_owned(),
    };
    let labels = json::texts(metadata, "labels");
    match kind.as_str() {
        "ReplicaSet" => {
            let hash = labels.get("pod-template-hash").map(|hash| format!("-{hash}"));
            match hash.as_deref().and_then(|hash| name.strip_suffix(hash)) {
                Some(deployment) => behind("Deployment", deployment),
                None => behind("ReplicaSet", &name),
            }
        }
        // The controller of CronJobs ends the names of its Jobs with the minute of their schedule.
        "Job" => match name.rsplit_once('-') {
            Some((cron, minute))
                if (8..=10).contains(&minute.len()) && minute.bytes().all(|b| b.is_ascii_digit()) =>
            {
                behind("CronJob", cron)
            }
            _ => behind("Job", &name),
        },
        kind => behind(kind, &name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_belong_to_workloads() {
        let check = |kind: &str, name: &str, hash: &str, expected: (&str, &str)| {
            let owner = json!({"apiVersion": "apps/v1", "kind": kind, "name": name, "controller": true});
            let pod = json!({"metadata": {
                "generateName": "web-", "labels": {"pod-template-hash": hash}, "ownerReferences": [owner],
            }});
            let Workload { kind, name, .. } = owner_of(&pod);
            assert_eq!((kind.as_str(), name.as_str()), expected);
        };
        check("ReplicaSet", "web-5d4f", "5d4f", ("Deployment", "web"));
        check("ReplicaSet", "web-5d4f", "", ("ReplicaSet", "web-5d4f"));
        check("Job", "nightly-28123456", "", ("CronJob", "nightly"));
        check("Job", "import-2", "", ("Job", "import-2"));
        check("StatefulSet", "db", "", ("StatefulSet", "db"));
        assert_eq!(owner_of(&json!({"metadata": {"generateName": "web-"}})).name, "web");
        assert_eq!(owner_of(&json!(null)).name, "");
    }
}
