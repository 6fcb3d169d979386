//! Envoy's matchers: strings, headers, query parameters. What cannot be decided is [`Tri::Unknown`].

use navarch_envoy::proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use navarch_envoy::proto::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use navarch_envoy::proto::envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher};
use navarch_envoy::proto::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
use regex::Regex;

use crate::Call;

/// An answer that may be open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tri {
    Yes,
    No,
    /// Depends on what the reason names.
    Unknown(String),
}

impl From<bool> for Tri {
    fn from(truth: bool) -> Self {
        if truth { Self::Yes } else { Self::No }
    }
}

impl Tri {
    /// No wins over unknown, unknown over yes.
    pub fn and(self, other: impl FnOnce() -> Self) -> Self {
        match self {
            Self::No => Self::No,
            Self::Yes => other(),
            Self::Unknown(reason) => match other() {
                Self::No => Self::No,
                _ => Self::Unknown(reason),
            },
        }
    }

    fn invert(self, invert: bool) -> Self {
        match self {
            Self::Yes if invert => Self::No,
            Self::No if invert => Self::Yes,
            same => same,
        }
    }
}

/// Whether the whole text matches, as RE2 does it for Envoy. The two syntaxes agree on what RE2 accepts; a
/// pattern that does not compile here is unknown.
pub fn regex(pattern: &str, text: &str) -> Tri {
    match Regex::new(&format!(r"\A(?:{pattern})\z")) {
        Ok(regex) => regex.is_match(text).into(),
        Err(_) => Tri::Unknown(format!("the regular expression {pattern:?} cannot be evaluated here")),
    }
}

pub fn string(matcher: &StringMatcher, text: &str) -> Tri {
    let fold = |text: &str| if matcher.ignore_case { text.to_ascii_lowercase() } else { text.to_owned() };
    let found = fold(text);
    match &matcher.match_pattern {
        Some(MatchPattern::Exact(wanted)) => (found == fold(wanted)).into(),
        Some(MatchPattern::Prefix(wanted)) => found.starts_with(&fold(wanted)).into(),
        Some(MatchPattern::Suffix(wanted)) => found.ends_with(&fold(wanted)).into(),
        Some(MatchPattern::Contains(wanted)) => found.contains(&fold(wanted)).into(),
        // `ignore_case` has no effect on regular expressions.
        Some(MatchPattern::SafeRegex(wanted)) => regex(&wanted.regex, text),
        Some(MatchPattern::Custom(_)) | None => Tri::Unknown("a matcher is an extension".to_owned()),
    }
}

/// A header that is absent matches no value, inverted or not, unless the matcher treats it as empty.
pub fn header(matcher: &HeaderMatcher, call: &Call) -> Tri {
    let found = call.header(&matcher.name);
    let specifier = matcher.header_match_specifier.as_ref();
    if let Some(HeaderMatchSpecifier::PresentMatch(wanted)) = specifier {
        let present = found.is_some() || matcher.treat_missing_header_as_empty;
        return Tri::from(present == *wanted).invert(matcher.invert_match);
    }
    let Some(specifier) = specifier else {
        return Tri::from(found.is_some()).invert(matcher.invert_match);
    };
    let text = match found {
        Some(text) => text,
        None if matcher.treat_missing_header_as_empty => String::new(),
        None => return Tri::No,
    };
    let answer = match specifier {
        HeaderMatchSpecifier::ExactMatch(wanted) => (text == *wanted).into(),
        HeaderMatchSpecifier::PrefixMatch(wanted) => text.starts_with(wanted.as_str()).into(),
        HeaderMatchSpecifier::SuffixMatch(wanted) => text.ends_with(wanted.as_str()).into(),
        HeaderMatchSpecifier::ContainsMatch(wanted) => text.contains(wanted.as_str()).into(),
        HeaderMatchSpecifier::SafeRegexMatch(wanted) => regex(&wanted.regex, &text),
        HeaderMatchSpecifier::StringMatch(wanted) => string(wanted, &text),
        HeaderMatchSpecifier::RangeMatch(range) => {
            text.parse::<i64>().is_ok_and(|number| range.start <= number && number < range.end).into()
        }
        HeaderMatchSpecifier::PresentMatch(wanted) => Tri::from(*wanted),
    };
    answer.invert(matcher.invert_match)
}

/// The first value of a parameter counts.
pub fn query_parameter(matcher: &QueryParameterMatcher, call: &Call) -> Tri {
    let found = call.query().find(|(key, _)| *key == matcher.name).map(|(_, value)| value);
    match &matcher.query_parameter_match_specifier {
        Some(QueryParameterMatchSpecifier::PresentMatch(wanted)) => (found.is_some() == *wanted).into(),
        Some(QueryParameterMatchSpecifier::StringMatch(wanted)) => {
            found.map_or(Tri::No, |value| string(wanted, value))
        }
        None => found.is_some().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(matcher: HeaderMatcher, value: Option<&str>, expected: bool) {
        let mut call = Call::http(([10, 0, 0, 1], 80).into(), "a");
        call.headers.extend(value.map(|value| ("X".to_owned(), value.to_owned())));
        assert_eq!(header(&matcher, &call), Tri::from(expected), "{value:?}");
    }

    fn exact(invert: bool, missing_as_empty: bool) -> HeaderMatcher {
        HeaderMatcher {
            name: "x".to_owned(),
            invert_match: invert,
            treat_missing_header_as_empty: missing_as_empty,
            header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(StringMatcher {
                ignore_case: false,
                match_pattern: Some(MatchPattern::Exact("1".to_owned())),
            })),
        }
    }

    #[test]
    fn absent_headers_match_no_value_not_even_inverted() {
        check(exact(false, false), Some("1"), true);
        check(exact(false, false), None, false);
        check(exact(true, false), None, false);
        check(exact(true, false), Some("2"), true);
        check(exact(true, true), None, true);
    }

    #[test]
    fn regular_expressions_match_the_whole_text() {
        assert_eq!(regex("a|ab", "ab"), Tri::Yes);
        assert_eq!(regex("/x", "/x/y"), Tri::No);
        assert!(matches!(regex("(", "x"), Tri::Unknown(_)));
    }

    #[test]
    fn no_wins_over_unknown() {
        let open = || Tri::Unknown("x".to_owned());
        assert_eq!(open().and(|| Tri::No), Tri::No);
        assert_eq!(open().and(|| Tri::Yes), open());
        assert_eq!(Tri::Yes.and(open), open());
    }
}
