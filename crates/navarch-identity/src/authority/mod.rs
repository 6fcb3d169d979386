//! The certificate authority: what signs, what is trusted, and what it makes of a public key.

mod issuer_name;
mod kept;
mod plugged;
mod revoked;
mod root;
mod signer;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use navarch_model::identity::SpiffeId;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber,
};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroize;

pub use kept::{Kept, KeptError, KeptRoot, NewAuthority, inspect};
pub use plugged::{Entries, Plugged, PluggedError, Refreshed};
pub use revoked::{Ending, Revoked, RevokedError};
pub use root::{ROOT_LIFE, Root};
pub use signer::{Signer, SignerError};

use crate::certificate::fingerprint;
use crate::pem;
use crate::request::PublicKey;
use crate::secret::Secret;
use crate::store::StoreError;
use crate::time::Timestamp;

/// How far in the past a leaf starts to be valid: clocks of machines differ.
pub const BACKDATED: Duration = Duration::from_secs(2 * 60);

/// How long leaves live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafLife {
    /// If a request does not say.
    pub default: Duration,
    /// What a request may ask for at most.
    pub max: Duration,
}

impl Default for LeafLife {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        LeafLife { default: day, max: day * 90 }
    }
}

/// Remembers until when leaves of a signer are valid, before the first such leaf leaves the house: its root
/// has to be trusted as long.
pub trait Horizon: Send + Sync {
    /// Leaves that are valid until then are about to be signed.
    ///
    /// # Errors
    /// If that cannot be remembered.
    fn reserve(&self, until: Timestamp) -> Result<(), HorizonError>;
}

/// Why no leaf may be signed.
#[derive(Debug, thiserror::Error)]
pub enum HorizonError {
    #[error("how long leaves are valid cannot be written down")]
    Store(#[from] StoreError),
    #[error("the signing root has been replaced")]
    Rotation(#[from] crate::rotation::RotationError),
}

/// A certificate that has been signed, with what leads to the roots.
#[derive(Clone, Debug)]
pub struct Issued {
    pub certificate: CertificateDer<'static>,
    /// As PEM: the leaf, the intermediates, and last all roots that are trusted, in one text.
    pub chain: Vec<String>,
    pub not_after: Timestamp,
    /// Hexadecimal digits.
    pub serial: String,
}

/// A key and its certificate, made for a workload that has nobody beside it to make them.
#[derive(Clone, Debug)]
pub struct WorkloadCertificate {
    /// As PEM: the leaf, then the intermediates.
    pub chain: String,
    /// PKCS #8, PEM.
    pub key: Secret,
    pub not_after: Timestamp,
    /// Hexadecimal digits.
    pub serial: String,
}

/// A certificate of this process for its own port.
#[derive(Clone, Debug)]
pub struct ServerCertificate {
    /// The leaf, then the intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS #8, DER.
    pub key: Secret,
    pub not_after: Timestamp,
}

/// Why a certificate is not signed.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error("a life of {} s is asked for, and {} s are the most", asked.as_secs(), max.as_secs())]
    LifeTooLong { asked: Duration, max: Duration },
    #[error("the certificate of the authority is not valid any more since {since}")]
    Expired { since: Timestamp },
    #[error("{name:?} cannot be in a certificate")]
    Name { name: String },
    #[error("the authority cannot sign: {reason}")]
    Sign { reason: String },
    #[error(transparent)]
    Horizon(#[from] HorizonError),
}

/// What signs and what is trusted, at one moment. A change makes a new one.
pub struct Authority {
    signer: Signer,
    roots: Vec<CertificateDer<'static>>,
    /// All but the leaf.
    chain_pem: Vec<String>,
    roots_pem: String,
    life: LeafLife,
    horizon: Option<Arc<dyn Horizon>>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("signer", &self.signer).finish_non_exhaustive()
    }
}

impl Authority {
    /// An authority that signs with `signer` and trusts `roots`, the signer's first.
    #[must_use]
    pub fn new(
        signer: Signer,
        roots: Vec<CertificateDer<'static>>,
        life: LeafLife,
        horizon: Option<Arc<dyn Horizon>>,
    ) -> Self {
        let roots_pem = pem::of_certificates(&roots);
        let mut chain_pem: Vec<String> = signer.intermediates().iter().map(pem::of_certificate).collect();
        chain_pem.push(roots_pem.clone());
        Authority { signer, roots, chain_pem, roots_pem, life, horizon }
    }

    /// The roots that are trusted, the signer's first.
    #[must_use]
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The roots as PEM.
    #[must_use]
    pub fn roots_pem(&self) -> &str {
        &self.roots_pem
    }

    /// Names the roots as a whole: two bundles with the same name are equal.
    #[must_use]
    pub fn roots_fingerprint(&self) -> String {
        fingerprint(self.roots.iter().map(|root| root.as_ref()))
    }

    /// What signs.
    #[must_use]
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    #[must_use]
    pub fn life(&self) -> LeafLife {
        self.life
    }

