//! Objects that we make: ConfigMaps that are kept as they should be, and Secrets that are made once.

use std::collections::BTreeMap;

use kube::Client;
use navarch_model::ObjectKey;
use serde::Deserialize;
use serde_json::json;

use crate::leadership::Leadership;
use crate::request::{self, Change, FIELD_MANAGER, Failure, chain, clock};

/// Marks what a control plane has made, as istiod does.
const MADE_LABEL: (&str, &str) = ("istio.io/config", "true");

/// Why an object is not there, or not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("another replica writes")]
    NotOurs,
    #[error("{reason}")]
    Failed {
        /// With its causes.
        reason: String,
    },
    /// Nobody answers, or not in time.
    #[error("{reason}")]
    Unreachable { reason: String },
}

impl From<Failure> for WriteError {
    fn from(failure: Failure) -> Self {
        let reason = chain(&failure);
        match failure {
            Failure::Unreachable(_) => WriteError::Unreachable { reason },
            _ => WriteError::Failed { reason },
        }
    }
}

/// Something to tell of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// What is told again under the same name is the same Event.
    pub name: String,
    pub object: ObjectKey,
    /// That of the object, if it is known.
    pub uid: String,
    /// One word.
    pub reason: &'static str,
    pub message: String,
}

/// The namespace of Events of objects without one.
const NAMESPACE_OF_OTHERS: &str = "default";

/// The data of a Secret, as an API server has it: base64.
pub type SecretData = BTreeMap<String, String>;

/// Who makes objects. Clones are the same.
#[derive(Clone)]
pub struct Maker {
    client: Client,
    leadership: Leadership,
}

impl std::fmt::Debug for Maker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Maker")
    }
}

impl Maker {
    pub(crate) fn new(client: Client, leadership: Leadership) -> Self {
        Maker { client, leadership }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Whether we are the one who writes.
    pub fn may_write(&self) -> bool {
        self.leadership.is_held()
    }

    /// Makes a ConfigMap have this data, if we are the one who writes. Other entries stay.
    ///
    /// # Errors
    /// If it was not written.
    pub async fn apply_config_map(
        &self,
        namespace: &str,
        name: &str,
        data: &BTreeMap<&str, &str>,
    ) -> Result<(), WriteError> {
        if !self.may_write() {
            return Err(WriteError::NotOurs);
        }
        let path = format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
        let (label, value) = MADE_LABEL;
        let object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace, "labels": {label: value}},
            "data": data,
        });
        request::change(&self.client, Change::Apply, &path, &object).await?;
        Ok(())
    }

    /// Tells something of an object, if we are the one who writes.
    ///
    /// # Errors
    /// If it was not told.
    pub async fn apply_event(&self, event: &Event) -> Result<(), WriteError> {
        if !self.may_write() {
            return Err(WriteError::NotOurs);
        }
        let Event { name, object: about, uid, reason, message } = event;
        let namespace = if about.namespace.is_empty() { NAMESPACE_OF_OTHERS } else { &*about.namespace };
        let time = clock();
        let object = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": about.kind.api_version(),
                "kind": about.kind.as_str(),
                "namespace": about.namespace,
                "name": about.name,
                "uid": uid,
            },
            "type": "Warning",
            "reason": reason,
            "message": message,
            "firstTimestamp": time,
            "lastTimestamp": time,
            "count": 1,
            "source": {"component": FIELD_MANAGER},
        });
        let path = format!("/api/v1/namespaces/{namespace}/events/{name}");
        request::change(&self.client, Change::Apply, &path, &object).await?;
        Ok(())
    }

    /// The data of a Secret, if there is one.
    ///
    /// # Errors
    /// If that cannot be found out.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<SecretData>, WriteError> {
        #[derive(Deserialize)]
        struct Secret {
            #[serde(default)]
            data: Option<SecretData>,
        }
        match request::read(&self.client, &format!("/api/v1/namespaces/{namespace}/secrets/{name}")).await {
            Ok(bytes) => {
                let secret: Secret = serde_json::from_slice(&bytes)
                    .map_err(|_| Failure::Nonsense("it is not a Secret".to_owned()))?;
                Ok(Some(secret.data.unwrap_or_default()))
            }
            Err(Failure::Absent) => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Makes a Secret unless there is one of that name; whether it did. Of several that try at once, one
    /// succeeds, so nobody has to be elected first.
    ///
    /// # Errors
    /// If it is not known to be there.
    pub async fn create_secret(
        &self,
        (namespace, name): (&str, &str),
        ty: &str,
        data: &SecretData,
    ) -> Result<bool, WriteError> {
        let object = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": ty,
            "metadata": {"name": name, "namespace": namespace},
            "data": data,
        });
        let path = format!("/api/v1/namespaces/{namespace}/secrets");
        match request::change(&self.client, Change::Create, &path, &object).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.status() == Some(409) => Ok(false),
            Err(failure) => Err(failure.into()),
        }
    }
}
