//! Outlier detection: which endpoints are taken out because they fail.

use navarch_envoy::proto::envoy::config::cluster::v3::OutlierDetection as Outlier;
use navarch_envoy::proto::envoy::config::common::matcher::v3::match_predicate::{MatchSet, Rule};
use navarch_envoy::proto::envoy::config::common::matcher::v3::{HttpHeadersMatch, MatchPredicate};
use navarch_envoy::proto::envoy::config::route::v3::HeaderMatcher;
use navarch_envoy::proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use navarch_envoy::proto::envoy::extensions::upstreams::http::v3::http_protocol_options;
use navarch_envoy::proto::envoy::r#type::matcher::v3::StringMatcher;
use navarch_envoy::proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use navarch_envoy::proto::envoy::r#type::v3::Percent;
use navarch_envoy::wkt;
use navarch_model::networking::OutlierDetection;
use navarch_model::service::{Service, TrafficDistribution};

use super::Draft;

/// Ejection by success rate is always off: it needs more requests per endpoint than most services get, and
/// Istio has no setting for it.
pub(super) fn apply(draft: &mut Draft, service: &Service, settings: Option<&OutlierDetection>) {
    let Some(settings) = settings else { return };
    // An error count of zero switches the detector off.
    let enforce = |count: Option<u32>| count.map(|count| if count > 0 { 100 } else { 0 });
    let mut outlier = Outlier {
        enforcing_success_rate: Some(0),
        consecutive_5xx: settings.consecutive_5xx_errors,
        enforcing_consecutive_5xx: enforce(settings.consecutive_5xx_errors),
        consecutive_gateway_failure: settings.consecutive_gateway_errors,
        enforcing_consecutive_gateway_failure: enforce(settings.consecutive_gateway_errors),
        interval: settings.interval.map(wkt::duration),
        base_ejection_time: settings.base_ejection_time.map(wkt::duration),
        max_ejection_percent: u32::try_from(settings.max_ejection_percent)
            .ok()
            .filter(|percent| *percent > 0),
        ..Outlier::default()
    };
    if settings.split_external_local_origin_errors {
        outlier.split_external_local_origin_errors = true;
        outlier.enforcing_local_origin_success_rate = Some(0);
        if let Some(failures) = settings.consecutive_local_origin_failures.filter(|failures| *failures > 0) {
            outlier.consecutive_local_origin_failure = Some(failures);
            outlier.enforcing_consecutive_local_origin_failure = Some(100);
        }
    }
    draft.cluster.outlier_detection = Some(outlier);
    if settings.min_health_percent >= 0 {
        // Unhealthy endpoints of a service with a preference for near ones are always sent; in panic mode
        // Envoy would use them.
        let percent = match service.traffic_distribution {
            TrafficDistribution::Any => settings.min_health_percent,
            _ => 0,
        };
        draft.common_lb().healthy_panic_threshold = Some(Percent { value: f64::from(percent) });
    }
    if !settings.outlier_detection_http_error_codes.is_empty() {
        draft.http().outlier_detection = Some(http_protocol_options::OutlierDetection {
            error_matcher: Some(status_is_one_of(&settings.outlier_detection_http_error_codes)),
        });
    }
}

/// Only these status codes count as errors.
fn status_is_one_of(codes: &[u32]) -> MatchPredicate {
    let mut rules: Vec<MatchPredicate> = codes.iter().map(|code| status_is(*code)).collect();
    match (rules.len(), rules.pop()) {
        (1, Some(rule)) => rule,
        (_, last) => {
            rules.extend(last);
            MatchPredicate { rule: Some(Rule::OrMatch(MatchSet { rules })) }
        }
    }
}

fn status_is(code: u32) -> MatchPredicate {
    let exact = StringMatcher {
        match_pattern: Some(MatchPattern::Exact(code.to_string())),
        ..StringMatcher::default()
    };
    let header = HeaderMatcher {
        name: ":status".to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(exact)),
        ..HeaderMatcher::default()
    };
    MatchPredicate { rule: Some(Rule::HttpResponseHeadersMatch(HttpHeadersMatch { headers: vec![header] })) }
}
