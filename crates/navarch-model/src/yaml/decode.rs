//! Typed values out of nodes, with every problem recorded.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::fields::Fields;
use super::node::{Entry, Node, Value};
use super::scalar::Scalar;
use crate::service::{self, Name};
use crate::small_map::SmallMap;

/// A type that can be read from a [`Node`].
///
/// `None` means that a problem of kind [`ProblemKind::WrongType`] or [`ProblemKind::Invalid`] was recorded;
/// the object is then not usable.
pub trait Decode: Sized {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self>;

    /// Which fields are read, of this or of each item of a list.
    fn fields() -> Fields {
        Fields::All
    }
}

/// The type of a protobuf `oneof`, whose members are fields of the message around it.
pub trait Oneof: Sized {
    /// The members' names in the proto file.
    const FIELDS: &'static [&'static str];

    /// Reads the member number `index` of [`Oneof::FIELDS`].
    fn decode_member(index: usize, node: &Node, decoder: &mut Decoder) -> Option<Self>;

    /// Which member `key` names, if any.
    fn index_of(key: &str) -> Option<usize> {
        Self::FIELDS.iter().position(|name| super::json_name_matches(name, key))
    }
}

/// Something wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub kind: ProblemKind,
    /// Path of the field from the document's root, for example `spec.http[0].route[1].weight`.
    pub path: String,
    pub line: u32,
    pub column: u32,
    pub message: String,
    pub hint: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemKind {
    /// The field does not exist; it is ignored.
    UnknownField,
    /// The value has a type that the field cannot take.
    WrongType,
    /// The type is right and the value is not: out of range, not in the list of names, two members of a
    /// `oneof`.
    Invalid,
}

/// Where decoding is, and the problems met so far.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The path of the current field.
    path: String,
    problems: Vec<Problem>,
    /// Fields that the types do not have are ignored.
    lenient: bool,
    /// Values must not be quoted in messages.
    secret: bool,
    /// A problem was met that makes the value unusable.
    failed: bool,
    /// Problems beyond [`MOST_PROBLEMS`].
    dropped: usize,
}

/// Problems of one object that are described. A broken object can have as many as it has fields, and nobody
/// reads them all.
const MOST_PROBLEMS: usize = 100;

