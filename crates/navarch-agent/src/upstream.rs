//! The way to the control plane: one HTTP/2 connection that all streams share, over mutual TLS, with a token,
//! or in plaintext.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use navarch_identity::service::{CREATE_CERTIFICATE, CertificateRequest, CertificateResponse};
use navarch_identity::{Secret, pem};
use navarch_xds::server::{Code, Status};
use prost::Message;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, watch};
use tokio_rustls::TlsConnector;

use crate::bootstrap::Authority;
use crate::certificate::Leaf;
use crate::grpc::{Call, Channel};
use crate::roots::Roots;

/// Time for a connection, TLS included, as Istio's agent gives it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a certificate. The server is asked again after that.
const CERTIFICATE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a token, and of a file with roots.
const TOKEN_BYTES_MAX: u64 = 64 << 10;
const ROOTS_BYTES_MAX: u64 = 1 << 20;

/// How the control plane is talked to.
#[derive(Clone, Debug)]
pub struct Options {
    pub server: Authority,
    /// Roots of its certificate: TLS. Without them the connection is plaintext.
    pub roots: Option<PathBuf>,
    /// Name that its certificate must have; the host if absent.
    pub name: Option<String>,
    /// File with a join token or a token of Kubernetes. It is read each time, since Kubernetes replaces it.
    pub token: Option<PathBuf>,
    /// More headers of every call, such as `clusterid`.
    pub headers: Vec<(String, String)>,
}

/// Why the control plane cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("cannot connect to {server}")]
    Connect {
        server: String,
        #[source]
        source: io::Error,
    },
    #[error("{server} does not answer within {CONNECT_TIMEOUT:?}")]
    Timeout { server: String },
    #[error("{server} does not speak HTTP/2")]
    Http {
        server: String,
        #[source]
        source: h2::Error,
    },
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} {reason}")]
    File { path: PathBuf, reason: String },
    #[error("{name} is not a name or an address that a certificate can have")]
    Name { name: String },
    #[error("TLS with these roots and certificates is not possible")]
    Tls(#[source] rustls::Error),
    #[error("there is no certificate of this workload yet")]
    NoCertificate,
    #[error("the control plane says {:?}: {}", .0.code, .0.message)]
    Refused(Status),
}

/// The control plane.
pub struct Upstream {
    options: Options,
    leaf: watch::Receiver<Option<Arc<Leaf>>>,
    /// Roots that the control plane distributes.
    roots: Option<Roots>,
    /// Whether streams wait for a certificate of the workload.
    needs_leaf: bool,
    shared: Mutex<Option<Shared>>,
}

/// The connection of the streams, and what it was made with.
struct Shared {
    channel: Channel,
    leaf: Option<Arc<Leaf>>,
}

impl Upstream {
    /// A control plane that nobody has connected to yet.
    #[must_use]
    pub fn new(
        options: Options,
        leaf: watch::Receiver<Option<Arc<Leaf>>>,
        roots: Option<Roots>,
        needs_leaf: bool,
    ) -> Arc<Self> {
        Arc::new(Upstream { options, leaf, roots, needs_leaf, shared: Mutex::new(None) })
    }

    /// Where it is, for people.
    #[must_use]
    pub fn server(&self) -> String {
        self.options.server.to_string()
    }

    /// Starts a call on the connection that all share, which is made if need be.
    ///
    /// # Errors
    /// If there is no way to the control plane.
    pub async fn open(&self, path: &str) -> Result<Call, UpstreamError> {
        let leaf = self.leaf.borrow().clone();
        if self.needs_leaf && leaf.is_none() {
            return Err(UpstreamError::NoCertificate);
        }
        let metadata = self.metadata(leaf.is_none()).await?;
        let mut shared = self.shared.lock().await;
        // With a new certificate comes a new connection; calls on the old one go on.
        let current = shared.take().filter(|shared| same(shared.leaf.as_ref(), leaf.as_ref()));
        let channel = match current {
            Some(current) if current.channel.is_usable().await => current.channel,
            _ => self.connect(leaf.as_deref()).await?,
        };
        *shared = Some(Shared { channel: channel.clone(), leaf });
        drop(shared);
        channel.call(path, metadata).await.map_err(UpstreamError::Refused)
    }

    /// Has a request for a certificate signed: the leaf, what leads to its root, and the roots last.
    ///
    /// # Errors
    /// If there is no way to the control plane, or it refuses.
    pub async fn sign(
        &self,
        csr: String,
        life: Duration,
        current: Option<&Leaf>,
    ) -> Result<Vec<String>, UpstreamError> {
        let metadata = self.metadata(current.is_none()).await?;
        let validity_duration = i64::try_from(life.as_secs()).unwrap_or_default();
        let request = CertificateRequest { csr, validity_duration, metadata: None };
        let answered = async {
            let channel = self.connect(current).await?;
            let mut call =
                channel.call(CREATE_CERTIFICATE, metadata).await.map_err(UpstreamError::Refused)?;
            call.send(&request.encode_to_vec()).map_err(UpstreamError::Refused)?;
            call.close().map_err(UpstreamError::Refused)?;
            let answer: Bytes = call.message().await.map_err(UpstreamError::Refused)?;
            let invalid = |error: prost::DecodeError| {
                UpstreamError::Refused(Status::new(Code::Internal, error.to_string()))
            };
            Ok(CertificateResponse::decode(answer).map_err(invalid)?.cert_chain)
        };
        let late = |_| Err(UpstreamError::Timeout { server: self.server() });
        tokio::time::timeout(CERTIFICATE_TIMEOUT, answered).await.unwrap_or_else(late)
    }

