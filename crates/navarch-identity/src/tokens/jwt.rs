//! Tokens of an OIDC issuer (`JWT_RULE`): JSON Web Tokens (RFC 7519) whose subject is a service account.
//!
//! Which algorithm verifies a token follows from the key, never from the token: a public key cannot be taken
//! for a shared secret, and `none` is not an algorithm. Keys for shared secrets are not read at all.

use std::fmt;
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use navarch_model::identity::SpiffeId;
use serde::Deserialize;
use serde_json::Value;

use super::{SubjectError, identity_of};
use crate::secret::Secret;
use crate::time::Timestamp;

/// Bytes of a token. It is a header of a request, and those are limited too.
pub const TOKEN_BYTES_MAX: usize = 16 << 10;

/// Bytes of a key set.
pub const KEY_SET_BYTES_MAX: usize = 256 << 10;

/// Keys of a set. A token without a key id is tried with all that fit.
pub const KEYS_MAX: usize = 64;

/// How far the clocks of issuer and verifier may be apart.
const LEEWAY: Duration = Duration::from_secs(30);

/// Which tokens are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtRule {
    pub issuer: String,
    /// Where the keys are; if it is not said, the issuer's discovery document says.
    pub jwks_uri: Option<String>,
    /// A token must be for one of them. Never empty: a token for somebody else would be believed.
    pub audiences: Vec<String>,
}

/// Why a rule cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    #[error("JWT_RULE is not a JSON object with issuer, jwks_uri and audiences: {0}")]
    Json(String),
    #[error("JWT_RULE has no issuer")]
    Issuer,
    #[error("JWT_RULE has no audiences: tokens that the issuer made for somebody else would be believed")]
    Audiences,
}

impl JwtRule {
    /// Reads the value of Istio's `JWT_RULE`.
    ///
    /// # Errors
    /// If it is not a rule, or would believe too much.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        #[derive(Deserialize)]
        struct Document {
            #[serde(default)]
            issuer: String,
            #[serde(alias = "jwksUri")]
            jwks_uri: Option<String>,
            #[serde(default)]
            audiences: Vec<String>,
        }
        let Document { issuer, jwks_uri, audiences } =
            serde_json::from_str(text).map_err(|error| RuleError::Json(error.to_string()))?;
        if issuer.is_empty() {
            return Err(RuleError::Issuer);
        }
        if audiences.is_empty() || audiences.iter().any(String::is_empty) {
            return Err(RuleError::Audiences);
        }
        Ok(JwtRule { issuer, jwks_uri: jwks_uri.filter(|uri| !uri.is_empty()), audiences })
    }

    /// Where the keys are, or the document of the issuer that says where they are.
    #[must_use]
    pub fn key_source(&self) -> String {
        let discovery = || format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        self.jwks_uri.clone().unwrap_or_else(discovery)
    }
}

/// The public keys of an issuer.
#[derive(Clone)]
pub struct KeySet {
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    id: Option<String>,
    /// What may be verified with it.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| (&key.id, &key.algorithms))).finish()
    }
}

/// Why a document is not a key set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    #[error("{0} bytes are more than the {KEY_SET_BYTES_MAX} that a key set may have")]
    TooLarge(usize),
    #[error("it is not a JSON object with keys: {0}")]
    Json(String),
    #[error("it has more than {KEYS_MAX} keys")]
    TooMany,
    #[error("none of its {0} keys verifies signatures: RSA, EC (P-256, P-384) and OKP (Ed25519) do")]
    NoKeys(usize),
}

impl KeySet {
    /// Reads a key set (RFC 7517, 5). Keys that are for something else or of a kind that is not known are
    /// left out.
    ///
    /// # Errors
    /// If it is too large, not a key set, or no key is left.
    pub fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        if text.len() > KEY_SET_BYTES_MAX {
            return Err(KeySetError::TooLarge(text.len()));
        }
        let document: Document =
            serde_json::from_slice(text).map_err(|error| KeySetError::Json(error.to_string()))?;
        let count = document.keys.len();
        if count > KEYS_MAX {
            return Err(KeySetError::TooMany);
        }
        let keys: Vec<Key> = document.keys.into_iter().filter_map(key).collect();
        if keys.is_empty() { Err(KeySetError::NoKeys(count)) } else { Ok(KeySet { keys }) }
    }
}