impl Decoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// For types that model only a part of the fields that exist, as those of Kubernetes' core objects.
    pub fn lenient() -> Self {
        Self { lenient: true, ..Self::default() }
    }

    /// Reads a value, only some of whose fields are known.
    pub fn leniently<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.lenient, true);
        let result = read(self);
        self.lenient = before;
        result
    }

    /// Reads a value that messages must not quote.
    pub fn secretly<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.secret, true);
        let result = read(self);
        self.secret = before;
        result
    }

    /// What `node` is, for messages.
    fn describe(&self, node: &Node) -> String {
        if self.secret { "another type".to_owned() } else { node.describe() }
    }

    /// The problems met, in document order.
    pub fn into_problems(mut self) -> Vec<Problem> {
        if self.dropped > 0
            && let Some(last) = self.problems.last().cloned()
        {
            let message = format!("{} more problems are not shown", self.dropped);
            let kind = if self.failed { ProblemKind::Invalid } else { ProblemKind::UnknownField };
            self.problems.push(Problem { kind, message, hint: None, ..last });
        }
        self.problems
    }

    /// Whether a problem was recorded that makes the value unusable.
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// Reads `node`, which sits under `name` in the current mapping.
    pub fn within<T>(&mut self, name: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let above = self.path.len();
        push_field(&mut self.path, name);
        let result = read(self);
        self.path.truncate(above);
        result
    }

    fn at_index<T>(&mut self, index: usize, read: impl FnOnce(&mut Self) -> T) -> T {
        let above = self.path.len();
        let _ = write!(self.path, "[{index}]");
        let result = read(self);
        self.path.truncate(above);
        result
    }

    /// The path of the current field.
    pub fn path(&self) -> String {
        self.path.clone()
    }

    /// Records a problem at `node`; returns `None` for use as a result.
    pub fn problem<T>(&mut self, kind: ProblemKind, node: &Node, message: impl Into<String>) -> Option<T> {
        self.problem_with_hint(kind, node, message, None)
    }

    /// As [`Decoder::problem`], with advice.
    pub fn problem_with_hint<T>(
        &mut self,
        kind: ProblemKind,
        node: &Node,
        message: impl Into<String>,
        hint: Option<String>,
    ) -> Option<T> {
        self.failed |= kind != ProblemKind::UnknownField;
        if self.problems.len() >= MOST_PROBLEMS {
            self.dropped += 1;
            return None;
        }
        let (path, message) = (self.path(), message.into());
        self.problems.push(Problem { kind, path, line: node.line, column: node.column, message, hint });
        None
    }

    /// The entries of a mapping; a problem otherwise.
    pub fn mapping<'n>(&mut self, node: &'n Node) -> Option<&'n [Entry]> {
        match &node.value {
            Value::Mapping(entries) => Some(entries),
            _ => self.wrong_type(node, "a mapping"),
        }
    }

    fn wrong_type<T>(&mut self, node: &Node, expected: &str) -> Option<T> {
        let found = self.describe(node);
        let hint = match (expected, node.scalar()) {
            ("a string", Some(Scalar::Bool(_) | Scalar::Integer(_) | Scalar::Float(_))) => {
                Some("put the value in quotes".to_owned())
            }
            _ => None,
        };
        self.problem_with_hint(
            ProblemKind::WrongType,
            node,
            format!("expected {expected}, found {found}"),
            hint,
        )
    }

    /// Reads the value of `entry` into `slot`. `null` leaves the slot as it is: in proto3 JSON it means
    /// unset.
    pub fn field<T: Decode>(&mut self, entry: &Entry, slot: &mut T) {
        if entry.value.is_null() {
            return;
        }
        if let Some(value) = self.within(&entry.key, |decoder| T::decode(&entry.value, decoder)) {
            *slot = value;
        }
    }

    /// Reads member `index` of a `oneof` into `slot`; a second member is a problem.
    pub fn oneof<T: Oneof>(&mut self, entry: &Entry, index: usize, slot: &mut Option<T>) {
        if entry.value.is_null() {
            return;
        }
        self.within(&entry.key, |decoder| {
            if slot.is_some() {
                let names = T::FIELDS.iter().map(|name| json_name(name)).collect::<Vec<_>>().join(", ");
                decoder.problem::<()>(
                    ProblemKind::Invalid,
                    &entry.value,
                    format!("only one of {names} may be set"),
                );
                return;
            }
            if let Some(value) = T::decode_member(index, &entry.value, decoder) {
                *slot = Some(value);
            }
        });
    }

    /// Reads a message that is nothing but a `oneof`.
    pub fn union<T: Oneof>(&mut self, node: &Node) -> Option<T> {
        let entries = self.mapping(node)?;
        let mut value = None;
        for entry in entries {
            match T::index_of(&entry.key) {
                Some(index) => self.oneof(entry, index, &mut value),
                None => self.unknown_field(entry, &[], &[T::FIELDS]),
            }
        }
        if value.is_none() {
            let names = T::FIELDS.iter().map(|name| json_name(name)).collect::<Vec<_>>().join(", ");
            return self.problem(ProblemKind::Invalid, node, format!("one of {names} must be set"));
        }
        value
    }

    /// Records that `entry` is not a field of the current message.
    pub fn unknown_field(&mut self, entry: &Entry, fields: &[&str], oneofs: &[&[&str]]) {
        if self.lenient {
            return;
        }
        if self.problems.len() >= MOST_PROBLEMS {
            self.dropped += 1;
            return;
        }
        let known = fields.iter().chain(oneofs.iter().copied().flatten());
        let hint = closest(&entry.key, known.map(|name| json_name(name)))
            .map(|name| format!("did you mean `{name}`?"))
            .or_else(|| replaced(&entry.key).map(str::to_owned))
            .or_else(|| Some("the field is ignored; remove it or correct its name".to_owned()));
        let path = self.within(&entry.key, |decoder| decoder.path());
        self.problems.push(Problem {
            kind: ProblemKind::UnknownField,
            path,
            line: entry.line,
            column: entry.column,
            message: format!("unknown field `{}`", entry.key),
            hint,
        });
    }

    /// Reads an enum by name or by number.
    pub fn enumeration<T: Copy>(&mut self, node: &Node, table: &[(&str, i64, T)]) -> Option<T> {
        let found = match node.scalar() {
            // `ON`, `OFF` and the like are names here, whatever they mean elsewhere in YAML.
            Some(Scalar::String(_) | Scalar::Bool(_)) => match &node.value {
                Value::Scalar { text, .. } => table.iter().find(|(name, _, _)| name == text),
                _ => None,
            },
            Some(Scalar::Integer(number)) => table.iter().find(|(_, n, _)| i128::from(*n) == number),
            _ => return self.wrong_type(node, "the name of an enum value"),
        };
        match found {
            Some((_, _, value)) => Some(*value),
            None => {
                let names = table.iter().map(|(name, _, _)| *name).collect::<Vec<_>>().join(", ");
                let message = format!("{} is not an allowed value", self.describe(node));
                self.problem_with_hint(
                    ProblemKind::Invalid,
                    node,
                    message,
                    Some(format!("use one of {names}")),
                )
            }
        }
    }
}

