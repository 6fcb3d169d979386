//! What issuers publish: their keys, or where those are.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

/// What a document turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// A key set (RFC 7517, 5), of keys that every verifier can read.
    Keys(String),
    /// The metadata of an issuer (OpenID Connect Discovery 1.0, 3): where its keys are.
    KeysAt(String),
}

/// Why a document is neither.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    #[error("it is not a JSON object: {0}")]
    Json(String),
    #[error("it has neither keys nor jwks_uri")]
    Unknown,
    #[error("none of its {0} keys verifies signatures: RSA, EC (P-256, P-384, P-521) and OKP (Ed25519) do")]
    NoKeys(usize),
    #[error("it has more than {KEYS_MAX} keys")]
    TooMany,
}

/// Keys of one set.
const KEYS_MAX: usize = 64;

/// Reads a document.
///
/// Keys that are for something else or of a kind that is not known are left out, and so is what is private
/// in them: one key that a proxy cannot read would make it refuse all of its configuration.
///
/// # Errors
/// If it is not one.
pub fn read(text: &[u8]) -> Result<Document, DocumentError> {
    let document: Map<String, Value> =
        serde_json::from_slice(text).map_err(|error| DocumentError::Json(error.to_string()))?;
    if let Some(Value::Array(keys)) = document.get("keys") {
        if keys.len() > KEYS_MAX {
            return Err(DocumentError::TooMany);
        }
        let usable: Vec<Value> = keys.iter().filter_map(usable).collect();
        if usable.is_empty() {
            return Err(DocumentError::NoKeys(keys.len()));
        }
        return Ok(Document::Keys(json!({ "keys": usable }).to_string()));
    }
    match document.get("jwks_uri") {
        Some(Value::String(url)) => Ok(Document::KeysAt(url.clone())),
        _ => Err(DocumentError::Unknown),
    }
}

/// The public part of a key that verifies signatures.
fn usable(key: &Value) -> Option<Value> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    if text("use").is_some_and(|usage| usage != "sig") {
        return None;
    }
    let number = |name: &str, bytes: std::ops::RangeInclusive<usize>| {
        let decoded = URL_SAFE_NO_PAD.decode(text(name)?.trim_end_matches('=')).ok()?;
        bytes.contains(&decoded.len()).then_some(())
    };
    let kept: &[&str] = match (text("kty")?, text("crv")) {
        ("RSA", _) => {
            // 2048 bits are the least that is safe (RFC 7518, 3.3).
            number("n", 256..=2048)?;
            number("e", 1..=8)?;
            &["n", "e"]
        }
        ("EC", Some(curve @ ("P-256" | "P-384" | "P-521"))) => {
            let bytes = match curve {
                "P-256" => 32,
                "P-384" => 48,
                _ => 66,
            };
            number("x", bytes..=bytes)?;
            number("y", bytes..=bytes)?;
            &["crv", "x", "y"]
        }
        ("OKP", Some("Ed25519")) => {
            number("x", 32..=32)?;
            &["crv", "x"]
        }
        _ => return None,
    };
    let names = ["kty", "kid", "alg", "use"].into_iter().chain(kept.iter().copied());
    let public = names.filter_map(|name| Some((name.to_owned(), Value::from(text(name)?))));
    Some(Value::Object(public.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        match (read(text.as_bytes()), expected) {
            (Ok(Document::Keys(found) | Document::KeysAt(found)), Ok(expected)) => {
                assert_eq!(found, expected, "{text}");
            }
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (found, expected) => panic!("{text}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn keys_that_everybody_can_read_are_kept_without_what_is_private() {
        let x = "A".repeat(43);
        let ed =
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","kid":"a","d":"secret","x5c":["junk"]}}"#);
        let kept = format!(r#"{{"keys":[{{"kty":"OKP","kid":"a","crv":"Ed25519","x":"{x}"}}]}}"#);
        let ec = format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{x}","alg":"ES256"}}"#);
        let kept_ec =
            format!(r#"{{"keys":[{{"kty":"EC","alg":"ES256","crv":"P-256","x":"{x}","y":"{x}"}}]}}"#);
        check(&format!(r#"{{"keys":[{ed}]}}"#), Ok(&kept));
        check(&format!(r#"{{"more":1,"keys":[{ec}]}}"#), Ok(&kept_ec));
        // One that cannot be read does not take the others with it.
        for bad in [
            r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#,
            r#"{"kty":"RSA"}"#,
            r#"{"kty":"oct","k":"c2VjcmV0"}"#,
            r#"{"kty":"EC","crv":"secp256k1","x":"AA","y":"AA"}"#,
            r#"{"kty":"EC","crv":"P-256","x":"!!","y":"AA"}"#,
            r#""a string""#,
            &format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","use":"enc"}}"#),
        ] {
            check(&format!(r#"{{"keys":[{bad},{ed}]}}"#), Ok(&kept));
            check(&format!(r#"{{"keys":[{bad}]}}"#), Err("none of its 1 keys"));
        }
    }

    #[test]
    fn other_documents_say_where_the_keys_are_or_nothing() {
        check(r#"{"issuer":"https://a","jwks_uri":"https://a/keys"}"#, Ok("https://a/keys"));
        check("{}", Err("neither keys nor jwks_uri"));
        check(r#"{"jwks_uri":1}"#, Err("neither"));
        check("[]", Err("not a JSON object"));
        check("<html>", Err("not a JSON object"));
        check(r#"{"keys":[]}"#, Err("none of its 0 keys"));
        check(&format!(r#"{{"keys":[{}]}}"#, vec!["1"; 65].join(",")), Err("more than 64"));
    }
}
