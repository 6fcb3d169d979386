//! Where certificates of the workload come from: signed by the control plane, kept in the agent's directory,
//! and replaced in the middle of their lives.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use navarch_identity::store::StateDirectory;
use navarch_identity::{Secret, Timestamp};
use rcgen::{CertificateParams, KeyPair};
use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::certificate::{Leaf, LeafError, keep, now};
use crate::upstream::{Upstream, UpstreamError};

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error("no key or no request can be made")]
    Make(#[from] rcgen::Error),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error("what the control plane signed cannot be used")]
    Leaf(#[from] LeafError),
}

/// Where certificates come from and where they are kept.
pub struct Issuer {
    pub upstream: Arc<Upstream>,
    pub directory: Arc<StateDirectory>,
    /// The life that is asked for.
    pub life: Duration,
    /// Directory for `key.pem`, `cert-chain.pem` and `root-cert.pem`, which Istio's agent calls
    /// `OUTPUT_CERTS`.
    pub output: Option<PathBuf>,
}

impl Issuer {
    /// Keeps `leaf` supplied, for ever.
    pub async fn run(self, leaf: watch::Sender<Option<Arc<Leaf>>>) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        loop {
            let current = leaf.borrow().clone();
            if let Some(current) = &current {
                let due = current.renew_at(crate::backoff::random());
                self.wait_until(due).await;
            }
            let valid = current.filter(|current| current.not_after > now());
            match self.issue(valid.as_deref()).await {
                Ok(issued) => {
                    let Leaf { identity, not_after, .. } = &issued;
                    tracing::info!(%identity, %not_after, "the workload has a certificate");
                    backoff.reset();
                    leaf.send_replace(Some(Arc::new(issued)));
                }
                Err(error) => {
                    let wait = backoff.next();
                    tracing::warn!(
                        error = %crate::Chain(&error), retry_in = ?wait,
                        "the workload gets no certificate"
                    );
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// Looks at the clock again and again: it may be set, and the machine may sleep.
    async fn wait_until(&self, due: Timestamp) {
        loop {
            let left = now().until(due);
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(Duration::from_secs(60))).await;
        }
    }

    async fn issue(&self, current: Option<&Leaf>) -> Result<Leaf, IssueError> {
        let key = KeyPair::generate()?;
        let csr = CertificateParams::default().serialize_request(&key)?.pem()?;
        let key = Secret::from(key.serialize_pem());
        let mut chain = self.upstream.sign(csr, self.life, current).await?;
        let roots = chain.pop().filter(|_| !chain.is_empty());
        let roots = roots.ok_or(LeafError::Chain(chain.len()))?;
        let leaf = Leaf::of(key, chain.concat(), roots, now())?;
        if leaf.not_after <= leaf.signed_at {
            return Err(LeafError::Ended(leaf.not_after).into());
        }
        // A token may have been for this one certificate: it is used even if it cannot be kept.
        if let Err(error) = keep(&leaf, &self.directory, self.output.as_deref()) {
            tracing::error!(error = %crate::Chain(&error), "the certificate is not kept for the next start");
        }
        Ok(leaf)
    }
}
