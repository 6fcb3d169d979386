//! Tokens of an issuer, as anybody may send them, and what the issuer may publish.

use std::sync::LazyLock;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use navarch_identity::tokens::jwt::{JwtRule, KeySet, verify};
use navarch_identity::{Secret, Timestamp};
use serde_json::Value;

const NOW: Timestamp = Timestamp(1_800_000_000);
const HEADER: &[u8] = br#"{"alg":"EdDSA","typ":"JWT"}"#;

static KEY: LazyLock<Ed25519KeyPair> =
    LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key"));

static KEYS: LazyLock<KeySet> = LazyLock::new(|| {
    let x = URL_SAFE_NO_PAD.encode(KEY.public_key());
    let set = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","x":"{x}"}}]}}"#);
    KeySet::parse(set.as_bytes()).expect("keys")
});

static RULE: LazyLock<JwtRule> = LazyLock::new(|| {
    JwtRule::parse(r#"{"issuer":"https://issuer.test","audiences":["navarch"]}"#).expect("a rule")
});

/// The first byte says what the others are: claims that the issuer signed, a header before good ones, a whole
/// token, keys, or a rule.
pub fn run(data: &[u8]) {
    let Some((how, data)) = data.split_first() else { return };
    match how % 5 {
        0 => believe(data, &signed(HEADER, data)),
        1 => {
            let claims =
                br#"{"iss":"https://issuer.test","sub":"system:serviceaccount:a:b","aud":"navarch","exp":1}"#;
            assert!(verify(&signed(data, claims), &RULE, &KEYS, "td", NOW).is_err(), "it has expired");
        }
        // Nobody but the issuer signs.
        2 => assert!(verify(&Secret::new(data.to_vec()), &RULE, &KEYS, "td", NOW).is_err()),
        3 => _ = KeySet::parse(data),
        _ => {
            let Ok(rule) = JwtRule::parse(&String::from_utf8_lossy(data)) else { return };
            assert!(!rule.issuer.is_empty() && !rule.audiences.is_empty());
            let _ = rule.key_source();
        }
    }
}

fn signed(header: &[u8], claims: &[u8]) -> Secret {
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(KEY.sign(text.as_bytes()));
    Secret::from(format!("{text}.{signature}"))
}

/// Claims that are believed say all that is demanded of them, and who the bearer is.
fn believe(claims: &[u8], token: &Secret) {
    let Ok(identity) = verify(token, &RULE, &KEYS, "td", NOW) else { return };
    let claims: Value = serde_json::from_slice(claims).expect("JSON");
    assert_eq!(claims["iss"], "https://issuer.test");
    let audience = &claims["aud"];
    let is_for_us = *audience == "navarch"
        || audience.as_array().is_some_and(|all| all.iter().any(|one| *one == "navarch"));
    assert!(is_for_us, "{audience}");
    assert!(claims["exp"].as_f64().is_some_and(|at| at + 30.0 > NOW.0 as f64), "{claims}");
    let subject = claims["sub"].as_str().expect("a text");
    let account = subject.strip_prefix("system:serviceaccount:").expect("a service account");
    let (namespace, account) = account.split_once(':').expect("two parts");
    assert_eq!(identity.to_string(), format!("spiffe://td/ns/{namespace}/sa/{account}"));
}
