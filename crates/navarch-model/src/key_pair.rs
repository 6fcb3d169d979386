//! Certificates, keys and authorities in Secrets and ConfigMaps.
//!
//! Whether a key belongs to its certificate is found without any cryptography: by the public key that both
//! contain.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::kubernetes::{ConfigMap, Secret};
use crate::timestamp::parse_timestamp;

/// Why a secret cannot be used. Never holds anything of the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PairError {
    #[error("it has neither cert and key nor tls.crt and tls.key")]
    NoPair,
    #[error("it has neither cacert nor ca.crt")]
    NoAuthority,
    #[error("the certificate is not in PEM form")]
    Certificate,
    #[error("the private key is not in PEM form")]
    Key,
    #[error("the private key does not belong to the certificate")]
    Mismatch,
}

/// A certificate and its key as a Secret holds them, checked.
#[derive(Clone, Copy)]
pub struct KeyPair<'a> {
    pub certificate: &'a [u8],
    pub key: &'a [u8],
    /// What an authority said of the certificate (OCSP).
    pub staple: Option<&'a [u8]>,
}

/// A certificate authority as a Secret or a ConfigMap holds it, checked.
#[derive(Clone, Copy)]
pub struct Authority<'a> {
    pub roots: &'a [u8],
    /// Certificates that are revoked.
    pub crl: Option<&'a [u8]>,
}

impl<'a> KeyPair<'a> {
    /// Under the names that Istio's generic secrets have or those of type `kubernetes.io/tls`.
    pub fn of(secret: &'a Secret) -> Result<Self, PairError> {
        let value = |key: &str| secret.bytes(key).filter(|bytes| !bytes.is_empty());
        let (certificate, key, staple) = match (value("cert"), value("key")) {
            (Some(certificate), Some(key)) => (certificate, key, None),
            _ => match (value("tls.crt"), value("tls.key")) {
                (Some(certificate), Some(key)) => (certificate, key, value("tls.ocsp-staple")),
                _ => return Err(PairError::NoPair),
            },
        };
        check_pair(certificate, key)?;
        Ok(KeyPair { certificate, key, staple })
    }
}

impl<'a> Authority<'a> {
    /// The authority of a Secret.
    pub fn of_secret(secret: &'a Secret) -> Result<Self, PairError> {
        Self::of(|key| secret.bytes(key))
    }

    /// The authority of a ConfigMap.
    pub fn of_config_map(map: &'a ConfigMap) -> Result<Self, PairError> {
        Self::of(|key| map.data.get(key).map(String::as_bytes))
    }

