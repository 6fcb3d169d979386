//! Which nodes a client of the status service asks for: `envoy.type.matcher.v3.NodeMatcher`.

use navarch_envoy::proto::envoy::r#type::matcher::v3::{
    NodeMatcher, StringMatcher, StructMatcher, ValueMatcher, double_matcher, list_matcher, string_matcher,
    struct_matcher, value_matcher,
};
use regex::{Regex, RegexBuilder};
use serde_json::Value;

use crate::node::Node;

/// Bytes a compiled expression may take. Expressions come from clients.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// Matchers inside each other.
const DEPTH_MAX: usize = 16;

/// Why matchers cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatcherError {
    /// The expression is invalid or too large.
    #[error("{0} is not a regular expression that can be used")]
    Regex(String),
    /// An extension, or a kind that this server does not know.
    #[error("a matcher is of a kind that is not supported")]
    Unsupported,
}

/// Nodes that any matcher selects. Without matchers: all.
#[derive(Debug)]
pub struct Nodes(Vec<One>);

#[derive(Debug)]
struct One {
    id: Option<Text>,
    metadata: Vec<(Vec<String>, Kind)>,
}

#[derive(Debug)]
struct Text {
    pattern: Pattern,
    ignore_case: bool,
}

#[derive(Debug)]
enum Pattern {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    Regex(Regex),
}

#[derive(Debug)]
enum Kind {
    Null,
    Number(f64),
    /// From, and up to but not including.
    Range(f64, f64),
    Text(Text),
    Bool(bool),
    Present(bool),
    Element(Box<Kind>),
    Any(Vec<Kind>),
}

impl Nodes {
    /// Reads matchers.
    ///
    /// # Errors
    /// If one of them cannot be used: an answer about other nodes than those asked for would mislead.
    pub fn of(matchers: &[NodeMatcher]) -> Result<Self, MatcherError> {
        matchers.iter().map(One::of).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a node is among them.
    #[must_use]
    pub fn contain(&self, node: &Node) -> bool {
        self.0.is_empty() || self.0.iter().any(|one| one.matches(node))
    }
}

impl One {
    fn of(matcher: &NodeMatcher) -> Result<Self, MatcherError> {
        Ok(Self {
            id: matcher.node_id.as_ref().map(Text::of).transpose()?,
            metadata: matcher.node_metadatas.iter().map(path_and_value).collect::<Result<_, _>>()?,
        })
    }

    fn matches(&self, node: &Node) -> bool {
        let metadata = |(path, kind): &(Vec<String>, Kind)| {
            let mut keys = path.iter();
            let first = keys.next().and_then(|key| node.metadata.get(key));
            kind.matches(keys.fold(first, |value, key| value?.get(key)))
        };
        self.id.as_ref().is_none_or(|id| id.matches(&node.id)) && self.metadata.iter().all(metadata)
    }
}

fn path_and_value(matcher: &StructMatcher) -> Result<(Vec<String>, Kind), MatcherError> {
    let keys = matcher.path.iter().map(|segment| match &segment.segment {
        Some(struct_matcher::path_segment::Segment::Key(key)) => Ok(key.clone()),
        None => Err(MatcherError::Unsupported),
    });
    let value = matcher.value.as_ref().ok_or(MatcherError::Unsupported)?;
    Ok((keys.collect::<Result<_, _>>()?, Kind::of(value, 0)?))
}

impl Text {
    fn of(matcher: &StringMatcher) -> Result<Self, MatcherError> {
        use string_matcher::MatchPattern;
        let ignore_case = matcher.ignore_case;
        let text = |text: &String| if ignore_case { text.to_ascii_lowercase() } else { text.clone() };
        let pattern = match &matcher.match_pattern {
            Some(MatchPattern::Exact(exact)) => Pattern::Exact(text(exact)),
            Some(MatchPattern::Prefix(prefix)) => Pattern::Prefix(text(prefix)),
            Some(MatchPattern::Suffix(suffix)) => Pattern::Suffix(text(suffix)),
            Some(MatchPattern::Contains(part)) => Pattern::Contains(text(part)),
            // `ignore_case` has no effect on it; all of the text has to match.
            Some(MatchPattern::SafeRegex(regex)) => {
                let whole =
                    RegexBuilder::new(&format!("^(?:{})$", regex.regex)).size_limit(REGEX_BYTES_MAX).build();
                let whole = whole.map_err(|_| MatcherError::Regex(regex.regex.clone()))?;
                return Ok(Self { pattern: Pattern::Regex(whole), ignore_case: false });
            }
            Some(MatchPattern::Custom(_)) | None => return Err(MatcherError::Unsupported),
        };
        Ok(Self { pattern, ignore_case })
    }

