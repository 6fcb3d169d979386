//! Fetches a document from a URL that a policy names, and does not trust the URL.
//!
//! The addresses of a host are looked up once, looked at, and connected to, so that a name cannot lead
//! elsewhere after it was looked at. Redirects are not followed, and proxies of the environment are not
//! used.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, LOCATION, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::address::Addresses;

/// Time for one document, name lookup included.
const WITHIN: Duration = Duration::from_secs(10);

/// Time for one connection: a host may have others that answer.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// Addresses of one host that are tried.
const ADDRESSES_MAX: usize = 4;

/// Bytes of the URL. It is stated in a policy.
const URL_BYTES_MAX: usize = 4096;

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{0} is not a URL to fetch from: http or https, a host, and neither user nor password")]
    Url(String),
    #[error("the name {host} cannot be looked up")]
    Lookup { host: String, source: io::Error },
    #[error("{host} is {address}, and {why}: allow it with --fetch-allow if that is meant")]
    Refused { host: String, address: IpAddr, why: &'static str },
    #[error("no connection to {host}")]
    Connect { host: String, source: io::Error },
    #[error("the conversation with {host} broke off")]
    Exchange {
        host: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{host} answers {status}{hint}")]
    Status { host: String, status: StatusCode, hint: &'static str },
    #[error("the answer of {host} has more than {max} bytes")]
    TooLarge { host: String, max: usize },
    #[error("{host} has not answered within {} s", WITHIN.as_secs())]
    Late { host: String },
    #[error("roots to verify servers by cannot be read: {0}")]
    Roots(String),
}

/// Fetches documents.
pub struct Fetcher {
    addresses: Addresses,
    /// A file with roots, beside those of the system.
    roots: Option<PathBuf>,
    tls: OnceLock<Arc<ClientConfig>>,
}

impl Fetcher {
    /// A fetcher that asks these addresses only, and believes servers by the roots of the system and of a
    /// file.
    #[must_use]
    pub fn new(addresses: Addresses, roots: Option<PathBuf>) -> Self {
        Fetcher { addresses, roots, tls: OnceLock::new() }
    }

    /// The document at a URL, of at most so many bytes.
    ///
    /// # Errors
    /// If the URL may not be asked, or there is no such document.
    pub async fn get(&self, url: &str, max: usize) -> Result<Bytes, FetchError> {
        let target = Target::parse(url)?;
        let host = target.host.clone();
        let fetched = tokio::time::timeout(WITHIN, self.fetch(target, max)).await;
        fetched.unwrap_or(Err(FetchError::Late { host }))
    }

    async fn fetch(&self, target: Target, max: usize) -> Result<Bytes, FetchError> {
        let socket = self.connect(&target).await?;
        if !target.https {
            return exchange(socket, &target, max).await;
        }
        let host = || target.host.clone();
        let connector = TlsConnector::from(self.tls()?);
        let name =
            ServerName::try_from(target.host.clone()).map_err(|_| FetchError::Url(target.host.clone()))?;
        let socket = connector.connect(name, socket).await;
        exchange(socket.map_err(|source| FetchError::Connect { host: host(), source })?, &target, max).await
    }

    async fn connect(&self, target: &Target) -> Result<TcpStream, FetchError> {
        let Target { host, port, .. } = target;
        let looked_up = tokio::net::lookup_host((host.as_str(), *port)).await;
        let found: Vec<SocketAddr> =
            looked_up.map_err(|source| FetchError::Lookup { host: host.clone(), source })?.collect();
        let mut error = None;
        for address in found.into_iter().take(ADDRESSES_MAX) {
            if let Some(why) = self.addresses.refusal(address.ip()) {
                error.get_or_insert(FetchError::Refused { host: host.clone(), address: address.ip(), why });
                continue;
            }
            let connected = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(address)).await;
            match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(socket) => return Ok(socket),
                Err(source) => error = Some(FetchError::Connect { host: host.clone(), source }),
            }
        }
        let nothing = || io::Error::new(io::ErrorKind::NotFound, "it has no addresses");
        Err(error.unwrap_or_else(|| FetchError::Lookup { host: host.clone(), source: nothing() }))
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, FetchError> {
        if let Some(known) = self.tls.get() {
            return Ok(known.clone());
        }
        let mut roots = RootCertStore::empty();
        // A system may have roots that nobody can read; those that can be are good.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = &self.roots {
            let wrong = |reason: String| FetchError::Roots(format!("{}: {reason}", path.display()));
            let stated = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
            for root in stated {
                let root = root.map_err(|error| wrong(error.to_string()))?;
                roots.add(root).map_err(|error| wrong(error.to_string()))?;
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| FetchError::Roots(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(self.tls.get_or_init(|| Arc::new(config)).clone())
    }
}

/// A URL in parts.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    https: bool,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    /// As it stands in the header.
    authority: String,
    path: String,
}

impl Target {
    fn parse(url: &str) -> Result<Self, FetchError> {
        let wrong = || FetchError::Url(url.chars().take(200).collect());
        let uri: Uri = Some(url)
            .filter(|url| url.len() <= URL_BYTES_MAX)
            .ok_or_else(wrong)?
            .parse()
            .map_err(|_| wrong())?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let authority =
            uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(wrong)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        // A port that is not a number is no port for the library.
        let states_port = authority.as_str().len() > authority.host().len();
        if host.is_empty() || (states_port && authority.port_u16().is_none()) {
            return Err(wrong());
        }
        Ok(Target {
            https,
            port: authority.port_u16().unwrap_or(if https { 443 } else { 80 }),
            host,
            authority: authority.to_string(),
            path: uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
        })
    }
}

async fn exchange(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    target: &Target,
    max: usize,
) -> Result<Bytes, FetchError> {
    let host = || target.host.clone();
    let broken =
        |source: Box<dyn std::error::Error + Send + Sync>| FetchError::Exchange { host: host(), source };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .map_err(|error| broken(error.into()))?;
    // It ends with the answer, or when this is dropped.
    let connection = tokio::spawn(connection);
    let request = Request::get(target.path.as_str())
        .header(HOST, target.authority.as_str())
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("navarch/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| broken(error.into()))?;
    let response = sender.send_request(request).await.map_err(|error| broken(error.into()))?;
    let status = response.status();
    if status != StatusCode::OK {
        let redirects = response.headers().contains_key(LOCATION);
        let hint = if redirects { ", which leads elsewhere and is not followed" } else { "" };
        return Err(FetchError::Status { host: host(), status, hint });
    }
    let body = Limited::new(response.into_body(), max).collect().await;
    connection.abort();
    match body {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(FetchError::TooLarge { host: host(), max })
        }
        Err(error) => Err(broken(error)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn urls_are_taken_apart_or_refused() {
        let check = |url: &str, expected: Option<(&str, u16, &str)>| {
            let found = Target::parse(url).ok();
            let found =
                found.as_ref().map(|target| (target.host.as_str(), target.port, target.path.as_str()));
            assert_eq!(found, expected, "{url}");
        };
        check("https://issuer.test/keys?v=1", Some(("issuer.test", 443, "/keys?v=1")));
        check("http://issuer.test:8080", Some(("issuer.test", 8080, "/")));
        check("https://[::1]:8443/k", Some(("::1", 8443, "/k")));
        for wrong in [
            "",
            "issuer.test",
            "ftp://issuer.test/",
            "file:///etc/passwd",
            "http:///keys",
            "https://a:b@c/",
            "https://issuer.test:99999/",
            "gopher://x",
            "https://issuer.test/\r\nX: y",
        ] {
            check(wrong, None);
        }
    }

    /// A server that gives one answer to everybody.
    async fn server(answer: String) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = socket.read(&mut request).await;
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn documents_are_fetched_within_limits() {
        let open = Fetcher::new(Addresses::allowing(vec!["127.0.0.0/8".parse().expect("a network")]), None);
        let said = async |answer: &str, max: usize| {
            let address = server(answer.to_owned()).await;
            match open.get(&format!("http://{address}/keys"), max).await {
                Ok(body) => String::from_utf8_lossy(&body).into_owned(),
                Err(error) => error.to_string(),
            }
        };
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
        assert_eq!(said(ok, 5).await, "hello");
        assert!(said(ok, 4).await.contains("more than 4 bytes"));
        let chunked =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nhello\r\n0\r\n\r\n";
        assert_eq!(said(chunked, 10).await, "hellohello");
        assert!(said(chunked, 9).await.contains("more than 9 bytes"));
        let moved = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
        assert!(said(moved, 10).await.contains("302 Found, which leads elsewhere and is not followed"));
        assert!(said("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", 10).await.contains("404"));
        assert!(said("nonsense", 10).await.contains("broke off"));
        assert!(said("", 10).await.contains("broke off"));
    }

    /// A server over TLS with a certificate for a name, and the file with the root of that.
    async fn tls_server(directory: &std::path::Path, name: &str) -> (u16, PathBuf) {
        use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("the root of {name}"));
        let root = params.self_signed(&key).expect("a root");
        let file = directory.join(format!("{name}.pem"));
        std::fs::write(&file, root.pem()).expect("written");
        let leaf_key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new([name.to_owned()]).expect("a name");
        let leaf = leaf.signed_by(&leaf_key, &Issuer::new(params, key)).expect("signed");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], leaf_key.into())
            .expect("a pair");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let Ok(mut socket) = acceptor.accept(socket).await else { continue };
                let _ = socket.read(&mut [0; 1024]).await;
                let ok = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
                let _ = socket.write_all(ok.as_bytes()).await;
                let _ = socket.shutdown().await;
            }
        });
        (port, file)
    }

    #[tokio::test]
    async fn a_server_over_tls_proves_its_name() {
        let temp = tempfile::tempdir().expect("a directory");
        let (port, root) = tls_server(temp.path(), "localhost").await;
        let (other_port, other) = tls_server(temp.path(), "issuer.test").await;
        let near =
            || Addresses::allowing(["127.0.0.0/8", "::1/128"].map(|net| net.parse().expect("it")).into());
        let said = async |roots: Option<PathBuf>, port: u16| {
            let got = Fetcher::new(near(), roots).get(&format!("https://localhost:{port}/keys"), 10).await;
            match got {
                Ok(body) => String::from_utf8_lossy(&body).into_owned(),
                Err(FetchError::Connect { source, .. }) => source.to_string(),
                Err(error) => panic!("{error:?}"),
            }
        };
        assert_eq!(said(Some(root.clone()), port).await, "hello");
        for (roots, port, expected) in [
            (None, port, "UnknownIssuer"),
            (Some(other.clone()), port, "UnknownIssuer"),
            (Some(other), other_port, "not valid for name"),
        ] {
            let said = said(roots, port).await;
            assert!(said.contains(expected), "{said}");
        }
        let junk = temp.path().join("junk.pem");
        std::fs::write(&junk, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n")
            .expect("written");
        let error = Fetcher::new(near(), Some(junk)).get(&format!("https://localhost:{port}/"), 10).await;
        assert!(matches!(&error, Err(FetchError::Roots(reason)) if reason.contains("junk.pem")), "{error:?}");
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_is_refused() {
        let address = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned()).await;
        let usual = Fetcher::new(Addresses::default(), None);
        for host in ["127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]"] {
            let error = usual.get(&format!("http://{host}:{}/", address.port()), 10).await;
            assert!(matches!(error, Err(FetchError::Refused { .. })), "{host}: {error:?}");
        }
    }
}
