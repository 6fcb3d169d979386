//! What is trusted: roots per trust domain, revocation lists, and the verification of a chain with them.

mod spiffe;

use std::collections::BTreeMap;
use std::fmt;

use navarch_model::identity::SpiffeId;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use webpki::{
    ALL_VERIFICATION_ALGS, CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage,
    OwnedCertRevocationList, RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
    anchor_from_trusted_cert,
};

pub use spiffe::{SpiffeBundle, SpiffeBundleError};

use crate::certificate::{CertificateError, Facts, fingerprint};
use crate::pem::{self, PemError};
use crate::time::Timestamp;

/// Certificates that a client may send. More cost the verifier.
const CHAIN_MAX: usize = 10;

/// Revocation lists in one bundle.
const LISTS_MAX: usize = 100;

/// Roots of one or several trust domains, and what they have revoked.
///
/// A root vouches for the trust domain that it is listed under, and for no other: a mesh that one federates
/// with cannot make identities of this one.
#[derive(Clone, Default)]
pub struct TrustBundle {
    roots: BTreeMap<String, Vec<CertificateDer<'static>>>,
    revoked: Vec<Revoked>,
}

#[derive(Clone)]
struct Revoked {
    der: CertificateRevocationListDer<'static>,
    /// The parsed form has no `Clone`.
    list: std::sync::Arc<CertRevocationList<'static>>,
}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roots: BTreeMap<_, _> = self.roots.iter().map(|(domain, roots)| (domain, roots.len())).collect();
        f.debug_struct("TrustBundle").field("roots", &roots).field("revoked", &self.revoked.len()).finish()
    }
}

/// Why something cannot be trusted, or be part of what is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    #[error(transparent)]
    Pem(#[from] PemError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("{subject:?} is not the certificate of an authority, and cannot be a root")]
    NotARoot { subject: String },
    #[error("the revocation list cannot be read: {reason}")]
    List { reason: String },
    #[error("there are more than {LISTS_MAX} revocation lists")]
    TooManyLists,
    #[error("there is no certificate")]
    Empty,
    #[error("the chain has more than {CHAIN_MAX} certificates")]
    TooLong,
    #[error("the certificate names {0}, and not one SPIFFE identity of a workload")]
    Identity(String),
    #[error("no root of the trust domain {0:?} is known")]
    UnknownDomain(String),
    #[error("the certificate has been revoked")]
    Revoked,
    #[error("the certificate is of {not_before} to {not_after}, and now is {now}")]
    NotValid { not_before: Timestamp, not_after: Timestamp, now: Timestamp },
    #[error("no root of the trust domain {domain:?} signed the certificate: {reason}")]
    Unsigned { domain: String, reason: String },
}

/// Who a chain proves its holder to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    pub id: SpiffeId,
    pub not_after: Timestamp,
}

impl TrustBundle {
    /// A bundle that trusts nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds roots for a trust domain. One that is there is not added again.
    ///
    /// # Errors
    /// If one is not the certificate of an authority. Then none is added.
    pub fn add_roots(
        &mut self,
        trust_domain: &str,
        roots: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<(), TrustError> {
        let roots: Vec<_> = roots.into_iter().collect();
        for root in &roots {
            let facts = Facts::of(root)?;
            if !facts.is_ca || anchor_from_trusted_cert(root).is_err() {
                return Err(TrustError::NotARoot { subject: facts.subject });
            }
        }
        let known = self.roots.entry(trust_domain.to_owned()).or_default();
        for root in roots {
            if !known.contains(&root) {
                known.push(root);
            }
        }
        Ok(())
    }

    /// Adds the roots of a PEM text, as of `caCertificates`.
    ///
    /// # Errors
    /// If the text cannot be read. Then none is added.
    pub fn add_pem(&mut self, trust_domain: &str, text: &[u8]) -> Result<(), TrustError> {
        self.add_roots(trust_domain, pem::certificates(text)?)
    }

    /// Adds a revocation list. Certificates are looked for in those lists that their issuer signed.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn add_list(&mut self, der: CertificateRevocationListDer<'static>) -> Result<(), TrustError> {
        if self.revoked.len() == LISTS_MAX {
            return Err(TrustError::TooManyLists);
        }
        let list = OwnedCertRevocationList::from_der(&der);
        let list = list.map_err(|error| TrustError::List { reason: error.to_string() })?;
        self.revoked.push(Revoked { der, list: std::sync::Arc::new(list.into()) });
        Ok(())
    }

