//! A certificate and a key that sign leaves, checked before they sign the first one.

use std::fmt;
use std::time::Duration;

use rcgen::{CertificateParams, Issuer, KeyPair, PublicKeyData, SanType, SignatureAlgorithm, SigningKey};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use webpki::{
    ALL_VERIFICATION_ALGS, CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage,
    OwnedCertRevocationList, RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
    anchor_from_trusted_cert,
};
use zeroize::Zeroize;

use super::issuer_name::{subject_of, with_issuer};
use super::{BACKDATED, leaf, serial};
use crate::certificate::{CertificateError, Facts};
use crate::pem;
use crate::request::PublicKey;
use crate::secret::Secret;
use crate::time::Timestamp;

/// Intermediates between a leaf and its root. Verifiers give up at six or so.
const INTERMEDIATES_MAX: usize = 8;

/// Why a certificate and a key cannot sign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    #[error("the key cannot be used: {reason}; P-256, P-384, P-521 and RSA from 2048 bits can")]
    Key { reason: String },
    #[error("the certificate cannot be read")]
    Certificate(#[from] CertificateError),
    #[error("the key is not that of the certificate {subject:?}")]
    OtherKey { subject: String },
    #[error(
        "the certificate {subject:?} is not one of an authority: it must have CA:TRUE and may sign certificates"
    )]
    NotAnAuthority { subject: String },
    #[error("the certificate {subject:?} is not valid at {now}: from {not_before} to {not_after}")]
    NotValid { subject: String, now: Timestamp, not_before: Timestamp, not_after: Timestamp },
    #[error("there are more than {INTERMEDIATES_MAX} certificates between the signing one and the root")]
    TooLong,
    #[error("what the certificate {subject:?} signs does not verify with the roots: {reason}")]
    Chain { subject: String, reason: String },
}

/// A certificate and a key that sign leaves, and what leads from them to the root.
pub struct Signer {
    issuer: Issuer<'static, Key>,
    /// The signing certificate and those after it, without the root. Empty if the root itself signs.
    intermediates: Vec<CertificateDer<'static>>,
    not_after: Timestamp,
    subject: String,
    /// The same as it is encoded: the issuer of every leaf.
    name: Vec<u8>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Signer { issuer: _, intermediates, not_after, subject, name: _ } = self;
        f.debug_struct("Signer")
            .field("subject", subject)
            .field("not_after", not_after)
            .field("intermediates", &intermediates.len())
            .finish_non_exhaustive()
    }
}

impl Signer {
    /// Checks that `key` fits `certificate`, that it is an authority's and valid, and that what it signs
    /// verifies with one of `roots` by way of `chain`.
    ///
    /// # Errors
    /// The first of these that is not so.
    pub fn new(
        certificate: &CertificateDer<'static>,
        key: &Secret,
        chain: &[CertificateDer<'static>],
        roots: &[CertificateDer<'static>],
        now: Timestamp,
    ) -> Result<Self, SignerError> {
        let facts = Facts::of(certificate)?;
        let subject = facts.subject.clone();
        if !facts.is_ca {
            return Err(SignerError::NotAnAuthority { subject });
        }
        check_valid(&facts, now)?;
        let key = Key::read(key)?;
        if key.der_bytes() != facts.public_key {
            return Err(SignerError::OtherKey { subject });
        }
        let unusable =
            |error: rcgen::Error| SignerError::Chain { subject: subject.clone(), reason: error.to_string() };
        let issuer = Issuer::from_ca_cert_der(certificate, key).map_err(unusable)?;
        // Files with chains often have the signing certificate and the root in them as well.
        let between = chain.iter().filter(|one| *one != certificate && !roots.contains(one));
        let is_root = roots.contains(certificate);
        let intermediates: Vec<_> =
            (!is_root).then_some(certificate).into_iter().chain(between).cloned().collect();
        if intermediates.len() > INTERMEDIATES_MAX {
            return Err(SignerError::TooLong);
        }
        let name = subject_of(certificate).unwrap_or_default();
        let mut signer = Signer { issuer, intermediates, not_after: facts.not_after, subject, name };
        signer.not_after = signer.end_of_chain(roots, now)?.min(facts.not_after);
        Ok(signer)
    }

    /// The signing certificate and what leads from it to the root, without the root.
    #[must_use]
    pub fn intermediates(&self) -> &[CertificateDer<'static>] {
        &self.intermediates
    }

    /// When the first certificate of the chain ends.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Who signs, for people.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    pub(super) fn sign(
        &self,
        leaf: CertificateParams,
        key: &PublicKey,
    ) -> Result<CertificateDer<'static>, String> {
        let signed = leaf.signed_by(key, &self.issuer).map_err(|error| error.to_string())?;
        let again = |message: &[u8]| self.issuer.key().sign(message).map_err(|error| error.to_string());
        with_issuer(signed.into(), &self.name, again)
    }

