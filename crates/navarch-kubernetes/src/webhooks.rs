//! The roots by which an API server knows our webhooks, kept right in the configurations that lead to them.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::objects::{ObjectError, Objects};
use crate::request::FIELD_MANAGER;

/// How often the configurations are looked at: somebody may have applied them again.
const PERIOD: Duration = Duration::from_secs(10);

/// How often it is asked whether we are the one to write.
const IDLE: Duration = Duration::from_millis(500);

/// A configuration of webhooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    pub mutating: bool,
    pub name: String,
}

impl Configuration {
    /// Reads `mutating/<name>` or `validating/<name>`.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once('/')?;
        let mutating = match kind {
            "mutating" => true,
            "validating" => false,
            _ => return None,
        };
        let is_name = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
        is_name.then(|| Configuration { mutating, name: name.to_owned() })
    }

    fn path(&self) -> String {
        let kind = if self.mutating { "mutating" } else { "validating" };
        format!("/apis/admissionregistration.k8s.io/v1/{kind}webhookconfigurations/{}", self.name)
    }
}

/// Writes the roots into the configurations for ever, wherever they differ. `roots` gives them in PEM form,
/// and `may_write` whether we are the one to write.
pub async fn keep_roots(
    objects: Objects,
    configurations: Vec<Configuration>,
    roots: impl Fn() -> String + Send,
    may_write: impl Fn() -> bool + Send,
) {
    let mut said = vec![String::new(); configurations.len()];
    loop {
        while !may_write() {
            tokio::time::sleep(IDLE).await;
        }
        let bundle = STANDARD.encode(roots());
        for (configuration, said) in configurations.iter().zip(&mut said) {
            let now = match write(&objects, configuration, &bundle).await {
                Ok(0) => String::new(),
                Ok(written) => {
                    tracing::info!(name = configuration.name, written, "the API server knows our webhooks");
                    String::new()
                }
                Err(error) => error.to_string(),
            };
            // The same failure is told once.
            if !now.is_empty() && *said != now {
                tracing::warn!(name = configuration.name, error = now, "webhooks are without our roots");
            }
            *said = now;
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// How many webhooks of a configuration had other roots.
async fn write(objects: &Objects, configuration: &Configuration, bundle: &str) -> Result<usize, ObjectError> {
    let path = configuration.path();
    let Some(found) = objects.get(&path).await? else { return Ok(0) };
    let steps = steps(&found, bundle);
    if !steps.is_empty() {
        objects.patch(&path, FIELD_MANAGER, &steps).await?;
    }
    Ok(steps.len() / 2)
}

/// What gives each webhook these roots. Each step is made only if the webhook is still at its place, since
/// they are numbered.
fn steps(configuration: &Value, bundle: &str) -> Vec<Value> {
    let webhooks = configuration.get("webhooks").and_then(Value::as_array).into_iter().flatten();
    let differs = webhooks.enumerate().filter(|(_, webhook)| {
        let client = webhook.get("clientConfig");
        client.and_then(|client| client.get("caBundle")).and_then(Value::as_str) != Some(bundle)
    });
    let steps = differs.flat_map(|(index, webhook)| {
        let name = webhook.get("name").cloned().unwrap_or_default();
        [
            json!({"op": "test", "path": format!("/webhooks/{index}/name"), "value": name}),
            json!({"op": "add", "path": format!("/webhooks/{index}/clientConfig/caBundle"), "value": bundle}),
        ]
    });
    steps.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_named_with_their_kind() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(Configuration::parse(text).map(|found| found.path()).as_deref(), expected, "{text}");
        };
        let base = "/apis/admissionregistration.k8s.io/v1/";
        check("mutating/a-b", Some(&format!("{base}mutatingwebhookconfigurations/a-b")));
        check("validating/a.b", Some(&format!("{base}validatingwebhookconfigurations/a.b")));
        check("other/a", None);
        check("mutating/", None);
        check("mutating/a/b", None);
        check("mutating/a?b", None);
    }

    #[test]
    fn roots_are_written_where_they_differ() {
        let hook = |name: &str, bundle: &str| json!({"name": name, "clientConfig": {"caBundle": bundle}});
        let found =
            json!({"webhooks": [hook("a", "old"), hook("b", "new"), {"name": "c", "clientConfig": {}}]});
        let steps = steps(&found, "new");
        let paths: Vec<_> = steps.iter().map(|step| step["path"].as_str().unwrap()).collect();
        assert_eq!(
            paths,
            [
                "/webhooks/0/name",
                "/webhooks/0/clientConfig/caBundle",
                "/webhooks/2/name",
                "/webhooks/2/clientConfig/caBundle",
            ]
        );
    }
}