/// Appends `.name` to a path; names that would read like path syntax are quoted.
fn push_field(path: &mut String, name: &str) {
    let plain =
        !name.is_empty() && name.chars().all(|c| !matches!(c, '.' | '[' | ']' | '"') && !c.is_whitespace());
    if plain {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
    } else {
        let _ = write!(path, "[{name:?}]");
    }
}

/// The JSON form of a proto field name.
pub(crate) fn json_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut upper = false;
    for c in name.strip_suffix('_').unwrap_or(name).chars() {
        if c == '_' {
            upper = true;
        } else if std::mem::take(&mut upper) {
            out.push(c.to_ascii_uppercase());
        } else {
            out.push(c);
        }
    }
    out
}

/// The candidate that is at most two edits (one, for the shortest words) or a change of case away.
pub(crate) fn closest(key: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    let limit = if key.len() <= 3 { 1 } else { 2 };
    candidates
        .map(|name| (distance(&key.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(edits, _)| *edits <= limit)
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein distance; long keys are cut, since they are not misspellings of a field name.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for (i, cb) in b.chars().take(64).enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (ca, cell) in a.iter().zip(row.iter_mut().skip(1)) {
            let up = *cell;
            left = (left + 1).min(up + 1).min(diagonal + usize::from(*ca != cb));
            diagonal = up;
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

impl Decode for String {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        match node.scalar() {
            Some(Scalar::String(text)) => Some(text.to_owned()),
            _ => decoder.wrong_type(node, "a string"),
        }
    }
}

impl Decode for Name {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        match node.scalar() {
            Some(Scalar::String(text)) => Some(service::name(text)),
            _ => decoder.wrong_type(node, "a string"),
        }
    }
}

impl Decode for bool {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        match node.scalar() {
            Some(Scalar::Bool(value)) => Some(value),
            _ => decoder.wrong_type(node, "true or false"),
        }
    }
}

macro_rules! integers {
    ($($type:ident $name:literal),+ $(,)?) => { $(
        impl Decode for $type {
            /// Numbers, and strings of digits: proto3 JSON writes 64-bit integers as strings.
            fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
                let wide = match node.scalar() {
                    Some(Scalar::Integer(value)) => Some(value),
                    Some(Scalar::Float(value)) if value.fract() == 0.0 && value.abs() < 9e15 => Some(value as i128),
                    Some(Scalar::String(text)) => text.parse().ok(),
                    _ => None,
                };
                let Some(wide) = wide else { return decoder.wrong_type(node, $name) };
                match $type::try_from(wide) {
                    Ok(value) => Some(value),
                    Err(_) => decoder.problem(
                        ProblemKind::Invalid,
                        node,
                        format!("{wide} is out of range for {}: {} to {}", $name, $type::MIN, $type::MAX),
                    ),
                }
            }
        }
    )+ };
}

integers! {
    i32 "a 32-bit integer",
    u32 "an unsigned 32-bit integer",
    i64 "a 64-bit integer",
    u64 "an unsigned 64-bit integer",
}

