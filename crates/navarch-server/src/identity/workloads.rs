//! Certificates over ADS, for proxies that have no agent beside them: the key is made here, for one stream.
//!
//! A key leaves this process on the stream that was opened by who was proven to be the workload, and on no
//! other. It is in no class, no memo and no page, and is made again for the next stream.

use std::sync::Arc;
use std::time::Duration;

use navarch_envoy::{Layer, XdsType};
use navarch_identity::authority::{IssueError, WorkloadCertificate};
use navarch_identity::renewal::renew_at;
use navarch_model::SpiffeId;
use navarch_translate::sds::WORKLOAD_CERTIFICATE;
use navarch_translate::secrets::workload_certificate;
use navarch_xds::{OwnResources, Peer};
use tokio::sync::watch;

use super::{Identity, now};

/// How long to wait after a certificate could not be made.
const RETRY: Duration = Duration::from_secs(5);

impl Identity {
    /// What is made for the stream of a peer, if the transport or a token has proven that it is exactly one
    /// workload.
    pub fn own(self: &Arc<Self>, peer: &Peer) -> Option<OwnResources> {
        let [identity] = &peer.identities[..] else { return None };
        let id: SpiffeId = identity.parse().ok().filter(|_| peer.encrypted)?;
        let identity = self.clone();
        let make = move || {
            let (sender, receiver) = watch::channel(None);
            tokio::spawn(identity.keep_certified(id, sender));
            receiver
        };
        Some(OwnResources {
            ty: XdsType::Sds,
            names: vec![WORKLOAD_CERTIFICATE.into()],
            make: Box::new(make),
        })
    }

    /// Makes a certificate, and another one before it ends, as long as the stream is there.
    async fn keep_certified(self: Arc<Self>, id: SpiffeId, secrets: watch::Sender<Option<Arc<Layer>>>) {
        loop {
            let wait = match self.certify(&id).await {
                Ok(made) => {
                    let resource = workload_certificate(&made.chain, made.key.expose());
                    secrets.send_replace(Some(Arc::new(Layer::new([Arc::new(resource)]))));
                    renew_after(&made)
                }
                Err(error) => {
                    tracing::warn!(identity = %id, %error, "no certificate over xDS");
                    // Who has one keeps it; who has none is told so.
                    secrets
                        .send_if_modified(|known| known.is_none() && known.insert(Arc::default()).is_empty());
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = secrets.closed() => return,
            }
        }
    }

    /// A certificate with a new key. As many are made at once as there are processors.
    async fn certify(self: &Arc<Self>, id: &SpiffeId) -> Result<WorkloadCertificate, IssueError> {
        let _permit = self.making.acquire().await;
        let (identity, of) = (self.clone(), id.clone());
        let made = tokio::task::spawn_blocking(move || identity.authority().issue_with_key(&of, now())).await;
        let made = made.map_err(|error| IssueError::Sign { reason: error.to_string() })??;
        tracing::debug!(identity = %id, serial = made.serial, not_after = %made.not_after, "certificate over xDS");
        Ok(made)
    }
}

/// A while after now.
fn renew_after(made: &WorkloadCertificate) -> Duration {
    // The number of a certificate is random; its first digits are not all.
    let digits = made.serial.get(8..16).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let share = f64::from(digits.unwrap_or(0)) / f64::from(u32::MAX);
    now().until(renew_at(now(), made.not_after, share))
}

#[cfg(test)]
mod tests {
    use navarch_identity::{Secret, Timestamp};

    use super::*;

    #[test]
    fn renewals_are_spread_over_half_a_life() {
        let made = |serial: &str| WorkloadCertificate {
            chain: String::new(),
            key: Secret::new(Vec::new()),
            not_after: Timestamp(now().0 + 4_000_000),
            serial: serial.to_owned(),
        };
        for (serial, expected) in [
            ("0123456700000000", 1_000_000),
            ("0123456780000000", 2_000_000),
            ("01234567ffffffff", 3_000_000),
            ("", 1_000_000),
        ] {
            let seconds = renew_after(&made(serial)).as_secs();
            assert!(seconds.abs_diff(expected) <= 60, "{serial} {seconds}");
        }
    }
}
