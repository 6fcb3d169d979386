//! Requests for certificates (PKCS #10, RFC 2986).
//!
//! Of a request only its public key is believed, and only after its signature has shown that the sender holds
//! the private one. What it asks to be called is not looked at: a certificate says who the caller has been
//! proven to be.

use rcgen::{PublicKeyData, SignatureAlgorithm};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
    OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA,
};
use x509_parser::prelude::{FromDer, X509CertificationRequest};
use x509_parser::public_key::PublicKey as ParsedKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::pem::{self, PemError};

/// Bytes of a request. One with an RSA key of 4096 bits has under two thousand.
pub const REQUEST_BYTES_MAX: usize = 16 << 10;

/// Bits of the modulus of an RSA key. Fewer are weak; more cost the verifier, not the sender.
const RSA_BITS_MIN: usize = 2048;
const RSA_BITS_MAX: usize = 4096;

/// A public key whose owner has proven to hold the private one.
#[derive(Clone, Debug)]
pub struct PublicKey {
    algorithm: &'static SignatureAlgorithm,
    bits: Vec<u8>,
}

/// Why a request cannot be granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("the certificate request is not readable: {0}")]
    Pem(#[from] PemError),
    #[error("the certificate request is not one of PKCS #10: {reason}")]
    Malformed { reason: String },
    #[error(
        "the key of the certificate request cannot be used: {reason}; use P-256, P-384 or RSA of 2048 to 4096 bits"
    )]
    Key { reason: String },
    #[error("the certificate request is not signed with its own key: {reason}")]
    Signature { reason: String },
}

/// Reads a request in PEM form, and verifies that its sender holds the key.
///
/// # Errors
/// If it is not a request, its key is not one for a workload, or its signature is not of that key.
pub fn parse(text: &[u8]) -> Result<PublicKey, RequestError> {
    pem::check_size(text, REQUEST_BYTES_MAX)?;
    let der = CertificateSigningRequestDer::from_pem_slice(text)
        .map_err(|error| pem::problem(&error, "certificate request"))?;
    parse_der(&der)
}

fn parse_der(der: &[u8]) -> Result<PublicKey, RequestError> {
    let malformed = |reason: String| RequestError::Malformed { reason };
    let (rest, request) =
        X509CertificationRequest::from_der(der).map_err(|error| malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(malformed("there are bytes behind it".to_owned()));
    }
    // Before the signature: a strange key may be costly to verify with.
    let key = public_key(&request.certification_request_info.subject_pki)?;
    let signature = |reason: &str| RequestError::Signature { reason: reason.to_owned() };
    let algorithm = &request.signature_algorithm.algorithm;
    if *algorithm == OID_PKCS1_SHA1WITHRSA || *algorithm == OID_SHA1_WITH_RSA {
        return Err(signature("SHA-1 proves nothing"));
    }
    request.verify_signature().map_err(|error| signature(&error.to_string()))?;
    Ok(key)
}

fn public_key(info: &SubjectPublicKeyInfo<'_>) -> Result<PublicKey, RequestError> {
    let refused = |reason: String| RequestError::Key { reason };
    let bits = info.subject_public_key.data.to_vec();
    let algorithm = if info.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = info.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        let (algorithm, len) = match curve {
            Some(curve) if curve == OID_EC_P256 => (&rcgen::PKCS_ECDSA_P256_SHA256, 65),
            Some(curve) if curve == OID_NIST_EC_P384 => (&rcgen::PKCS_ECDSA_P384_SHA384, 97),
            Some(curve) => return Err(refused(format!("its curve is {curve}"))),
            None => return Err(refused("its curve has no name".to_owned())),
        };
        // Uncompressed (SEC 1, 2.3.3), as everybody writes and reads them.
        if bits.len() != len || bits.first() != Some(&4) {
            return Err(refused("its point is not an uncompressed one".to_owned()));
        }
        algorithm
    } else if info.algorithm.algorithm == OID_PKCS1_RSAENCRYPTION {
        match info.parsed() {
            Ok(ParsedKey::RSA(key)) => {
                let size = key.key_size();
                if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&size) {
                    return Err(refused(format!("it has {size} bits")));
                }
            }
            _ => return Err(refused("it is not a key of RSA".to_owned())),
        }
        &rcgen::PKCS_RSA_SHA256
    } else {
        return Err(refused(format!("its kind is {}", info.algorithm.algorithm)));
    };
    Ok(PublicKey { algorithm, bits })
}

