//! RequestAuthentication: which JSON web tokens are accepted.

use std::time::Duration;

use crate::types::{PolicyTargetReference, WorkloadSelector};
use crate::yaml::message;

message! {
    /// Tokens that are accepted. A request without a token passes; a policy can require one.
    pub struct RequestAuthentication {
        selector: Option<WorkloadSelector>,
        target_ref: Option<PolicyTargetReference>,
        target_refs: Vec<PolicyTargetReference>,
        jwt_rules: Vec<JwtRule>,
    }
}

message! {
    /// Tokens of one issuer. Istio: `JWTRule`.
    pub struct JwtRule {
        issuer: String,
        audiences: Vec<String>,
        jwks_uri: String,
        /// The keys themselves; goes before `jwks_uri`.
        jwks: String,
        from_headers: Vec<JwtHeader>,
        from_params: Vec<String>,
        output_payload_to_header: String,
        from_cookies: Vec<String>,
        forward_original_token: bool,
        output_claim_to_headers: Vec<ClaimToHeader>,
        timeout: Option<Duration>,
        space_delimited_claims: Vec<String>,
    }
}

message! {
    /// A header that carries the token, after `prefix`. Istio: `JWTHeader`.
    pub struct JwtHeader {
        name: String,
        prefix: String,
    }
}

message! {
    /// A claim that is passed on as a header.
    pub struct ClaimToHeader {
        header: String,
        claim: String,
    }
}
