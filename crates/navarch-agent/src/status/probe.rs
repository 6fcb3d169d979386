//! Probes of the application. Those of a pod are rewritten by Istio's injector to ask the agent, since the
//! kubelet has no certificate; what they asked is in `ISTIO_KUBE_APP_PROBERS`.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use navarch_model::networking::{HealthCheckMethod, ReadinessProbe};
use navarch_xds::server::Status;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::grpc::Channel;
use crate::http::{Call, HttpError};

/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 1 << 20;
const CHECK: &str = "/grpc.health.v1.Health/Check";
/// `SERVING` of `grpc.health.v1.HealthCheckResponse`.
const SERVING: &[u8] = &[8, 1];

/// One probe, as Kubernetes writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Probe {
    http_get: Option<HttpGet>,
    tcp_socket: Option<TcpSocket>,
    grpc: Option<Grpc>,
    /// Only of a WorkloadGroup: nobody may have the agent run commands over its port.
    #[serde(skip)]
    exec: Option<Vec<String>>,
    timeout_seconds: Option<u64>,
}

impl Probe {
    /// The probe of a WorkloadGroup; `None` if it asks for nothing.
    #[must_use]
    pub fn of_group(probe: &ReadinessProbe) -> Option<Self> {
        let timeout_seconds = u64::try_from(probe.timeout_seconds).ok();
        let port = |port: u32| u16::try_from(port).unwrap_or_default();
        let mut made = Probe { timeout_seconds, ..Probe::default() };
        match probe.health_check_method.as_ref()? {
            HealthCheckMethod::HttpGet(get) => {
                let headers = get.http_headers.iter();
                let header = |header: &navarch_model::networking::ProbeHttpHeader| Header {
                    name: header.name.clone(),
                    value: header.value.clone(),
                };
                made.http_get = Some(HttpGet {
                    path: get.path.clone(),
                    port: port(get.port),
                    host: get.host.clone(),
                    scheme: get.scheme.clone(),
                    http_headers: headers.map(header).collect(),
                });
            }
            HealthCheckMethod::TcpSocket(tcp) => {
                made.tcp_socket = Some(TcpSocket { port: port(tcp.port), host: tcp.host.clone() });
            }
            HealthCheckMethod::Grpc(grpc) => {
                made.grpc = Some(Grpc { port: port(grpc.port), service: grpc.service.clone() });
            }
            HealthCheckMethod::Exec(exec) => made.exec = Some(exec.command.clone()),
        }
        Some(made)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct HttpGet {
    path: String,
    port: u16,
    host: String,
    scheme: String,
    http_headers: Vec<Header>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Header {
    name: String,
    value: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct TcpSocket {
    port: u16,
    host: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Grpc {
    port: u16,
    service: String,
}

/// Why the application is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("the application is asked over HTTP")]
    Http(#[from] HttpError),
    #[error("cannot connect to {0}")]
    Connect(String, #[source] std::io::Error),
    #[error("{0} does not answer in time")]
    Late(String),
    #[error("{address} does not speak gRPC: {reason}")]
    Grpc { address: String, reason: String },
    #[error("{0} says that it does not serve")]
    NotServing(String),
    #[error("cannot run {command}")]
    Command {
        command: String,
        #[source]
        error: std::io::Error,
    },
    #[error("{command} ended with {status}")]
    Status { command: String, status: std::process::ExitStatus },
    #[error("the probe asks for nothing that is known here: httpGet over http, tcpSocket or grpc")]
    Unknown,
}

/// Probes by path, as `ISTIO_KUBE_APP_PROBERS` has them: `{"/app-health/web/readyz": {"httpGet": ...}}`.
///
/// # Errors
/// If the text is not of that form.
pub fn parse(text: &str) -> Result<BTreeMap<String, Probe>, serde_json::Error> {
    serde_json::from_str(text)
}

impl Probe {
    /// Asks the application. The answer is the status that whoever asks is to hear.
    ///
    /// # Errors
    /// If the application does not answer as it should.
    pub async fn run(&self, headers: &HeaderMap) -> Result<StatusCode, ProbeError> {
        let timeout = Duration::from_secs(self.timeout_seconds.filter(|seconds| *seconds > 0).unwrap_or(1));
        if let Some(get) = &self.http_get {
            return get.run(headers, timeout).await;
        }
        if let Some(command) = &self.exec {
            return execute(command, timeout).await.map(|()| StatusCode::OK);
        }
        let (address, ask) = match (&self.tcp_socket, &self.grpc) {
            (Some(TcpSocket { port, host }), _) => (address(host, *port), None),
            (None, Some(Grpc { port, service })) => (address("", *port), Some(service)),
            (None, None) => return Err(ProbeError::Unknown),
        };
        let asked = async {
            let socket = TcpStream::connect(&address).await;
            let socket = socket.map_err(|error| ProbeError::Connect(address.clone(), error))?;
            match ask {
                None => Ok(()),
                Some(service) => check(socket, &address, service).await,
            }
        };
        let late = |_| Err(ProbeError::Late(address.clone()));
        tokio::time::timeout(timeout, asked).await.unwrap_or_else(late).map(|()| StatusCode::OK)
    }
}

impl HttpGet {
    async fn run(&self, asked: &HeaderMap, timeout: Duration) -> Result<StatusCode, ProbeError> {
        if !(self.scheme.is_empty() || self.scheme.eq_ignore_ascii_case("http")) {
            return Err(ProbeError::Unknown);
        }
        // What the kubelet says of itself is for the application.
        let mut headers = HeaderMap::new();
        if let Some(agent) = asked.get(http::header::USER_AGENT) {
            headers.insert(http::header::USER_AGENT, agent.clone());
        }
        for Header { name, value } in &self.http_headers {
            if let (Ok(name), Ok(value)) =
                (http::HeaderName::try_from(name.as_str()), http::HeaderValue::try_from(value.as_str()))
            {
                headers.insert(name, value);
            }
        }
        let path = if self.path.starts_with('/') { self.path.clone() } else { format!("/{}", self.path) };
        let call = Call {
            method: Method::GET,
            address: &address(&self.host, self.port),
            path: &path,
            headers,
            timeout,
            bytes_max: ANSWER_BYTES_MAX,
        };
        Ok(call.send().await?.status)
    }
}

/// Runs a command, which has to end with 0.
async fn execute(command: &[String], timeout: Duration) -> Result<(), ProbeError> {
    let (program, arguments) = command.split_first().ok_or(ProbeError::Unknown)?;
    let mut run = Command::new(program);
    run.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let failed = |error| ProbeError::Command { command: program.clone(), error };
    match tokio::time::timeout(timeout, run.status()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(ProbeError::Status { command: program.clone(), status }),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(ProbeError::Late(program.clone())),
    }
}

async fn check(socket: TcpStream, address: &str, service: &str) -> Result<(), ProbeError> {
    let grpc = |reason: String| ProbeError::Grpc { address: address.to_owned(), reason };
    let said = |status: Status| grpc(format!("{:?}: {}", status.code, status.message));
    let channel = Channel::open(socket, address).await.map_err(|error| grpc(error.to_string()))?;
    let mut call = channel.call(CHECK, HeaderMap::new()).await.map_err(said)?;
    let mut request = Vec::new();
    if !service.is_empty() {
        navarch_envoy::wire::put_field(&mut request, 0x0a, service.as_bytes());
    }
    call.send(&request).map_err(said)?;
    call.close().map_err(said)?;
    let answer = call.message().await.map_err(said)?;
    if answer == SERVING { Ok(()) } else { Err(ProbeError::NotServing(address.to_owned())) }
}

/// Applications are asked on this machine unless the probe names another host.
fn address(host: &str, port: u16) -> String {
    let host = if host.is_empty() || host == "localhost" { "127.0.0.1" } else { host };
    format!("{host}:{port}")
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn probes_are_read_as_the_injector_writes_them() {
        let text = r#"{"/app-health/web/readyz": {"httpGet": {"path": "/ok", "port": 8080, "scheme": "HTTP"},
            "timeoutSeconds": 3}, "/app-health/db/livez": {"tcpSocket": {"port": 5432}},
            "/app-health/api/startupz": {"grpc": {"port": 9000, "service": "api"}}}"#;
        let probes = parse(text).expect("probes");
        assert_eq!(probes.len(), 3);
        assert_eq!(probes["/app-health/web/readyz"].timeout_seconds, Some(3));
        assert!(parse("[]").is_err());
    }

    /// A server that gives this answer to everybody.
    async fn answering(answer: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut head = [0; 1024];
                let _ = socket.read(&mut head).await;
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        port
    }

    #[tokio::test]
    async fn the_answer_of_the_application_is_the_answer() {
        let good = answering("HTTP/1.1 204 No Content\r\n\r\n").await;
        let bad = answering("HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n").await;
        let check = async |text: String, expected: Result<u16, &str>| {
            let probe: Probe = serde_json::from_str(&text).expect("a probe");
            let found = probe.run(&HeaderMap::new()).await;
            match (&found, expected) {
                (Ok(status), Ok(expected)) => assert_eq!(status.as_u16(), expected, "{text}"),
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                _ => panic!("{text}: {found:?}"),
            }
        };
        check(format!(r#"{{"httpGet": {{"port": {good}}}}}"#), Ok(204)).await;
        check(format!(r#"{{"httpGet": {{"port": {bad}, "path": "x"}}}}"#), Ok(503)).await;
        check(
            format!(r#"{{"httpGet": {{"port": {good}, "scheme": "HTTPS"}}}}"#),
            Err("nothing that is known"),
        )
        .await;
        check(format!(r#"{{"tcpSocket": {{"port": {good}}}}}"#), Ok(200)).await;
        check(r#"{"tcpSocket": {"port": 1}}"#.to_owned(), Err("cannot connect")).await;
        check(format!(r#"{{"grpc": {{"port": {good}}}}}"#), Err("does not speak gRPC")).await;
        check("{}".to_owned(), Err("nothing that is known")).await;
    }
}