    /// Headers of a call. A token is sent only where nothing else says who calls.
    async fn metadata(&self, with_token: bool) -> Result<HeaderMap, UpstreamError> {
        let mut metadata = HeaderMap::new();
        for (name, value) in &self.options.headers {
            if let (Ok(name), Ok(value)) =
                (http::HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str()))
            {
                metadata.insert(name, value);
            }
        }
        if let (true, Some(path)) = (with_token, &self.options.token) {
            let text = read(path, TOKEN_BYTES_MAX).await?;
            let bad = |reason: &str| UpstreamError::File { path: path.clone(), reason: reason.to_owned() };
            let token = text.expose_text().map(str::trim).filter(|token| !token.is_empty());
            let bearer = format!("Bearer {}", token.ok_or_else(|| bad("has no token in it"))?);
            let mut value =
                HeaderValue::try_from(bearer).map_err(|_| bad("has something in it that is not a token"))?;
            value.set_sensitive(true);
            metadata.insert(http::header::AUTHORIZATION, value);
        }
        Ok(metadata)
    }

    async fn connect(&self, leaf: Option<&Leaf>) -> Result<Channel, UpstreamError> {
        let connected = self.connect_untimed(leaf);
        let late = |_| Err(UpstreamError::Timeout { server: self.server() });
        tokio::time::timeout(CONNECT_TIMEOUT, connected).await.unwrap_or_else(late)
    }

    async fn connect_untimed(&self, leaf: Option<&Leaf>) -> Result<Channel, UpstreamError> {
        let Authority { host, port } = &self.options.server;
        let server = self.server();
        let connect = |source| UpstreamError::Connect { server: server.clone(), source };
        let http = |source| UpstreamError::Http { server: server.clone(), source };
        let socket = TcpStream::connect((host.as_str(), *port)).await.map_err(connect)?;
        let _ = socket.set_nodelay(true);
        let Some(roots) = &self.options.roots else {
            return Channel::open(socket, &server).await.map_err(http);
        };
        let config = self.tls(roots, leaf).await?;
        let name = self.options.name.clone().unwrap_or_else(|| host.clone());
        let name = ServerName::try_from(name.clone()).map_err(|_| UpstreamError::Name { name })?;
        let socket = TlsConnector::from(Arc::new(config)).connect(name, socket).await.map_err(connect)?;
        Channel::open(socket, &server).await.map_err(http)
    }

    /// Roots are those of the file, those that came with the certificate of the workload, and those that are
    /// distributed: when roots rotate, the file is the oldest of the three.
    async fn tls(&self, path: &Path, leaf: Option<&Leaf>) -> Result<ClientConfig, UpstreamError> {
        let bad =
            |error: pem::PemError| UpstreamError::File { path: path.to_owned(), reason: error.to_string() };
        let mut roots = RootCertStore::empty();
        let file = pem::certificates(read(path, ROOTS_BYTES_MAX).await?.expose()).map_err(bad)?;
        roots.add_parsable_certificates(file);
        if let Some(leaf) = leaf {
            roots.add_parsable_certificates(pem::certificates(leaf.roots.as_bytes()).unwrap_or_default());
        }
        if let Some(distributed) = self.roots.as_ref().and_then(Roots::distributed) {
            roots.add_parsable_certificates(pem::certificates(&distributed.pem).unwrap_or_default());
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(UpstreamError::Tls)?
            .with_root_certificates(roots);
        let mut config = match leaf {
            None => builder.with_no_client_auth(),
            Some(leaf) => {
                let chain = pem::certificates(leaf.chain.as_bytes()).map_err(bad)?;
                let key = pem::private_key(&leaf.key).map_err(bad)?;
                builder.with_client_auth_cert(chain, key).map_err(UpstreamError::Tls)?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

fn same(one: Option<&Arc<Leaf>>, other: Option<&Arc<Leaf>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}

async fn read(path: &Path, bytes_max: u64) -> Result<Secret, UpstreamError> {
    let failed = |source| UpstreamError::Read { path: path.to_owned(), source };
    let size = tokio::fs::metadata(path).await.map_err(failed)?.len();
    if size > bytes_max {
        let reason = format!("has {size} bytes, more than the {bytes_max} that it may have");
        return Err(UpstreamError::File { path: path.to_owned(), reason });
    }
    Ok(Secret::new(tokio::fs::read(path).await.map_err(failed)?))
}
