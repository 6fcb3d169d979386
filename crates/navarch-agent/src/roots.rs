//! The roots of the mesh that the control plane distributes, kept over restarts.
//!
//! Roots also come with each certificate of the workload. While one root follows another that is too late:
//! the next one signs as soon as every proxy is known to have it.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use navarch_envoy::proto::envoy::config::core::v3::{DataSource, data_source};
use navarch_envoy::proto::envoy::extensions::transport_sockets::tls::v3::{Secret as EnvoySecret, secret};
use navarch_identity::pem;
use navarch_identity::store::StateDirectory;
use prost::Message;
use tokio::sync::watch;

use crate::certificate::write_private;

/// The file in the agent's directory: the secret as it came.
const KEPT: &str = "roots.pb";
/// The copy for applications.
const COPY: &str = "root-cert.pem";

/// Roots that are distributed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distributed {
    /// The encoded secret, for proxies: it may say more than which roots there are.
    pub message: Bytes,
    /// The roots of the own trust domain, PEM.
    pub pem: Bytes,
}

impl Distributed {
    /// Reads an encoded secret; nothing if there are no roots in it.
    fn of(message: &[u8]) -> Option<Self> {
        let Some(secret::Type::ValidationContext(context)) = EnvoySecret::decode(message).ok()?.r#type else {
            return None;
        };
        let pem = match context.trusted_ca? {
            DataSource { specifier: Some(data_source::Specifier::InlineBytes(pem)), .. } => pem,
            DataSource { specifier: Some(data_source::Specifier::InlineString(pem)), .. } => pem.into(),
            _ => return None,
        };
        pem::certificates(&pem).ok()?;
        Some(Distributed { message: Bytes::copy_from_slice(message), pem })
    }
}

/// The roots that are distributed, if any are. Clones share them.
#[derive(Clone)]
pub struct Roots {
    shared: Arc<Shared>,
    current: watch::Receiver<Option<Arc<Distributed>>>,
}

struct Shared {
    directory: Arc<StateDirectory>,
    output: Option<PathBuf>,
    sender: watch::Sender<Option<Arc<Distributed>>>,
}

impl Roots {
    /// The roots of an earlier run. `output` is a directory for a copy.
    #[must_use]
    pub fn open(directory: Arc<StateDirectory>, output: Option<PathBuf>) -> Self {
        let kept = directory.read(KEPT).unwrap_or_else(|error| {
            tracing::warn!(error = %crate::Chain(&error), "the roots of an earlier run cannot be read");
            None
        });
        let kept = kept.and_then(|message| Distributed::of(message.expose()));
        let (sender, current) = watch::channel(kept.map(Arc::new));
        Roots { shared: Arc::new(Shared { directory, output, sender }), current }
    }

    /// Those that are distributed now.
    #[must_use]
    pub fn distributed(&self) -> Option<Arc<Distributed>> {
        self.current.borrow().clone()
    }

    /// Returns when there are others.
    ///
    /// # Errors
    /// If there will be no others.
    pub async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.current.changed().await
    }

    /// These are distributed, as an encoded secret. They are on the disk before anybody sees them.
    pub fn take(&self, message: &[u8]) {
        let Some(distributed) = Distributed::of(message) else {
            tracing::warn!("what the control plane distributes as roots has none");
            return;
        };
        if self.distributed().is_some_and(|known| *known == distributed) {
            return;
        }
        let Shared { directory, output, sender } = &*self.shared;
        if let Err(error) = directory.replace(KEPT, message) {
            tracing::error!(error = %crate::Chain(&error), "the roots are not kept for the next start");
        }
        if let Some(output) = output
            && let Err(error) = write_private(&output.join(COPY), &distributed.pem)
        {
            tracing::error!(%error, "the copy of the roots cannot be written");
        }
        sender.send_replace(Some(Arc::new(distributed)));
    }

    /// None are distributed: those that come with certificates are all there is.
    pub fn forget(&self) {
        if self.distributed().is_none() {
            return;
        }
        if let Err(error) = self.shared.directory.remove(KEPT) {
            tracing::error!(error = %crate::Chain(&error), "roots of an earlier control plane stay behind");
        }
        self.shared.sender.send_replace(None);
    }
}

#[cfg(test)]
mod tests {
    use navarch_envoy::proto::envoy::extensions::transport_sockets::tls::v3::CertificateValidationContext;
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn secret(pem: &str) -> Vec<u8> {
        let inline = data_source::Specifier::InlineBytes(pem.to_owned().into());
        let context = CertificateValidationContext {
            trusted_ca: Some(DataSource { specifier: Some(inline), ..DataSource::default() }),
            ..CertificateValidationContext::default()
        };
        let kind = Some(secret::Type::ValidationContext(context));
        EnvoySecret { name: "ROOTCA".to_owned(), r#type: kind }.encode_to_vec()
    }

    #[test]
    fn what_was_distributed_last_is_there_at_the_next_start() {
        let temp = tempfile::tempdir().expect("a directory");
        let open = || Arc::new(StateDirectory::open(&temp.path().join("agent")).expect("a directory"));
        let root = || {
            let key = KeyPair::generate().expect("a key");
            CertificateParams::default().self_signed(&key).expect("a certificate").pem()
        };
        let output = temp.path().join("output");
        std::fs::create_dir(&output).expect("made");
        let roots = Roots::open(open(), Some(output.clone()));
        assert!(roots.distributed().is_none());
        let (one, both) = (secret(&root()), secret(&format!("{}{}", root(), root())));
        for message in [&one, &both] {
            roots.take(message);
            let distributed = roots.distributed().expect("roots");
            assert_eq!(distributed.message, *message);
            assert_eq!(std::fs::read(output.join(COPY)).expect("a copy"), distributed.pem);
        }
        for bad in [&b""[..], b"\xff", &secret(""), &secret("junk")] {
            roots.take(bad);
        }
        let kept = Roots::open(open(), None).distributed().expect("kept");
        assert_eq!(kept.message, both, "the last good ones stay");
        roots.forget();
        assert!(Roots::open(open(), None).distributed().is_none());
    }
}
