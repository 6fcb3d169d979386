//! An issuer of tokens, as an OpenID Connect provider is one.

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ED25519, SigningKey};
use serde_json::{Value, json};

/// An issuer with one key.
pub struct Issuer {
    key: KeyPair,
    id: &'static str,
}

impl Issuer {
    pub fn new(id: &'static str) -> Result<Issuer> {
        Ok(Issuer { key: KeyPair::generate_for(&PKCS_ED25519)?, id })
    }

    /// What it publishes.
    pub fn keys(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.key.public_key_raw());
        let key = json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": self.id, "x": x});
        json!({"keys": [key]}).to_string()
    }

    /// A token with these claims.
    pub fn token(&self, claims: &Value) -> Result<String> {
        let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": self.id});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&header), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(text.as_bytes())?);
        Ok(format!("{text}.{signature}"))
    }
}
