//! What a plain scalar means.
//!
//! Kubernetes and Istio read YAML through Go's yaml libraries, which follow YAML 1.1 in part. These are their
//! rules, because a file must mean the same to us as to `kubectl apply`:
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

/// How a scalar was written. Only plain scalars can be something else than a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Plain,
    /// Quoted, block, or tagged `!!str`.
    Text,
}

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
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, digits.get(2..)?),
        [b'0', b'b' | b'B', ..] => (2, digits.get(2..)?),
        [b'0', b'o' | b'O', ..] => (8, digits.get(2..)?),
        // A leading zero means octal where it can, as in YAML 1.1; `089` is a float below.
        [b'0', _, ..] => (8, digits),
        _ => (10, digits),
    };
    // Rust's parser would take a second sign.
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let magnitude = i128::from_str_radix(digits, radix).ok()?;
    Some(if negative { -magnitude } else { magnitude })
}

fn float(text: &str) -> Option<f64> {
    let looks_like_one =
        text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'))
            && text.bytes().any(|b| b.is_ascii_digit());
    if looks_like_one { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Scalar<'_>) {
        assert_eq!(resolve(text, Style::Plain), expected, "{text:?}");
        assert_eq!(resolve(text, Style::Text), Scalar::String(text), "quoted {text:?}");
    }

    #[test]
    fn plain_scalars_mean_what_they_mean_to_kubectl() {
        for text in ["", "~", "null", "Null", "NULL"] {
            check(text, Scalar::Null);
        }
        for text in ["true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"] {
            check(text, Scalar::Bool(true));
        }
        for text in ["false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"] {
            check(text, Scalar::Bool(false));
        }
        for (text, value) in [
            ("0", 0),
            ("12", 12),
            ("-3", -3),
            ("+3", 3),
            ("1_000", 1000),
            ("012", 10),
            ("-012", -10),
            ("0o12", 10),
            ("0x1F", 31),
            ("-0x1F", -31),
            ("0b101", 5),
            ("18446744073709551615", 18_446_744_073_709_551_615),
        ] {
            check(text, Scalar::Integer(value));
        }
        for (text, value) in [
            ("1.5", 1.5),
            (".5", 0.5),
            ("-.5", -0.5),
            ("1e3", 1000.0),
            ("1.", 1.0),
            ("089", 89.0),
            ("+.inf", f64::INFINITY),
        ] {
            check(text, Scalar::Float(value));
        }
        for text in [
            "y",
            "n",
            "Y",
            "N",
            "nULL",
            "tRUE",
            "1s",
            "100ms",
            "10.0.0.1",
            "1.2.3",
            "2025-01-01",
            "-",
            "+",
            ".",
            "--1",
            "0x",
            "0xZ",
            "1e",
            "e5",
            "inf",
            "nan",
            "+-1",
            "0x-5",
            "-0x-80000000000000000000000000000000",
            "0b2",
            "_1",
            "::1",
        ] {
            check(text, Scalar::String(text));
        }
    }
}
