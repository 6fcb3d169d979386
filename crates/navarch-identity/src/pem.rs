//! Certificates, revocation lists and keys in PEM form.

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use crate::secret::Secret;

/// Bytes of a text with certificates. Hundreds of roots fit.
pub const PEM_BYTES_MAX: usize = 1 << 20;

/// Certificates in one text.
pub const CERTIFICATES_MAX: usize = 1000;

/// Why a text is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    #[error("{bytes} bytes are more than the {max} that such a text may have")]
    TooLarge { bytes: usize, max: usize },
    #[error("it has more than {CERTIFICATES_MAX} certificates")]
    TooMany,
    #[error("there is no {what} in it")]
    Absent { what: &'static str },
    #[error("it is not PEM: {reason}")]
    Malformed { reason: String },
}

/// All certificates of a text, in its order; at least one. Whatever else is in it is skipped.
///
/// # Errors
/// If there is none, or one is broken.
pub fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    all(text, "certificate")
}

/// All revocation lists of a text; at least one.
///
/// # Errors
/// If there is none, or one is broken.
pub fn revocation_lists(text: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, PemError> {
    all(text, "revocation list")
}

/// The first private key of a text, in any of the usual forms (PKCS #8, PKCS #1, SEC 1).
///
/// # Errors
/// If there is none, or it is broken.
pub fn private_key(text: &Secret) -> Result<PrivateKeyDer<'static>, PemError> {
    check_size(text.expose(), PEM_BYTES_MAX)?;
    PrivateKeyDer::from_pem_slice(text.expose()).map_err(|error| problem(&error, "private key"))
}

/// A certificate as text.
#[must_use]
pub fn of_certificate(certificate: &CertificateDer<'_>) -> String {
    encode("CERTIFICATE", certificate)
}

/// Certificates as one text.
pub fn of_certificates<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'a>>) -> String {
    certificates.into_iter().map(of_certificate).collect()
}

/// Bytes between the lines of PEM (RFC 7468).
pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = String::with_capacity(body.len() + body.len() / 64 + 64);
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        // Base64 is ASCII: every index is a boundary.
        let (line, more) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

pub(crate) fn check_size(text: &[u8], max: usize) -> Result<(), PemError> {
    if text.len() > max { Err(PemError::TooLarge { bytes: text.len(), max }) } else { Ok(()) }
}

fn all<T: PemObject>(text: &[u8], what: &'static str) -> Result<Vec<T>, PemError> {
    check_size(text, PEM_BYTES_MAX)?;
    let mut found = Vec::new();
    for item in T::pem_slice_iter(text) {
        if found.len() == CERTIFICATES_MAX {
            return Err(PemError::TooMany);
        }
        found.push(item.map_err(|error| problem(&error, what))?);
    }
    if found.is_empty() { Err(PemError::Absent { what }) } else { Ok(found) }
}

/// What the parser says, without the bytes that it says it about: they may be those of a key.
pub(crate) fn problem(error: &rustls_pki_types::pem::Error, what: &'static str) -> PemError {
    use rustls_pki_types::pem::Error;
    let reason = match error {
        Error::NoItemsFound => return PemError::Absent { what },
        Error::MissingSectionEnd { .. } => "a section does not end",
        Error::IllegalSectionStart { .. } => "a section starts in a wrong way",
        Error::Base64Decode(_) => "a section is not base64",
        _ => "it cannot be read",
    };
    PemError::Malformed { reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_read_or_refused() {
        let one = encode("CERTIFICATE", &[1; 100]);
        let check = |text: &str, expected: Result<usize, &str>| {
            let found = certificates(text.as_bytes()).map(|found| found.len());
            let found = found.map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{text}");
        };
        check(&one, Ok(1));
        check(&format!("a comment\n{one}{}{one}", encode("PRIVATE KEY", &[2; 3])), Ok(2));
        check("", Err("there is no certificate in it"));
        check("hello", Err("there is no certificate in it"));
        check(one.trim_end().trim_end_matches('-'), Err("it is not PEM: a section does not end"));
        check(&one.replace("AQEB", "!QEB"), Err("it is not PEM: a section is not base64"));
        check(&one.repeat(CERTIFICATES_MAX + 1), Err("it has more than 1000 certificates"));
        let large = " ".repeat(PEM_BYTES_MAX + 1);
        check(&large, Err("1048577 bytes are more than the 1048576 that such a text may have"));
    }

    #[test]
    fn a_broken_key_is_not_quoted() {
        let text = encode("PRIVATE KEY", b"the very secret bytes of a key").replace("dGhl", "hunter2!");
        let error = private_key(&Secret::from(text)).expect_err("broken");
        assert!(!format!("{error:?} {error}").contains("hunter2"), "{error:?}");
    }

    proptest! {
        #[test]
        fn any_bytes_come_back_from_pem(der in proptest::collection::vec(any::<u8>(), 1..300)) {
            let text = encode("CERTIFICATE", &der);
            prop_assert_eq!(certificates(text.as_bytes()).map(|all| all[0].to_vec()), Ok(der));
        }

        #[test]
        fn nothing_that_is_read_panics(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = certificates(&text);
            let _ = revocation_lists(&text);
            let _ = private_key(&Secret::new(text));
        }
    }
}
