//! The name of an issuer, byte for byte.
//!
//! What makes certificates here keeps names as a map: one attribute of each kind. Names of authorities have
//! more (`DC=example, DC=com`), and a verifier compares the name in a leaf with the one in its issuer's
//! certificate (RFC 5280, 6.1.3). So where they differ, the name is put in as it was and the certificate is
//! signed again.

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

/// The subject of a certificate as it is encoded.
pub fn subject_of(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(parsed.subject().as_raw().to_vec())
}

/// The certificate with this name of its issuer, signed by `sign` if that is another one.
pub fn with_issuer(
    certificate: CertificateDer<'static>,
    name: &[u8],
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, String>,
) -> Result<CertificateDer<'static>, String> {
    let Some(Parts { before, issuer, after, algorithm }) = Parts::of(&certificate) else {
        return Err("it cannot be taken apart".to_owned());
    };
    if issuer == name {
        return Ok(certificate);
    }
    let to_be_signed = element(SEQUENCE, &[before, name, after]);
    let signature = sign(&to_be_signed)?;
    let signature = element(BIT_STRING, &[&[0], &signature]);
    Ok(element(SEQUENCE, &[&to_be_signed, algorithm, &signature]).into())
}

/// A certificate around the name of its issuer (RFC 5280, 4.1).
struct Parts<'a> {
    /// Version, serial number and algorithm.
    before: &'a [u8],
    issuer: &'a [u8],
    after: &'a [u8],
    /// The algorithm once more, beside the signature.
    algorithm: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(certificate: &'a [u8]) -> Option<Self> {
        let (_, certificate, _) = first(certificate)?;
        let (_, body, rest) = first(certificate)?;
        let (algorithm, _, _) = first(rest)?;
        let mut rest = body;
        for _ in 0..3 {
            (_, _, rest) = first(rest)?;
        }
        let before = body.get(..body.len() - rest.len())?;
        let (issuer, _, after) = first(rest)?;
        Some(Parts { before, issuer, after, algorithm })
    }
}

/// The first element of DER data as a whole, its content, and what follows.
fn first(der: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (head, length) = match *der.get(1)? {
        short @ 0..=0x7f => (2, usize::from(short)),
        long => {
            let count = usize::from(long & 0x7f);
            let digits = der.get(2..2 + count).filter(|digits| (1..=4).contains(&digits.len()))?;
            (2 + count, digits.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte)))
        }
    };
    let (whole, rest) = der.split_at_checked(head.checked_add(length)?)?;
    Some((whole, whole.get(head..)?, rest))
}

/// An element of these contents.
fn element(tag: u8, contents: &[&[u8]]) -> Vec<u8> {
    let length: usize = contents.iter().map(|content| content.len()).sum();
    let mut out = vec![tag];
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let digits = length.to_be_bytes();
        let digits = &digits[digits.iter().take_while(|digit| **digit == 0).count()..];
        out.push(0x80 | digits.len() as u8);
        out.extend_from_slice(digits);
    }
    contents.iter().for_each(|content| out.extend_from_slice(content));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_taken_apart_as_they_are_put_together() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0x1_0000] {
            let content = vec![7; length];
            let made = [element(SEQUENCE, &[&content]), vec![1, 2]].concat();
            assert_eq!(first(&made), Some((&made[..made.len() - 2], &content[..], &[1, 2][..])), "{length}");
        }
        for wrong in
            [&[][..], &[0x30], &[0x30, 1], &[0x30, 0x80], &[0x30, 0x85, 0, 0, 0, 0, 1], &[0x30, 0x82, 1]]
        {
            assert_eq!(first(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_not_taken_apart() {
        let wrong = with_issuer(CertificateDer::from(vec![0x30, 0]), b"name", |_| Ok(Vec::new()));
        assert!(wrong.is_err());
    }
}
