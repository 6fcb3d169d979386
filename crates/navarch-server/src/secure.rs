//! xDS over TLS: certificates from files, and the identity that a client's certificate proves.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use navarch_xds::{Evidence, Peer, Transport};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How often the files are looked at.
const POLL: Duration = Duration::from_secs(2);

/// Bytes of a file with certificates. More is a mistake.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Where the certificates are, as PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate, and what leads to its root.
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Roots of client certificates. With it a client must have a certificate of theirs with a SPIFFE identity.
    pub client_ca: Option<PathBuf>,
}

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("reading {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} has no {what} in PEM form: {reason}")]
    Pem { path: PathBuf, what: &'static str, reason: String },
    #[error("{path}: {reason}")]
    Roots { path: PathBuf, reason: String },
    #[error("{cert} and {key} cannot be used: {source}")]
    Pair { cert: PathBuf, key: PathBuf, source: rustls::Error },
}

/// The contents of the files.
#[derive(PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// Serves TLS with what the files held when they were last good.
pub struct Tls {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// If they cannot be read, or not be used.
    pub fn open(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        let config = config(&files, &read(&files)?)?;
        Ok(Arc::new(Tls { files, config: ArcSwap::from_pointee(config) }))
    }

    /// Looks at the files for ever. What is wrong is logged, and the last good ones stay in use.
    pub async fn follow(self: Arc<Self>) {
        let mut seen = read(&self.files).ok();
        loop {
            tokio::time::sleep(POLL).await;
            let tls = self.clone();
            let now = match tokio::task::spawn_blocking(move || read(&tls.files)).await {
                Ok(Ok(contents)) => contents,
                Ok(Err(error)) => {
                    if seen.take().is_some() {
                        tracing::error!(%error, "the last good certificates stay in use");
                    }
                    continue;
                }
                Err(_) => continue,
            };
            if seen.as_ref() == Some(&now) {
                continue;
            }
            match config(&self.files, &now) {
                Ok(config) => {
                    self.config.store(Arc::new(config));
                    tracing::info!(cert = %self.files.cert.display(), "new certificates are in use");
                }
                Err(error) => tracing::error!(%error, "the last good certificates stay in use"),
            }
            seen = Some(now);
        }
    }
}

impl Transport for Tls {
    type Io = TlsStream<TcpStream>;

