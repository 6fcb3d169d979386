//! What stands in the way of an installation.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use navarch_install::{Options, manifests, place};
use navarch_kubernetes::objects::{Earnest, Objects};
use navarch_model::revision::LABEL;
use serde_json::{Value, json};

/// The oldest Kubernetes whose pods may have native sidecars (KEP-753, beta and on by default).
const MINOR_MIN: u32 = 29;

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    pub notes: Vec<String>,
    pub obstacles: Vec<String>,
}

impl Found {
    /// Somebody else injects pods of a revision or tag.
    fn injector(&mut self, options: &Options, who: &str, called: &str) {
        let line = format!("{who} inject pods of revision {called}");
        if options.revision == called || options.tags.iter().any(|tag| tag == called) {
            self.obstacles.push(format!("{line} too: choose another --revision, or --tag"));
        } else {
            self.notes.push(line);
        }
    }
}

/// Looks at a cluster.
pub async fn check(cluster: &Objects, options: &Options) -> Result<Found> {
    let mut found = Found::default();
    version(cluster, &mut found).await?;
    kinds_are_served(cluster, options, &mut found).await?;
    may_install(cluster, options, &mut found).await?;
    other_webhooks(cluster, options, &mut found).await?;
    other_policies(cluster, options, &mut found).await?;
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

/// Looks whether the API server has every kind that is installed: policies that inject are of newer ones, and
/// monitors of an operator.
async fn kinds_are_served(cluster: &Objects, options: &Options, found: &mut Found) -> Result<()> {
    let mut kinds: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for object in manifests(options, &[], Vec::new()) {
        let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
        kinds.entry(text("apiVersion")).or_default().insert(text("kind"));
    }
    for (version, wanted) in kinds {
        let path = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
        let served: Value = cluster.get(&path).await?.unwrap_or_default();
        let resources = served["resources"].as_array().cloned().unwrap_or_default();
        let has = |kind: &String| resources.iter().any(|resource| resource["kind"] == **kind);
        found.obstacles.extend(
            wanted
                .iter()
                .filter(|kind| !has(kind))
                .map(|kind| format!("the cluster has no {kind} ({version})")),
        );
    }
    Ok(())
}

/// Asks for each kind that is installed whether we may apply it (SelfSubjectAccessReview).
async fn may_install(cluster: &Objects, options: &Options, found: &mut Found) -> Result<()> {
    // Beside what is applied: the authority, and kinds that the cluster may lack.
    let mut asked = BTreeSet::from([
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
async fn other_webhooks(cluster: &Objects, options: &Options, found: &mut Found) -> Result<()> {
    let collection = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    let configurations = cluster.get(collection).await?.unwrap_or_default();
    let items = configurations["items"].as_array().cloned().unwrap_or_default();
    for item in items {
        let labels = &item["metadata"]["labels"];
        let hooks = item["webhooks"].as_array().cloned().unwrap_or_default();
        let injects =
            |hook: &Value| hook["name"].as_str().is_some_and(|name| name.contains("sidecar-injector"));
        if !hooks.iter().any(injects) || is_own(labels, options) {
            continue;
        }
        let name = item["metadata"]["name"].as_str().unwrap_or_default();
        let tag = labels["istio.io/tag"].as_str().or(labels["istio.io/rev"].as_str()).unwrap_or("default");
        found.injector(options, &format!("the webhooks {name}"), tag);
    }
    Ok(())
}

/// Other control planes for which the API server itself injects the pods that ours would. Which ones is in
/// the selectors of the bindings.
async fn other_policies(cluster: &Objects, options: &Options, found: &mut Found) -> Result<()> {
    let collection = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings";
    // An older Kubernetes has none.
    let bindings: Value = cluster.get(collection).await?.unwrap_or_default();
    let mut others = BTreeSet::new();
    for binding in bindings["items"].as_array().into_iter().flatten() {
        if is_own(&binding["metadata"]["labels"], options) {
            continue;
        }
        let policy = binding["spec"]["policyName"].as_str().unwrap_or_default();
        let resources = &binding["spec"]["matchResources"];
        for selector in [&resources["namespaceSelector"], &resources["objectSelector"]] {
            let expressions = selector["matchExpressions"].as_array().into_iter().flatten();
            let named = expressions.filter(|of| of["key"] == LABEL && of["operator"] == "In");
            let called = named.flat_map(|of| of["values"].as_array().into_iter().flatten());
            others.extend(called.filter_map(|name| Some((policy.to_owned(), name.as_str()?.to_owned()))));
        }
    }
    for (policy, called) in others {
        found.injector(options, &format!("policies called {policy}"), &called);
    }
    Ok(())
}

/// Whether something is of the installation that is looked at.
fn is_own(labels: &Value, options: &Options) -> bool {
    let of = |label: &str| labels[label].as_str();
    of("app.kubernetes.io/instance") == Some(&options.name())
        && of("app.kubernetes.io/part-of") == Some(&options.namespace)
}
