//! How many requests for certificates a server answers, and how fast: `istio.v1.auth` over TLS, each with a
//! token, or over mutual TLS with the certificate that is to be replaced.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::Request;
use rcgen::{CertificateParams, KeyPair};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::server::{Edits, Server};

const METHOD: &str = "https://localhost/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// What is asked, and how.
#[derive(Clone, Debug)]
pub struct CertificateSettings {
    /// The binary of the server, and more arguments for it.
    pub binary: PathBuf,
    pub arguments: Vec<String>,
    /// Workloads that ask, each with a key and a token of its own. One may ask for a hundred certificates a
    /// second.
    pub identities: usize,
    /// Connections, with one request at a time on each.
    pub connections: usize,
    /// Requests in all.
    pub requests: usize,
    /// Requests in a second; as many as there can be if it is not said.
    pub rate: Option<f64>,
    /// Mutual TLS: each connection has a certificate, and its requests no token.
    pub mutual: bool,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct CertificateReport {
    pub requests: usize,
    /// Those that got no certificate.
    pub failed: usize,
    pub seconds: f64,
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// Processor time of the server for one request, handshakes included.
    pub cpu_ms_per_request: f64,
    /// The first failure, if there is one.
    pub failure: Option<String>,
}

/// A workload: its key, its request, ready to be sent, and its token.
struct Workload {
    key: KeyPair,
    message: Bytes,
    authorization: String,
}

/// Starts a server with an authority, and asks it for certificates.
///
/// # Errors
/// If the server does not start, or nothing can be asked.
pub fn certificates(settings: &CertificateSettings) -> Result<CertificateReport> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("a runtime")?;
    let directory = std::env::temp_dir().join(format!("navarch-bench-ca-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("config")).context("a directory for the run")?;
    let report = runtime.block_on(measure(settings, &directory));
    let _ = std::fs::remove_dir_all(&directory);
    report
}

async fn measure(settings: &CertificateSettings, directory: &Path) -> Result<CertificateReport> {
    ensure!(settings.identities > 0 && settings.connections > 0 && settings.requests > 0, "nothing is asked");
    let state = directory.join("state").display().to_string();
    let authority = ["--state".to_owned(), state.clone()];
    let log = directory.join("serve.log");
    let configuration = Edits::Directory(directory.join("config"));
    let server =
        Server::start(&settings.binary, configuration, &settings.arguments, &authority, &log).await?;
    let run = |arguments: &[&str]| -> Result<String> {
        let output = Command::new(&settings.binary).args(arguments).args(["--state", &state]).output()?;
        ensure!(
            output.status.success(),
            "navarch {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let roots = run(&["ca", "root"])?;
    let plain = connector(&roots, None)?;
    let workloads: Vec<Workload> = (0..settings.identities)
        .map(|index| {
            let account = format!("account-{index}");
            let create = ["token", "create", "--namespace", "bench", "--ttl", "24h", "--service-account"];
            Workload::new(&run(&[&create[..], &[account.as_str()]].concat())?)
        })
        .collect::<Result<_>>()?;
    let workloads = Arc::new(workloads);
    // Before anything is measured: who renews has a certificate.
    let mut connectors = vec![plain.clone(); settings.connections];
    if settings.mutual {
        for (connector, workload) in connectors.iter_mut().zip(workloads.iter().cycle()) {
            let (mut sender, connection) = connect(&plain, server.xds).await?;
            let answer = workload.ask(&mut sender, true).await.context("the first certificate")?;
            connection.abort();
            let chain = first_element(&answer).context("the answer has no certificate")?;
            *connector = self::connector(&roots, Some((&chain, &workload.key)))?;
        }
    }
    let before = server.usage()?.cpu;
    let (next, started) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let mut tasks = JoinSet::new();
    for (position, connector) in connectors.into_iter().enumerate() {
        let (workloads, next, mutual) = (workloads.clone(), next.clone(), settings.mutual);
        let (address, requests, rate) = (server.xds, settings.requests, settings.rate);
        tasks.spawn(async move {
            let (mut sender, connection) = connect(&connector, address).await?;
            let mut took = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= requests {
                    break;
                }
                // What waits for its turn is late from its turn on, not from when it is sent.
                let due = rate.map(|rate| started + Duration::from_secs_f64(index as f64 / rate));
                if let Some(due) = due {
                    tokio::time::sleep_until(due.into()).await;
                }
                let begun = due.unwrap_or_else(Instant::now);
                // A connection with a certificate is of one workload.
                let workload = &workloads[if mutual { position } else { index } % workloads.len()];
                let failure =
                    workload.ask(&mut sender, !mutual).await.err().map(|error| format!("{error:#}"));
                took.push((begun.elapsed(), failure));
            }
            connection.abort();
            anyhow::Ok(took)
        });
    }
    let mut all = Vec::with_capacity(settings.requests);
    while let Some(done) = tasks.join_next().await {
        all.extend(done??);
    }
    let seconds = started.elapsed().as_secs_f64();
    let cpu = server.usage()?.cpu - before;
    Ok(report(all, seconds, cpu))
}

/// A connection, and the task that keeps it going.
async fn connect(connector: &TlsConnector, address: SocketAddr) -> Result<(SendRequest<Bytes>, AbortHandle)> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let socket = connector.connect(address.ip().into(), socket).await.context("the TLS handshake")?;
    let (sender, connection) = h2::client::handshake(socket).await?;
    Ok((sender, tokio::spawn(connection).abort_handle()))
}

fn report(all: Vec<(Duration, Option<String>)>, seconds: f64, cpu: f64) -> CertificateReport {
    let failure = all.iter().find_map(|(_, failure)| failure.clone());
    let failed = all.iter().filter(|(_, failure)| failure.is_some()).count();
    let mut took: Vec<f64> = all.iter().map(|(took, _)| took.as_secs_f64() * 1e3).collect();
    took.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (took.len() as f64 * share).ceil() as usize;
        took.get(index.saturating_sub(1)).copied().unwrap_or_default()
    };
    let requests = took.len();
    CertificateReport {
        requests,
        failed,
        seconds,
        per_second: (requests - failed) as f64 / seconds,
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        max_ms: at(1.0),
        cpu_ms_per_request: cpu * 1e3 / requests.max(1) as f64,
        failure,
    }
}

fn connector(roots_pem: &str, own: Option<(&str, &KeyPair)>) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots_pem.as_bytes()) {
        roots.add(root.map_err(|error| anyhow::anyhow!("the roots: {error}"))?)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain.as_bytes())
                .collect::<Result<_, _>>()
                .map_err(|error| anyhow::anyhow!("the certificate: {error}"))?;
            builder.with_client_auth_cert(chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into())?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

