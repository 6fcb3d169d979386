//! RequestAuthentication: which JSON web tokens are accepted.

use std::time::Duration;

use crate::types::{PolicyTargetReference, WorkloadSelector};
use crate::yaml::message;

message! {
    /// Istio: `RequestAuthentication`.
    pub struct RequestAuthentication {
        selector: Option<WorkloadSelector>,
        target_ref: Option<PolicyTargetReference>,
        target_refs: Vec<PolicyTargetReference>,
        jwt_rules: Vec<JwtRule>,
    }
}

message! {
    /// Istio: `JWTRule`.
    pub struct JwtRule {
        issuer: String,
        audiences: Vec<String>,
        jwks_uri: String,
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
    /// Istio: `JWTHeader`.
    pub struct JwtHeader {
        name: String,
        prefix: String,
    }
}

message! {
    /// Istio: `ClaimToHeader`.
    pub struct ClaimToHeader {
        header: String,
        claim: String,
    }
}