impl PublicKey {
    /// The public half of a key pair that was made here, for certificates of this process itself.
    #[must_use]
    pub fn of(key: &rcgen::KeyPair) -> Self {
        PublicKey { algorithm: key.algorithm(), bits: key.der_bytes().to_vec() }
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bits
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, RsaKeySize};

    use super::*;

    fn request(key: &KeyPair) -> Vec<u8> {
        let request = CertificateParams::default().serialize_request(key).expect("a request");
        request.der().to_vec()
    }

    fn text(der: &[u8]) -> String {
        pem::encode("CERTIFICATE REQUEST", der)
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        match parse(text.as_bytes()) {
            Ok(_) => assert_eq!(expected, "", "it is granted"),
            Err(error) => {
                let error = error.to_string();
                assert!(!expected.is_empty() && error.contains(expected), "{error}");
            }
        }
    }

    #[test]
    fn keys_for_workloads_are_taken() {
        for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384] {
            let key = KeyPair::generate_for(algorithm).expect("a key");
            check(&text(&request(&key)), "");
            let parsed = parse(text(&request(&key)).as_bytes()).expect("a key");
            assert_eq!(parsed.subject_public_key_info(), key.subject_public_key_info());
        }
        let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).expect("a key");
        check(&text(&request(&rsa)), "");
        assert_eq!(
            parse(text(&request(&rsa)).as_bytes()).expect("a key").subject_public_key_info(),
            rsa.subject_public_key_info()
        );
    }

    #[test]
    fn other_keys_are_refused_with_what_to_use() {
        for (algorithm, reason) in [
            (&rcgen::PKCS_ED25519, "its kind is 1.3.101.112"),
            (&rcgen::PKCS_ECDSA_P521_SHA512, "its curve is"),
        ] {
            let key = KeyPair::generate_for(algorithm).expect("a key");
            check(&text(&request(&key)), reason);
            check(&text(&request(&key)), "use P-256, P-384 or RSA");
        }
    }

    #[test]
    fn a_request_is_signed_with_its_own_key() {
        let der = request(&KeyPair::generate().expect("a key"));
        let mut forged = der.clone();
        *forged.last_mut().expect("a byte") ^= 1;
        check(&text(&forged), "not signed with its own key");
        // Another key in the place of the one that signed.
        let key = parse_der(&der).expect("a key").bits;
        let other = parse_der(&request(&KeyPair::generate().expect("a key"))).expect("a key").bits;
        let at = der.windows(key.len()).position(|window| window == key).expect("the key");
        let mut swapped = der;
        swapped[at..at + key.len()].copy_from_slice(&other);
        check(&text(&swapped), "not signed with its own key");
    }

    #[test]
    fn what_is_not_a_request_is_refused() {
        let der = request(&KeyPair::generate().expect("a key"));
        check("", "there is no certificate request in it");
        check(&pem::encode("CERTIFICATE", &der), "there is no certificate request in it");
        check(&text(&[&der[..], &[0]].concat()), "bytes behind it");
        check(&text(&der[..der.len() - 1]), "not one of PKCS #10");
        check(&" ".repeat(REQUEST_BYTES_MAX + 1), "more than the 16384");
    }

    static REQUEST: LazyLock<Vec<u8>> = LazyLock::new(|| request(&KeyPair::generate().expect("a key")));

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Some bits outside of what is signed mean nothing.
        #[test]
        fn a_changed_request_never_gives_another_key(at in any::<prop::sample::Index>(), flip in 1..=255u8) {
            let mut der = REQUEST.clone();
            let key = parse_der(&der).expect("a key").bits;
            let index = at.index(der.len());
            der[index] ^= flip;
            prop_assert!(parse_der(&der).map_or(true, |parsed| parsed.bits == key));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), at in any::<prop::sample::Index>()) {
            let _ = parse(&bytes);
            let mut der = REQUEST.clone();
            der.truncate(at.index(der.len()));
            der.extend(bytes);
            let _ = parse_der(&der);
        }
    }
}
