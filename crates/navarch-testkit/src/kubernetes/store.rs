//! etcd, as the API server keeps objects in it.
//!
//! What is put here directly is what the API server serves from then on: nothing has been added to
//! it and nothing refused, as an admission or a validation would. So a test can have an API server
//! serve exactly what a file says, creation times and addresses included.

use crate::http::Call;
use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// Operations that etcd takes in one transaction.
const TRANSACTION_MAX: usize = 128;

/// The JSON interface of an etcd.
#[derive(Debug, Clone)]
pub struct Store {
    pub url: String,
}

impl Store {
    /// Puts objects in place, or replaces them.
    pub async fn put(&self, objects: &[(String, Value)]) -> Result<()> {
        for some in objects.chunks(TRANSACTION_MAX) {
            let put = |(key, object): &(String, Value)| json!({"requestPut": {"key": STANDARD.encode(key), "value": STANDARD.encode(object.to_string())}});
            self.call("txn", &json!({"success": some.iter().map(put).collect::<Vec<_>>()})).await?;
        }
        Ok(())
    }

    /// Removes everything whose key starts so.
    pub async fn remove_below(&self, prefix: &str) -> Result<()> {
        let mut end = prefix.as_bytes().to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let range = json!({"key": STANDARD.encode(prefix), "range_end": STANDARD.encode(end)});
        self.call("deleterange", &range).await
    }

    async fn call(&self, what: &str, body: &Value) -> Result<()> {
        let call = Call::post(format!("{}/v3/kv/{what}", self.url)).body(body.to_string());
        call.header("content-type", "application/json").within(crate::wait::STEP).send().await?.ok()?;
        Ok(())
    }
}

/// Below which key objects of a kind are kept, without their namespace and name.
pub fn prefix(group: &str, plural: &str) -> String {
    match (group, plural) {
        // The names that they had when the store was laid out.
        ("", "services") => "/registry/services/specs".to_owned(),
        ("", "endpoints") => "/registry/services/endpoints".to_owned(),
        ("", "nodes") => "/registry/minions".to_owned(),
        ("networking.k8s.io", "ingresses") => "/registry/ingress".to_owned(),
        ("" | "discovery.k8s.io" | "networking.k8s.io", plural) => format!("/registry/{plural}"),
        (group, plural) => format!("/registry/{group}/{plural}"),
    }
}

/// The key of an object. Objects of kinds without a namespace have an empty one.
pub fn key(group: &str, plural: &str, namespace: &str, name: &str) -> String {
    let prefix = prefix(group, plural);
    if namespace.is_empty() { format!("{prefix}/{name}") } else { format!("{prefix}/{namespace}/{name}") }
}
