//! A server over TLS that gives everybody the same document.

use super::pki::Authority;
use anyhow::{Context, Result};
use rcgen::SanType;
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::AbortHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

/// A server that ends when it is dropped.
pub struct Https {
    address: SocketAddr,
    task: AbortHandle,
}

impl Https {
    /// Serves `document` on loopback, as `localhost` with a certificate of `authority`.
    pub async fn serve(authority: &Authority, document: String) -> Result<Https> {
        let (certificate, key) = authority.sign("https", SanType::DnsName("localhost".try_into()?))?;
        let certificate = CertificateDer::from_pem_file(certificate).context("a certificate")?;
        let key = PrivateKeyDer::from_pem_file(key).context("a key")?;
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let length = document.len();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
        let answer = Arc::new(head + &document);
        let serve = async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, answer) = (acceptor.clone(), answer.clone());
                tokio::spawn(async move {
                    let mut socket = acceptor.accept(socket).await?;
                    let _ = socket.read(&mut [0; 4096]).await?;
                    socket.write_all(answer.as_bytes()).await?;
                    socket.shutdown().await
                });
            }
        };
        Ok(Https { address, task: tokio::spawn(serve).abort_handle() })
    }

    /// The URL of the document.
    pub fn url(&self) -> String {
        format!("https://localhost:{}/document", self.address.port())
    }
}

impl Drop for Https {
    fn drop(&mut self) {
        self.task.abort();
    }
}
