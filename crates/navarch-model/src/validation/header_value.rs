//! Header values, in which Envoy replaces `%COMMAND%` and `%COMMAND(arguments)%`.

/// What keeps `value` from being a header value that Envoy accepts.
pub(crate) fn problem(value: &str) -> Option<&'static str> {
    if value.chars().any(|c| c.is_ascii_control() && c != '\t') {
        return Some("it holds a control character");
    }
    let mut rest = value;
    while let Some(at) = rest.find('%') {
        let tail = rest.get(at + 1..).unwrap_or_default();
        rest = match tail.strip_prefix('%') {
            Some(after) => after,
            None => match command(tail) {
                Ok(after) => after,
                Err(problem) => return Some(problem),
            },
        };
    }
    None
}

/// Skips a command, whose first `%` is gone already.
fn command(text: &str) -> Result<&str, &'static str> {
    const OPEN: &str = "a command that starts with % has no % at its end";
    let end = text.find(['%', '(']).ok_or(OPEN)?;
    let tail = text.get(end + 1..).unwrap_or_default();
    if text.get(end..).is_some_and(|rest| rest.starts_with('%')) {
        return Ok(tail);
    }
    let mut escaped = false;
    let close = tail
        .find(|c| {
            let closes = c == ')' && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        })
        .ok_or("a command's arguments have no closing parenthesis")?;
    let after = tail.get(close + 1..).unwrap_or_default().trim_start_matches(' ');
    after.strip_prefix('%').ok_or(OPEN)
}

#[cfg(test)]
mod tests {
    #[test]
    fn values_and_commands() {
        for value in [
            "",
            "plain text",
            "tab\there",
            "100%%",
            "%DOWNSTREAM_REMOTE_ADDRESS%",
            "%REQ(x-a?y)%-%PROTOCOL%",
            "%UPSTREAM_METADATA([\"a\", \"b\"])%",
            "%START_TIME(%Y) %",
        ] {
            assert_eq!(super::problem(value), None, "{value:?}");
        }
        for value in ["%", "50%", "%REQ(x", "%REQ(x)", "%A%%", "a\nb", "\u{7f}"] {
            assert!(super::problem(value).is_some(), "{value:?}");
        }
    }
}
