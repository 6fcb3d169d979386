use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};
use aws_lc_rs::{encoding::AsDer, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000);

/// Keys of an issuer. Tokens are signed here without the library that verifies them.
struct Issuer {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

static ISSUER: LazyLock<Issuer> = LazyLock::new(|| Issuer {
    rsa: RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"),
    ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"),
    ed: Ed25519KeyPair::generate().expect("a key"),
});

fn rsa_jwk() -> Value {
    let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(ISSUER.rsa.public_key());
    json!({"kty": "RSA", "kid": "rsa", "use": "sig", "n": BASE64.encode(n), "e": BASE64.encode(e)})
}

fn ec_jwk() -> Value {
    let point = ISSUER.ec.public_key().as_ref();
    let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..65]));
    json!({"kty": "EC", "kid": "ec", "alg": "ES256", "crv": "P-256", "x": x, "y": y})
}

fn ed_jwk() -> Value {
    json!({"kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": BASE64.encode(ISSUER.ed.public_key())})
}

fn keys() -> KeySet {
    let set = json!({"keys": [rsa_jwk(), ec_jwk(), ed_jwk()]});
    KeySet::parse(set.to_string().as_bytes()).expect("keys")
}

fn sign(by: &str, message: &[u8]) -> Vec<u8> {
    let random = SystemRandom::new();
    match by {
        "rsa" => {
            let mut signature = vec![0; ISSUER.rsa.public_modulus_len()];
            ISSUER.rsa.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect("signed");
            signature
        }
        "ec" => ISSUER.ec.sign(&random, message).expect("signed").as_ref().to_vec(),
        "ed" => ISSUER.ed.sign(message).as_ref().to_vec(),
        _ => Vec::new(),
    }
}

fn token(header: &Value, claims: &Value, by: &str) -> Secret {
    let message = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
    let signature = BASE64.encode(sign(by, message.as_bytes()));
    Secret::from(format!("{message}.{signature}"))
}

fn claims() -> Value {
    json!({
        "iss": "https://issuer.example.com",
        "sub": "system:serviceaccount:shop:web",
        "aud": ["other", "istio-ca"],
        "exp": NOW.0 + 600,
    })
}

fn rule() -> JwtRule {
    JwtRule {
        issuer: "https://issuer.example.com".to_owned(),
        jwks_uri: None,
        audiences: vec!["istio-ca".to_owned()],
    }
}

