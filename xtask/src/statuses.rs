//! `cargo xtask statuses`: what navarch says of objects, beside what another controller has written to them.

use anyhow::{Context, Result, bail};
use clap::Parser;
use navarch_testkit::navarch;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

#[derive(Parser)]
pub struct Args {
    /// The configuration, as for `navarch analyze`
    config: PathBuf,
    /// What the other controller has written: objects with their `status`, as of `kubectl get -o json`
    written: PathBuf,
    /// A condition that only the other controller has; may be repeated
    #[arg(long = "ignore", value_name = "TYPE")]
    ignored: Vec<String>,
}

/// Compares, and fails if anything differs. Texts, times and generations are not compared.
pub fn run(args: &Args) -> Result<()> {
    let config = args.config.to_str().context("the path of the configuration is not UTF-8")?;
    let report: Value = serde_json::from_str(&navarch::stdout(["analyze", config, "-o", "json"])?)?;
    let ours: BTreeMap<String, BTreeSet<String>> = list(&report["statuses"]).map(said_by_us).collect();
    let text = std::fs::read_to_string(&args.written);
    let text = text.with_context(|| format!("reading {}", args.written.display()))?;
    let written: Value = serde_json::from_str(&text)?;
    let objects = if written.is_array() { &written } else { &written["items"] };
    let (mut equal, mut different) = (0, 0);
    for object in list(objects) {
        let (name, theirs) = said_by_other(object, &args.ignored);
        let own = ours.get(&name).cloned().unwrap_or_default();
        for statement in theirs.symmetric_difference(&own) {
            let who = if own.contains(statement) { "navarch" } else { "the other" };
            println!("{name}: only {who} says: {statement}");
        }
        match theirs == own {
            true => equal += 1,
            false => different += 1,
        }
    }
    println!("{equal} of {} statuses are equal", equal + different);
    if different > 0 {
        bail!("{different} statuses differ");
    }
    Ok(())
}

/// The name of an object of ours, and what is said of it: a line for each condition, number and address.
fn said_by_us(object: &Value) -> (String, BTreeSet<String>) {
    let mut said = BTreeSet::new();
    let name = without_group(text(&object["object"]));
    // In Kubernetes these have conditions for each parent or ancestor only.
    if !["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute", "BackendTLSPolicy"]
        .iter()
        .any(|kind| name.starts_with(kind))
    {
        conditions("", &object["conditions"], &[], &mut said);
    }
    for parent in list(&object["parents"]) {
        let place = place(&without_group(text(&parent["parent"])), parent, "section");
        conditions(&place, &parent["conditions"], &[], &mut said);
    }
    for listener in list(&object["listeners"]) {
        let place = format!("listener {}: ", text(&listener["name"]));
        conditions(&place, &listener["conditions"], &[], &mut said);
        said.insert(format!("{place}{} routes", listener["attached_routes"]));
        let kinds = list(&listener["supported_kinds"]).map(|kind| format!("{place}takes {}", text(kind)));
        said.extend(kinds);
    }
    said.extend(list(&object["addresses"]).map(|address| format!("address {}", text(address))));
    number("listener sets", &object["attached_listener_sets"], &mut said);
    (name, said)
}

/// The same of an object as it is in Kubernetes.
fn said_by_other(object: &Value, ignored: &[String]) -> (String, BTreeSet<String>) {
    let (status, metadata) = (&object["status"], object.get("metadata").unwrap_or(object));
    let namespace = text(&metadata["namespace"]);
    let mut said = BTreeSet::new();
    conditions("", &status["conditions"], ignored, &mut said);
    for (parents, reference) in [("parents", "parentRef"), ("ancestors", "ancestorRef")] {
        for parent in list(&status[parents]) {
            let reference = &parent[reference];
            let own = reference["namespace"].as_str().unwrap_or(namespace);
            let kind = reference["kind"].as_str().unwrap_or("Gateway");
            let place =
                place(&format!("{kind} {own}/{}", text(&reference["name"])), reference, "sectionName");
            conditions(&place, &parent["conditions"], ignored, &mut said);
        }
    }
    for listener in list(&status["listeners"]) {
        let place = format!("listener {}: ", text(&listener["name"]));
        conditions(&place, &listener["conditions"], ignored, &mut said);
        said.insert(format!("{place}{} routes", listener["attachedRoutes"]));
        let kinds = list(&listener["supportedKinds"]);
        said.extend(kinds.map(|kind| format!("{place}takes {}", text(&kind["kind"]))));
    }
    let addresses = list(&status["addresses"]).map(|address| text(&address["value"]));
    let balancers = list(&status["loadBalancer"]["ingress"]);
    let balancers = balancers.map(|at| at["ip"].as_str().unwrap_or_else(|| text(&at["hostname"])));
    said.extend(addresses.chain(balancers).map(|address| format!("address {address}")));
    number("listener sets", &status["attachedListenerSets"], &mut said);
    let name = text(&metadata["name"]);
    let name = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
    (format!("{} {name}", text(&object["kind"])), said)
}

