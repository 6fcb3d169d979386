//! What is read before anybody has proven anything, and what others publish: no bytes panic, and none are
//! believed. The same functions are the targets of the fuzzer (`fuzz/`); here they see good input that was
//! changed at random, always the same.

#[path = "untrusted/join.rs"]
mod join;
#[path = "untrusted/jwt.rs"]
mod jwt;
#[path = "untrusted/pem.rs"]
mod pem;
#[path = "untrusted/requests.rs"]
mod requests;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, SanType};

/// Inputs for each target.
const CASES: usize = 20_000;

/// Runs a target with every seed, and with seeds that were changed.
fn check(target: fn(&[u8]), ways: u8, seeds: &[Vec<u8>]) {
    // Numbers of xorshift (Marsaglia 2003).
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    target(&[]);
    for way in 0..ways {
        seeds.iter().for_each(|seed| target(&[&[way], &seed[..]].concat()));
    }
    for _ in 0..CASES {
        let mut input = seeds[next(seeds.len())].clone();
        for _ in 0..=next(4) {
            let at = next(input.len());
            match next(5) {
                0 if !input.is_empty() => input[at] ^= 1 << next(8),
                1 if !input.is_empty() => input[at] = next(256) as u8,
                2 => input.truncate(at),
                3 => input.insert(at, next(256) as u8),
                _ => {
                    // A part of another one.
                    let other = &seeds[next(seeds.len())];
                    let from = next(other.len());
                    let length = next(other.len() - from.min(other.len()));
                    let at = at.min(input.len());
                    input.splice(at..at, other[from..from + length].iter().copied());
                }
            }
        }
        input.insert(0, next(usize::from(ways)) as u8);
        target(&input);
    }
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[test]
fn requests_make_no_other_identity() {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    let uri = "spiffe://cluster.local/ns/kube-system/sa/admin";
    params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("ASCII"))];
    let request = params.serialize_request(&key).expect("a request");
    let pem = request.pem().expect("PEM");
    // As a message: the field of the request, and a life.
    let length = u16::try_from(pem.len()).expect("short");
    let head = [0x0a, (length & 0x7f) as u8 | 0x80, (length >> 7) as u8];
    let message = [&head[..], pem.as_bytes(), &[0x10, 60]].concat();
    check(requests::run, 3, &[request.der().to_vec(), pem.clone().into_bytes(), message]);
}

#[test]
fn tokens_of_an_issuer_are_believed_for_what_they_say() {
    check(
        jwt::run,
        5,
        &texts(&[
            r#"{"iss":"https://issuer.test","sub":"system:serviceaccount:shop:web","aud":"navarch","exp":1900000000}"#,
            r#"{"iss":"https://issuer.test","sub":"system:serviceaccount:shop:web","aud":["a","navarch"],"exp":1.9e9,"nbf":1}"#,
            r#"{"alg":"EdDSA","typ":"JWT"}"#,
            r#"{"alg":"none"}"#,
            r#"{"alg":"HS256","kid":"a","jwk":{"kty":"oct","k":"AAAA"}}"#,
            r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#,
            r#"{"issuer":"https://issuer.test","jwks_uri":"https://issuer.test/keys","audiences":["navarch"]}"#,
        ]),
    );
}

#[test]
fn certificates_lists_and_bundles_are_read_or_refused() {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let uri = "spiffe://td/ns/shop/sa/web".try_into().expect("ASCII");
    params.subject_alt_names = vec![SanType::URI(uri)];
    let certificate = params.self_signed(&key).expect("a certificate");
    let bundle = r#"{"keys":[{"kty":"EC","use":"x509-svid","x5c":["MIIB"]}],"spiffe_sequence":1,"spiffe_refresh_hint":60}"#;
    let seeds = [
        certificate.der().to_vec(),
        certificate.pem().into_bytes(),
        key.serialize_pem().into_bytes(),
        bundle.as_bytes().to_vec(),
    ];
    check(pem::run, 6, &seeds);
}

#[test]
fn no_join_token_is_believed_but_the_one_that_was_made() {
    let id = "0123456789abcdef";
    let claims = format!(
        r#"{{"id":"{id}","trust_domain":"td","namespace":"shop","service_account":"web","expires":1900000000,"once":false}}"#
    );
    check(join::run, 4, &[claims.into_bytes(), vec![0; 8], vec![0, 0, 1], b"AAAA.BBBB".to_vec()]);
}