impl Decode for Duration {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        let text = match node.scalar() {
            Some(Scalar::String(text)) => text,
            _ => return decoder.wrong_type(node, "a duration such as 10s or 1.5s"),
        };
        match crate::duration::parse_duration(text) {
            Ok(value) => Some(value),
            Err(error) => decoder.problem_with_hint(
                ProblemKind::Invalid,
                node,
                format!("{text:?} is not a duration: {error}"),
                Some("write it like 10s, 1.5s or 100ms".to_owned()),
            ),
        }
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        if node.is_null() {
            return Some(None);
        }
        T::decode(node, decoder).map(Some)
    }

    fn fields() -> Fields {
        T::fields()
    }
}

impl<T: Decode> Decode for Box<T> {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        T::decode(node, decoder).map(Box::new)
    }

    fn fields() -> Fields {
        T::fields()
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        let Value::Sequence(items) = &node.value else {
            return decoder.wrong_type(node, "a list");
        };
        let mut out = Vec::with_capacity(items.len());
        let mut complete = true;
        for (index, item) in items.iter().enumerate() {
            match decoder.at_index(index, |decoder| T::decode(item, decoder)) {
                Some(value) => out.push(value),
                None => complete = false,
            }
        }
        complete.then_some(out)
    }

    fn fields() -> Fields {
        T::fields()
    }
}

/// A mapping's key, which is always a string in the file.
pub trait DecodeKey: Sized + Ord {
    const EXPECTED: &'static str;
    fn decode_key(key: &str) -> Option<Self>;
}

impl DecodeKey for String {
    const EXPECTED: &'static str = "a string";
    fn decode_key(key: &str) -> Option<Self> {
        Some(key.to_owned())
    }
}

impl DecodeKey for Name {
    const EXPECTED: &'static str = "a string";
    fn decode_key(key: &str) -> Option<Self> {
        Some(service::name(key))
    }
}

impl DecodeKey for u32 {
    const EXPECTED: &'static str = "an unsigned 32-bit integer";
    fn decode_key(key: &str) -> Option<Self> {
        key.parse().ok()
    }
}

impl<K: DecodeKey, V: Decode> Decode for BTreeMap<K, V> {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        Some(entries(node, decoder)?.into_iter().collect())
    }
}

impl<K: DecodeKey, V: Decode> Decode for SmallMap<K, V> {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        Some(entries(node, decoder)?.into_iter().collect())
    }
}

/// Key and value of each entry of a mapping, if all can be read.
fn entries<K: DecodeKey, V: Decode>(node: &Node, decoder: &mut Decoder) -> Option<Vec<(K, V)>> {
    let mapping = decoder.mapping(node)?;
    let mut out = Vec::with_capacity(mapping.len());
    let mut complete = true;
    for entry in mapping {
        let value = decoder.within(&entry.key, |decoder| {
            let Some(key) = K::decode_key(&entry.key) else {
                let message = format!("the key {:?} is not {}", entry.key, K::EXPECTED);
                return decoder.problem(ProblemKind::WrongType, &entry.value, message);
            };
            V::decode(&entry.value, decoder).map(|value| (key, value))
        });
        match value {
            Some(entry) => out.push(entry),
            None => complete = false,
        }
    }
    complete.then_some(out)
}

