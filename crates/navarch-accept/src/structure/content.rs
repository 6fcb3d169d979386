//! Text in languages of its own: regular expressions, addresses, format strings.

use std::net::IpAddr;

use super::numbers::{
    address as a, bind, cel_filter, cidr as c, data_source, file_log, format as f, regex as r,
    socket_address, stats_counter,
};
use crate::extensions::stock;
use crate::violation::Rule;
use crate::walk::At;
use crate::wire::{message, messages, text};

pub fn regex(matcher: &[u8], at: &mut At<'_>) {
    let pattern = text(matcher, r::REGEX);
    // That an empty one is refused is a rule of the API.
    if !pattern.is_empty()
        && let Some(problem) = navarch_re2::problem(pattern)
    {
        at.say(
            Rule::Content,
            "regex",
            format!("is {pattern:?}, which is not a regular expression: {problem}"),
        );
    }
}

/// Of expressions of CEL only that there is one is known here.
pub fn cel_filter(filter: &[u8], at: &mut At<'_>) {
    if text(filter, cel_filter::EXPRESSION).trim().is_empty() {
        at.say(Rule::Content, "expression", "is empty".to_owned());
    }
}

pub fn cidr(range: &[u8], at: &mut At<'_>) {
    let address = text(range, c::ADDRESS_PREFIX);
    match address.parse::<IpAddr>() {
        // That an empty one is refused is a rule of the API.
        Err(_) if address.is_empty() => {}
        Err(_) => {
            at.say(Rule::Content, "address_prefix", format!("is {address:?}, which is not an IP address"))
        }
        Ok(_) => {}
    }
}

/// What a counter of a log counts is a format or a number.
pub fn counter(counter: &[u8], at: &mut At<'_>) {
    if text(counter, stats_counter::VALUE_FORMAT).is_empty()
        && message(counter, stats_counter::VALUE_FIXED).is_none()
    {
        at.say(Rule::Structure, "value_format", "is missing, and so is `value_fixed`".to_owned());
    }
}

/// A format of a log, or of a body: a text, or texts in the form of JSON.
pub fn format_string(format: &[u8], at: &mut At<'_>) {
    let source = message(format, f::TEXT_FORMAT_SOURCE).unwrap_or_default();
    let texts = [
        ("text_format", text(format, f::TEXT_FORMAT)),
        ("text_format_source.inline_string", text(source, data_source::INLINE_STRING)),
    ];
    for (field, text) in texts {
        if let Some(words) = format_problem(text) {
            at.say(Rule::Content, field, words);
        }
    }
    if let Some(words) = message(format, f::JSON_FORMAT).and_then(problem_in_struct) {
        at.say(Rule::Content, "json_format", words);
    }
}

pub fn file_log(log: &[u8], at: &mut At<'_>) {
    if let Some(words) = format_problem(text(log, file_log::FORMAT)) {
        at.say(Rule::Content, "format", words);
    }
}

/// The first text in a `google.protobuf.Struct` that is not a format string.
fn problem_in_struct(object: &[u8]) -> Option<String> {
    // Field 1 of a struct is a map, field 2 of whose entries are the values.
    messages(object, 1).find_map(|entry| message(entry, 2).and_then(problem_in_value))
}

fn problem_in_value(value: &[u8]) -> Option<String> {
    const TEXT: u32 = 3;
    const OBJECT: u32 = 5;
    const LIST: u32 = 6;
    format_problem(text(value, TEXT))
        .or_else(|| message(value, OBJECT).and_then(problem_in_struct))
        .or_else(|| message(value, LIST).and_then(|list| messages(list, 1).find_map(problem_in_value)))
}

pub fn bind(bind: &[u8], at: &mut At<'_>) {
    if let Some(words) = message(bind, bind::SOURCE_ADDRESS).and_then(socket_problem) {
        at.say(Rule::Content, "source_address", words);
    }
}

/// What keeps an encoded `Address` from being one that is used as it stands, without a name server.
pub fn address_problem(address: &[u8]) -> Option<String> {
    message(address, a::SOCKET_ADDRESS).and_then(socket_problem)
}

fn socket_problem(socket: &[u8]) -> Option<String> {
    let host = text(socket, socket_address::ADDRESS);
    let resolver = text(socket, socket_address::RESOLVER_NAME);
    if !resolver.is_empty() && !stock().has_name("envoy.resolvers", resolver) {
        return Some(format!("asks for the resolver {resolver:?}, which stock Envoy does not have"));
    }
    if !text(socket, socket_address::NAMED_PORT).is_empty() {
        return Some("has a port by name, but must have it by number".to_owned());
    }
    // That an empty one is refused is a rule of the API.
    let numeric = host.is_empty() || host.parse::<IpAddr>().is_ok();
    (!numeric).then(|| format!("is {host:?}, which is not an IP address"))
}

/// What keeps a text from being a format string: a `%` must begin `%%` or `%COMMAND%`, `%COMMAND(...)%`,
/// `%COMMAND(...):LENGTH%`.
pub fn format_problem(format: &str) -> Option<String> {
    let mut rest = format;
    while let Some(start) = rest.find('%') {
        let tail = rest.get(start + 1..).unwrap_or_default();
        match tail.strip_prefix('%').or_else(|| after_command(tail)) {
            Some(after) => rest = after,
            None => return Some(format!("is {format:?}, where a `%` does not begin a command")),
        }
    }
    None
}

/// What follows a command, whose first `%` is taken off already.
fn after_command(text: &str) -> Option<&str> {
    let length = text.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))?;
    let mut rest = text.get(length..).filter(|_| length > 0)?;
    if rest.starts_with('(') {
        // The arguments end at the last bracket before the command's end.
        let end = [")%", "):"].iter().filter_map(|end| rest.find(end)).min()?;
        rest = rest.get(end + 1..)?;
    }
    if let Some(after) = rest.strip_prefix(':') {
        rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    rest.strip_prefix('%')
}

#[cfg(test)]
mod tests {
    use super::format_problem;

    #[test]
    fn format_strings_are_read() {
        for format in ["", "a", "100%%", "%REQ(x)%", "%REQ(:path?x-y):10%a%PROTOCOL%", "%START_TIME(%s.%3f)%"]
        {
            assert_eq!(format_problem(format), None, "{format}");
        }
        for format in ["100%", "%", "%a%", "%REQ(x%", "%%%", "% %"] {
            assert!(format_problem(format).is_some(), "{format}");
        }
    }
}
