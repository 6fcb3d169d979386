//! What fields of messages mean.

use navarch_envoy::any::unpack;
use navarch_envoy::proto::envoy::config::route::v3::{Route, VirtualHost};
use navarch_envoy::proto::envoy::extensions::filters::http::fault::v3::HttpFault;
use navarch_envoy::proto::envoy::r#type::v3::FractionalPercent;

/// The host without `:<port>`; brackets of IPv6 literals stay.
pub fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if !port.is_empty()
                && port.bytes().all(|byte| byte.is_ascii_digit())
                && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

/// A share in percent.
pub fn percent(fraction: &FractionalPercent) -> f64 {
    // `DenominatorType`: 100, 10,000 or a million.
    let scale = match fraction.denominator {
        1 => 100.0,
        2 => 10_000.0,
        _ => 1.0,
    };
    f64::from(fraction.numerator) / scale
}

/// The fault that a route or its virtual host configures for the fault filter.
pub fn fault_config(route: &Route, host: &VirtualHost) -> Option<HttpFault> {
    const NAME: &str = "envoy.filters.http.fault";
    let config =
        route.typed_per_filter_config.get(NAME).or_else(|| host.typed_per_filter_config.get(NAME))?;
    unpack(config).ok()
}
