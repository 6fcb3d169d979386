//! Which texts and bytes a field may have.

use regex::Regex;

/// What a rule asks of a text, or of bytes, which have no pattern and no characters.
#[derive(Clone, Debug, Default)]
pub struct TextRule {
    /// The empty text is allowed whatever else the rule says.
    pub or_empty: bool,
    pub exactly: Option<Vec<u8>>,
    /// In characters (Unicode code points), both ends included.
    pub chars: (Option<u64>, Option<u64>),
    /// In bytes, both ends included.
    pub bytes: (Option<u64>, Option<u64>),
    pub pattern: Option<Regex>,
    pub header: Option<Header>,
    pub prefix: Vec<u8>,
    pub suffix: Vec<u8>,
    pub contains: Vec<u8>,
    pub lacks: Vec<u8>,
    pub one_of: Vec<Vec<u8>>,
    pub none_of: Vec<Vec<u8>>,
}

/// The texts that may stand in an HTTP header. The sets of characters are those of protoc-gen-validate's rule
/// `well_known_regex`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// A name of the characters that RFC 7230 calls a token, or of a pseudo header.
    Name,
    /// A value of visible characters, spaces and tabs.
    Value,
    /// A name or a value of any characters but NUL, LF and CR; also an empty one.
    Loose,
}

impl Header {
    fn allows(self, text: &[u8]) -> bool {
        match self {
            Header::Name => {
                let name = text.strip_prefix(b":").unwrap_or(text);
                !name.is_empty() && name.iter().all(|byte| is_token(*byte))
            }
            Header::Value => text.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..)),
            Header::Loose => !text.iter().any(|byte| matches!(byte, 0 | b'\n' | b'\r')),
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Header::Name => "cannot be the name of an HTTP header",
            Header::Value => "cannot be the value of an HTTP header",
            Header::Loose => "cannot stand in an HTTP header",
        }
    }
}

/// The characters of the rule for names. The range from `+` to `.` includes the comma, as in the rule.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*'..=b'.' | b'^'..=b'`' | b'|' | b'~')
}

impl TextRule {
    /// What is wrong with a text, which may also be the content of a `bytes` field.
    pub fn violated(&self, text: &[u8]) -> Option<String> {
        if self.or_empty && text.is_empty() {
            return None;
        }
        self.length(text).or_else(|| self.content(text))
    }

    fn length(&self, text: &[u8]) -> Option<String> {
        if self.bytes != (None, None) {
            let found = outside(text.len() as u64, self.bytes, "byte");
            if found.is_some() {
                return found;
            }
        }
        if self.chars == (None, None) {
            return None;
        }
        // What is not UTF-8 is refused where the field is read.
        let count = std::str::from_utf8(text).map_or(text.len(), |text| text.chars().count());
        outside(count as u64, self.chars, "character")
    }

    fn content(&self, text: &[u8]) -> Option<String> {
        let shown = || format!("{:?}", String::from_utf8_lossy(text));
        let listed = |items: &[Vec<u8>]| {
            let items: Vec<String> =
                items.iter().map(|item| format!("{:?}", String::from_utf8_lossy(item))).collect();
            items.join(", ")
        };
        let plain = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if let Some(header) = self.header
            && !header.allows(text)
        {
            return Some(format!("is {}, which {}", shown(), header.words()));
        }
        if let Some(pattern) = &self.pattern
            && !std::str::from_utf8(text).is_ok_and(|text| pattern.is_match(text))
        {
            return Some(format!("is {}, but must match {:?}", shown(), pattern.as_str()));
        }
        if let Some(exactly) = &self.exactly
            && exactly != text
        {
            return Some(format!("is {}, but must be {:?}", shown(), plain(exactly)));
        }
        if !text.starts_with(&self.prefix) {
            return Some(format!("is {}, but must start with {:?}", shown(), plain(&self.prefix)));
        }
        if !text.ends_with(&self.suffix) {
            return Some(format!("is {}, but must end with {:?}", shown(), plain(&self.suffix)));
        }
        if !self.contains.is_empty() && !contains(text, &self.contains) {
            return Some(format!("is {}, but must contain {:?}", shown(), plain(&self.contains)));
        }
        if !self.lacks.is_empty() && contains(text, &self.lacks) {
            return Some(format!("is {}, but must not contain {:?}", shown(), plain(&self.lacks)));
        }
        if !self.one_of.is_empty() && !self.one_of.iter().any(|allowed| allowed == text) {
            return Some(format!("is {}, but must be one of {}", shown(), listed(&self.one_of)));
        }
        let refused = self.none_of.iter().any(|refused| refused == text);
        refused.then(|| format!("must not be {}", shown()))
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len().max(1)).any(|window| window == part)
}

