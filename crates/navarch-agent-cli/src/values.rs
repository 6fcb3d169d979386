//! How values are written on the command line.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use navarch_agent::bootstrap::Authority;
use serde_json::{Value, json};

/// `KEY=VALUE`.
///
/// # Errors
/// If it is not.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

/// A value that is a JSON object or list, or a text.
#[must_use]
pub fn metadata_value(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value @ (Value::Object(_) | Value::Array(_))) => value,
        _ => json!(text),
    }
}

/// A host and a port.
///
/// # Errors
/// If it is not.
pub fn authority(text: &str) -> Result<Authority> {
    let (host, port) = text.rsplit_once(':').with_context(|| format!("{text} is not host:port"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().with_context(|| format!("{text} does not end in a port number"))?;
    Ok(Authority { host: host.to_owned(), port })
}

/// Parses `500ms`, `30s`, `2m`, `1h`.
///
/// # Errors
/// If it is not a duration.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 =
        number.parse().with_context(|| format!("{text} is not a duration such as 500ms or 30s"))?;
    let millis = match unit {
        "ms" => number,
        "s" => number.saturating_mul(1000),
        "m" => number.saturating_mul(60_000),
        "h" => number.saturating_mul(3_600_000),
        _ => bail!("{text} needs a unit: ms, s, m or h"),
    };
    Ok(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in
            [("500ms", Some(500)), ("30s", Some(30_000)), ("2m", Some(120_000)), ("5", None), ("s", None)]
        {
            assert_eq!(parse_duration(text).ok().map(|d| d.as_millis()), millis, "{text}");
        }
    }
}
