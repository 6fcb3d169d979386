//! xDS over TLS: certificates from files, and the identity that a client's certificate proves.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use navarch_identity::Timestamp;
use navarch_identity::authority::{Authority, IssueError};
use navarch_xds::{Evidence, Peer, Transport};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::identity::{Identity, now};

/// How often the files are looked at.
const POLL: Duration = Duration::from_secs(2);

/// Bytes of a file with certificates. More is a mistake.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Where the certificates are, as PEM.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// The server's certificate with what leads to its root, and its key. Without them the authority signs
    /// one.
    pub server: Option<ServerFiles>,
    /// Roots of client certificates, beside those of the authority. Without an authority a client must have a
    /// certificate of theirs with a SPIFFE identity.
    pub client_ca: Option<PathBuf>,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct ServerFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("reading {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} has no {what} in PEM form: {reason}")]
    Pem { path: PathBuf, what: &'static str, reason: String },
    #[error("roots of client certificates from {origin}: {reason}")]
    Roots { origin: String, reason: String },
    #[error("the certificate and the key from {origin} cannot be used: {source}")]
    Pair { origin: String, source: rustls::Error },
    #[error("the authority signs no certificate for this port: {0}")]
    Sign(#[from] IssueError),
    #[error("there is no certificate for this port")]
    NoCertificate,
}

/// The contents of the files, and the authority beside them.
#[derive(Clone)]
struct Contents {
    server: Option<(Vec<u8>, Vec<u8>)>,
    client_ca: Option<Vec<u8>>,
    authority: Option<Arc<Authority>>,
}

impl PartialEq for Contents {
    fn eq(&self, other: &Self) -> bool {
        let Contents { server, client_ca, authority } = self;
        let same = match (authority, &other.authority) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        same && *server == other.server && *client_ca == other.client_ca
    }
}

/// What connections are taken with, and when its certificate is due for another one.
struct Loaded {
    config: Arc<ServerConfig>,
    renew_at: Option<Timestamp>,
}

/// Who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callers {
    /// Proxies, over HTTP/2, who prove who they are.
    Proxies,
    /// API servers, who need not: what they are told is no secret.
    ApiServers,
}

/// Serves TLS with what the files held when they were last good, or with certificates of the authority.
pub struct Tls {
    files: TlsFiles,
    identity: Option<Arc<Identity>>,
    callers: Callers,
    loaded: ArcSwap<Loaded>,
}

impl Tls {
    /// Reads the files, and has the authority sign what they do not provide.
    ///
    /// # Errors
    /// If they cannot be read, or not be used.
    pub fn open(
        files: TlsFiles,
        identity: Option<Arc<Identity>>,
        callers: Callers,
    ) -> Result<Arc<Self>, TlsError> {
        let contents = contents(&files, identity.as_deref())?;
        let loaded = load(&files, identity.as_deref(), &contents, callers)?;
        Ok(Arc::new(Tls { files, identity, callers, loaded: ArcSwap::from_pointee(loaded) }))
    }

    /// Looks at the files and the authority for ever. What is wrong is logged, and the last good certificates
    /// stay in use.
    pub async fn follow(self: Arc<Self>) {
        let mut seen = contents(&self.files, self.identity.as_deref()).ok();
        loop {
            tokio::time::sleep(POLL).await;
            let (tls, before) = (self.clone(), seen.clone());
            let looked = tokio::task::spawn_blocking(move || tls.look(before)).await;
            seen = looked.unwrap_or(seen);
        }
    }

    /// One look; what was seen.
    fn look(&self, seen: Option<Contents>) -> Option<Contents> {
        let current = match contents(&self.files, self.identity.as_deref()) {
            Ok(current) => current,
            Err(error) => {
                if seen.is_some() {
                    tracing::error!(%error, "the last good certificates stay in use");
                }
                return None;
            }
        };
        let is_due = self.loaded.load().renew_at.is_some_and(|at| at <= now());
        if seen.as_ref() == Some(&current) && !is_due {
            return seen;
        }
        match load(&self.files, self.identity.as_deref(), &current, self.callers) {
            Ok(loaded) => {
                self.loaded.store(Arc::new(loaded));
                tracing::info!("new certificates are in use");
            }
            Err(error) => tracing::error!(%error, "the last good certificates stay in use"),
        }
        Some(current)
    }
}

