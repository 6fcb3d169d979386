//! `navarch serve --kubernetes` with a real API server, and a stock Envoy.

mod common;

use anyhow::{Context, Result};
use common::api_server::{ApiServer, statuses, walk};
use navarch_testkit::{kubernetes, navarch};
use serde_json::Value;
use std::path::{Path, PathBuf};

impl ApiServer for kubernetes::ApiServer {
    fn kubeconfig(&self, _: &Path) -> Result<PathBuf> {
        Ok(kubernetes::ApiServer::kubeconfig(self))
    }

    async fn apply(&self, plural: &str, object: &Value) -> Result<()> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (version, metadata) = (text(&object["apiVersion"]), &object["metadata"]);
        let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
        let path = format!("/apis/{version}/namespaces/{namespace}/{plural}/{name}");
        kubernetes::ApiServer::apply(self, &path, object).await?;
        Ok(())
    }

    async fn get(&self, version: &str, plural: &str, name: &str) -> Result<Value> {
        kubernetes::ApiServer::get(self, &format!("/apis/{version}/namespaces/default/{plural}/{name}")).await
    }

    fn stop(&mut self) {
        kubernetes::ApiServer::stop(self);
    }

    async fn start_again(&mut self) -> Result<()> {
        kubernetes::ApiServer::start_again(self).await
    }
}

/// An API server that has been given what `navarch crds` prints.
async fn api_server(name: &str) -> Result<kubernetes::ApiServer> {
    let printed: Value = serde_json::from_str(&navarch::stdout(["crds", "--gateway-api"])?)?;
    kubernetes::ApiServer::start(name, printed["items"].as_array().context("a list")?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_applied_to_a_cluster_reaches_envoy_and_stays_when_the_api_server_goes() -> Result<()> {
    walk("api-server", &mut api_server("api-server-cluster").await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_objects_is_in_their_status() -> Result<()> {
    statuses("api-server-statuses", &api_server("api-server-statuses-cluster").await?).await
}
