//! `navarch serve --kubernetes` with an API server in memory, and a stock Envoy.

mod common;

use anyhow::{Context, Result};
use common::api_server::{ApiServer, statuses, walk};
use navarch_testkit::cluster::Cluster;
use serde_json::Value;
use std::path::{Path, PathBuf};

impl ApiServer for Cluster {
    fn kubeconfig(&self, directory: &Path) -> Result<PathBuf> {
        Cluster::kubeconfig(directory, self.address())
    }

    async fn apply(&self, plural: &str, object: &Value) -> Result<()> {
        let version = object["apiVersion"].as_str().unwrap_or_default();
        self.put(&format!("/apis/{version}/{plural}"), object);
        Ok(())
    }

    async fn get(&self, version: &str, plural: &str, name: &str) -> Result<Value> {
        self.object(&format!("/apis/{version}/namespaces/default/{plural}/{name}")).context("no such object")
    }

    fn stop(&mut self) {
        Cluster::stop(self);
    }

    async fn start_again(&mut self) -> Result<()> {
        Cluster::start_again(self).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_applied_to_a_cluster_reaches_envoy_and_stays_when_the_api_server_goes() -> Result<()> {
    // It has no other kinds yet.
    walk("kubernetes", &mut Cluster::start(["/api/v1/namespaces"]).await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_objects_is_in_their_status() -> Result<()> {
    statuses("kubernetes-statuses", &Cluster::start(["/api/v1/namespaces"]).await?).await
}
