//! Golden cases, and what their proxies get, wherever the configuration is read from.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod cluster;

use anyhow::{Context, Result};
use navarch_envoy::{XdsType, hosts, json::to_json};
use navarch_model::{Hashed, endpoint::Locality, proxy::ProxyFacts, values::Json};
use navarch_plan::Planner;
use navarch_server::load::{Loaded, load};
use navarch_testkit::{envoy::bootstrap::Resources, golden::Case, workspace};
use serde_json::Value;
use std::{
    borrow::Cow,
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where the cases are.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"))
}

/// The file with the MeshConfig of a case, if it has one.
pub fn mesh_config(case: &Case) -> Option<PathBuf> {
    Some(case.dir.join("meshconfig.yaml")).filter(|file| file.is_file())
}

/// The case, read from files.
pub fn from_files(case: &Case) -> Result<Loaded> {
    // Goldens are files of configuration too, by their names: serve a directory without them.
    let config = workspace::scratch(&format!("golden-{}", case.name))?;
    std::fs::copy(case.dir.join("input.yaml"), config.join("input.yaml"))?;
    Ok(load(&config, mesh_config(case).as_deref())?)
}

/// How routes are shown whose virtual hosts are resources of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Sent,
    /// With their virtual hosts in them, as in a static configuration.
    Joined,
}

/// What each proxy of a case gets.
pub fn proxies(case: &Case, loaded: &Loaded, form: Form) -> Result<BTreeMap<String, Resources>> {
    let text = std::fs::read_to_string(case.dir.join("proxies.yaml"))?;
    let proxies = Json::parse(&text).map_err(|reason| anyhow::anyhow!("proxies.yaml:{reason}"))?.to_serde();
    let proxies = proxies.as_array().context("proxies.yaml is a list")?;
    let named = proxies.iter().map(|proxy| {
        let name = proxy["name"].as_str().context("a proxy without a name")?;
        let resources = resources(loaded, proxy, form).with_context(|| name.to_owned())?;
        Ok((name.to_owned(), resources))
    });
    named.collect()
}

/// What the node gets, sorted by name; no entry for a type without resources.
pub fn resources(loaded: &Loaded, proxy: &Value, form: Form) -> Result<Resources> {
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
        XdsType::Bootstrap => "bootstrap",
        XdsType::Nds => "names",
        _ => ty.short(),
    }
}
