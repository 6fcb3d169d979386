//! Values that several routes have.

use std::time::Duration;

use crate::duration::parse_duration;
use crate::yaml::{Decode, Decoder, Node, ProblemKind, closed_enum};

closed_enum! {
    /// How a text is compared with the value of a condition.
    pub enum MatchType {
        Exact = 0 "Exact",
        RegularExpression = 1 "RegularExpression",
    }
}

closed_enum! {
    /// To which of the default gateways a route is attached without naming them. (GEP-3793, experimental.)
    pub enum UseDefaultGateways {
        None = 0 "None",
        All = 1 "All",
    }
}

/// A duration as the Gateway API writes it (GEP-2257): up to four numbers of at most five digits, each with
/// one of the units `h`, `m`, `s` and `ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteDuration(pub Duration);

impl Decode for RouteDuration {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        let text = String::decode(node, decoder)?;
        match parse_duration(&text).ok().filter(|_| is_route_duration(&text)) {
            Some(duration) => Some(RouteDuration(duration)),
            None => decoder.problem_with_hint(
                ProblemKind::Invalid,
                node,
                format!("{text:?} is not a duration of the Gateway API"),
                Some("write up to four whole numbers with units, for example 10s, 500ms or 1h30m".to_owned()),
            ),
        }
    }
}

/// `^([0-9]{1,5}(h|m|s|ms)){1,4}$`
fn is_route_duration(text: &str) -> bool {
    let mut rest = text;
    let mut terms = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let tail = rest.get(digits..).unwrap_or_default();
        let unit = ["ms", "h", "m", "s"].into_iter().find(|unit| tail.starts_with(unit));
        let Some(unit) = unit.filter(|_| (1..=5).contains(&digits)) else { return false };
        rest = tail.get(unit.len()..).unwrap_or_default();
        terms += 1;
    }
    (1..=4).contains(&terms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_whole_numbers_and_units() {
        let check = |text: &str, expected: bool| assert_eq!(is_route_duration(text), expected, "{text}");
        for text in ["0s", "10s", "1h30m", "500ms", "1h2m3s4ms", "99999h"] {
            check(text, true);
        }
        for text in ["", "10", "1.5s", "-1s", "100000s", "1us", "1h2m3s4ms5s", "s"] {
            check(text, false);
        }
    }
}
