//! Shares of requests, in Envoy's terms.

use navarch_envoy::proto::envoy::r#type::v3::FractionalPercent;
use navarch_envoy::proto::envoy::r#type::v3::fractional_percent::DenominatorType;
use navarch_model::values::Percent;

/// A share in millionths.
pub(super) fn percent(percent: Percent) -> FractionalPercent {
    FractionalPercent { numerator: percent.millionths, denominator: DenominatorType::Million.into() }
}

/// A share in whole percent.
pub(super) fn whole_percent(percent: u32) -> FractionalPercent {
    FractionalPercent { numerator: percent, denominator: DenominatorType::Hundred.into() }
}
