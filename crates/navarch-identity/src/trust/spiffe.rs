//! SPIFFE bundles: the roots of a trust domain as a JSON document (SPIFFE Trust Domain and Bundle, 4).

use std::time::Duration;

use base64::Engine;
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::Value;

use crate::certificate::CERTIFICATE_BYTES_MAX;
use crate::pem::{CERTIFICATES_MAX, PEM_BYTES_MAX};

/// The roots of a trust domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpiffeBundle {
    /// Keys for X.509 identities. May be empty: a trust domain may have revoked all.
    pub roots: Vec<CertificateDer<'static>>,
    /// Grows with every change. An answer with a smaller number than the one before is old.
    pub sequence: Option<u64>,
    /// When to look again, if the trust domain says so.
    pub refresh: Option<Duration>,
}

/// Why a document is not a SPIFFE bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeBundleError {
    #[error("{0} bytes are more than the {PEM_BYTES_MAX} that a bundle may have")]
    TooLarge(usize),
    #[error("it is not a JSON object with keys: {0}")]
    Json(String),
    #[error("it has more than {CERTIFICATES_MAX} keys")]
    TooMany,
    #[error("the key {index} does not have exactly one certificate (x5c)")]
    Certificate { index: usize },
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
    spiffe_sequence: Option<u64>,
    spiffe_refresh_hint: Option<u64>,
}

impl SpiffeBundle {
    /// Reads a bundle. Keys for other uses, and those whose use is not known, are ignored (4.2.2).
    ///
    /// # Errors
    /// If it is too large, not a bundle, or a key for X.509 has no certificate.
    pub fn parse(text: &[u8]) -> Result<Self, SpiffeBundleError> {
        if text.len() > PEM_BYTES_MAX {
            return Err(SpiffeBundleError::TooLarge(text.len()));
        }
        let document: Document =
            serde_json::from_slice(text).map_err(|error| SpiffeBundleError::Json(error.to_string()))?;
        if document.keys.len() > CERTIFICATES_MAX {
            return Err(SpiffeBundleError::TooMany);
        }
        let mut roots = Vec::new();
        for (index, key) in document.keys.iter().enumerate() {
            if key.get("use").and_then(Value::as_str) == Some("x509-svid") {
                roots.push(certificate(key).ok_or(SpiffeBundleError::Certificate { index })?);
            }
        }
        let refresh = document.spiffe_refresh_hint.map(Duration::from_secs);
        Ok(SpiffeBundle { roots, sequence: document.spiffe_sequence, refresh })
    }
}

/// Base64, not base64url (RFC 7517, 4.7).
fn certificate(key: &Value) -> Option<CertificateDer<'static>> {
    let [Value::String(text)] = key.get("x5c")?.as_array()?.as_slice() else { return None };
    let der = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    (!der.is_empty() && der.len() <= CERTIFICATE_BYTES_MAX).then(|| der.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bundles_are_read_or_refused() {
        let check = |text: &str, expected: Result<(usize, Option<u64>, Option<u64>), &str>| {
            let found = SpiffeBundle::parse(text.as_bytes());
            let found = found.map(|b| (b.roots.len(), b.sequence, b.refresh.map(|hint| hint.as_secs())));
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                (found, expected) => panic!("{text}: {found:?}, {expected:?}"),
            }
        };
        let x509 = r#"{"kty":"EC","use":"x509-svid","x5c":["MIIB"]}"#;
        let jwt = r#"{"kty":"EC","use":"jwt-svid","kid":"1","x":"","y":""}"#;
        check(r#"{"keys":[]}"#, Ok((0, None, None)));
        check(&format!(r#"{{"keys":[{x509},{jwt},{{"kty":"RSA"}},7]}}"#), Ok((1, None, None)));
        let numbers = r#""spiffe_sequence":12,"spiffe_refresh_hint":600"#;
        check(&format!(r#"{{"keys":[{x509}],{numbers}}}"#), Ok((1, Some(12), Some(600))));
        check("", Err("not a JSON object"));
        check("[]", Err("not a JSON object"));
        check(r#"{"keys":{}}"#, Err("not a JSON object"));
        check(r#"{"keys":[],"spiffe_sequence":-1}"#, Err("not a JSON object"));
        for x5c in ["[]", r#"["MIIB","MIIB"]"#, r#"["a b"]"#, r#"[""]"#, "7"] {
            let text = format!(r#"{{"keys":[{jwt},{{"use":"x509-svid","x5c":{x5c}}}]}}"#);
            check(&text, Err("the key 1 does not have exactly one certificate"));
        }
        check(r#"{"keys":[{"use":"x509-svid"}]}"#, Err("the key 0 does not"));
        check(&" ".repeat(PEM_BYTES_MAX + 1), Err("more than the 1048576"));
    }

    proptest! {
        #[test]
        fn nothing_that_is_read_panics(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = SpiffeBundle::parse(&text);
        }
    }
}