impl Workload {
    fn new(token: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let csr = CertificateParams::default().serialize_request(&key)?.pem()?;
        Ok(Workload { key, message: message(&csr), authorization: format!("Bearer {token}") })
    }

    /// Asks for a certificate, and wants one; the answer.
    async fn ask(&self, sender: &mut SendRequest<Bytes>, with_token: bool) -> Result<Bytes> {
        let mut head =
            Request::post(METHOD).header("content-type", "application/grpc").header("te", "trailers");
        if with_token {
            head = head.header("authorization", self.authorization.as_str());
        }
        let head = head.body(())?;
        let mut ready = sender.clone().ready().await?;
        let (response, mut body) = ready.send_request(head, false)?;
        body.send_data(self.message.clone(), true)?;
        let response = response.await?;
        let refused = |headers: &http::HeaderMap| {
            let text =
                |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
            let status = text("grpc-status").filter(|status| status != "0")?;
            Some(format!("grpc-status {status}: {}", text("grpc-message").unwrap_or_default()))
        };
        if let Some(reason) = refused(response.headers()) {
            bail!(reason);
        }
        let mut body = response.into_body();
        let mut answer = BytesMut::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            answer.put_slice(&chunk);
            body.flow_control().release_capacity(chunk.len())?;
        }
        if let Some(reason) = body.trailers().await?.as_ref().and_then(refused) {
            bail!(reason);
        }
        ensure!(answer.len() > 500, "the answer has {} bytes, which is no certificate", answer.len());
        Ok(answer.freeze())
    }
}

/// `istio.v1.auth.IstioCertificateRequest` with a request and nothing else, as a gRPC message.
fn message(csr: &str) -> Bytes {
    const CSR: u8 = 0x0a;
    let mut inner = BytesMut::new();
    inner.put_u8(CSR);
    let mut length = csr.len();
    while length >= 0x80 {
        inner.put_u8((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    inner.put_u8(length as u8);
    inner.put_slice(csr.as_bytes());
    let mut framed = BytesMut::with_capacity(5 + inner.len());
    framed.put_u8(0);
    framed.put_u32(inner.len() as u32);
    framed.put_slice(&inner);
    framed.freeze()
}

/// The first text of `istio.v1.auth.IstioCertificateResponse.cert_chain` in a gRPC message: the leaf.
fn first_element(answer: &[u8]) -> Option<String> {
    let (&tag, mut rest) = answer.get(5..)?.split_first()?;
    let mut length = 0;
    for shift in (0..28).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        (length, rest) = (length | usize::from(byte & 0x7f) << shift, after);
        if byte < 0x80 {
            break;
        }
    }
    (tag == 0x0a).then(|| String::from_utf8(rest.get(..length)?.to_vec()).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leaf_is_the_first_of_an_answer() {
        let framed = [&[0, 0, 0, 1, 0x30, 0x0a, 0xac, 0x02][..], &[b'x'; 300], b"\x0a\x01y"].concat();
        assert_eq!(first_element(&framed), Some("x".repeat(300)));
        for cut in [0, 4, 6, 7, 100] {
            assert_eq!(first_element(&framed[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn a_message_is_a_frame_around_a_field() {
        let message = message(&"x".repeat(300));
        assert_eq!(message[..8], [0, 0, 0, 0x01, 0x2f, 0x0a, 0xac, 0x02]);
        assert_eq!(message.len(), 8 + 300);
    }

    #[test]
    fn a_report_counts_and_sorts() {
        let all = (1..=100).map(|n| (Duration::from_millis(n), (n == 7).then(|| "no".to_owned()))).collect();
        let report = report(all, 2.0, 0.5);
        assert_eq!((report.requests, report.failed), (100, 1));
        assert_eq!((report.p50_ms, report.p99_ms, report.max_ms), (50.0, 99.0, 100.0));
        assert_eq!((report.per_second, report.cpu_ms_per_request), (49.5, 5.0));
        assert_eq!(report.failure.as_deref(), Some("no"));
    }
}
