//! Durations as configuration writes them.

use std::time::Duration;

/// The longest duration that protobuf can hold: 315,576,000,000 seconds, about 10,000 years.
const LONGEST_SECONDS: u64 = 315_576_000_000;

/// Why a text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("it is empty")]
    Empty,
    #[error("negative durations are not allowed")]
    Negative,
    #[error("a number without a unit")]
    MissingUnit,
    #[error("units are h, m, s, ms, us and ns")]
    Unit,
    #[error("a number is expected before each unit")]
    Number,
    #[error("it is too long")]
    TooLong,
}

/// Reads Go's duration syntax (`1h30m`, `1.5s`, `100ms`), which includes proto3 JSON's (`1.5s`).
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    if text.is_empty() {
        return Err(DurationError::Empty);
    }
    if text.starts_with('-') {
        return Err(DurationError::Negative);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let digits_end =
            rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(DurationError::MissingUnit)?;
        let (number, tail) = rest.split_at(digits_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        nanos = nanos.checked_add(part(number, unit)?).ok_or(DurationError::TooLong)?;
        rest = tail;
    }
    let seconds = u64::try_from(nanos / 1_000_000_000).map_err(|_| DurationError::TooLong)?;
    if seconds > LONGEST_SECONDS {
        return Err(DurationError::TooLong);
    }
    let subsecond = u32::try_from(nanos % 1_000_000_000).map_err(|_| DurationError::TooLong)?;
    Ok(Duration::new(seconds, subsecond))
}

/// One number with its unit, in nanoseconds.
fn part(number: &str, unit: &str) -> Result<u128, DurationError> {
    let scale: u128 = match unit {
        "h" => 3_600_000_000_000,
        "m" => 60_000_000_000,
        "s" => 1_000_000_000,
        "ms" => 1_000_000,
        "us" | "µs" | "μs" => 1_000,
        "ns" => 1,
        _ => return Err(DurationError::Unit),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError::Number);
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| DurationError::TooLong)? };
    let mut nanos = whole.checked_mul(scale).ok_or(DurationError::TooLong)?;
    let mut place = scale;
    for digit in fraction.chars() {
        place /= 10;
        let digit = digit.to_digit(10).ok_or(DurationError::Number)?;
        nanos = nanos.checked_add(u128::from(digit) * place).ok_or(DurationError::TooLong)?;
    }
    Ok(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<Duration, DurationError>) {
        assert_eq!(parse_duration(text), expected, "{text:?}");
    }

    #[test]
    fn durations_are_those_of_go_and_of_proto3_json() {
        for (text, nanos) in [
            ("0", 0),
            ("0s", 0),
            ("10s", 10_000_000_000),
            ("+10s", 10_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("100ms", 100_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1m0.001s", 60_001_000_000),
            ("15us", 15_000),
            ("15µs", 15_000),
            ("7ns", 7),
            ("0.000000001s", 1),
            ("0.0000000001s", 0),
        ] {
            check(text, Ok(Duration::from_nanos(nanos)));
        }
        check("315576000000s", Ok(Duration::from_secs(315_576_000_000)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        check("", Err(DurationError::Empty));
        check("-1s", Err(DurationError::Negative));
        check("10", Err(DurationError::MissingUnit));
        check("1s5", Err(DurationError::MissingUnit));
        check("1d", Err(DurationError::Unit));
        check("1 s", Err(DurationError::Unit));
        check("s", Err(DurationError::Number));
        check(".s", Err(DurationError::Number));
        check("1.2.3s", Err(DurationError::Number));
        check("315576000001s", Err(DurationError::TooLong));
        check("999999999999999999999999999999999999999h", Err(DurationError::TooLong));
    }
}
