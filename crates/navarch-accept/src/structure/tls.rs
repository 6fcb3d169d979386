//! TLS: certificates on the side of the server, one on that of the client, and names only with somebody to
//! vouch for them.

use super::filters::is_set;
use super::numbers::{
    common_tls as c, downstream_tls, tls_parameters as p, upstream_tls as up, validation as v,
};
use crate::violation::Rule;
use crate::walk::At;
use crate::wire::{message, messages, text};

/// The cipher suites that BoringSSL has, and its words for several.
const CIPHERS: &[&str] = &[
    "AES128-GCM-SHA256",
    "AES128-SHA",
    "AES256-GCM-SHA384",
    "AES256-SHA",
    "ALL",
    "DES-CBC3-SHA",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-ECDSA-AES128-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-PSK-AES128-CBC-SHA",
    "ECDHE-PSK-AES256-CBC-SHA",
    "ECDHE-PSK-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-SHA",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "HIGH",
    "PSK-AES128-CBC-SHA",
    "PSK-AES256-CBC-SHA",
];

pub fn downstream(context: &[u8], at: &mut At<'_>) {
    let common = message(context, downstream_tls::COMMON_TLS_CONTEXT).unwrap_or_default();
    let sources = [
        c::TLS_CERTIFICATES,
        c::TLS_CERTIFICATE_SDS_SECRET_CONFIGS,
        c::TLS_CERTIFICATE_CERTIFICATE_PROVIDER,
        c::TLS_CERTIFICATE_CERTIFICATE_PROVIDER_INSTANCE,
        c::TLS_CERTIFICATE_PROVIDER_INSTANCE,
        c::CUSTOM_TLS_CERTIFICATE_SELECTOR,
    ];
    if sources.iter().all(|number| message(common, *number).is_none()) {
        let words = "has no certificate, which the side of the server needs";
        at.say(Rule::Structure, "common_tls_context", words.to_owned());
    }
}

pub fn upstream(context: &[u8], at: &mut At<'_>) {
    let common = message(context, up::COMMON_TLS_CONTEXT).unwrap_or_default();
    let certificates = messages(common, c::TLS_CERTIFICATES).count()
        + messages(common, c::TLS_CERTIFICATE_SDS_SECRET_CONFIGS).count();
    if certificates > 1 {
        let words = format!("has {certificates} certificates, but the side of the client may have one");
        at.say(Rule::Structure, "common_tls_context", words);
    }
    let validates =
        [c::VALIDATION_CONTEXT, c::VALIDATION_CONTEXT_SDS_SECRET_CONFIG, c::COMBINED_VALIDATION_CONTEXT];
    let none = validates.iter().all(|number| message(common, *number).is_none());
    if is_set(context, up::AUTO_SNI_SAN_VALIDATION) && none {
        let words = "is set, but nothing says whom to trust";
        at.say(Rule::Structure, "auto_sni_san_validation", words.to_owned());
    }
    if text(context, up::SNI).contains('\0') {
        at.say(Rule::Content, "sni", "has a NUL character".to_owned());
    }
}

pub fn common(common: &[u8], at: &mut At<'_>) {
    for (index, protocol) in messages(common, c::ALPN_PROTOCOLS).enumerate() {
        if protocol.len() > usize::from(u8::MAX) {
            let words = format!("has {} bytes, but may have at most {}", protocol.len(), u8::MAX);
            at.say(Rule::Content, &format!("alpn_protocols[{index}]"), words);
        }
    }
    let Some(context) = message(common, c::VALIDATION_CONTEXT) else { return };
    let has = |number| message(context, number).is_some();
    let names = has(v::MATCH_SUBJECT_ALT_NAMES) || has(v::MATCH_TYPED_SUBJECT_ALT_NAMES);
    let trusts = has(v::TRUSTED_CA) || has(v::CA_CERTIFICATE_PROVIDER_INSTANCE) || has(v::SYSTEM_ROOT_CERTS);
    if names && !trusts {
        let words = "checks the names in a certificate, but trusts no authority to vouch for them";
        at.say(Rule::Structure, "validation_context", words.to_owned());
    }
}

pub fn parameters(parameters: &[u8], at: &mut At<'_>) {
    for (index, suite) in messages(parameters, p::CIPHER_SUITES).enumerate() {
        let suite = String::from_utf8_lossy(suite);
        // Alternatives stand in brackets; words with operators are left to Envoy.
        let parts = suite.trim_start_matches('[').trim_end_matches(']').split('|');
        let unknown = parts.filter(|part| part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
        let mut unknown = unknown.filter(|part| !part.is_empty() && !CIPHERS.contains(part));
        if let Some(part) = unknown.next() {
            let words = format!("is {part:?}, which is not a cipher suite of BoringSSL");
            at.say(Rule::Content, &format!("cipher_suites[{index}]"), words);
        }
    }
}