    /// The roots of a trust domain, in the order in which they were added.
    #[must_use]
    pub fn roots(&self, trust_domain: &str) -> &[CertificateDer<'static>] {
        self.roots.get(trust_domain).map_or(&[], Vec::as_slice)
    }

    /// All roots of all trust domains, each once. For verifiers that cannot tell trust domains apart and ask
    /// [`Self::verify`] afterwards.
    #[must_use]
    pub fn all_roots(&self) -> Vec<CertificateDer<'static>> {
        let mut all: Vec<CertificateDer<'static>> = Vec::new();
        for root in self.roots.values().flatten() {
            if !all.contains(root) {
                all.push(root.clone());
            }
        }
        all
    }

    /// The roots of a trust domain as PEM.
    #[must_use]
    pub fn pem(&self, trust_domain: &str) -> String {
        pem::of_certificates(self.roots(trust_domain))
    }

    /// Names what is trusted as a whole: equal names, equal trust.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let TrustBundle { roots, revoked } = self;
        let mut pieces: Vec<&[u8]> = Vec::new();
        for (domain, roots) in roots {
            // Neither a domain nor DER starts with a zero byte.
            pieces.extend([&b"\0"[..], domain.as_bytes()]);
            pieces.extend(roots.iter().flat_map(|root| [&b"\0"[..], root.as_ref()]));
        }
        pieces.extend(revoked.iter().flat_map(|revoked| [&b"\0\0"[..], revoked.der.as_ref()]));
        fingerprint(pieces)
    }

    /// Who the holder of a chain (the leaf, then intermediates) is, if a root of its trust domain vouches for
    /// it.
    ///
    /// # Errors
    /// The reason why it proves nothing.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<Proven, TrustError> {
        let (leaf, intermediates) = chain.split_first().ok_or(TrustError::Empty)?;
        if chain.len() > CHAIN_MAX {
            return Err(TrustError::TooLong);
        }
        let facts = Facts::of(leaf)?;
        let id = identity(&facts)?;
        let Facts { not_before, not_after, .. } = facts;
        if !facts.is_valid_at(now) {
            return Err(TrustError::NotValid { not_before, not_after, now });
        }
        let domain = id.trust_domain().to_string();
        let roots = self.roots(&domain);
        if roots.is_empty() {
            return Err(TrustError::UnknownDomain(domain));
        }
        let unsigned = |error: webpki::Error| match error {
            webpki::Error::CertRevoked => TrustError::Revoked,
            error => TrustError::Unsigned { domain: domain.clone(), reason: error.to_string() },
        };
        let anchors: Vec<_> = roots.iter().filter_map(|root| anchor_from_trusted_cert(root).ok()).collect();
        let lists: Vec<&CertRevocationList<'_>> = self.revoked.iter().map(|revoked| &*revoked.list).collect();
        // A list that has run out still says who was revoked, and must not shut everybody out.
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Ignore)
                .build()
        });
        let entity = EndEntityCert::try_from(leaf).map_err(unsigned)?;
        entity
            .verify_for_usage(
                ALL_VERIFICATION_ALGS,
                &anchors,
                intermediates,
                now.unix(),
                KeyUsage::client_auth(),
                revocation,
                None,
            )
            .map_err(unsigned)?;
        Ok(Proven { id, not_after })
    }
}

/// The one SPIFFE id of a certificate (SPIFFE X.509-SVID, 2: exactly one URI).
fn identity(facts: &Facts) -> Result<SpiffeId, TrustError> {
    match facts.uris.as_slice() {
        [uri] => uri.parse().map_err(|_| TrustError::Identity(format!("{uri:?}"))),
        [] => Err(TrustError::Identity("nobody".to_owned())),
        uris => Err(TrustError::Identity(format!("{} URIs", uris.len()))),
    }
}

#[cfg(test)]
mod tests;
