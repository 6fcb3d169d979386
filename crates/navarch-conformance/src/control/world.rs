//! What there is, and what may be written.

use crate::objects::{name, namespace};
use anyhow::Result;
use http::Method;
use navarch_testkit::kubernetes::ApiServer;
use serde_json::{Map, Value, json};

/// All objects that the rig looks at.
#[derive(Debug, Default)]
pub struct World {
    pub deployments: Vec<Value>,
    pub pods: Vec<Value>,
    pub services: Vec<Value>,
    pub slices: Vec<Value>,
    pub namespaces: Vec<Value>,
    pub accounts: Vec<Value>,
    pub gateways: Vec<Value>,
}

impl World {
    pub async fn read(api: &ApiServer) -> Result<World> {
        let list = async |path: &str| -> Result<Vec<Value>> {
            // Out of the cache of the API server: it may be a moment old.
            let mut all = api.get(&format!("{path}?resourceVersion=0")).await?;
            match all["items"].take() {
                Value::Array(items) => Ok(items),
                _ => Ok(Vec::new()),
            }
        };
        Ok(World {
            deployments: list("/apis/apps/v1/deployments").await?,
            pods: list("/api/v1/pods").await?,
            services: list("/api/v1/services").await?,
            slices: list("/apis/discovery.k8s.io/v1/endpointslices").await?,
            namespaces: list("/api/v1/namespaces").await?,
            accounts: list("/api/v1/serviceaccounts").await?,
            gateways: list("/apis/gateway.networking.k8s.io/v1/gateways").await?,
        })
    }

    pub fn find<'a>(of: &'a [Value], like: &Value) -> Option<&'a Value> {
        of.iter().find(|object| namespace(object) == namespace(like) && name(object) == name(like))
    }
}

/// Something to write.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub method: Method,
    pub path: String,
    pub body: Value,
}

impl Change {
    /// Makes an object, whose path this is.
    pub fn apply(path: String, object: Value) -> Self {
        Change { method: Method::PATCH, path: format!("{path}?fieldManager=rig&force=true"), body: object }
    }

    pub fn status(path: &str, status: Value) -> Self {
        let body = json!({"status": status});
        Change { method: Method::PATCH, path: format!("{path}/status"), body }
    }

    pub fn delete(path: &str) -> Self {
        Change { method: Method::DELETE, path: format!("{path}?gracePeriodSeconds=0"), body: Value::Null }
    }

    pub async fn write(&self, api: &ApiServer) -> Result<()> {
        let media_type = match self.method {
            Method::PATCH if self.path.contains("fieldManager") => "application/apply-patch+yaml",
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let body = if self.body.is_null() { String::new() } else { self.body.to_string() };
        api.send(self.method.clone(), &self.path, (media_type, &body)).await?;
        Ok(())
    }
}

/// Where an object of a core kind is.
pub fn core(plural: &str, namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/{plural}/{name}")
}

pub fn path_of_deployment(deployment: &Value) -> String {
    format!("/apis/apps/v1/namespaces/{}/deployments/{}", namespace(deployment), name(deployment))
}

/// The labels that a field of an object selects by.
pub fn selector<'a>(object: &'a Value, pointer: &str) -> Option<&'a Map<String, Value>> {
    object.pointer(pointer).and_then(Value::as_object)
}
