//! Objects that each replica keeps for who is connected to it, and Leases by which the others see that it is
//! still there to keep them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::leadership::clock;
use crate::maker::{Maker, WriteError};
use crate::managed::VERSION_OF_NONE;
use crate::request::{self, Change, Failure, understood};

/// The label of the Leases.
const LABEL: &str = "navarch/registrations";

/// How long the holder of a Lease is there at least, by what it says itself.
const LEASE_SECONDS: u32 = 60;

/// How often an object is looked at again that became another while it was looked at.
const CONFLICTS_MAX: usize = 2;

/// What is asked of an object that is there.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Found {
    resource_version: String,
    annotations: Option<BTreeMap<String, String>>,
}

impl Found {
    fn says(&self, annotation: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(annotation).map(String::as_str)
    }
}

fn leases(namespace: &str) -> String {
    format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases")
}

impl Maker {
    /// Says that a replica is there, in a Lease of its name in this namespace.
    ///
    /// # Errors
    /// If it was not said.
    pub async fn say_present(&self, namespace: &str, name: &str) -> Result<(), WriteError> {
        let path = format!("{}/{name}", leases(namespace));
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": namespace, "labels": {LABEL: "true"}},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": clock()},
        });
        request::change(self.client(), Change::Apply, &path, &lease).await?;
        Ok(())
    }

    /// The Leases of replicas in a namespace, and their versions, which differ once one is renewed.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn presences(&self, namespace: &str) -> Result<BTreeMap<String, String>, WriteError> {
        let versions = self.versions(&leases(namespace), LABEL).await?;
        Ok(versions.into_iter().map(|((_, name), version)| (name, version)).collect())
    }

    /// Takes away the Lease of a replica that is gone, if it is still of this version.
    ///
    /// # Errors
    /// If it was not taken away.
    pub async fn forget_presence(
        &self,
        namespace: &str,
        name: &str,
        version: &str,
    ) -> Result<(), WriteError> {
        let path = format!("{}/{name}", leases(namespace));
        match request::remove(self.client(), &path, Some(version)).await {
            Ok(()) | Err(Failure::Absent) => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Makes an object be as it is given, whoever else writes, unless there is one without the annotation
    /// that says what it is for: somebody has written that by hand. Whether it is as it is given.
    ///
    /// # Errors
    /// If it was not written.
    pub async fn apply_own(&self, path: &str, object: &Value, mark: &str) -> Result<bool, WriteError> {
        let mut object = object.clone();
        let mut conflicts = 0;
        loop {
            let version = match self.found(path).await? {
                Some(found) if found.says(mark).is_none() => return Ok(false),
                Some(found) => found.resource_version,
                None => VERSION_OF_NONE.to_owned(),
            };
            object["metadata"]["resourceVersion"] = json!(version);
            match request::change(self.client(), Change::Apply, path, &object).await {
                Ok(_) => return Ok(true),
                Err(failure) if failure.status() == Some(409) && conflicts < CONFLICTS_MAX => conflicts += 1,
                Err(failure) => return Err(failure.into()),
            }
        }
    }

    /// Takes an object away if an annotation of it has this value, which says whose it is.
    ///
    /// # Errors
    /// If it may still be there.
    pub async fn remove_own(&self, path: &str, annotation: &str, value: &str) -> Result<(), WriteError> {
        let mut conflicts = 0;
        loop {
            let version = match self.found(path).await? {
                Some(found) if found.says(annotation) == Some(value) => found.resource_version,
                _ => return Ok(()),
            };
            match request::remove(self.client(), path, Some(&version)).await {
                Ok(()) | Err(Failure::Absent) => return Ok(()),
                Err(failure) if failure.status() == Some(409) && conflicts < CONFLICTS_MAX => conflicts += 1,
                Err(failure) => return Err(failure.into()),
            }
        }
    }

    async fn found(&self, path: &str) -> Result<Option<Found>, WriteError> {
        match request::read(self.client(), path).await {
            Ok(bytes) => {
                let metadata = understood(&bytes)?["metadata"].take();
                let found = serde_json::from_value(metadata);
                Ok(Some(found.map_err(|error| Failure::Nonsense(error.to_string()))?))
            }
            Err(Failure::Absent) => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }
}
