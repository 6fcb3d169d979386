//! Single objects of an API server, for who installs something or keeps something right.

use http::{Method, Request, header};
use kube::Client;
use serde_json::Value;

use crate::access::{Access, AccessError};

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
    #[error("the API server says {status}: {message}")]
    Refused { status: u16, message: String },
    #[error("the API server does not answer")]
    Unreachable(#[source] Box<kube::Error>),
    #[error("{0} is not a path")]
    Path(String),
}

/// Whether something is done, or the API server only says what would become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Earnest {
    Done,
    Tried,
}

impl Earnest {
    fn query(self) -> &'static str {
        match self {
            Earnest::Done => "",
            Earnest::Tried => "dryRun=All",
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
        match self.send(Method::GET, path, "application/json", Vec::new()).await {
            Ok(object) => Ok(Some(object)),
            Err(ObjectError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
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
        let path = format!("{path}?fieldManager={manager}&force=true&{}", earnest.query());
        let body = object.to_string().into_bytes();
        self.send(Method::PATCH, path.trim_end_matches('&'), "application/apply-patch+yaml", body).await
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
        let path = format!("{collection}?fieldManager={manager}&{}", earnest.query());
        let body = object.to_string().into_bytes();
        self.send(Method::POST, path.trim_end_matches('&'), "application/json", body).await
    }

    /// Changes an object step by step (RFC 6902).
    ///
    /// # Errors
    /// If the API server refuses, or does not answer.
    pub async fn patch(&self, path: &str, manager: &str, steps: &[Value]) -> Result<Value, ObjectError> {
        let path = format!("{path}?fieldManager={manager}");
        let body = Value::from(steps).to_string().into_bytes();
        self.send(Method::PATCH, &path, "application/json-patch+json", body).await
    }

    /// Removes an object; whether it was there.
    ///
    /// # Errors
    /// If the API server refuses, or does not answer.
    pub async fn delete(&self, path: &str, earnest: Earnest) -> Result<bool, ObjectError> {
        let path = format!("{path}?propagationPolicy=Background&{}", earnest.query());
        match self.send(Method::DELETE, path.trim_end_matches('&'), "application/json", Vec::new()).await {
            Ok(_) => Ok(true),
            Err(ObjectError::Refused { status: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The objects of a collection that a selector of labels selects; none if there is no such kind.
    ///
    /// # Errors
    /// If the API server refuses, or does not answer.
    pub async fn list(&self, collection: &str, selector: &str) -> Result<Vec<Value>, ObjectError> {
        let selector = selector.replace('=', "%3D").replace(',', "%2C").replace('/', "%2F");
        let listed = self.get(&format!("{collection}?labelSelector={selector}")).await?.unwrap_or_default();
        Ok(listed.get("items").and_then(Value::as_array).cloned().unwrap_or_default())
    }

    /// What comes as text, such as `/readyz`.
    ///
    /// # Errors
    /// If the API server refuses, or does not answer.
    pub async fn text(&self, path: &str) -> Result<String, ObjectError> {
        let request = Request::get(path).body(Vec::new()).map_err(|_| ObjectError::Path(path.to_owned()))?;
        self.client.request_text(request).await.map_err(of_client)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        content: &str,
        body: Vec<u8>,
    ) -> Result<Value, ObjectError> {
        let request = Request::builder().method(method).uri(path.trim_end_matches('?'));
        let request =
            request.header(header::CONTENT_TYPE, content).header(header::ACCEPT, "application/json");
        let request = request.body(body).map_err(|_| ObjectError::Path(path.to_owned()))?;
        self.client.request(request).await.map_err(of_client)
    }
}

fn of_client(error: kube::Error) -> ObjectError {
    match error {
        kube::Error::Api(status) => {
            ObjectError::Refused { status: status.code, message: status.message.clone() }
        }
        error => ObjectError::Unreachable(error.into()),
    }
}