    fn matches(&self, text: &str) -> bool {
        let lower = self.ignore_case.then(|| text.to_ascii_lowercase());
        let text = lower.as_deref().unwrap_or(text);
        match &self.pattern {
            Pattern::Exact(exact) => text == exact,
            Pattern::Prefix(prefix) => text.starts_with(prefix.as_str()),
            Pattern::Suffix(suffix) => text.ends_with(suffix.as_str()),
            Pattern::Contains(part) => text.contains(part.as_str()),
            Pattern::Regex(regex) => regex.is_match(text),
        }
    }
}

impl Kind {
    fn of(matcher: &ValueMatcher, depth: usize) -> Result<Self, MatcherError> {
        use value_matcher::MatchPattern;
        if depth == DEPTH_MAX {
            return Err(MatcherError::Unsupported);
        }
        Ok(match matcher.match_pattern.as_ref().ok_or(MatcherError::Unsupported)? {
            MatchPattern::NullMatch(_) => Kind::Null,
            MatchPattern::DoubleMatch(number) => match &number.match_pattern {
                Some(double_matcher::MatchPattern::Exact(exact)) => Kind::Number(*exact),
                Some(double_matcher::MatchPattern::Range(range)) => Kind::Range(range.start, range.end),
                None => return Err(MatcherError::Unsupported),
            },
            MatchPattern::StringMatch(text) => Kind::Text(Text::of(text)?),
            MatchPattern::BoolMatch(flag) => Kind::Bool(*flag),
            MatchPattern::PresentMatch(present) => Kind::Present(*present),
            MatchPattern::ListMatch(list) => match &list.match_pattern {
                Some(list_matcher::MatchPattern::OneOf(one)) => {
                    Kind::Element(Box::new(Self::of(one, depth + 1)?))
                }
                None => return Err(MatcherError::Unsupported),
            },
            MatchPattern::OrMatch(any) => {
                let kinds = any.value_matchers.iter().map(|matcher| Self::of(matcher, depth + 1));
                Kind::Any(kinds.collect::<Result<_, _>>()?)
            }
        })
    }