impl Transport for Tls {
    type Io = TlsStream<TcpStream>;

    fn accept(
        &self,
        socket: TcpStream,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<(Self::Io, Peer)>> + Send {
        let handshake = TlsAcceptor::from(self.loaded.load().config.clone()).accept(socket);
        // With an authority there are also tokens, which come with each call.
        let authenticated = self.files.client_ca.is_some() && self.identity.is_none();
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

/// What a client has shown and the handshake has verified, the certificate of the client first: the
/// [`Evidence`] of peers that have certificates.
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

fn contents(files: &TlsFiles, identity: Option<&Identity>) -> Result<Contents, TlsError> {
    let server = match &files.server {
        Some(ServerFiles { cert, key }) => Some((read_file(cert)?, read_file(key)?)),
        None => None,
    };
    Ok(Contents {
        server,
        client_ca: files.client_ca.as_deref().map(read_file).transpose()?,
        authority: identity.map(Identity::port_authority),
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

fn load(
    files: &TlsFiles,
    identity: Option<&Identity>,
    contents: &Contents,
    callers: Callers,
) -> Result<Loaded, TlsError> {
    let own = certificate(files, identity, contents)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients = match callers {
        Callers::Proxies => client_verifier(files, identity, contents, &provider)?,
        Callers::ApiServers => Arc::new(NoClientAuth),
    };
    let pair = |source| TlsError::Pair { origin: own.origin.clone(), source };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_client_cert_verifier(clients)
        .with_single_cert(own.chain, own.key)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    if callers == Callers::ApiServers {
        config.alpn_protocols.push(b"http/1.1".to_vec());
    }
    Ok(Loaded { config: Arc::new(config), renew_at: own.renew_at })
}

/// The server's own certificate.
struct Own {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    origin: String,
    renew_at: Option<Timestamp>,
}

fn certificate(files: &TlsFiles, identity: Option<&Identity>, contents: &Contents) -> Result<Own, TlsError> {
    if let (Some(ServerFiles { cert, key }), Some((cert_pem, key_pem))) = (&files.server, &contents.server) {
        let chain = certificates(cert, cert_pem)?;
        let origin = format!("{} and {}", cert.display(), key.display());
        let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| TlsError::Pem {
            path: key.clone(),
            what: "private key",
            reason: error.to_string(),
        })?;
        return Ok(Own { chain, key, origin, renew_at: None });
    }
    let signed = identity.ok_or(TlsError::NoCertificate)?.server_certificate()?;
    let half = now().until(signed.not_after) / 2;
    let key = PrivatePkcs8KeyDer::from(signed.key.expose().to_vec());
    let (origin, renew_at) = ("the authority".to_owned(), Some(now().after(half)));
    Ok(Own { chain: signed.chain, key: key.into(), origin, renew_at })
}

/// Clients have certificates of the roots in the file and of the authority. With an authority they may also
/// have none, and prove with each call who they are.
fn client_verifier(
    files: &TlsFiles,
    identity: Option<&Identity>,
    contents: &Contents,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    let mut add = |origin: String, certificates: Vec<CertificateDer<'static>>| {
        certificates
            .into_iter()
            .try_for_each(|root| roots.add(root))
            .map_err(|error| TlsError::Roots { origin, reason: error.to_string() })
    };
    if let (Some(path), Some(pem)) = (&files.client_ca, &contents.client_ca) {
        add(path.display().to_string(), certificates(path, pem)?)?;
    }
    if let Some(authority) = &contents.authority {
        add("the authority".to_owned(), authority.roots().to_vec())?;
    }
    if roots.is_empty() {
        return Ok(Arc::new(NoClientAuth));
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    if let Some(identity) = identity {
        builder = builder.with_crls(identity.revoked()).allow_unknown_revocation_status();
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|error| TlsError::Roots {
        origin: "the configured files".to_owned(),
        reason: error.to_string(),
    })
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
            let server = Some(ServerFiles { cert: cert.into(), key: key.into() });
            let files = TlsFiles { server, client_ca: client_ca.map(Path::to_owned) };
            let said = Tls::open(files, None, Callers::Proxies)
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default();
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