/// What has taken the place of fields that Istio's API had once.
fn replaced(field: &str) -> Option<&'static str> {
    Some(match field {
        "filters" => "it is ignored; use configPatches with applyTo: HTTP_FILTER or NETWORK_FILTER",
        "workloadLabels" => "it is ignored; use workloadSelector.labels",
        "listener" | "routeConfiguration" | "cluster" => {
            "it is ignored; patches of EnvoyFilters have it in `match`"
        }
        "appendHeaders" | "appendRequestHeaders" => "it is ignored; use headers.request.add",
        "appendResponseHeaders" => "it is ignored; use headers.response.add",
        "removeRequestHeaders" => "it is ignored; use headers.request.remove",
        "removeResponseHeaders" => "it is ignored; use headers.response.remove",
        "websocketUpgrade" => "it is ignored; remove it: connections are upgraded without it",
        "jwtParams" | "jwtHeaders" => "it is ignored; use fromParams or fromHeaders",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Budget, message, oneof, parse};
    use super::*;

    oneof! {
        pub enum Choice {
            some_text => SomeText(String),
            number => Number(u32),
        }
    }

    message! {
        pub struct Sample {
            plain: String,
            two_words: bool,
            type_: i32,
            host_ip as "hostIP": String,
            big: u64,
            maybe: Option<u32>,
            timeout: Option<Duration>,
            items: Vec<Sample>,
            by_port: BTreeMap<u32, String>,
            ;
            oneof choice: Choice,
        }
    }

    fn decode(text: &str) -> (Option<Sample>, Vec<String>) {
        let (documents, errors) = parse(text, Budget::default());
        assert_eq!(errors, []);
        let mut decoder = Decoder::new();
        let value = Sample::decode(documents[0].root.as_ref().unwrap(), &mut decoder);
        let problems = decoder.into_problems();
        (
            value,
            problems.iter().map(|p| format!("{}:{} {}: {}", p.line, p.column, p.path, p.message)).collect(),
        )
    }

    fn accept(text: &str, expected: Sample) {
        assert_eq!(decode(text), (Some(expected), Vec::new()), "{text}");
    }

    fn reject(text: &str, expected: &[&str]) {
        assert_eq!(decode(text).1, expected, "{text}");
    }

    #[test]
    fn names_are_known_in_both_spellings() {
        accept("{two_words: true}", Sample { two_words: true, ..Sample::default() });
        accept("{twoWords: true}", Sample { two_words: true, ..Sample::default() });
        accept("{type: -1}", Sample { type_: -1, ..Sample::default() });
        accept("{hostIP: a}", Sample { host_ip: "a".to_owned(), ..Sample::default() });
        accept(
            "{someText: a}",
            Sample { choice: Some(Choice::SomeText("a".to_owned())), ..Sample::default() },
        );
        reject("{twowords: true}", &["1:2 twowords: unknown field `twowords`"]);
        reject("{TwoWords: true}", &["1:2 TwoWords: unknown field `TwoWords`"]);
        reject("{type_: 1}", &["1:2 type_: unknown field `type_`"]);
        reject("{hostIp: a}", &["1:2 hostIp: unknown field `hostIp`"]);
    }

    #[test]
    fn values_follow_proto3_json() {
        accept("{plain: null, maybe: null, items: ~, number: null}", Sample::default());
        accept("{maybe: 0}", Sample { maybe: Some(0), ..Sample::default() });
        accept("{big: '18446744073709551615'}", Sample { big: u64::MAX, ..Sample::default() });
        accept("{type: 3.0}", Sample { type_: 3, ..Sample::default() });
        accept("{timeout: 1.5s}", Sample { timeout: Some(Duration::from_millis(1500)), ..Sample::default() });
        accept(
            "{byPort: {80: a, '443': b}}",
            Sample { by_port: [(80, "a".to_owned()), (443, "b".to_owned())].into(), ..Sample::default() },
        );
    }

    #[test]
    fn every_problem_is_reported_with_its_place_and_path() {
        reject(
            "plain: 1\nitems:\n- big: -1\n- items: [{type: x}, 3]\n",
            &[
                "1:8 plain: expected a string, found number 1",
                "3:8 items[0].big: -1 is out of range for an unsigned 64-bit integer: 0 to 18446744073709551615",
                "4:18 items[1].items[0].type: expected a 32-bit integer, found string \"x\"",
                "4:22 items[1].items[1]: expected a mapping, found number 3",
            ],
        );
        reject("{someText: a, number: 1}", &["1:23 number: only one of someText, number may be set"]);
        reject(
            "{byPort: {http: a}}",
            &["1:17 byPort.http: the key \"http\" is not an unsigned 32-bit integer"],
        );
    }

    #[test]
    fn misspelled_names_get_a_suggestion() {
        let hint = |key: &str| {
            let (documents, _) = parse(&format!("{{{key}: 1}}"), Budget::default());
            let mut decoder = Decoder::new();
            let _ = Sample::decode(documents[0].root.as_ref().unwrap(), &mut decoder);
            decoder.into_problems().remove(0).hint.unwrap_or_default()
        };
        assert_eq!(hint("twowords"), "did you mean `twoWords`?");
        assert_eq!(hint("timeot"), "did you mean `timeout`?");
        assert_eq!(hint("numbr"), "did you mean `number`?");
        assert!(hint("elsewhere").starts_with("the field is ignored"));
    }
}