/// What is wrong with a length or a count.
pub fn outside(count: u64, (least, most): (Option<u64>, Option<u64>), unit: &str) -> Option<String> {
    let of = |bound: u64| if bound == 1 { format!("1 {unit}") } else { format!("{bound} {unit}s") };
    let is = || if count == 0 { "is empty".to_owned() } else { format!("has {}", of(count)) };
    match (least, most) {
        (Some(least), _) if count < least => Some(format!("{}, but must have at least {}", is(), of(least))),
        (_, Some(most)) if count > most => Some(format!("{}, but may have at most {}", is(), of(most))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rule: &TextRule, allowed: &[&str], refused: &[(&str, &str)]) {
        for text in allowed {
            assert_eq!(rule.violated(text.as_bytes()), None, "{text:?}");
        }
        for (text, words) in refused {
            assert_eq!(rule.violated(text.as_bytes()).as_deref(), Some(*words), "{text:?}");
        }
    }

    #[test]
    fn lengths_are_in_characters_or_bytes() {
        check(
            &TextRule { chars: (Some(1), Some(2)), ..TextRule::default() },
            &["a", "éé"],
            &[
                ("", "is empty, but must have at least 1 character"),
                ("abc", "has 3 characters, but may have at most 2 characters"),
            ],
        );
        check(
            &TextRule { bytes: (Some(2), Some(3)), or_empty: true, ..TextRule::default() },
            &["", "é", "abc"],
            &[("a", "has 1 byte, but must have at least 2 bytes")],
        );
    }

    #[test]
    fn content_is_compared() {
        let bytes = |text: &str| text.as_bytes().to_vec();
        check(
            &TextRule {
                prefix: bytes("a"),
                suffix: bytes("z"),
                contains: bytes("m"),
                lacks: bytes("q"),
                ..TextRule::default()
            },
            &["amz"],
            &[
                ("mz", r#"is "mz", but must start with "a""#),
                ("am", r#"is "am", but must end with "z""#),
                ("az", r#"is "az", but must contain "m""#),
                ("amqz", r#"is "amqz", but must not contain "q""#),
            ],
        );
        check(
            &TextRule {
                one_of: vec![bytes("a"), bytes("b")],
                none_of: vec![bytes("b")],
                ..TextRule::default()
            },
            &["a"],
            &[("c", r#"is "c", but must be one of "a", "b""#), ("b", r#"must not be "b""#)],
        );
        check(
            &TextRule { pattern: Regex::new("^[^/]*$").ok(), ..TextRule::default() },
            &["", "a"],
            &[("a/", r#"is "a/", but must match "^[^/]*$""#)],
        );
    }

    #[test]
    fn header_names_and_values_have_their_characters() {
        for (header, allowed, refused) in [
            (Header::Name, &["x-a", ":path", "A*+,-._~"][..], &["", ":", "a b", "a:b", "é"][..]),
            (Header::Value, &["", "a\tb", "é"], &["a\nb", "\u{7f}", "\u{1}"]),
            (Header::Loose, &["", "a b", "\u{1}\u{7f}"], &["a\nb", "\r", "\0"]),
        ] {
            for text in allowed {
                assert!(header.allows(text.as_bytes()), "{header:?} {text:?}");
            }
            for text in refused {
                assert!(!header.allows(text.as_bytes()), "{header:?} {text:?}");
            }
        }
    }
}
