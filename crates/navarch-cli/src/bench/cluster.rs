//! The mesh of a benchmark in an API server.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use navarch_bench::{Cluster, Doing, Edit, Kind as Change, Mesh};
use navarch_kubernetes::Access;
use navarch_kubernetes::objects::{Earnest, ObjectError, Objects};
use navarch_model::kinds::Scope;
use navarch_model::values::Json;
use navarch_model::{Kind, ObjectKey};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Who changes objects, in their `managedFields`.
const MANAGER: &str = "navarch-bench";

/// Says which mesh the API server has.
const MARK: &str = "/api/v1/namespaces/default/configmaps/navarch-bench";

/// On objects that an edit has added.
const ADDED: &str = "navarch-bench";

/// Objects that are created at once.
const AT_ONCE: usize = 64;

/// Attempts to bring an object to an API server that is busy.
const ATTEMPTS: u32 = 6;

/// Which API server has the configuration.
#[derive(Args)]
pub struct ClusterArgs {
    /// The configuration is in the API server of a Kubernetes cluster, which both this and the server under
    /// test talk to; every endpoint is a Pod. It is left there, and found by the next run of the same size.
    /// Best an API server that is there for nothing else, without controllers: nobody removes Pods without a
    /// Node then
    #[arg(long, conflicts_with_all = ["load_command", "change_command", "curve"])]
    kubernetes: bool,
    /// File that says how the API server is reached, and as whom
    #[arg(long, value_name = "FILE", requires = "kubernetes", env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// A context of it; its current one if nothing is said
    #[arg(long, value_name = "NAME", requires = "kubernetes")]
    context: Option<String>,
}

impl ClusterArgs {
    /// Whether the configuration is in an API server.
    pub fn is_given(&self) -> bool {
        self.kubernetes
    }

    /// The API server, if the configuration is in one.
    pub fn cluster(&self) -> Option<ApiServer> {
        let access = Access { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() };
        self.kubernetes.then(|| ApiServer { access, objects: OnceCell::new() })
    }
}

/// An API server that the mesh is brought to.
pub struct ApiServer {
    access: Access,
    objects: OnceCell<Objects>,
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiServer").field("access", &self.access).finish_non_exhaustive()
    }
}

impl Cluster for ApiServer {
    fn load<'a>(&'a self, mesh: Mesh<'a>, says: &'a dyn Fn(usize)) -> Doing<'a> {
        Box::pin(self.load_all(mesh, says))
    }

    fn apply<'a>(&'a self, edit: &'a Edit) -> Doing<'a> {
        Box::pin(async move {
            for mut object in objects_in(&edit.text)? {
                if edit.kind == Change::Service {
                    object["metadata"]["labels"][ADDED] = json!("added");
                }
                let target = Target::of(&object)?;
                let (objects, path) = (self.objects().await?, target.path());
                let applied = objects.apply(&path, MANAGER, &object, Earnest::Done).await;
                applied.with_context(|| format!("applying {path}"))?;
            }
            Ok(())
        })
    }

    fn arguments(&self) -> Vec<String> {
        let Access { kubeconfig, context } = &self.access;
        let mut arguments = vec!["--kubernetes".to_owned()];
        arguments.extend(kubeconfig.iter().map(|file| format!("--kubeconfig={}", file.display())));
        arguments.extend(context.iter().map(|context| format!("--context={context}")));
        arguments
    }
}

impl ApiServer {
    /// The client. It belongs to the runtime that asks for it first.
    async fn objects(&self) -> Result<&Objects> {
        Ok(self.objects.get_or_try_init(|| Objects::at(&self.access)).await?)
    }

    async fn load_all(&self, mesh: Mesh<'_>, says: &dyn Fn(usize)) -> Result<()> {
        let objects = self.objects().await?;
        let found = objects.get(MARK).await.context("asking what the API server has")?.unwrap_or_default();
        let has = found["data"]["mesh"].as_str().unwrap_or(&mesh.identity);
        ensure!(
            has == mesh.identity,
            "the API server has the mesh of another run, \"{has}\", and this one is \"{}\"; start with an empty one",
            mesh.identity
        );
        if found["data"]["whole"] != "true" {
            self.mark(&mesh.identity, false).await?;
            self.create_all(mesh.texts, says).await?;
            self.mark(&mesh.identity, true).await?;
        }
        self.remove_added().await?;
        for edit in &mesh.unedited {
            self.apply(edit).await?;
        }
        Ok(())
    }

