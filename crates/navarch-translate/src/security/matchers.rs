//! Istio's wildcards as Envoy matchers.
//!
//! A value is exact, a prefix (`abc*`), a suffix (`*abc`) or anything that is present (`*`). Envoy refuses
//! empty prefixes and suffixes, so presence is a pattern of its own.

use navarch_envoy::proto::envoy::config::core::v3::CidrRange;
use navarch_envoy::proto::envoy::config::route::v3::{HeaderMatcher, header_matcher::HeaderMatchSpecifier};
use navarch_envoy::proto::envoy::r#type::matcher::v3::{
    ListMatcher, MetadataMatcher, OrMatcher, RegexMatcher, StringMatcher, ValueMatcher, list_matcher,
    metadata_matcher, string_matcher::MatchPattern, value_matcher,
};

/// At least one character.
const PRESENT: &str = ".+";

pub fn string(pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() }
}

pub fn exact(text: impl Into<String>) -> StringMatcher {
    string(MatchPattern::Exact(text.into()))
}

pub fn prefix(text: impl Into<String>) -> StringMatcher {
    string(MatchPattern::Prefix(text.into()))
}

pub fn suffix(text: impl Into<String>) -> StringMatcher {
    string(MatchPattern::Suffix(text.into()))
}

pub fn regex(regex: impl Into<String>) -> StringMatcher {
    string(MatchPattern::SafeRegex(RegexMatcher { regex: regex.into(), ..RegexMatcher::default() }))
}

pub fn present() -> StringMatcher {
    regex(PRESENT)
}

/// A value with Istio's wildcards.
pub fn wildcard(value: &str) -> StringMatcher {
    wildcard_after("", value)
}

/// A value with Istio's wildcards, behind a fixed prefix.
pub fn wildcard_after(fixed: &str, value: &str) -> StringMatcher {
    if value == "*" {
        present()
    } else if let Some(end) = value.strip_prefix('*') {
        if fixed.is_empty() { suffix(end) } else { regex(format!("{fixed}.*{}", quote(end))) }
    } else if let Some(start) = value.strip_suffix('*') {
        prefix(format!("{fixed}{start}"))
    } else {
        exact(format!("{fixed}{value}"))
    }
}

/// A header with Istio's wildcards.
pub fn header(name: &str, value: &str, ignore_case: bool) -> HeaderMatcher {
    let specifier = if value == "*" {
        HeaderMatchSpecifier::PresentMatch(true)
    } else {
        HeaderMatchSpecifier::StringMatch(StringMatcher { ignore_case, ..wildcard(value) })
    };
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(specifier),
        ..HeaderMatcher::default()
    }
}

/// An address, or a block of addresses in CIDR notation; nothing if it is neither.
pub fn cidr(value: &str) -> Option<CidrRange> {
    let (address, length) = match value.split_once('/') {
        Some(_) => {
            let block: ipnet::IpNet = value.parse().ok()?;
            (block.addr(), block.prefix_len())
        }
        None => {
            let address: std::net::IpAddr = value.parse().ok()?;
            (address, if address.is_ipv4() { 32 } else { 128 })
        }
    };
    Some(CidrRange { address_prefix: address.to_string(), prefix_len: Some(u32::from(length)) })
}

/// Metadata of a filter at a path of keys.
pub fn metadata<'a>(
    filter: &str,
    path: impl IntoIterator<Item = &'a str>,
    value: ValueMatcher,
) -> MetadataMatcher {
    let segment = |key: &str| metadata_matcher::PathSegment {
        segment: Some(metadata_matcher::path_segment::Segment::Key(key.to_owned())),
    };
    MetadataMatcher {
        filter: filter.to_owned(),
        path: path.into_iter().map(segment).collect(),
        value: Some(value),
        ..MetadataMatcher::default()
    }
}

pub fn value(pattern: value_matcher::MatchPattern) -> ValueMatcher {
    ValueMatcher { match_pattern: Some(pattern) }
}

pub fn text_value(matcher: StringMatcher) -> ValueMatcher {
    value(value_matcher::MatchPattern::StringMatch(matcher))
}

/// A list one of whose elements matches.
pub fn list_value(element: ValueMatcher) -> ValueMatcher {
    let list = ListMatcher { match_pattern: Some(list_matcher::MatchPattern::OneOf(Box::new(element))) };
    value(value_matcher::MatchPattern::ListMatch(Box::new(list)))
}

/// One of several matchers.
pub fn one_of(mut matchers: Vec<ValueMatcher>) -> ValueMatcher {
    if matchers.len() == 1
        && let Some(only) = matchers.pop()
    {
        return only;
    }
    value(value_matcher::MatchPattern::OrMatch(OrMatcher { value_matchers: matchers }))
}

/// The text as a regular expression (RE2) that matches just it.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for character in text.chars() {
        if r"\.+*?()|[]{}^$".contains(character) {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        for (value, expected) in [
            ("*", present()),
            ("abc", exact("abc")),
            ("abc*", prefix("abc")),
            ("*abc", suffix("abc")),
            ("*a*", suffix("a*")),
            ("", exact("")),
        ] {
            assert_eq!(wildcard(value), expected, "{value}");
        }
        assert_eq!(wildcard_after("spiffe://", "*/sa/a.b"), regex(r"spiffe://.*/sa/a\.b"));
        assert_eq!(wildcard_after("spiffe://", "td/*"), prefix("spiffe://td/"));
    }

    #[test]
    fn blocks_of_addresses() {
        for (value, expected) in [
            ("10.1.2.3", Some(("10.1.2.3", 32))),
            ("10.1.0.0/16", Some(("10.1.0.0", 16))),
            ("2001:db8::1", Some(("2001:db8::1", 128))),
            ("2001:db8::/32", Some(("2001:db8::", 32))),
            ("10.1.0.0/33", None),
            ("host", None),
            ("", None),
        ] {
            let range = cidr(value).map(|range| (range.address_prefix, range.prefix_len.unwrap_or(0)));
            assert_eq!(range, expected.map(|(prefix, length)| (prefix.to_owned(), length)), "{value}");
        }
    }
}
