//! A root that signs itself.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber,
};
use rustls_pki_types::CertificateDer;
use zeroize::{Zeroize, Zeroizing};

use super::{BACKDATED, IssueError, serial};
use crate::certificate::hex;
use crate::pem;
use crate::rotation::{RootId, id_of_root};
use crate::secret::Secret;
use crate::time::Timestamp;

/// How long a root lives: ten years.
pub const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// A root certificate with its key.
#[derive(Clone, Debug)]
pub struct Root {
    pub certificate: CertificateDer<'static>,
    /// PEM.
    pub key: Secret,
}

impl Root {
    /// Makes a key of P-256 and a certificate for it.
    ///
    /// Roots of one trust domain have different names, so that a verifier that knows several looks for the
    /// right one.
    ///
    /// # Errors
    /// If there are no random bytes to be had.
    pub fn generate(trust_domain: &str, now: Timestamp) -> Result<Self, IssueError> {
        let wrong = |error: rcgen::Error| IssueError::Sign { reason: error.to_string() };
        let number = serial()?;
        let mut key = KeyPair::generate().map_err(wrong)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, trust_domain);
        params.distinguished_name.push(DnType::CommonName, format!("navarch root {}", hex(&number[..4])));
        // SPIFFE X.509-SVID, 4.2: a signing certificate says which trust domain it is of.
        let name = format!("spiffe://{trust_domain}");
        let uri = name.as_str().try_into().map_err(|_| IssueError::Name { name: name.clone() })?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.serial_number = Some(SerialNumber::from_slice(&number));
        params.not_before = now.before(BACKDATED).date_time();
        params.not_after = now.after(ROOT_LIFE).date_time();
        // It signs leaves and no other authorities.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(wrong)?;
        let root = Root { certificate: certificate.into(), key: Secret::from(key.serialize_pem()) };
        key.zeroize();
        Ok(root)
    }

    /// What the root is called.
    #[must_use]
    pub fn id(&self) -> RootId {
        id_of_root(&self.certificate)
    }

    /// Certificate and key as one text.
    #[must_use]
    pub fn to_pem(&self) -> Secret {
        let mut text = Zeroizing::new(pem::of_certificate(&self.certificate).into_bytes());
        text.extend_from_slice(self.key.expose());
        Secret::new(std::mem::take(&mut *text))
    }

    /// Reads what [`Self::to_pem`] wrote.
    ///
    /// # Errors
    /// If there is no certificate in it. The key is looked at when it is to sign.
    pub fn from_pem(text: Secret) -> Result<Self, pem::PemError> {
        let certificates = pem::certificates(text.expose())?;
        let certificate = certificates.into_iter().next();
        let certificate = certificate.ok_or(pem::PemError::Absent { what: "certificate" })?;
        Ok(Root { certificate, key: text })
    }
}