    async fn mark(&self, mesh: &str, whole: bool) -> Result<()> {
        let mark = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "navarch-bench", "namespace": "default"},
            "data": {"mesh": mesh, "whole": whole.to_string()},
        });
        let applied = self.objects().await?.apply(MARK, MANAGER, &mark, Earnest::Done).await;
        applied.map(|_| ()).context("noting which mesh the API server has")
    }

    /// Creates what is not there yet.
    async fn create_all(&self, texts: impl Iterator<Item = String>, says: &dyn Fn(usize)) -> Result<()> {
        let objects = self.objects().await?;
        let (mut creating, mut count) = (JoinSet::new(), 0);
        for text in texts {
            for object in objects_in(&text)? {
                let is_namespace = object["kind"] == "Namespace";
                creating.spawn(create(objects.clone(), object));
                // What is in a namespace comes after it.
                let most = if is_namespace { 1 } else { AT_ONCE };
                while creating.len() >= most {
                    if let Some(created) = creating.join_next().await {
                        created??;
                    }
                }
                count += 1;
                if count % 100 == 0 {
                    says(count);
                }
            }
        }
        while let Some(created) = creating.join_next().await {
            created??;
        }
        Ok(())
    }

    /// Removes what edits of an earlier run have added.
    async fn remove_added(&self) -> Result<()> {
        let objects = self.objects().await?;
        for (kind, collection) in [
            (Kind::Service, "/api/v1/services"),
            (Kind::EndpointSlice, "/apis/discovery.k8s.io/v1/endpointslices"),
        ] {
            for object in objects.list(collection, ADDED).await? {
                let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
                let key = ObjectKey::new(kind, text("namespace"), text("name"));
                let target = Target { version: kind.api_version(), key };
                objects.delete(&target.path(), Earnest::Done).await.with_context(|| target.path())?;
            }
        }
        Ok(())
    }
}

/// Creates an object, unless there is one. The status of a Pod is written as its kubelet would.
async fn create(objects: Objects, object: Value) -> Result<()> {
    let target = Target::of(&object)?;
    let (collection, path) = (target.collection(), target.path());
    let mut attempt = 0;
    loop {
        let created = async {
            let status = object.get("status").filter(|_| target.key.kind == Kind::Pod);
            match objects.create(&collection, MANAGER, &object, Earnest::Done).await {
                // Of an earlier run that was interrupted, maybe before the status was written.
                Err(error) if error.status() == Some(409) => {
                    let found = objects.get(&path).await?.unwrap_or_default();
                    if status.is_none() || !found["status"]["podIP"].is_null() {
                        return Ok(());
                    }
                }
                created => {
                    created?;
                }
            }
            if let Some(status) = status {
                let steps = [json!({"op": "replace", "path": "/status", "value": status})];
                objects.patch(&format!("{path}/status"), MANAGER, &steps).await?;
            }
            Ok::<_, ObjectError>(())
        };
        match created.await {
            Ok(()) => return Ok(()),
            // It is busy, or does not answer in time.
            Err(error) if error.status().is_none_or(|status| status == 429 || status >= 500) => {
                attempt += 1;
                if attempt >= ATTEMPTS {
                    return Err(error).with_context(|| format!("creating {path}"));
                }
                sleep(Duration::from_millis(100 << attempt)).await;
            }
            Err(error) => return Err(error).with_context(|| format!("creating {path}")),
        }
    }
}

/// Where an object is in the API.
struct Target {
    version: String,
    key: ObjectKey,
}

impl Target {
    fn of(object: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (version, metadata) = (text(&object["apiVersion"]), &object["metadata"]);
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let Some(kind) = Kind::find(group, &text(&object["kind"])) else {
            bail!("{} of {version} is not a kind of a mesh", object["kind"]);
        };
        let key =
            ObjectKey::new(kind, text(&metadata["namespace"]).as_str(), text(&metadata["name"]).as_str());
        Ok(Target { version, key })
    }

    fn collection(&self) -> String {
        let ObjectKey { kind, namespace, .. } = &self.key;
        let group = if self.version.contains('/') { "apis" } else { "api" };
        let of = match kind.scope() {
            Scope::Namespaced => format!("namespaces/{namespace}/"),
            Scope::Cluster => String::new(),
        };
        format!("/{group}/{}/{of}{}", self.version, kind.plural())
    }

    fn path(&self) -> String {
        format!("{}/{}", self.collection(), self.key.name)
    }
}

/// The objects of a text, as an API server takes them: it gives Services their addresses itself.
fn objects_in(text: &str) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for document in text.split("\n---\n") {
        let mut object = match document.starts_with('{') {
            true => serde_json::from_str(document)?,
            false => Json::parse(document).map_err(anyhow::Error::msg)?.to_serde(),
        };
        if object["kind"] == "Service"
            && let Some(spec) = object["spec"].as_object_mut()
        {
            spec.remove("clusterIP");
        }
        if !object.is_null() {
            objects.push(object);
        }
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_where_the_api_has_them() {
        let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: n0}\n---\n\
                    apiVersion: v1\nkind: Service\nmetadata: {name: s0, namespace: n0}\nspec: {clusterIP: 10.0.0.1}\n---\n\
                    {\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"p0\", \"namespace\": \"n0\"}}\n---\n\
                    apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: d, namespace: n0}\n---\n";
        let objects = objects_in(text).expect("objects");
        let paths: Vec<String> =
            objects.iter().map(|object| Target::of(object).expect("a kind").path()).collect();
        assert_eq!(
            paths,
            [
                "/api/v1/namespaces/n0",
                "/api/v1/namespaces/n0/services/s0",
                "/api/v1/namespaces/n0/pods/p0",
                "/apis/networking.istio.io/v1/namespaces/n0/sidecars/d",
            ]
        );
        assert_eq!(objects[1]["spec"], json!({}));
        assert!(objects_in("a: [").is_err() && Target::of(&json!({"kind": "Cat"})).is_err());
    }
}
