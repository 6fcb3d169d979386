//! Single objects of an API server, for who installs something or keeps something right.

use kube::Client;
use serde_json::Value;

use crate::access::{Access, AccessError};
use crate::request::{self, Change, Failure, escaped, understood};

/// The API server, for questions about single objects. Paths are those of Kubernetes' API:
/// `/apis/apps/v1/namespaces/shop/deployments/web`.
#[derive(Clone)]
pub struct Objects {
    client: Client,
}

/// Why something did not work.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error("it is not known how to reach the API server")]
    Access(#[from] AccessError),
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl ObjectError {
    /// The status of a refusal.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            ObjectError::Access(_) => None,
            ObjectError::Failed(failure) => failure.status(),
        }
    }
}

/// Whether something is done, or the API server only says what would become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Earnest {
    Done,
    Tried,
}

impl Earnest {
    fn of(self, path: &str) -> String {
        let mark = if path.contains('?') { '&' } else { '?' };
        match self {
            Earnest::Done => path.to_owned(),
            Earnest::Tried => format!("{path}{mark}dryRun=All"),
        }
    }
}

impl Objects {
    /// Nothing is connected to yet.
    ///
    /// # Errors
    /// If it is not known how to reach an API server.
    pub async fn at(access: &Access) -> Result<Self, ObjectError> {
        Ok(Objects { client: access.client().await? })
    }

    /// What is at a path; `None` if nothing is.
    ///
    /// # Errors
    /// If the API server refuses, or does not answer.
    pub async fn get(&self, path: &str) -> Result<Option<Value>, ObjectError> {
        match request::read(&self.client, path).await {
            Ok(bytes) => Ok(Some(understood(&bytes)?)),
            Err(Failure::Absent) => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Makes these fields be ours and as they are given, whoever had them before ("Server-Side Apply").
    ///
    /// # Errors
    /// If the API server refuses, or does not answer.
    pub async fn apply(
        &self,
        path: &str,
        manager: &str,
        object: &Value,
        earnest: Earnest,
    ) -> Result<Value, ObjectError> {
        self.change(manager, Change::Apply, &earnest.of(path), object).await
    }

    /// Makes an object that there was none of.
    ///
    /// # Errors
    /// If there is one (409), the API server refuses otherwise, or does not answer.
    pub async fn create(
        &self,
        collection: &str,
        manager: &str,
        object: &Value,
        earnest: Earnest,
    ) -> Result<Value, ObjectError> {
        self.change(manager, Change::Create, &earnest.of(collection), object).await
    }

    /// Changes an object step by step (RFC 6902).
    ///
    /// # Errors
    /// If the API server refuses, or does not answer.
    pub async fn patch(&self, path: &str, manager: &str, steps: &[Value]) -> Result<Value, ObjectError> {
        self.change(manager, Change::Steps, path, &Value::from(steps)).await
    }

    /// Removes an object; whether it was there.
    ///
    /// # Errors
    /// If the API server refuses, or does not answer.
    pub async fn delete(&self, path: &str, earnest: Earnest) -> Result<bool, ObjectError> {
        let path = earnest.of(&format!("{path}?propagationPolicy=Background"));
        match request::remove(&self.client, &path, None).await {
            Ok(()) => Ok(true),
            Err(Failure::Absent) => Ok(false),
            Err(failure) => Err(failure.into()),
        }
    }

    /// The objects of a collection that a selector of labels selects; none if there is no such kind.
    ///
    /// # Errors
    /// If the API server refuses, or does not answer.
    pub async fn list(&self, collection: &str, selector: &str) -> Result<Vec<Value>, ObjectError> {
        let path = format!("{collection}?labelSelector={}", escaped(selector));
        let listed = self.get(&path).await?.unwrap_or_default();
        Ok(listed.get("items").and_then(Value::as_array).cloned().unwrap_or_default())
    }

    async fn change(
        &self,
        manager: &str,
        change: Change,
        path: &str,
        object: &Value,
    ) -> Result<Value, ObjectError> {
        Ok(understood(&request::change_as(&self.client, manager, change, path, object).await?)?)
    }
}
