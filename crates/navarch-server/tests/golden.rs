//! From YAML to what each proxy gets, case by case, and what a real Envoy says to it.

use anyhow::{Context, Result, ensure};
use navarch_envoy::{XdsType, hosts, json::to_json};
use navarch_model::{Hashed, endpoint::Locality, proxy::ProxyFacts, values::Json};
use navarch_plan::Planner;
use navarch_server::load::{Loaded, load};
use navarch_testkit::{
    envoy::{self, bootstrap::Resources},
    golden::{self, Answer, Case},
    workspace,
};
use serde_json::Value;
use std::{borrow::Cow, fmt::Write as _, path::Path, sync::Arc};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"))
}

#[test]
fn golden_cases_are_as_expected() -> Result<()> {
    golden::run(root(), |case| answer(case, Form::Sent))
}

#[test]
fn envoy_accepts_the_resources_of_all_golden_cases() -> Result<()> {
    let mut bootstraps = Vec::new();
    for case in golden::cases(root())? {
        for (proxy, resources) in answer(&case, Form::Joined)?.proxies {
            let name = format!("{}/{proxy}", case.name);
            bootstraps.push((name, envoy::bootstrap::of_resources(&resources)));
        }
    }
    let rejected = envoy::validate_all(&bootstraps)?;
    let reasons: String = rejected.iter().map(|r| format!("{}:\n{}\n", r.name, r.reason)).collect();
    ensure!(rejected.is_empty(), "of {} proxies:\n{reasons}", bootstraps.len());
    Ok(())
}

/// How routes are shown whose virtual hosts are resources of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Sent,
    /// With their virtual hosts in them, as in a static configuration.
    Joined,
}

fn answer(case: &Case, form: Form) -> Result<Answer> {
    // Goldens are files of configuration too, by their names: serve a directory without them.
    let config = workspace::scratch(&format!("golden-{}", case.name))?;
    std::fs::copy(case.dir.join("input.yaml"), config.join("input.yaml"))?;
    let mesh = Some(case.dir.join("meshconfig.yaml")).filter(|file| file.is_file());
    let loaded = load(&config, mesh.as_deref())?;
    let mut answer = Answer::default();
    for finding in &loaded.findings {
        writeln!(answer.findings, "{finding}")?;
    }
    let text = std::fs::read_to_string(case.dir.join("proxies.yaml"))?;
    let proxies = Json::parse(&text).map_err(|reason| anyhow::anyhow!("proxies.yaml:{reason}"))?.to_serde();
    for proxy in proxies.as_array().context("proxies.yaml is a list")? {
        let name = proxy["name"].as_str().context("a proxy without a name")?;
        let resources = resources(&loaded, proxy, form).with_context(|| name.to_owned())?;
        answer.proxies.insert(name.to_owned(), resources);
    }
    Ok(answer)
}

/// What the node gets, sorted by name; no entry for a type without resources.
fn resources(loaded: &Loaded, proxy: &Value, form: Form) -> Result<Resources> {
    let node = &proxy["node"];
    let text = |field: &str| node[field].as_str().unwrap_or_default();
    let metadata = node["metadata"].as_object().context("a node without metadata")?;
    let place = |field: &str| node["locality"][field].as_str().unwrap_or_default().into();
    let locality = Locality { region: place("region"), zone: place("zone"), sub_zone: place("subZone") };
    let facts = ProxyFacts::parse(text("id"), text("cluster"), metadata, locality)?;
    let facts = ProxyFacts { split_routes: proxy["splitRoutes"] == true, ..facts };
    let planner = Planner::new(loaded.snapshot.clone());
    let plan = planner.class_plan(Arc::new(Hashed::new(planner.classify(&facts))));
    let made = planner.resources(&plan);
    let made = if form == Form::Joined { hosts::joined(&made) } else { Cow::Borrowed(&*made) };
    let mut resources = Resources::new();
    for (ty, set) in made.iter().filter(|(_, set)| !set.is_empty()) {
        let mut list: Vec<_> =
            set.iter().map(|r| (r.name().clone(), to_json(ty.type_url(), &r.body()))).collect();
        list.sort_by(|(a, _), (b, _)| a.cmp(b));
        resources.insert(stem(ty).to_owned(), list.into_iter().map(|(_, json)| json).collect());
    }
    Ok(resources)
}

fn stem(ty: XdsType) -> &'static str {
    match ty {
        XdsType::Cds => "clusters",
        XdsType::Eds => "endpoints",
        XdsType::Lds => "listeners",
        XdsType::Rds => "routes",
        XdsType::Vhds => "hosts",
        XdsType::Sds => "secrets",
        XdsType::Ecds => "extensions",
        _ => ty.short(),
    }
}