    fn of(value: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Self, PairError> {
        let value = |key: &str| value(key).filter(|bytes| !bytes.is_empty());
        let (roots, crl) = match (value("cacert"), value("ca.crt")) {
            (Some(roots), _) => (roots, value("crl")),
            (None, Some(roots)) => (roots, value("ca.crl")),
            (None, None) => return Err(PairError::NoAuthority),
        };
        check_authority(roots)?;
        Ok(Authority { roots, crl })
    }
}

/// Checks that both are readable, and that the key belongs to the first certificate. Keys of kinds that are
/// not known here are left to Envoy.
fn check_pair(certificate: &[u8], key: &[u8]) -> Result<(), PairError> {
    let leaf = blocks(certificate, "CERTIFICATE").next().ok_or(PairError::Certificate)?;
    if !is_sequence(&leaf) {
        return Err(PairError::Certificate);
    }
    let key = blocks(key, "PRIVATE KEY").next().ok_or(PairError::Key)?;
    if !is_sequence(&key) {
        return Err(PairError::Key);
    }
    match public_part(&key) {
        Some(public) if !contains(&leaf, public) => Err(PairError::Mismatch),
        _ => Ok(()),
    }
}

/// When the certificate of a secret ends: as text (RFC 3339), and in seconds since 1970.
pub fn certificate_end(secret: &Secret) -> Option<(String, i64)> {
    let certificate = secret.bytes("cert").or_else(|| secret.bytes("tls.crt"))?;
    let text = not_after(&blocks(certificate, "CERTIFICATE").next()?)?;
    let end = parse_timestamp(&text)?;
    Some((text, end))
}

/// The end of a certificate's validity (RFC 5280, 4.1.2.5).
fn not_after(certificate: &[u8]) -> Option<String> {
    let (SEQUENCE, body, _) = element(certificate)? else { return None };
    let (SEQUENCE, mut rest, _) = element(body)? else { return None };
    if let (VERSION, _, after) = element(rest)? {
        rest = after;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        (_, _, rest) = element(rest)?;
    }
    let (SEQUENCE, validity, _) = element(rest)? else { return None };
    let (_, _, after) = element(validity)?;
    let (tag, digits, _) = element(after)?;
    let digits = std::str::from_utf8(digits).ok()?.strip_suffix('Z')?;
    let (century, digits) = match tag {
        // Two digits of the year: those from 50 are of the last century.
        UTC_TIME => (if digits.get(..2)?.parse::<u8>().ok()? < 50 { "20" } else { "19" }, digits),
        GENERALIZED_TIME => digits.split_at_checked(2)?,
        _ => return None,
    };
    let part = |start: usize| digits.get(start..start + 2);
    let (year, month, day) = (part(0)?, part(2)?, part(4)?);
    let (hour, minute, second) = (part(6)?, part(8)?, part(10)?);
    Some(format!("{century}{year}-{month}-{day}T{hour}:{minute}:{second}Z"))
}

/// Whether a text has certificates, and nothing in it that says it is one and is not.
#[must_use]
pub fn has_certificates(pem: &[u8]) -> bool {
    let stated = std::str::from_utf8(pem).unwrap_or_default().matches("-----BEGIN CERTIFICATE-----").count();
    stated > 0 && blocks(pem, "CERTIFICATE").filter(|der| is_sequence(der)).count() == stated
}

/// Checks that there is a readable certificate.
fn check_authority(roots: &[u8]) -> Result<(), PairError> {
    match blocks(roots, "CERTIFICATE").next() {
        Some(root) if is_sequence(&root) => Ok(()),
        _ => Err(PairError::Certificate),
    }
}

/// The contents of PEM blocks whose label ends with `label` (`RSA PRIVATE KEY` is a private key too).
fn blocks<'a>(text: &'a [u8], label: &'a str) -> impl Iterator<Item = Vec<u8>> + 'a {
    let text = std::str::from_utf8(text).unwrap_or_default();
    text.split("-----BEGIN ").skip(1).filter_map(move |block| {
        let (stated, rest) = block.split_once("-----")?;
        if !stated.ends_with(label) {
            return None;
        }
        let (body, _) = rest.split_once("-----END ")?;
        let body: String = body.split_ascii_whitespace().collect();
        STANDARD.decode(body).ok()
    })
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// Tag of the version of a certificate.
const VERSION: u8 = 0xa0;
/// Tag of the public key in an elliptic curve key (RFC 5915).
const EC_PUBLIC_KEY: u8 = 0xa1;

fn is_sequence(der: &[u8]) -> bool {
    matches!(element(der), Some((SEQUENCE, ..)))
}

/// The first element of DER data: its tag, its content, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let (bytes, rest) = rest.split_at_checked(count)?;
        (bytes.iter().fold(0, |len, byte| (len << 8) | usize::from(*byte)), rest)
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

/// What of a private key is also in its certificate: the modulus of an RSA key, the point of an elliptic
/// curve key. Nothing for other kinds, and for keys that leave the point out.
fn public_part(key: &[u8]) -> Option<&[u8]> {
    let (SEQUENCE, body, _) = element(key)? else { return None };
    let (INTEGER, _, after_version) = element(body)? else { return None };
    let (tag, content, rest) = element(after_version)?;
    match tag {
        // PKCS #1: version, modulus, ...
        INTEGER => Some(content),
        // PKCS #8: version, algorithm, the key of the algorithm.
        SEQUENCE => match element(rest)? {
            (OCTET_STRING, inner, _) => public_part(inner),
            _ => None,
        },
        // SEC 1: version, private key, parameters, public key.
        OCTET_STRING => {
            let mut rest = rest;
            while let Some((tag, content, next)) = element(rest) {
                if tag == EC_PUBLIC_KEY {
                    let (BIT_STRING, point, _) = element(content)? else { return None };
                    return Some(point);
                }
                rest = next;
            }
            None
        }
        _ => None,
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty() && haystack.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![tag];
        if content.len() < 0x80 {
            out.push(content.len() as u8);
        } else {
            out.extend([0x82, (content.len() >> 8) as u8, content.len() as u8]);
        }
        out.extend_from_slice(content);
        out
    }

    fn pem(label: &str, der: &[u8]) -> Vec<u8> {
        let body = STANDARD.encode(der);
        let lines: Vec<&str> =
            body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n")).into_bytes()
    }

    /// Keys of all forms with one public part, and a certificate with it.
    fn keys(public: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
        let version = der(INTEGER, &[0]);
        let pkcs1 =
            der(SEQUENCE, &[version.clone(), der(INTEGER, public), der(INTEGER, &[1, 0, 1])].concat());
        let point = der(EC_PUBLIC_KEY, &der(BIT_STRING, public));
        let sec1 = der(
            SEQUENCE,
            &[der(INTEGER, &[1]), der(OCTET_STRING, &[7; 32]), der(0xa0, &[6, 1, 1]), point].concat(),
        );
        let algorithm = der(SEQUENCE, &[6, 1, 1]);
        let pkcs8 = |inner: &[u8]| {
            der(SEQUENCE, &[version.clone(), algorithm.clone(), der(OCTET_STRING, inner)].concat())
        };
        vec![
            ("RSA PRIVATE KEY", pkcs1.clone()),
            ("EC PRIVATE KEY", sec1.clone()),
            ("PRIVATE KEY", pkcs8(&pkcs1)),
            ("PRIVATE KEY", pkcs8(&sec1)),
        ]
    }

    #[test]
    fn a_key_belongs_to_a_certificate_with_its_public_part() {
        let certificate = |public: &[u8]| pem("CERTIFICATE", &der(SEQUENCE, &der(BIT_STRING, public)));
        let (own, other) = ([vec![0], vec![0x5a; 200]].concat(), [vec![0], vec![0xa5; 200]].concat());
        for (label, key) in keys(&own) {
            let key = pem(label, &key);
            assert_eq!(check_pair(&certificate(&own), &key), Ok(()), "{label}");
            assert_eq!(check_pair(&certificate(&other), &key), Err(PairError::Mismatch), "{label}");
        }
    }

    #[test]
    fn the_end_of_a_certificate_is_found() {
        let check = |with_version: bool, end: &[u8], expected: Option<&str>| {
            let version = if with_version { der(VERSION, &der(INTEGER, &[2])) } else { Vec::new() };
            let validity = der(SEQUENCE, &[der(UTC_TIME, b"260101000000Z"), end.to_vec()].concat());
            let nothing = der(SEQUENCE, &[]);
            let body = [version, der(INTEGER, &[7]), nothing.clone(), nothing, validity].concat();
            let certificate = der(SEQUENCE, &der(SEQUENCE, &body));
            assert_eq!(not_after(&certificate).as_deref(), expected, "{end:?}");
        };
        check(true, &der(UTC_TIME, b"270203040506Z"), Some("2027-02-03T04:05:06Z"));
        check(false, &der(UTC_TIME, b"991231235959Z"), Some("1999-12-31T23:59:59Z"));
        check(true, &der(GENERALIZED_TIME, b"20501231235959Z"), Some("2050-12-31T23:59:59Z"));
        check(true, &der(UTC_TIME, b"27020304Z"), None);
        check(true, &der(INTEGER, b"270203040506Z"), None);
        check(true, b"", None);
        assert_eq!(not_after(b"junk"), None);
    }

    #[test]
    fn what_is_no_pem_is_refused() {
        let certificate = pem("CERTIFICATE", &der(SEQUENCE, &[1, 2, 3]));
        let unknown_key = pem("PRIVATE KEY", &der(SEQUENCE, &[0xff]));
        assert_eq!(check_pair(b"no certificate", &unknown_key), Err(PairError::Certificate));
        assert_eq!(check_pair(&certificate, b"no key"), Err(PairError::Key));
        assert_eq!(check_pair(&certificate, &pem("PRIVATE KEY", &[1, 2])), Err(PairError::Key));
        assert_eq!(check_pair(&certificate, &unknown_key), Ok(()));
        assert_eq!(check_authority(&certificate), Ok(()));
        assert_eq!(check_authority(&[0xff, 0xfe]), Err(PairError::Certificate));
        assert_eq!(
            check_authority(&pem("CERTIFICATE", &[0x30, 0x84, 0xff, 0xff])),
            Err(PairError::Certificate)
        );
    }
}