    /// Signs a leaf for nobody and verifies it as a proxy would. That finds what no list of checks does:
    /// names that cannot be written as they were, constraints of names and lengths, signatures of another
    /// key. The end of what verified it is the answer.
    fn end_of_chain(
        &self,
        roots: &[CertificateDer<'static>],
        now: Timestamp,
    ) -> Result<Timestamp, SignerError> {
        let wrong = |reason: String| SignerError::Chain { subject: self.subject.clone(), reason };
        let leaf = self.probe(now).map_err(wrong)?;
        let entity = EndEntityCert::try_from(&leaf).map_err(|error| wrong(error.to_string()))?;
        let mut end = None;
        let mut problem = "there is no root".to_owned();
        for root in roots {
            let anchor = anchor_from_trusted_cert(root).map_err(|error| wrong(error.to_string()))?;
            let verify = |usage| {
                let (algorithms, anchors) = (ALL_VERIFICATION_ALGS, std::slice::from_ref(&anchor));
                entity
                    .verify_for_usage(algorithms, anchors, &self.intermediates, now.unix(), usage, None, None)
                    .map(|_| ())
            };
            match verify(KeyUsage::client_auth()).and_then(|()| verify(KeyUsage::server_auth())) {
                // Verifiers do not look at the time of a root; a chain of an old root is of no use all the
                // same.
                Ok(()) => {
                    let facts = Facts::of(root)?;
                    match check_valid(&facts, now) {
                        Ok(()) => end = end.max(Some(facts.not_after)),
                        Err(error) => problem = error.to_string(),
                    }
                }
                Err(error) => problem = error.to_string(),
            }
        }
        let mut end = end.ok_or_else(|| wrong(problem))?;
        for intermediate in &self.intermediates {
            end = end.min(Facts::of(intermediate)?.not_after);
        }
        Ok(end)
    }
}

impl Signer {
    /// A leaf for nobody.
    fn probe(&self, now: Timestamp) -> Result<CertificateDer<'static>, String> {
        let name = "spiffe://navarch.invalid/ns/navarch/sa/probe";
        let name = SanType::URI(name.try_into().map_err(|_| "the name".to_owned())?);
        let key = KeyPair::generate().map_err(|error| error.to_string())?;
        let number = serial().map_err(|error| error.to_string())?;
        let leaf = leaf(vec![name], &number, now.before(BACKDATED), now.after(Duration::from_secs(60)));
        self.sign(leaf, &PublicKey::of(&key))
    }

    /// Whether what it signs verifies for who has these revocation lists, and demands one of every authority.
    pub(super) fn verify_with(
        &self,
        roots: &[CertificateDer<'static>],
        lists: &[CertificateRevocationListDer<'static>],
        now: Timestamp,
    ) -> Result<(), SignerError> {
        let wrong = |reason: String| SignerError::Chain { subject: self.subject.clone(), reason };
        let leaf = self.probe(now).map_err(wrong)?;
        let failed = |error: webpki::Error| wrong(error.to_string());
        let read = |list: &CertificateRevocationListDer<'_>| {
            OwnedCertRevocationList::from_der(list).map(CertRevocationList::from)
        };
        let lists: Vec<CertRevocationList<'_>> =
            lists.iter().map(read).collect::<Result<_, _>>().map_err(|error| wrong(error.to_string()))?;
        let lists: Vec<&CertRevocationList<'_>> = lists.iter().collect();
        let options =
            RevocationOptionsBuilder::new(&lists).map_err(|_| wrong("there are none".to_owned()))?;
        let options = options
            .with_depth(RevocationCheckDepth::Chain)
            .with_status_policy(UnknownStatusPolicy::Deny)
            .with_expiration_policy(ExpirationPolicy::Enforce)
            .build();
        let anchors: Vec<_> = roots.iter().filter_map(|root| anchor_from_trusted_cert(root).ok()).collect();
        let entity = EndEntityCert::try_from(&leaf).map_err(failed)?;
        let (algorithms, usage) = (ALL_VERIFICATION_ALGS, KeyUsage::client_auth());
        entity
            .verify_for_usage(
                algorithms,
                &anchors,
                &self.intermediates,
                now.unix(),
                usage,
                Some(options),
                None,
            )
            .map(|_| ())
            .map_err(failed)
    }
}

fn check_valid(facts: &Facts, now: Timestamp) -> Result<(), SignerError> {
    if facts.is_valid_at(now) {
        return Ok(());
    }
    let (subject, not_before, not_after) = (facts.subject.clone(), facts.not_before, facts.not_after);
    Err(SignerError::NotValid { subject, now, not_before, not_after })
}

/// A key that is wiped when it is dropped.
struct Key(KeyPair);

impl Key {
    fn read(text: &Secret) -> Result<Self, SignerError> {
        let refused = |reason: String| SignerError::Key { reason };
        let mut der = pem::private_key(text).map_err(|error| refused(error.to_string()))?;
        let key = KeyPair::try_from(&der);
        match &mut der {
            PrivateKeyDer::Pkcs1(key) => key.zeroize(),
            PrivateKeyDer::Sec1(key) => key.zeroize(),
            PrivateKeyDer::Pkcs8(key) => key.zeroize(),
            _ => {}
        }
        let key = Key(key.map_err(|error| refused(error.to_string()))?);
        // Envoy verifies no signatures of Ed25519.
        if key.algorithm() == &rcgen::PKCS_ED25519 {
            return Err(refused("it is one of Ed25519".to_owned()));
        }
        Ok(key)
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}
