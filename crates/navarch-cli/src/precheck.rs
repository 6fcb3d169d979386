//! What stands in the way of an installation.

use anyhow::{Context, Result};
use navarch_install::{Options, manifests, place};
use navarch_kubernetes::objects::{Earnest, Objects};
use serde_json::{Value, json};

/// The oldest Kubernetes whose pods may have native sidecars (KEP-753, beta and on by default).
const MINOR_MIN: u32 = 29;

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    pub notes: Vec<String>,
    pub obstacles: Vec<String>,
}

/// Looks at a cluster.
pub async fn check(cluster: &Objects, options: &Options) -> Result<Found> {
    let mut found = Found::default();
    version(cluster, &mut found).await?;
    may_install(cluster, options, &mut found).await?;
    other_control_planes(cluster, options, &mut found).await?;
    Ok(found)
}

async fn version(cluster: &Objects, found: &mut Found) -> Result<()> {
    let version: Value = cluster.get("/version").await?.context("the API server does not say its version")?;
    let text = version["gitVersion"].as_str().unwrap_or_default();
    // Some say `29+`.
    let minor = version["minor"].as_str().unwrap_or_default().trim_end_matches('+').parse::<u32>();
    match minor {
        Ok(minor) if minor < MINOR_MIN => found.obstacles.push(format!(
            "Kubernetes {text} has no native sidecars: use one from 1.{MINOR_MIN} on, or set sidecarForm: container"
        )),
        _ => found.notes.push(format!("Kubernetes {text}")),
    }
    Ok(())
}

/// Asks for each kind that is installed whether we may apply it (SelfSubjectAccessReview).
async fn may_install(cluster: &Objects, options: &Options, found: &mut Found) -> Result<()> {
    // Beside what is applied: the authority, and kinds that the cluster may lack.
    let mut asked = std::collections::BTreeSet::from([
        (String::new(), "secrets".to_owned(), options.namespace.clone()),
        ("apiextensions.k8s.io".to_owned(), "customresourcedefinitions".to_owned(), String::new()),
    ]);
    for object in manifests(options, &[], Vec::new()) {
        let Some(place) = place(&object) else { continue };
        let version = object["apiVersion"].as_str().unwrap_or_default();
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let plural = place.collection.rsplit('/').next().unwrap_or_default().to_owned();
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        asked.insert((group.to_owned(), plural, namespace.to_owned()));
    }
    for (group, plural, namespace) in asked {
        for verb in ["get", "list", "create", "patch", "delete"] {
            let review = json!({
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": {
                    "group": group, "resource": plural, "verb": verb, "namespace": namespace,
                }},
            });
            let collection = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
            let answer = cluster.create(collection, "navarch-install", &review, Earnest::Done).await?;
            if answer["status"]["allowed"] != true {
                found.obstacles.push(format!("you may not {verb} {plural}"));
            }
        }
    }
    Ok(())
}

/// Other control planes whose webhooks are asked about the pods that ours would be.
async fn other_control_planes(cluster: &Objects, options: &Options, found: &mut Found) -> Result<()> {
    let collection = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    let configurations = cluster.get(collection).await?.unwrap_or_default();
    let items = configurations["items"].as_array().cloned().unwrap_or_default();
    let mut names: Vec<&str> = options.tags.iter().map(String::as_str).collect();
    names.push(&options.revision);
    for item in items {
        let labels = &item["metadata"]["labels"];
        let hooks = item["webhooks"].as_array().cloned().unwrap_or_default();
        let injects =
            |hook: &Value| hook["name"].as_str().is_some_and(|name| name.contains("sidecar-injector"));
        let of = |label: &str| labels[label].as_str();
        let is_own = of("app.kubernetes.io/instance") == Some(&options.name())
            && of("app.kubernetes.io/part-of") == Some(&options.namespace);
        if !hooks.iter().any(injects) || is_own {
            continue;
        }
        let name = item["metadata"]["name"].as_str().unwrap_or_default();
        let tag = labels["istio.io/tag"].as_str().or(labels["istio.io/rev"].as_str()).unwrap_or("default");
        let line = format!("the webhooks {name} inject pods of revision {tag}");
        if names.contains(&tag) {
            found.obstacles.push(format!("{line} too: choose another --revision, or --tag"));
        } else {
            found.notes.push(line);
        }
    }
    Ok(())
}
