//! Revocation lists beside an authority that the operator provides.
//!
//! A proxy that has one list wants a list of every authority in a chain, and lists that have ended are as
//! good as none to it (X509_V_FLAG_CRL_CHECK_ALL, which Envoy sets): it then refuses every certificate. So
//! lists are tried before they are given to anybody.

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use super::Signer;
use super::issuer_name::subject_of;
use crate::certificate::Facts;
use crate::pem::{self, PemError};
use crate::time::Timestamp;

/// Lists in one file.
const LISTS_MAX: usize = 100;

/// How long before lists end it is said, as for certificates of gateways.
const WARNED: Duration = Duration::from_secs(14 * 86_400);

/// How near the end of the lists is, if it is near.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// In two weeks or less.
    Soon(Timestamp),
    /// It has passed: proxies that have the lists refuse every certificate.
    Passed(Timestamp),
}

impl Ending {
    /// Of lists that end at `until`.
    #[must_use]
    pub fn of(until: Timestamp, now: Timestamp) -> Option<Self> {
        match now.until(until) {
            Duration::ZERO => Some(Ending::Passed(until)),
            left => (left <= WARNED).then_some(Ending::Soon(until)),
        }
    }
}

/// What authorities have revoked.
#[derive(Clone, Debug)]
pub struct Revoked {
    lists: Vec<CertificateRevocationListDer<'static>>,
    pem: Arc<str>,
    until: Option<Timestamp>,
}

/// Why revocation lists cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevokedError {
    #[error(transparent)]
    Pem(#[from] PemError),
    #[error("there are more than {LISTS_MAX} lists")]
    TooMany,
    #[error("a list cannot be read: {reason}")]
    Unreadable { reason: String },
    #[error("the list of {issuer:?} has ended at {at}; proxies that had it would refuse every certificate")]
    Ended { issuer: String, at: Timestamp },
    #[error("there are two lists of {issuer:?}, and only one of them would be looked at")]
    Twice { issuer: String },
    #[error("there is no list of {subject:?}; where there is one list, proxies want one of every authority")]
    NoList { subject: String },
    #[error("with these lists nothing verifies that the authority signs: {reason}")]
    Unverified { reason: String },
}

impl Revoked {
    /// Reads lists as PEM, and tries them with what `signer` signs.
    ///
    /// # Errors
    /// If proxies that had them would refuse what the authority signs.
    pub fn read(
        text: &[u8],
        signer: &Signer,
        roots: &[CertificateDer<'static>],
        now: Timestamp,
    ) -> Result<Self, RevokedError> {
        let lists = pem::revocation_lists(text)?;
        if lists.len() > LISTS_MAX {
            return Err(RevokedError::TooMany);
        }
        let mut issuers = Vec::new();
        let mut until = None;
        for list in &lists {
            let unreadable = |reason: String| RevokedError::Unreadable { reason };
            let (_, parsed) =
                CertificateRevocationList::from_der(list).map_err(|error| unreadable(error.to_string()))?;
            if let Some(next) = parsed.next_update() {
                let at = Timestamp::from_seconds(next.timestamp());
                if at <= now {
                    return Err(RevokedError::Ended { issuer: parsed.issuer().to_string(), at });
                }
                until = Some(until.map_or(at, |until: Timestamp| until.min(at)));
            }
            let issuer = parsed.issuer().as_raw().to_vec();
            if issuers.contains(&issuer) {
                return Err(RevokedError::Twice { issuer: parsed.issuer().to_string() });
            }
            issuers.push(issuer);
        }
        for authority in signer.intermediates().iter().chain(roots) {
            if !subject_of(authority).is_some_and(|subject| issuers.contains(&subject)) {
                let subject = Facts::of(authority).map(|facts| facts.subject).unwrap_or_default();
                return Err(RevokedError::NoList { subject });
            }
        }
        signer
            .verify_with(roots, &lists, now)
            .map_err(|error| RevokedError::Unverified { reason: error.to_string() })?;
        let pem = lists.iter().map(|list| pem::encode("X509 CRL", list)).collect::<String>().into();
        Ok(Revoked { lists, pem, until })
    }

    /// The lists.
    #[must_use]
    pub fn lists(&self) -> &[CertificateRevocationListDer<'static>] {
        &self.lists
    }

    /// The lists as PEM.
    #[must_use]
    pub fn pem(&self) -> &Arc<str> {
        &self.pem
    }

    /// When the first of them ends.
    #[must_use]
    pub fn until(&self) -> Option<Timestamp> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_that_end_are_told_two_weeks_before() {
        let until = Timestamp(100 * 86_400);
        let check = |left: i64, expected: Option<Ending>| {
            let now = Timestamp(until.0.saturating_add_signed(-left));
            assert_eq!(Ending::of(until, now), expected, "{left} seconds before");
        };
        check(14 * 86_400 + 1, None);
        check(14 * 86_400, Some(Ending::Soon(until)));
        check(1, Some(Ending::Soon(until)));
        check(0, Some(Ending::Passed(until)));
        check(-1, Some(Ending::Passed(until)));
    }
}