    /// Signs a certificate for a workload. `life` of nothing is the usual one. The certificate ends with its
    /// chain at the latest.
    ///
    /// # Errors
    /// If too long a life is asked for, or the authority cannot sign.
    pub fn issue(
        &self,
        identity: &SpiffeId,
        key: &PublicKey,
        life: Duration,
        now: Timestamp,
    ) -> Result<Issued, IssueError> {
        let life = if life.is_zero() { self.life.default } else { life };
        if life > self.life.max {
            return Err(IssueError::LifeTooLong { asked: life, max: self.life.max });
        }
        let name = identity.to_string();
        let uri = name.as_str().try_into().map_err(|_| IssueError::Name { name: name.clone() })?;
        let (not_after, serial) = (self.end_of(life, now)?, serial()?);
        if let Some(horizon) = &self.horizon {
            horizon.reserve(not_after)?;
        }
        let certificate = self.sign(vec![SanType::URI(uri)], key, (not_after, &serial), now)?;
        let mut chain = Vec::with_capacity(1 + self.chain_pem.len());
        chain.push(pem::of_certificate(&certificate));
        chain.extend_from_slice(&self.chain_pem);
        Ok(Issued { certificate, chain, not_after, serial: crate::certificate::hex(&serial) })
    }

    /// Makes a key and signs a certificate for it, of the usual life.
    ///
    /// # Errors
    /// If the authority cannot sign.
    pub fn issue_with_key(
        &self,
        identity: &SpiffeId,
        now: Timestamp,
    ) -> Result<WorkloadCertificate, IssueError> {
        let mut key = KeyPair::generate().map_err(|error| IssueError::Sign { reason: error.to_string() })?;
        let issued = self.issue(identity, &PublicKey::of(&key), Duration::ZERO, now);
        let pem = Secret::from(key.serialize_pem());
        key.zeroize();
        let Issued { mut chain, not_after, serial, certificate: _ } = issued?;
        // The roots are what others verify the chain by.
        chain.pop();
        Ok(WorkloadCertificate { chain: chain.concat(), key: pem, not_after, serial })
    }

    /// Makes a key and signs a certificate for the control plane's own port, valid for `names`, which are DNS
    /// names and IP addresses.
    ///
    /// # Errors
    /// If a name is not one, or the authority cannot sign.
    pub fn issue_server(&self, names: &[String], now: Timestamp) -> Result<ServerCertificate, IssueError> {
        let mut alternatives = Vec::with_capacity(names.len());
        for name in names {
            let wrong = |_| IssueError::Name { name: name.clone() };
            alternatives.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into().map_err(wrong)?),
            });
        }
        let key = KeyPair::generate().map_err(|error| IssueError::Sign { reason: error.to_string() })?;
        // The horizon is not asked: the server takes another one itself when the signer changes.
        let (not_after, serial) = (self.end_of(self.life.max, now)?, serial()?);
        let certificate = self.sign(alternatives, &PublicKey::of(&key), (not_after, &serial), now)?;
        let mut chain = vec![certificate];
        chain.extend_from_slice(self.signer.intermediates());
        Ok(ServerCertificate { chain, key: Secret::new(key.serialize_der()), not_after })
    }

    fn end_of(&self, life: Duration, now: Timestamp) -> Result<Timestamp, IssueError> {
        let end = self.signer.not_after();
        if end <= now {
            return Err(IssueError::Expired { since: end });
        }
        Ok(now.after(life).min(end))
    }

    fn sign(
        &self,
        names: Vec<SanType>,
        key: &PublicKey,
        (not_after, serial): (Timestamp, &[u8]),
        now: Timestamp,
    ) -> Result<CertificateDer<'static>, IssueError> {
        self.signer
            .sign(leaf(names, serial, now.before(BACKDATED), not_after), key)
            .map_err(|reason| IssueError::Sign { reason })
    }
}

/// What all leaves have in common. The subject is empty, so the names are critical (RFC 5280, 4.2.1.6).
fn leaf(
    names: Vec<SanType>,
    serial: &[u8],
    not_before: Timestamp,
    not_after: Timestamp,
) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(serial));
    params.not_before = not_before.date_time();
    params.not_after = not_after.date_time();
    params.subject_alt_names = names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params
}

/// A serial number: 127 random bits, positive and not zero (RFC 5280, 4.1.2.2).
fn serial() -> Result<[u8; 16], IssueError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| IssueError::Sign { reason: "the system gives no random bytes".to_owned() })?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(bytes)
}

/// The names that clients of an Istio control plane know it by, those of the machine itself, and `more`.
#[must_use]
pub fn server_names(namespace: &str, revision: &str, more: &[String]) -> Vec<String> {
    let mut names: Vec<String> = ["istiod", "istiod-remote", "istio-pilot", "navarch"]
        .into_iter()
        .map(|service| format!("{service}.{namespace}.svc"))
        .collect();
    if !matches!(revision, "" | "default") {
        names.extend(["istiod", "navarch"].map(|service| format!("{service}-{revision}.{namespace}.svc")));
    }
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    for name in more {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

#[cfg(test)]
mod tests;
