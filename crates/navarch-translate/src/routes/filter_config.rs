//! Settings of HTTP filters that hold for one route: faults, CORS, persistent sessions.

use navarch_envoy::Any;
use navarch_envoy::any::any;
use navarch_envoy::proto::envoy::config::core::v3::{RuntimeFractionalPercent, TypedExtensionConfig};
use navarch_envoy::proto::envoy::extensions::filters::common::fault::v3::{
    FaultDelay, fault_delay::FaultDelaySecifier,
};
use navarch_envoy::proto::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use navarch_envoy::proto::envoy::extensions::filters::http::fault::v3::{
    FaultAbort, HttpFault, fault_abort::ErrorType,
};
use navarch_envoy::proto::envoy::extensions::filters::http::stateful_session::v3::{
    StatefulSession, StatefulSessionPerRoute, stateful_session_per_route::Override,
};
use navarch_envoy::proto::envoy::extensions::http::stateful_session::cookie::v3::CookieBasedSessionState;
use navarch_envoy::proto::envoy::extensions::http::stateful_session::header::v3::HeaderBasedSessionState;
use navarch_envoy::proto::envoy::r#type::http::v3::Cookie;
use navarch_envoy::proto::envoy::r#type::matcher::v3::StringMatcher;
use navarch_envoy::proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use navarch_envoy::wkt;
use navarch_model::networking::{
    self, FaultAbortKind, FaultDelayKind, GRPC_STATUSES, HttpFaultInjection, UnmatchedPreflights,
};
use navarch_model::service::PersistentSession;

use super::percent::{percent, whole_percent};
use super::route_match::string_matcher;

/// Names of the filters whose settings a route may override.
pub const FAULT_FILTER: &str = "envoy.filters.http.fault";
pub const CORS_FILTER: &str = "envoy.filters.http.cors";
pub const STATEFUL_SESSION_FILTER: &str = "envoy.filters.http.stateful_session";

/// Translates a fault. Of kinds that Istio never supported (exponential delays, HTTP/2 errors) nothing
/// remains.
pub(super) fn fault(fault: &HttpFaultInjection) -> Any {
    let delay = fault.delay.as_ref().and_then(|delay| {
        let Some(FaultDelayKind::FixedDelay(fixed)) = &delay.http_delay_type else { return None };
        Some(FaultDelay {
            percentage: Some(match delay.percentage {
                Some(share) => percent(share),
                None => whole_percent(u32::try_from(delay.percent).unwrap_or(0)),
            }),
            fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(wkt::duration(*fixed))),
        })
    });
    let abort = fault.abort.as_ref().and_then(|abort| {
        let error = match abort.error_type.as_ref()? {
            FaultAbortKind::HttpStatus(status) => ErrorType::HttpStatus(u32::try_from(*status).unwrap_or(0)),
            FaultAbortKind::GrpcStatus(name) => ErrorType::GrpcStatus(grpc_status(name)),
            FaultAbortKind::Http2Error(_) => return None,
        };
        Some(FaultAbort {
            percentage: abort.percentage.map(percent),
            error_type: Some(error),
            ..FaultAbort::default()
        })
    });
    any(&HttpFault { delay, abort, ..HttpFault::default() })
}

/// The number of a gRPC status; names that do not exist were refused by validation.
fn grpc_status(name: &str) -> u32 {
    GRPC_STATUSES
        .iter()
        .position(|known| *known == name)
        .and_then(|code| u32::try_from(code).ok())
        .unwrap_or(0)
}

/// Translates a CORS policy.
pub(super) fn cors(cors: &networking::CorsPolicy) -> Any {
    let origins = if cors.allow_origins.is_empty() {
        let exact = |origin: &String| StringMatcher {
            match_pattern: Some(MatchPattern::Exact(origin.clone())),
            ..StringMatcher::default()
        };
        cors.allow_origin.iter().map(exact).collect()
    } else {
        cors.allow_origins.iter().filter_map(string_matcher).collect()
    };
    any(&CorsPolicy {
        allow_origin_string_match: origins,
        allow_methods: cors.allow_methods.join(","),
        allow_headers: cors.allow_headers.join(","),
        expose_headers: cors.expose_headers.join(","),
        max_age: cors.max_age.map(|age| age.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: cors.allow_credentials,
        forward_not_matching_preflights: Some(cors.unmatched_preflights != UnmatchedPreflights::Ignore),
        filter_enabled: Some(RuntimeFractionalPercent {
            default_value: Some(whole_percent(100)),
            ..RuntimeFractionalPercent::default()
        }),
        ..CorsPolicy::default()
    })
}

/// Turns the session of a service on for a route or a virtual host.
pub fn stateful_session(session: &PersistentSession) -> Any {
    let state = match session {
        // Without a time to live it is a session cookie: gone when the browser closes.
        PersistentSession::Cookie { name, path, ttl } => TypedExtensionConfig {
            name: "envoy.http.stateful_session.cookie".to_owned(),
            typed_config: Some(any(&CookieBasedSessionState {
                cookie: Some(Cookie {
                    name: name.to_string(),
                    path: path.to_string(),
                    ttl: ttl.map(wkt::duration),
                    ..Cookie::default()
                }),
            })),
        },
        PersistentSession::Header(name) => TypedExtensionConfig {
            name: "envoy.http.stateful_session.header".to_owned(),
            typed_config: Some(any(&HeaderBasedSessionState { name: name.to_string() })),
        },
    };
    any(&StatefulSessionPerRoute {
        r#override: Some(Override::StatefulSession(StatefulSession {
            session_state: Some(state),
            ..StatefulSession::default()
        })),
    })
}
