//! Volumes of pods, as directories.

use super::fields::field;
use crate::objects::{items, name, namespace, text};
use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::Method;
use navarch_testkit::kubernetes::ApiServer;
use serde_json::{Value, json};
use std::{
    fs::{self, Permissions},
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// A pod whose volumes are to be filled.
pub struct Volumes<'a> {
    pub api: &'a ApiServer,
    pub pod: &'a Value,
    pub address: IpAddr,
}

impl Volumes<'_> {
    /// Fills a directory below `dir` for each volume. What a volume is made of has to be there, unless the
    /// pod says that it need not.
    pub async fn fill(&self, dir: &Path) -> Result<()> {
        for volume in items(self.pod, "/spec/volumes") {
            let name = text(volume, "/name");
            let dir = dir.join(name);
            fs::create_dir_all(&dir)?;
            // Containers run as users of their own.
            fs::set_permissions(&dir, Permissions::from_mode(0o777))?;
            self.fill_from(volume, &dir).await.with_context(|| format!("volume {name}"))?;
        }
        Ok(())
    }

    /// Fills a directory from a volume, or from a source of a projected one.
    async fn fill_from(&self, source: &Value, dir: &Path) -> Result<()> {
        let Some(kind) = source.as_object().and_then(|all| all.keys().find(|key| *key != "name")) else {
            bail!("nothing is said of what is in it");
        };
        let from = &source[kind];
        match kind.as_str() {
            "emptyDir" => {}
            "secret" | "configMap" => self.fill_from_object(kind, from, dir).await?,
            "serviceAccountToken" => {
                fs::write(dir.join(text(from, "/path")), self.token(text(from, "/audience")).await?)?;
            }
            "downwardAPI" => {
                for item in items(from, "/items") {
                    let value = field(self.pod, self.address, text(item, "/fieldRef/fieldPath"))?;
                    fs::write(dir.join(text(item, "/path")), value)?;
                }
            }
            "projected" => {
                for source in items(from, "/sources") {
                    Box::pin(self.fill_from(source, dir)).await?;
                }
            }
            other => bail!("volumes of kind {other} are not known here"),
        }
        Ok(())
    }

    /// A file for each entry of a Secret or ConfigMap, or for those that are named.
    async fn fill_from_object(&self, kind: &str, from: &Value, dir: &Path) -> Result<()> {
        let plural = format!("{}s", kind.to_lowercase());
        let named = ["/secretName", "/name"].map(|at| text(from, at)).concat();
        let path = format!("/api/v1/namespaces/{}/{plural}/{named}", namespace(self.pod));
        let object = match self.api.get(&path).await {
            Err(_) if from["optional"] == true => return Ok(()),
            object => object?,
        };
        let data = object["data"].as_object().into_iter().flatten();
        let items = items(from, "/items");
        for (key, value) in data {
            let item = items.iter().find(|item| item["key"] == *key);
            if item.is_none() && !items.is_empty() {
                continue;
            }
            let value = value.as_str().unwrap_or_default();
            let bytes = if kind == "secret" { STANDARD.decode(value)? } else { value.as_bytes().to_vec() };
            fs::write(dir.join(item.map_or(key.as_str(), |item| text(item, "/path"))), bytes)?;
        }
        Ok(())
    }

    /// A token of the service account of the pod, bound to the pod.
    async fn token(&self, audience: &str) -> Result<String> {
        let account = text(self.pod, "/spec/serviceAccountName");
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/{account}/token", namespace(self.pod));
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "name": name(self.pod), "uid": self.pod["metadata"]["uid"]});
        let audiences = if audience.is_empty() { json!([]) } else { json!([audience]) };
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": audiences, "expirationSeconds": 43200, "boundObjectRef": pod},
        });
        let answer = self.api.send(Method::POST, &path, ("application/json", &request.to_string())).await?;
        Ok(text(&answer.json()?, "/status/token").to_owned())
    }
}