fn key(value: Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    if jwk.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
        return None;
    }
    let fitting: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => &[Algorithm::ES256],
            EllipticCurve::P384 => &[Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
        // A shared secret in a document that everybody may read is none.
        _ => return None,
    };
    let stated = jwk.common.key_algorithm;
    let is_stated =
        |algorithm: &Algorithm| stated.is_none_or(|stated| stated == KeyAlgorithm::from(*algorithm));
    let algorithms: Vec<_> = fitting.iter().copied().filter(is_stated).collect();
    if algorithms.is_empty() {
        return None;
    }
    Some(Key { id: jwk.common.key_id.clone(), algorithms, key: DecodingKey::from_jwk(&jwk).ok()? })
}

/// Why a token proves nothing. For the log: who sent it hears less.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    #[error("it is not a JSON Web Token with an algorithm that is known")]
    Form,
    #[error("the issuer has no key {0:?}; its keys may have changed")]
    UnknownKey(String),
    #[error("the issuer has no key for {0}")]
    Algorithm(String),
    #[error("its signature is not of the issuer's keys")]
    Signature,
    #[error("its claims cannot be read: {0}")]
    Claims(String),
    #[error("its issuer is {0:?}")]
    Issuer(String),
    #[error("it is for {0:?}")]
    Audience(Vec<String>),
    #[error("it has expired at {0}")]
    Expired(Timestamp),
    #[error("it is not valid before {0}")]
    NotYet(Timestamp),
    #[error(transparent)]
    Subject(#[from] SubjectError),
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audiences,
    /// Seconds; RFC 7519 allows fractions.
    exp: f64,
    nbf: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

/// Who the bearer of a token is, if the issuer says so.
///
/// # Errors
/// The reason why the token proves nothing.
pub fn verify(
    token: &Secret,
    rule: &JwtRule,
    keys: &KeySet,
    trust_domain: &str,
    now: Timestamp,
) -> Result<SpiffeId, JwtError> {
    let claims = signed_claims(token, keys)?;
    if claims.iss != rule.issuer {
        return Err(JwtError::Issuer(claims.iss));
    }
    let audiences = match claims.aud {
        Audiences::One(audience) => vec![audience],
        Audiences::Many(audiences) => audiences,
    };
    if !audiences.iter().any(|audience| rule.audiences.contains(audience)) {
        return Err(JwtError::Audience(audiences));
    }
    // A number that is not a time is the beginning or the end of it.
    let expires = Timestamp(claims.exp as u64);
    if expires.after(LEEWAY) <= now {
        return Err(JwtError::Expired(expires));
    }
    if let Some(not_before) = claims.nbf.map(|seconds| Timestamp(seconds as u64))
        && not_before > now.after(LEEWAY)
    {
        return Err(JwtError::NotYet(not_before));
    }
    Ok(identity_of(&claims.sub, trust_domain)?)
}

/// The claims of a token that one of the keys has signed.
fn signed_claims(token: &Secret, keys: &KeySet) -> Result<Claims, JwtError> {
    if token.expose().len() > TOKEN_BYTES_MAX {
        return Err(JwtError::Form);
    }
    let header = decode_header(token.expose()).map_err(|_| JwtError::Form)?;
    let named: Vec<&Key> = match &header.kid {
        Some(id) => keys.keys.iter().filter(|key| key.id.as_ref() == Some(id)).collect(),
        None => keys.keys.iter().collect(),
    };
    if let (Some(id), true) = (&header.kid, named.is_empty()) {
        return Err(JwtError::UnknownKey(id.clone()));
    }
    let mut error = JwtError::Algorithm(format!("{:?}", header.alg));
    for key in named.into_iter().filter(|key| key.algorithms.contains(&header.alg)) {
        match decode::<Claims>(token.expose(), &key.key, &signature_only(header.alg)) {
            Ok(token) => return Ok(token.claims),
            Err(problem) => error = reason(&problem),
        }
    }
    Err(error)
}

/// The library looks at signature and form. It would read the clock for times, and passes audiences that are
/// absent; both are looked at here.
fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

fn reason(error: &jsonwebtoken::errors::Error) -> JwtError {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::InvalidSignature => JwtError::Signature,
        ErrorKind::Json(error) => JwtError::Claims(error.to_string()),
        _ => JwtError::Form,
    }
}

#[cfg(test)]
mod tests;
