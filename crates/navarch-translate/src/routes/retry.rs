//! Retry policies, of rules and of MeshConfig (`defaultHttpRetryPolicy`).

use std::time::Duration;

use navarch_envoy::proto::envoy::config::route::v3::RetryPolicy;
use navarch_envoy::proto::envoy::config::route::v3::retry_policy::{
    RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
};
use navarch_envoy::proto::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use navarch_envoy::proto::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use navarch_envoy::wkt;
use navarch_model::networking::HttpRetry;

/// What is retried unless a policy says otherwise: failures after which the request was certainly not
/// processed.
const RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
/// What is retried inbound.
const INBOUND_RETRY_ON: &str = "reset-before-request";
const RETRIABLE_STATUS_CODES: &str = "retriable-status-codes";
const RETRIES: u32 = 2;
/// How many hosts that were tried before are skipped while choosing one for a retry.
const HOST_SELECTION_ATTEMPTS: i64 = 5;
/// After so many tries the next priority is preferred.
const PRIORITY_UPDATE_FREQUENCY: i32 = 2;

/// Translates a retry policy, or Istio's default if there is none; nothing if retries are turned off.
///
/// With `sticky` requests (consistent hashing) a retry may go to the host that failed.
pub fn policy(retry: Option<&HttpRetry>, sticky: bool) -> Option<RetryPolicy> {
    let mut out = RetryPolicy {
        num_retries: Some(RETRIES),
        retry_on: RETRY_ON.to_owned(),
        host_selection_retry_max_attempts: HOST_SELECTION_ATTEMPTS,
        retry_host_predicate: if sticky { Vec::new() } else { vec![previous_hosts()] },
        ..RetryPolicy::default()
    };
    let Some(retry) = retry else { return Some(out) };
    out.num_retries = Some(u32::try_from(retry.attempts).ok().filter(|attempts| *attempts > 0)?);
    if !retry.retry_on.is_empty() {
        (out.retry_on, out.retriable_status_codes) = conditions(&retry.retry_on);
    }
    out.per_try_timeout = retry.per_try_timeout.map(wkt::duration);
    if let Some(ignore) = retry.retry_ignore_previous_hosts {
        out.retry_host_predicate = if ignore { vec![previous_hosts()] } else { Vec::new() };
    }
    if retry.retry_remote_localities == Some(true) {
        out.retry_priority = Some(previous_priorities());
    }
    out.retry_back_off = retry.backoff.map(back_off);
    Some(out)
}

/// The retry policy for requests to the workload itself, or Istio's default: a request that was reset before
/// it reached the application was never processed, so it is tried again. There is one host, so nothing about
/// hosts and localities counts.
pub fn inbound_policy(retry: Option<&HttpRetry>) -> Option<RetryPolicy> {
    let mut out = RetryPolicy {
        num_retries: Some(RETRIES),
        retry_on: INBOUND_RETRY_ON.to_owned(),
        ..RetryPolicy::default()
    };
    let Some(retry) = retry else { return Some(out) };
    out.num_retries = Some(u32::try_from(retry.attempts).ok().filter(|attempts| *attempts > 0)?);
    if !retry.retry_on.is_empty() {
        (out.retry_on, out.retriable_status_codes) = conditions(&retry.retry_on);
    }
    out.retry_back_off = retry.backoff.map(back_off);
    Some(out)
}

fn back_off(base: Duration) -> RetryBackOff {
    RetryBackOff { base_interval: Some(wkt::duration(base)), max_interval: None }
}

/// Separates Envoy's conditions from status codes, which Istio allows in the same list.
fn conditions(retry_on: &str) -> (String, Vec<u32>) {
    let mut codes = Vec::new();
    let mut words = Vec::new();
    for word in retry_on.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match word.parse::<u32>() {
            Ok(code) if is_status_code(code) => codes.push(code),
            _ => words.push(word),
        }
    }
    let mut words = words.join(",");
    if !codes.is_empty() && !words.contains(RETRIABLE_STATUS_CODES) {
        words.push(',');
        words.push_str(RETRIABLE_STATUS_CODES);
    }
    (words, codes)
}

/// Status codes that IANA has registered; other numbers are taken for conditions, as istiod does.
fn is_status_code(code: u32) -> bool {
    matches!(
        code,
        100..=103 | 200..=208 | 226 | 300..=305 | 307 | 308 | 400..=418 | 421..=426 | 428 | 429 | 431 | 451 | 500..=508 | 510 | 511
    )
}

fn previous_hosts() -> RetryHostPredicate {
    RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(navarch_envoy::any::any(
            &PreviousHostsPredicate::default(),
        ))),
    }
}

fn previous_priorities() -> RetryPriority {
    RetryPriority {
        name: "envoy.retry_priorities.previous_priorities".to_owned(),
        config_type: Some(retry_priority::ConfigType::TypedConfig(navarch_envoy::any::any(
            &PreviousPrioritiesConfig { update_frequency: PRIORITY_UPDATE_FREQUENCY },
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_and_status_codes_are_told_apart() {
        let check = |text: &str, words: &str, codes: &[u32]| {
            assert_eq!(conditions(text), (words.to_owned(), codes.to_vec()), "{text}");
        };
        check("5xx,reset", "5xx,reset", &[]);
        check("5xx, 503 ,429", "5xx,retriable-status-codes", &[503, 429]);
        check("retriable-status-codes,503", "retriable-status-codes", &[503]);
        check("503", ",retriable-status-codes", &[503]);
        check("999,gateway-error", "999,gateway-error", &[]);
    }

    #[test]
    fn no_attempts_mean_no_retries() {
        assert_eq!(policy(Some(&HttpRetry::default()), false), None);
        let three = HttpRetry { attempts: 3, ..HttpRetry::default() };
        assert_eq!(policy(Some(&three), false).and_then(|policy| policy.num_retries), Some(3));
        assert_eq!(policy(None, false).and_then(|policy| policy.num_retries), Some(2));
    }

    #[test]
    fn inbound_retries_know_attempts_conditions_and_back_off_only() {
        let check = |retry: Option<HttpRetry>, expected: Option<(u32, &str)>| {
            let policy = inbound_policy(retry.as_ref());
            let got =
                policy.as_ref().map(|policy| (policy.num_retries.unwrap_or(0), policy.retry_on.as_str()));
            assert_eq!(got, expected);
            assert!(policy.is_none_or(
                |policy| policy.per_try_timeout.is_none() && policy.retry_host_predicate.is_empty()
            ));
        };
        check(None, Some((2, "reset-before-request")));
        check(Some(HttpRetry::default()), None);
        let stated = HttpRetry {
            attempts: 5,
            retry_on: "connect-failure".into(),
            per_try_timeout: Some(Duration::from_secs(1)),
            ..HttpRetry::default()
        };
        check(Some(stated), Some((5, "connect-failure")));
    }

    #[test]
    fn sticky_requests_may_go_back_to_the_host_that_failed() {
        let predicates =
            |retry: Option<&HttpRetry>, sticky| policy(retry, sticky).map(|p| p.retry_host_predicate.len());
        assert_eq!(predicates(None, false), Some(1));
        assert_eq!(predicates(None, true), Some(0));
        let stated =
            HttpRetry { attempts: 1, retry_ignore_previous_hosts: Some(true), ..HttpRetry::default() };
        assert_eq!(predicates(Some(&stated), true), Some(1));
    }
}