#[track_caller]
fn check(token: &Secret, expected: Result<(), &str>) {
    match (verify(token, &rule(), &keys(), "td", NOW), expected) {
        (Ok(id), Ok(())) => assert_eq!(id.to_string(), "spiffe://td/ns/shop/sa/web"),
        (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
        (found, expected) => panic!("{found:?}, {expected:?}"),
    }
}

#[test]
fn tokens_of_all_kinds_of_keys_are_believed() {
    for (algorithm, by) in [("RS256", "rsa"), ("ES256", "ec"), ("EdDSA", "ed")] {
        check(&token(&json!({"alg": algorithm, "kid": by}), &claims(), by), Ok(()));
        check(&token(&json!({"alg": algorithm, "typ": "JWT"}), &claims(), by), Ok(()));
        check(&token(&json!({"alg": algorithm, "kid": by}), &claims(), "nobody"), Err("signature is not"));
    }
}

#[test]
fn the_key_says_which_algorithm_and_not_the_token() {
    let cases = [
        (json!({"alg": "none"}), "", "not a JSON Web Token with an algorithm"),
        (json!({"alg": "None", "kid": "rsa"}), "", "not a JSON Web Token with an algorithm"),
        (json!({"kid": "rsa"}), "rsa", "not a JSON Web Token with an algorithm"),
        (json!({"alg": "HS256", "kid": "rsa"}), "rsa", "no key for HS256"),
        (json!({"alg": "HS256"}), "rsa", "no key for HS256"),
        (json!({"alg": "ES256", "kid": "rsa"}), "rsa", "no key for ES256"),
        (json!({"alg": "RS256", "kid": "ec"}), "rsa", "no key for RS256"),
        (json!({"alg": "ES384", "kid": "ec"}), "ec", "no key for ES384"),
        (json!({"alg": "EdDSA", "kid": "ec"}), "ed", "no key for EdDSA"),
        (json!({"alg": "RS256", "kid": "gone"}), "rsa", "no key \"gone\""),
        (json!({"alg": "RS256", "kid": "rsa"}), "ec", "signature is not"),
        (json!({"alg": "RS512", "kid": "rsa"}), "rsa", "signature is not"),
        (json!({"alg": "RS256", "kid": "rsa", "crit": ["x"], "x": 1}), "rsa", "not a JSON Web Token"),
        (json!({"alg": "RS256", "kid": "rsa", "b64": false, "crit": ["b64"]}), "rsa", "not a JSON Web Token"),
    ];
    for (header, by, expected) in cases {
        check(&token(&header, &claims(), by), Err(expected));
    }
    // The public key as a shared secret: the classic.
    let secret = ISSUER
        .rsa
        .public_key()
        .as_der()
        .map(|der: aws_lc_rs::encoding::PublicKeyX509Der<'_>| der.as_ref().to_vec());
    let key = hmac::Key::new(hmac::HMAC_SHA256, &secret.expect("a public key"));
    let message = format!("{}.{}", BASE64.encode(r#"{"alg":"HS256"}"#), BASE64.encode(claims().to_string()));
    let code = BASE64.encode(hmac::sign(&key, message.as_bytes()));
    check(&Secret::from(format!("{message}.{code}")), Err("no key for HS256"));
}

#[test]
fn a_key_in_the_token_is_not_looked_at() {
    let other = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let point = other.public_key().as_ref();
    let jwk = json!({"kty": "EC", "crv": "P-256", "x": BASE64.encode(&point[1..33]), "y": BASE64.encode(&point[33..65])});
    let header = json!({"alg": "ES256", "jwk": jwk, "jku": "https://attacker.example.com/"});
    let message = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims().to_string()));
    let signature = other.sign(&SystemRandom::new(), message.as_bytes()).expect("signed");
    check(&Secret::from(format!("{message}.{}", BASE64.encode(signature))), Err("signature is not"));
}

#[test]
fn claims_are_checked() {
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        if value.is_null() {
            claims.as_object_mut().expect("an object").remove(name);
        } else {
            claims[name] = value;
        }
        token(&json!({"alg": "ES256", "kid": "ec"}), &claims, "ec")
    };
    let now = NOW.0;
    check(&with("aud", json!("istio-ca")), Ok(()));
    check(&with("aud", json!("istio-ca-2")), Err("it is for [\"istio-ca-2\"]"));
    check(&with("aud", json!([])), Err("it is for []"));
    check(&with("aud", Value::Null), Err("claims cannot be read"));
    check(&with("aud", json!(7)), Err("claims cannot be read"));
    check(&with("iss", json!("https://issuer.example.com/")), Err("its issuer is"));
    check(&with("iss", json!(["https://issuer.example.com"])), Err("claims cannot be read"));
    check(&with("iss", Value::Null), Err("claims cannot be read"));
    check(&with("exp", json!(now - 29)), Ok(()));
    check(&with("exp", json!(now - 30)), Err("it has expired"));
    check(&with("exp", json!(now as f64 + 0.5)), Ok(()));
    check(&with("exp", json!(-1)), Err("it has expired"));
    check(&with("exp", json!("soon")), Err("claims cannot be read"));
    check(&with("exp", Value::Null), Err("claims cannot be read"));
    check(&with("exp", json!(1e300)), Ok(()));
    check(&with("nbf", json!(now + 30)), Ok(()));
    check(&with("nbf", json!(now + 31)), Err("it is not valid before"));
    check(&with("sub", json!("web")), Err("is not system:serviceaccount:"));
    check(&with("sub", json!("system:serviceaccount:shop/../a:web")), Err("cannot be part of an identity"));
    check(&with("sub", Value::Null), Err("claims cannot be read"));
}

#[test]
fn what_is_not_a_token_is_refused() {
    for text in ["", ".", "..", "...", "a.b.c", "e30.e30.", "{}.{}.", &"a".repeat(TOKEN_BYTES_MAX + 1)] {
        check(&Secret::from(text.to_owned()), Err("not a JSON Web Token"));
    }
}

#[test]
fn key_sets_are_read_or_refused() {
    let check = |set: Value, expected: Result<usize, &str>| {
        let found = KeySet::parse(set.to_string().as_bytes()).map(|set| set.keys.len());
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
            (found, expected) => panic!("{found:?}, {expected:?}"),
        }
    };
    let change = |mut jwk: Value, name: &str, value: Value| {
        jwk[name] = value;
        jwk
    };
    check(json!({"keys": [rsa_jwk(), ec_jwk(), ed_jwk()]}), Ok(3));
    let unknown = json!({"kty": "EC", "crv": "secp256k1", "x": "", "y": ""});
    check(json!({"keys": [unknown, 7, {"kty": "new"}, rsa_jwk()]}), Ok(1));
    check(json!({"keys": [change(rsa_jwk(), "use", json!("enc")), ec_jwk()]}), Ok(1));
    check(json!({"keys": [change(rsa_jwk(), "alg", json!("RSA-OAEP"))]}), Err("none of its 1 keys"));
    check(json!({"keys": [change(rsa_jwk(), "alg", json!("HS256"))]}), Err("none of its 1 keys"));
    check(json!({"keys": [{"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}]}), Err("none of its 1 keys"));
    check(json!({"keys": []}), Err("none of its 0 keys"));
    check(json!({"keys": {}}), Err("not a JSON object with keys"));
    check(json!([]), Err("not a JSON object with keys"));
    check(json!({"keys": vec![json!({}); KEYS_MAX + 1]}), Err("more than 64 keys"));
    let large = format!(r#"{{"keys":[],"x":"{}"}}"#, "a".repeat(KEY_SET_BYTES_MAX));
    assert!(matches!(KeySet::parse(large.as_bytes()), Err(KeySetError::TooLarge(_))));
}

#[test]
fn a_key_that_states_its_algorithm_verifies_no_other() {
    let mut jwk = rsa_jwk();
    jwk["alg"] = json!("RS384");
    let keys = KeySet::parse(json!({"keys": [jwk]}).to_string().as_bytes()).expect("keys");
    let token = token(&json!({"alg": "RS256", "kid": "rsa"}), &claims(), "rsa");
    let error = verify(&token, &rule(), &keys, "td", NOW).expect_err("refused");
    assert_eq!(error, JwtError::Algorithm("RS256".to_owned()));
}

#[test]
fn rules_are_read_or_refused() {
    let check = |text: &str, expected: Result<(&str, Option<&str>), RuleError>| {
        let rule = JwtRule::parse(text);
        let found = rule.as_ref().map(|rule| (rule.issuer.as_str(), rule.jwks_uri.as_deref()));
        match expected {
            Err(RuleError::Json(_)) => assert!(matches!(rule, Err(RuleError::Json(_))), "{text}"),
            expected => assert_eq!(found, expected.as_ref().copied(), "{text}"),
        }
    };
    check(r#"{"issuer":"i","jwks_uri":"u","audiences":["a"]}"#, Ok(("i", Some("u"))));
    check(r#"{"issuer":"i","jwksUri":"u","audiences":["a"]}"#, Ok(("i", Some("u"))));
    check(r#"{"issuer":"i","jwks_uri":"","audiences":["a"]}"#, Ok(("i", None)));
    check(r#"{"issuer":"","audiences":["a"]}"#, Err(RuleError::Issuer));
    check(r#"{"audiences":["a"]}"#, Err(RuleError::Issuer));
    check(r#"{"issuer":"i"}"#, Err(RuleError::Audiences));
    check(r#"{"issuer":"i","audiences":[]}"#, Err(RuleError::Audiences));
    check(r#"{"issuer":"i","audiences":[""]}"#, Err(RuleError::Audiences));
    check("", Err(RuleError::Json(String::new())));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_changed_token_is_never_believed(at in any::<prop::sample::Index>(), flip in 1..128u8, cut in any::<prop::sample::Index>()) {
        let keys = keys();
        let token = token(&json!({"alg": "EdDSA", "kid": "ed"}), &claims(), "ed");
        let mut bytes = token.expose().to_vec();
        let index = at.index(bytes.len());
        bytes[index] ^= flip;
        prop_assert!(verify(&Secret::new(bytes.clone()), &rule(), &keys, "td", NOW).is_err());
        bytes.truncate(cut.index(bytes.len()));
        prop_assert!(verify(&Secret::new(bytes), &rule(), &keys, "td", NOW).is_err());
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), claims in ".{0,60}") {
        let keys = keys();
        let _ = KeySet::parse(&bytes);
        let _ = verify(&Secret::new(bytes), &rule(), &keys, "td", NOW);
        // What is signed and no claims.
        let message = format!("{}.{}", BASE64.encode(r#"{"alg":"EdDSA"}"#), BASE64.encode(claims));
        let signature = BASE64.encode(sign("ed", message.as_bytes()));
        let token = Secret::from(format!("{message}.{signature}"));
        prop_assert!(verify(&token, &rule(), &keys, "td", NOW).is_err());
    }
}