fn conditions(place: &str, conditions: &Value, ignored: &[String], said: &mut BTreeSet<String>) {
    let counted =
        list(conditions).filter(|condition| !ignored.iter().any(|ty| ty == text(&condition["type"])));
    said.extend(counted.map(|condition| {
        let [ty, status, reason] = ["type", "status", "reason"].map(|field| text(&condition[field]));
        format!("{place}{ty}={status} ({reason})")
    }));
}

/// What comes before the conditions of a parent.
fn place(parent: &str, reference: &Value, section: &str) -> String {
    let section = reference[section].as_str().map(|section| format!(" section {section}"));
    let port = reference["port"].as_u64().map(|port| format!(" port {port}"));
    format!("at {parent}{}{}: ", section.unwrap_or_default(), port.unwrap_or_default())
}

fn number(what: &str, value: &Value, said: &mut BTreeSet<String>) {
    if let Some(number) = value.as_u64().filter(|number| *number > 0) {
        said.insert(format!("{number} {what}"));
    }
}

/// `Gateway.gateway.networking.k8s.io infra/edge` without the group.
fn without_group(name: &str) -> String {
    let (kind, rest) = name.split_once(' ').unwrap_or((name, ""));
    format!("{} {rest}", kind.split('.').next().unwrap_or(kind))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_same_said_in_two_forms_is_equal() {
        let conditions =
            json!([{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "yes"}]);
        let ours = json!({
            "object": "Gateway.gateway.networking.k8s.io infra/edge", "place": "a.yaml:1:1", "generation": 3,
            "conditions": conditions, "addresses": ["192.0.2.1"], "attached_listener_sets": 1,
            "listeners": [{"name": "http", "attached_routes": 2, "supported_kinds": ["HTTPRoute"], "conditions": conditions}],
        });
        let theirs = json!({
            "kind": "Gateway", "metadata": {"name": "edge", "namespace": "infra"},
            "status": {
                "conditions": conditions, "addresses": [{"type": "IPAddress", "value": "192.0.2.1"}], "attachedListenerSets": 1,
                "listeners": [{
                    "name": "http", "attachedRoutes": 2, "conditions": conditions,
                    "supportedKinds": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}],
                }],
            },
        });
        let (name, said) = said_by_us(&ours);
        assert_eq!((name.as_str(), said.len()), ("Gateway infra/edge", 6));
        assert_eq!(said_by_other(&theirs, &[]), (name, said));

        let ours = json!({
            "object": "HTTPRoute shop/web",
            "parents": [{"parent": "ListenerSet infra/team", "section": "a", "port": 80, "conditions": conditions}],
        });
        let reference = json!({"kind": "ListenerSet", "name": "team", "namespace": "infra", "sectionName": "a", "port": 80});
        let mut theirs = json!({
            "kind": "HTTPRoute", "name": "web", "namespace": "shop",
            "status": {"parents": [{"parentRef": reference, "conditions": conditions}]},
        });
        assert_eq!(said_by_us(&ours), said_by_other(&theirs, &[]));
        theirs["status"]["parents"][0]["conditions"][0]["reason"] = json!("NoMatchingParent");
        assert_ne!(said_by_us(&ours), said_by_other(&theirs, &[]));
        assert_eq!(said_by_other(&theirs, &["Accepted".to_owned()]).1.len(), 0);
    }
}
