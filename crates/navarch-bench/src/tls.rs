//! Certificates of one run: an authority that nobody else knows, a server and a client for each namespace.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::shape::Shape;

/// What the clients of each namespace connect with, by the number of the namespace.
pub type Connectors = Arc<[TlsConnector]>;

/// Writes the server's files into `directory`, and gives the arguments that lead `navarch serve` to them, and
/// what clients connect with.
///
/// # Errors
/// If a certificate cannot be made, or not be written.
pub fn prepare(shape: &Shape, directory: &Path) -> Result<(Vec<String>, Connectors)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key)?;
    let issuer = Issuer::new(params, key);
    let sign = |san: SanType| -> Result<(Certificate, KeyPair)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![san];
        Ok((params.signed_by(&key, &issuer)?, key))
    };
    let (server, server_key) = sign(SanType::IpAddress([127, 0, 0, 1].into()))?;
    let mut arguments = Vec::new();
    for (flag, name, text) in [
        ("--tls-cert", "server.pem", server.pem()),
        ("--tls-key", "server.key", server_key.serialize_pem()),
        ("--tls-client-ca", "ca.pem", authority.pem()),
    ] {
        let path = directory.join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        arguments.extend([flag.to_owned(), path.display().to_string()]);
    }
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone())?;
    let roots = Arc::new(roots);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let connector = |namespace: usize| -> Result<TlsConnector> {
        let identity = format!("spiffe://cluster.local/ns/{}/sa/default", shape.namespace(namespace));
        let (certificate, key) = sign(SanType::URI(identity.as_str().try_into()?))?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let mut config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // Proxies are processes of their own: each makes a whole handshake.
        config.resumption = Resumption::disabled();
        Ok(TlsConnector::from(Arc::new(config)))
    };
    let connectors = (0..shape.namespaces).map(connector).collect::<Result<_>>()?;
    Ok((arguments, connectors))
}
