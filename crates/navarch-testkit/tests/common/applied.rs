//! Objects of Istio in a real API server.

use anyhow::{Error, Result};
use navarch_model::values::Json;
use navarch_testkit::kubernetes::ApiServer;
use serde_json::Value;

/// Applies the objects of a text in YAML.
pub async fn apply(cluster: &ApiServer, text: &str) -> Result<()> {
    for object in text.split("\n---\n") {
        let object = Json::parse(object).map_err(Error::msg)?.to_serde();
        cluster.apply(&path(&object), &object).await?;
    }
    Ok(())
}

fn path(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let plural = text(&object["kind"]).to_lowercase().replace("entry", "entrie") + "s";
    let (version, name) = (text(&object["apiVersion"]), text(&object["metadata"]["name"]));
    format!("/apis/{version}/namespaces/default/{plural}/{name}")
}
