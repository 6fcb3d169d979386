//! Short HTTP calls to processes on this machine: Envoy's admin port, the application.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    pub method: Method,
    /// Host and port.
    pub address: &'a str,
    /// With the query.
    pub path: &'a str,
    pub headers: HeaderMap,
    pub timeout: Duration,
    /// Bytes of the answer.
    pub bytes_max: usize,
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("cannot connect to {address}")]
    Connect {
        address: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{address} does not answer {path} within {timeout:?}")]
    Timeout { address: String, path: String, timeout: Duration },
    #[error("the answer of {address} to {path} breaks off: {reason}")]
    Broken { address: String, path: String, reason: String },
    #[error("{address} answers {path} with {status}")]
    Status { address: String, path: String, status: StatusCode },
}

impl Call<'_> {
    /// Calls.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn send(self) -> Result<Answer, HttpError> {
        let (address, path, timeout) = (self.address.to_owned(), self.path.to_owned(), self.timeout);
        let late = |_| Err(HttpError::Timeout { address, path, timeout });
        tokio::time::timeout(timeout, self.send_untimed()).await.unwrap_or_else(late)
    }

    /// Calls; an answer that is not one of success is an error.
    ///
    /// # Errors
    /// If there is no answer of success.
    pub async fn body(self) -> Result<Bytes, HttpError> {
        let (address, path) = (self.address.to_owned(), self.path.to_owned());
        let Answer { status, body } = self.send().await?;
        if status.is_success() { Ok(body) } else { Err(HttpError::Status { address, path, status }) }
    }

    async fn send_untimed(self) -> Result<Answer, HttpError> {
        let Call { method, address, path, headers, timeout: _, bytes_max } = self;
        let broken = |reason: String| {
            let (address, path) = (address.to_owned(), path.to_owned());
            HttpError::Broken { address, path, reason }
        };
        let connect = |source| HttpError::Connect { address: address.to_owned(), source };
        let socket = TcpStream::connect(address).await.map_err(connect)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
            .await
            .map_err(|error| broken(error.to_string()))?;
        let connection = Abort(tokio::spawn(connection).abort_handle());
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .body(Empty::<Bytes>::new())
            .map_err(|error| broken(error.to_string()))?;
        *request.headers_mut() = headers;
        if !request.headers().contains_key(http::header::HOST) {
            let host = http::HeaderValue::try_from(address).map_err(|error| broken(error.to_string()))?;
            request.headers_mut().insert(http::header::HOST, host);
        }
        let answer = sender.send_request(request).await.map_err(|error| broken(error.to_string()))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), bytes_max).collect().await;
        drop(connection);
        Ok(Answer { status, body: body.map_err(|error| broken(error.to_string()))?.to_bytes() })
    }
}

/// Ends a connection whatever way the call on it ends.
struct Abort(tokio::task::AbortHandle);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}