    fn matches(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            (Kind::Any(kinds), _) => kinds.iter().any(|kind| kind.matches(value)),
            (Kind::Present(present), _) => value.is_some() == *present,
            (_, None) => false,
            (Kind::Null, Some(value)) => value.is_null(),
            (Kind::Bool(flag), Some(value)) => value.as_bool() == Some(*flag),
            (Kind::Number(number), Some(value)) => value.as_f64() == Some(*number),
            (Kind::Range(from, to), Some(value)) => {
                value.as_f64().is_some_and(|number| (*from..*to).contains(&number))
            }
            (Kind::Text(text), Some(value)) => value.as_str().is_some_and(|value| text.matches(value)),
            (Kind::Element(kind), Some(value)) => {
                value.as_array().is_some_and(|list| list.iter().any(|element| kind.matches(Some(element))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use navarch_envoy::proto::envoy::r#type::matcher::v3::RegexMatcher;
    use serde_json::json;

    use super::*;

    fn text(pattern: string_matcher::MatchPattern, ignore_case: bool) -> StringMatcher {
        StringMatcher { ignore_case, match_pattern: Some(pattern) }
    }

    fn metadata(path: &[&str], value: value_matcher::MatchPattern) -> NodeMatcher {
        let segment = |key: &&str| struct_matcher::PathSegment {
            segment: Some(struct_matcher::path_segment::Segment::Key((*key).to_owned())),
        };
        let value = Some(ValueMatcher { match_pattern: Some(value) });
        let matcher = StructMatcher { path: path.iter().map(segment).collect(), value };
        NodeMatcher { node_id: None, node_metadatas: vec![matcher] }
    }

    fn check(matchers: &[NodeMatcher], expected: bool) {
        let Value::Object(fields) =
            json!({ "NAMESPACE": "default", "LABELS": { "app": "web" }, "PORTS": [80, 443] })
        else {
            unreachable!()
        };
        let node = Node { id: "sidecar~10.0.0.1~web.default~x".into(), metadata: fields, ..Node::default() };
        let nodes = Nodes::of(matchers).expect("matchers that can be used");
        assert_eq!(nodes.contain(&node), expected, "{matchers:?}");
    }

    #[test]
    fn ids_are_matched_in_every_way() {
        use string_matcher::MatchPattern::*;
        let id = |pattern, ignore_case| NodeMatcher {
            node_id: Some(text(pattern, ignore_case)),
            node_metadatas: Vec::new(),
        };
        let regex = |regex: &str| SafeRegex(RegexMatcher { regex: regex.into(), engine_type: None });
        check(&[], true);
        check(&[id(Exact("sidecar~10.0.0.1~web.default~x".into()), false)], true);
        check(&[id(Exact("SIDECAR~10.0.0.1~web.default~x".into()), false)], false);
        check(&[id(Exact("SIDECAR~10.0.0.1~web.default~x".into()), true)], true);
        check(&[id(Prefix("sidecar~".into()), false)], true);
        check(&[id(Suffix("~x".into()), false)], true);
        check(&[id(Contains("web".into()), false)], true);
        check(&[id(Contains("api".into()), false)], false);
        check(&[id(regex("sidecar~.*~web[.]default~x"), false)], true);
        check(&[id(regex("web"), false)], false);
        // Any of several.
        check(&[id(Prefix("router~".into()), false), id(Prefix("sidecar~".into()), false)], true);
        for broken in [
            id(regex("("), false),
            id(regex("(((a{99}){99}){99}){99}"), false),
            NodeMatcher { node_id: Some(StringMatcher::default()), node_metadatas: Vec::new() },
        ] {
            assert!(Nodes::of(&[broken]).is_err());
        }
    }

    #[test]
    fn metadata_is_matched_by_path() {
        use string_matcher::MatchPattern::Exact;
        use value_matcher::MatchPattern::*;
        let is = |value: &str| StringMatch(text(Exact(value.into()), false));
        check(&[metadata(&["NAMESPACE"], is("default"))], true);
        check(&[metadata(&["NAMESPACE"], is("other"))], false);
        check(&[metadata(&["LABELS", "app"], is("web"))], true);
        check(&[metadata(&["LABELS", "app", "x"], is("web"))], false);
        check(&[metadata(&["LABELS", "none"], PresentMatch(false))], true);
        check(&[metadata(&["LABELS"], PresentMatch(true))], true);
        let number = DoubleMatch(navarch_envoy::proto::envoy::r#type::matcher::v3::DoubleMatcher {
            match_pattern: Some(double_matcher::MatchPattern::Exact(443.0)),
        });
        let one_of =
            list_matcher::MatchPattern::OneOf(Box::new(ValueMatcher { match_pattern: Some(number) }));
        let list =
            navarch_envoy::proto::envoy::r#type::matcher::v3::ListMatcher { match_pattern: Some(one_of) };
        check(&[metadata(&["PORTS"], ListMatch(Box::new(list)))], true);
        // All of one matcher.
        let mut both = metadata(&["NAMESPACE"], is("default"));
        both.node_id = Some(text(Exact("another".into()), false));
        check(&[both], false);
    }
}