    fn accept(
        &self,
        socket: TcpStream,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<(Self::Io, Peer)>> + Send {
        let handshake = TlsAcceptor::from(self.config.load_full()).accept(socket);
        let authenticated = self.files.client_ca.is_some();
        async move {
            let io = handshake.await?;
            let chain = io.get_ref().1.peer_certificates().unwrap_or_default();
            let (identities, evidence) = match chain.first() {
                Some(certificate) => {
                    let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
                    let id = identity(certificate).map_err(io::Error::other)?;
                    (vec![id], Evidence::of(ClientCertificates(chain)))
                }
                // The handshake has seen to that; to be sure.
                None if authenticated => return Err(io::Error::other("there is no client certificate")),
                None => (Vec::new(), Evidence::default()),
            };
            Ok((io, Peer { address, identities, encrypted: true, evidence }))
        }
    }
}

/// What a client has shown and the handshake has verified, the certificate of the client first: the [`Evidence`] of peers
/// that have certificates.
#[derive(Clone, Debug)]
pub struct ClientCertificates(pub Vec<CertificateDer<'static>>);

/// The one SPIFFE id of a certificate (SPIFFE X.509-SVID, "SPIFFE ID": exactly one URI).
fn identity(certificate: &CertificateDer<'_>) -> Result<String, String> {
    let parsed = webpki::EndEntityCert::try_from(certificate).map_err(|error| error.to_string())?;
    let mut uris = parsed.valid_uri_names();
    match (uris.next(), uris.next()) {
        (Some(uri), None) if navarch_model::identity::split(uri).is_some() => Ok(uri.to_owned()),
        (None, _) => Err("the client certificate has no SPIFFE identity".to_owned()),
        (Some(_), _) => Err("the client certificate has other URIs than one SPIFFE identity".to_owned()),
    }
}

fn read(files: &TlsFiles) -> Result<Contents, TlsError> {
    Ok(Contents {
        cert: read_file(&files.cert)?,
        key: read_file(&files.key)?,
        client_ca: files.client_ca.as_deref().map(read_file).transpose()?,
    })
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    let read = || {
        let size = std::fs::metadata(path)?.len();
        if size > FILE_BYTES_MAX {
            return Err(io::Error::other(format!("{size} bytes are no certificates")));
        }
        std::fs::read(path)
    };
    read().map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn config(files: &TlsFiles, contents: &Contents) -> Result<ServerConfig, TlsError> {
    let chain = certificates(&files.cert, &contents.cert)?;
    let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|error| TlsError::Pem {
        path: files.key.clone(),
        what: "private key",
        reason: error.to_string(),
    })?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients = match (&files.client_ca, &contents.client_ca) {
        (Some(path), Some(pem)) => {
            let wrong = |reason: String| TlsError::Roots { path: path.clone(), reason };
            let mut roots = RootCertStore::empty();
            for root in certificates(path, pem)? {
                roots.add(root).map_err(|error| wrong(error.to_string()))?;
            }
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(|error| wrong(error.to_string()))?
        }
        _ => Arc::new(NoClientAuth),
    };
    let pair = |source| TlsError::Pair { cert: files.cert.clone(), key: files.key.clone(), source };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// All certificates of a file; at least one.
fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |reason: String| TlsError::Pem { path: path.to_owned(), what: "certificate", reason };
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() { Err(wrong("none is there".to_owned())) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(sans: &[SanType]) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.subject_alt_names = sans.to_vec();
        (params.self_signed(&key).expect("a certificate"), key)
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().expect("ASCII"))
    }

    #[test]
    fn a_certificate_proves_exactly_one_spiffe_identity() {
        let dns = || SanType::DnsName("web.example.com".try_into().expect("ASCII"));
        let id = "spiffe://cluster.local/ns/default/sa/web";
        for (sans, expected) in [
            (vec![uri(id)], Some(id)),
            (vec![dns(), uri(id)], Some(id)),
            (vec![dns()], None),
            (vec![uri(id), uri("spiffe://cluster.local/ns/kube-system/sa/admin")], None),
            (vec![uri("https://example.com/")], None),
        ] {
            let (certificate, _) = certificate(&sans);
            assert_eq!(identity(certificate.der()).ok().as_deref(), expected, "{sans:?}");
        }
        assert!(identity(&CertificateDer::from(vec![1, 2, 3])).is_err());
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let (one, one_key) = certificate(&[uri("spiffe://a/ns/b/sa/c")]);
        let (_, other_key) = certificate(&[]);
        let put = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let (cert, key) = (put("cert.pem", &one.pem()), put("key.pem", &one_key.serialize_pem()));
        let (wrong, junk) = (put("wrong.pem", &other_key.serialize_pem()), put("junk.pem", "hello"));
        let absent = directory.path().join("absent.pem");
        let check = |cert: &Path, key: &Path, client_ca: Option<&Path>, expected: &str| {
            let files =
                TlsFiles { cert: cert.into(), key: key.into(), client_ca: client_ca.map(Path::to_owned) };
            let said = Tls::open(files).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{said}");
        };
        check(&cert, &key, None, "");
        check(&cert, &key, Some(&cert), "");
        check(&absent, &key, None, "absent.pem");
        check(&junk, &key, None, "junk.pem has no certificate");
        check(&cert, &junk, None, "junk.pem has no private key");
        check(&cert, &wrong, None, "wrong.pem cannot be used");
        check(&cert, &key, Some(&junk), "junk.pem has no certificate");
    }
}
