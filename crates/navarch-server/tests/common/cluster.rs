//! What a golden case means when an API server serves it.

use super::{Form, from_files, mesh_config, proxies};
use anyhow::{Context, Result, ensure};
use navarch_kubernetes::{Access, Options};
use navarch_model::{Kind, kinds::Scope, values::Json, yaml};
use navarch_server::{
    identity,
    load::load_whole,
    serve::{self as server, RouteForm},
};
use navarch_sources::{Source, files::MeshFile};
use navarch_testkit::{cluster::Cluster, golden::Case, ports};
use serde_json::Value;
use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

/// Everything of a cluster.
pub fn options(kubeconfig: PathBuf) -> Options {
    Options {
        access: Access { kubeconfig: Some(kubeconfig), context: None },
        cluster: "under-test".into(),
        revision: Default::default(),
        namespaces: Default::default(),
        kept: None,
        candidate: None,
    }
}

/// An API server that has every kind.
pub async fn start() -> Result<Cluster> {
    Cluster::start(Kind::ALL.iter().copied().map(collection)).await
}

/// The path of all objects of a kind.
pub fn collection(kind: Kind) -> String {
    let version = kind.versions()[0];
    match kind.group() {
        "" => format!("/api/{version}/{}", kind.plural()),
        group => format!("/apis/{group}/{version}/{}", kind.plural()),
    }
}

/// A server of a cluster with an authority, which is that of the cluster if it is `shared`.
pub fn serving(state: &Path, kubernetes: Options, shared: bool) -> Result<server::Options> {
    Ok(server::Options {
        config: None,
        kubernetes: Some(kubernetes),
        remote_clusters: None,
        events: true,
        cluster_name: None,
        mesh_config: None,
        system_namespace: None,
        xds_addr: ([127, 0, 0, 1], ports::free_port()?).into(),
        secure: None,
        identity: Some(identity::Options {
            state: state.to_owned(),
            new_authority: false,
            plugged: None,
            shared,
            life: Duration::from_secs(3600),
            jwt_rule: None,
            names: Vec::new(),
        }),
        fetch_allowed: Vec::new(),
        fetch_roots: None,
        admin_addr: ([127, 0, 0, 1], ports::free_port()?).into(),
        debounce: Duration::from_millis(50),
        debounce_max: Duration::from_secs(1),
        drain: Duration::ZERO,
        brake: None,
        registration_grace: Duration::from_secs(10),
        webhooks: None,
        pods: navarch_inject::Settings::default(),
        deploy_gateways: false,
        routes: RouteForm::default(),
    })
}

/// The objects of a case whose kinds are in the kinds table.
pub fn objects(case: &Case) -> Result<Vec<(Kind, Value)>> {
    objects_in(&std::fs::read_to_string(case.dir.join("input.yaml"))?)
}

/// The objects in a text whose kinds are in the kinds table.
pub fn objects_in(text: &str) -> Result<Vec<(Kind, Value)>> {
    let (documents, errors) = yaml::parse(text, yaml::Budget::default());
    ensure!(errors.is_empty(), "{errors:?}");
    let mut objects = Vec::new();
    for document in documents {
        let mut object = Json::parse(&document.text).map_err(anyhow::Error::msg)?.to_serde();
        let api_version = object["apiVersion"].as_str().unwrap_or_default();
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let Some(kind) = Kind::find(group, object["kind"].as_str().unwrap_or_default()) else { continue };
        if kind.scope() == Scope::Namespaced && object["metadata"]["namespace"].is_null() {
            object["metadata"]["namespace"] = "default".into();
        }
        objects.push((kind, object));
    }
    Ok(objects)
}

/// How what the proxies of a case get differs when its configuration comes from a source of a cluster
/// instead of files; empty if it does not.
pub async fn differences(case: &Case, cluster: Box<dyn Source>) -> Result<String> {
    let mesh = mesh_config(case).map(|file| -> Box<dyn Source> { Box::new(MeshFile::new(file)) });
    let loaded = load_whole([cluster].into_iter().chain(mesh).collect()).await?;
    let served = proxies(case, &loaded, Form::Sent).with_context(|| case.name.clone())?;
    let files = proxies(case, &from_files(case)?, Form::Sent)?;
    ensure!(!files.is_empty(), "{} has no proxies", case.name);
    let mut report = String::new();
    for (proxy, resources) in &files {
        for (ty, expected) in resources {
            let found = served.get(proxy).and_then(|resources| resources.get(ty));
            if found != Some(expected) {
                writeln!(report, "{}/{proxy}/{ty}: {}", case.name, difference(expected, found))?;
            }
        }
    }
    ensure!(report.is_empty() == (served == files), "{}: more than in files", case.name);
    Ok(report)
}

/// How what a proxy gets differs, shortly.
fn difference(expected: &[Value], found: Option<&Vec<Value>>) -> String {
    let names = |resources: &[Value]| {
        resources.iter().map(|resource| resource["name"].to_string()).collect::<Vec<_>>().join(" ")
    };
    let Some(found) = found else { return format!("nothing, and not {}", names(expected)) };
    let pair = expected.iter().zip(found).find(|(expected, found)| expected != found);
    match pair {
        Some((expected, found)) => format!("\n  files   {expected}\n  cluster {found}"),
        None => format!("{} and not {}", names(found), names(expected)),
    }
}
