//! What a plain scalar means.
//!
//! Kubernetes and Istio read YAML through Go's yaml libraries, which follow YAML 1.1 in part. These are their rules, because
//! a file must mean the same to us as to `kubectl apply`:
//!
//! | written | means |
//! |---|---|
//! | empty, `~`, `null`, `Null`, `NULL` | null |
//! | `true`, `True`, `TRUE`, `yes`, `Yes`, `YES`, `on`, `On`, `ON` (and their opposites) | boolean |
//! | `y`, `n`, `Y`, `N` | string |
//! | `12`, `-3`, `+3`, `1_000` | decimal integer |
//! | `012`, `0o12` | octal integer, 10 |
//! | `0x1F`, `0b101` | hexadecimal, binary integer |
//! | `1.5`, `1e3`, `.5`, `.inf`, `.nan` | float |
//! | anything else, and everything quoted or in a block | string |

use super::node::Style;

/// A scalar's meaning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar<'a> {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    String(&'a str),
}

/// Applies the scalar rules of this module.
pub fn resolve(text: &str, style: Style) -> Scalar<'_> {
    if style == Style::Text {
        return Scalar::String(text);
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Scalar::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Scalar::Bool(false);
        }
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        _ => {}
    }
    number(text).unwrap_or(Scalar::String(text))
}

fn number(text: &str) -> Option<Scalar<'_>> {
    let first = text.bytes().next()?;
    if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) {
        return None;
    }
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    if let Some(value) = integer(&plain) {
        return Some(Scalar::Integer(value));
    }
    float(&plain).map(Scalar::Float)
}

fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let magnitude = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => i128::from_str_radix(&digits[2..], 16),
        [b'0', b'b' | b'B', ..] => i128::from_str_radix(&digits[2..], 2),
        [b'0', b'o' | b'O', ..] => i128::from_str_radix(&digits[2..], 8),
        // A leading zero means octal where it can, as in YAML 1.1; `089` stays a decimal float below.
        [b'0', _, ..] => i128::from_str_radix(digits, 8),
        _ => digits.parse(),
    }
    .ok()?;
    Some(if negative { -magnitude } else { magnitude })
}

fn float(text: &str) -> Option<f64> {
    let looks_like_one =
        text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'))
            && text.bytes().any(|b| b.is_ascii_digit());
    if looks_like_one { text.parse().ok() } else { None }
}
