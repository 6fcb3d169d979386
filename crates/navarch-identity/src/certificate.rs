//! What a certificate says.

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::time::Timestamp;

/// Bytes of one certificate. Those with many names have a few thousand.
pub const CERTIFICATE_BYTES_MAX: usize = 64 << 10;

/// What a certificate says, as far as somebody here asks. Nothing of it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// Whether it may sign others: basic constraints, and key usage if there is one (RFC 5280, 4.2.1.3 and
    /// 4.2.1.9).
    pub is_ca: bool,
    /// Subject and issuer are the same name.
    pub is_self_issued: bool,
    /// For people.
    pub subject: String,
    /// Big-endian, without leading zeros.
    pub serial: Vec<u8>,
    /// The URIs among its subject alternative names.
    pub uris: Vec<String>,
    /// The DNS names among its subject alternative names.
    pub dns_names: Vec<String>,
    /// The bits of the subject's public key.
    pub public_key: Vec<u8>,
}

/// Why something is not a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a certificate: {reason}")]
pub struct CertificateError {
    reason: String,
}

impl Facts {
    /// Reads a certificate.
    ///
    /// # Errors
    /// If it is not one, or is too large.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let wrong = |reason: String| CertificateError { reason };
        if certificate.len() > CERTIFICATE_BYTES_MAX {
            return Err(wrong(format!("it has {} bytes", certificate.len())));
        }
        let (rest, parsed) =
            X509Certificate::from_der(certificate).map_err(|error| wrong(error.to_string()))?;
        if !rest.is_empty() {
            return Err(wrong("there are bytes behind it".to_owned()));
        }
        let constraints = parsed.basic_constraints().map_err(|error| wrong(error.to_string()))?;
        let usage = parsed.key_usage().map_err(|error| wrong(error.to_string()))?;
        let names = parsed.subject_alternative_name().map_err(|error| wrong(error.to_string()))?;
        let mut uris = Vec::new();
        let mut dns_names = Vec::new();
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
                _ => {}
            }
        }
        let validity = parsed.validity();
        Ok(Facts {
            not_before: Timestamp::from_seconds(validity.not_before.timestamp()),
            not_after: Timestamp::from_seconds(validity.not_after.timestamp()),
            is_ca: constraints.is_some_and(|constraints| constraints.value.ca)
                && usage.is_none_or(|usage| usage.value.key_cert_sign()),
            is_self_issued: parsed.subject().as_raw() == parsed.issuer().as_raw(),
            subject: parsed.subject().to_string(),
            serial: parsed.serial.to_bytes_be(),
            uris,
            dns_names,
            public_key: parsed.public_key().subject_public_key.data.to_vec(),
        })
    }

    /// Whether it is within its time.
    #[must_use]
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

/// The SHA-256 of some bytes, as hexadecimal digits: how roots and bundles are named.
#[must_use]
pub fn fingerprint<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for piece in pieces {
        context.update(piece);
    }
    hex(context.finish().as_ref())
}

/// Hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};

    use super::*;

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        change(&mut params);
        params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate").der().clone()
    }

    #[test]
    fn what_may_sign_is_known() {
        let ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let check = |is_ca: IsCa, usages: &[KeyUsagePurpose], expected: bool| {
            let certificate = certificate(|params| {
                params.is_ca = is_ca;
                params.key_usages = usages.to_vec();
            });
            assert_eq!(Facts::of(&certificate).expect("facts").is_ca, expected);
        };
        check(ca, &[], true);
        check(ca, &[KeyUsagePurpose::KeyCertSign], true);
        check(ca, &[KeyUsagePurpose::DigitalSignature], false);
        check(IsCa::ExplicitNoCa, &[KeyUsagePurpose::KeyCertSign], false);
        check(IsCa::NoCa, &[], false);
    }

    #[test]
    fn names_and_times_are_read() {
        let certificate = certificate(|params| {
            let text = |text: &str| text.try_into().expect("ASCII");
            params.subject_alt_names = vec![SanType::URI(text("spiffe://a")), SanType::DnsName(text("b.c"))];
            params.not_before = Timestamp(1000).date_time();
            params.not_after = Timestamp(2000).date_time();
        });
        let facts = Facts::of(&certificate).expect("facts");
        assert_eq!((facts.uris, facts.dns_names), (vec!["spiffe://a".to_owned()], vec!["b.c".to_owned()]));
        let facts = Facts::of(&certificate).expect("facts");
        for (now, valid) in [(999, false), (1000, true), (2000, true), (2001, false)] {
            assert_eq!(facts.is_valid_at(Timestamp(now)), valid, "{now}");
        }
    }

    #[test]
    fn fingerprints_are_of_the_bytes_in_order() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(fingerprint([]), empty);
        assert_eq!(fingerprint([&b"a"[..], b"b"]), fingerprint([&b"ab"[..]]));
        assert_ne!(fingerprint([&b"a"[..], b"b"]), fingerprint([&b"b"[..], b"a"]));
    }

    proptest! {
        #[test]
        fn bytes_that_are_almost_a_certificate_do_no_harm(at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
            let mut der = certificate(|_| {}).to_vec();
            let index = at.index(der.len());
            der[index] = byte;
            let _ = Facts::of(&der.clone().into());
            der.truncate(cut.index(der.len()));
            prop_assert!(Facts::of(&der.into()).is_err());
        }
    }
}
