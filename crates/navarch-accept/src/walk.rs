//! The way through an encoded message and everything inside it.
//!
//! Nothing is decoded that no rule asks for: a message is read as it stands on the wire, and only the fields
//! that its [`Shape`] lists are looked at.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use navarch_envoy::dynamic::encode;
use navarch_envoy::json::{from_json_lenient, to_json};
use smallvec::SmallVec;

use crate::extensions::{BY_KEY, PER_ROUTE, stock};
use crate::schema::{AnyRule, Field, Integer, Item, Shape, outside, shape_of};
use crate::violation::{Rule, Violation};
use crate::wire::{Fields, Value, last, message, messages, text, varint};

/// Messages inside messages beyond which Envoy refuses to decode.
const DEPTH_MAX: usize = 100;

/// One step from a message to what is in it.
#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Index(usize),
    Key(&'a [u8]),
}

/// Where in the whole message something stands. A list from the inside out, on the stack of the calls.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    outer: Option<&'a Path<'a>>,
    step: Step<'a>,
    depth: usize,
}

impl<'a> Path<'a> {
    /// The message itself.
    pub const ROOT: Path<'static> = Path { outer: None, step: Step::Root, depth: 0 };

    fn to(&'a self, step: Step<'a>) -> Path<'a> {
        Path { outer: Some(self), step, depth: self.depth }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { outer, step, depth: _ } = self;
        if let Some(outer) = outer {
            write!(f, "{outer}")?;
        }
        match step {
            Step::Root => Ok(()),
            Step::Field(name) if outer.is_some_and(|outer| matches!(outer.step, Step::Root)) => {
                f.write_str(name)
            }
            Step::Field(name) => write!(f, ".{name}"),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{:?}]", String::from_utf8_lossy(key)),
        }
    }
}

/// What was found, and where one is.
pub struct At<'a> {
    found: &'a mut Vec<Violation>,
    path: &'a Path<'a>,
}

impl At<'_> {
    /// Whether the message that is looked at is the resource, and not inside of one.
    pub fn is_whole(&self) -> bool {
        matches!(self.path.step, Step::Root)
    }

    /// Something is wrong at `below`, a path inside the message that is looked at; empty for the message
    /// itself.
    pub fn say(&mut self, rule: Rule, below: &str, words: String) {
        let mut path = self.path.to_string();
        if !below.is_empty() {
            let dot = if path.is_empty() { "" } else { "." };
            // Writing to a string cannot fail.
            let _ = write!(path, "{dot}{below}");
        }
        self.found.push(Violation { path, rule, words });
    }
}

/// What the place of a message says about it.
#[derive(Clone, Copy, Default)]
struct Place<'a> {
    /// Extensions of these categories may be in it; empty if its own fields say so.
    categories: &'a [&'static str],
}

/// Everything that is wrong with an encoded message of a type.
pub fn check(shape: &Shape, bytes: &[u8]) -> Vec<Violation> {
    run(shape, bytes, false)
}

/// The same of a part that is merged into a message: what it lacks, the message may have.
pub fn check_part(shape: &Shape, bytes: &[u8]) -> Vec<Violation> {
    run(shape, bytes, true)
}

fn run(shape: &Shape, bytes: &[u8], part: bool) -> Vec<Violation> {
    let mut walk = Walk { found: Vec::new(), part };
    walk.message(shape, bytes, &Path::ROOT, Place::default());
    walk.found
}

struct Walk {
    found: Vec<Violation>,
    /// Nothing is said of what is missing, and of how fields go together.
    part: bool,
}

impl Walk {
    fn say(&mut self, path: &Path<'_>, rule: Rule, words: String) {
        self.found.push(Violation { path: path.to_string(), rule, words });
    }

    fn message(&mut self, shape: &Shape, bytes: &[u8], path: &Path<'_>, place: Place<'_>) {
        let path = &Path { depth: path.depth + 1, ..*path };
        if path.depth > DEPTH_MAX {
            return self.say(path, Rule::Encoding, "is nested too deeply".to_owned());
        }
        let optional = shape
            .optional
            .is_some_and(|number| last(bytes, number).and_then(Value::varint).is_some_and(|set| set != 0));
        let mut seen: u128 = 0;
        let mut counts: SmallVec<[u64; 8]> = SmallVec::from_elem(0, shape.counted);
        for record in Fields::new(bytes) {
            let Ok((number, value)) = record else {
                let words = format!("is not an encoded {}", shape.name);
                return self.say(path, Rule::Encoding, words);
            };
            let Ok(index) = shape.fields.binary_search_by_key(&number, |field| field.number) else {
                continue;
            };
            let Some(field) = shape.fields.get(index) else { continue };
            if let Some(slot) = field.slot {
                seen |= 1u128.checked_shl(slot).unwrap_or(0);
            }
            let count = field.count.as_ref().and_then(|count| counts.get_mut(count.index));
            self.field(field, value, path, place, optional, count);
        }
        if let Some(check) = shape.content {
            check(bytes, &mut At { found: &mut self.found, path });
        }
        if self.part {
            return;
        }
        self.missing(shape, seen, path);
        if shape.config.is_some_and(|slot| seen & 1u128.checked_shl(slot).unwrap_or(0) == 0) && !optional {
            self.without_config(shape, path, place);
        }
        self.counts(shape, bytes, &counts, path);
        if let Some(check) = shape.check {
            check(bytes, &mut At { found: &mut self.found, path });
        }
    }

    fn field(
        &mut self,
        field: &Field,
        value: Value<'_>,
        path: &Path<'_>,
        place: Place<'_>,
        optional: bool,
        count: Option<&mut u64>,
    ) {
        let at = path.to(Step::Field(&field.name));
        if field.disallowed {
            self.say(&at, Rule::Constraint, "is set, but Envoy no longer supports it".to_owned());
        }
        let inherits = matches!(field.item, Item::Any(_)) || field.name == "config_discovery";
        let categories =
            if inherits && !place.categories.is_empty() { place.categories } else { &field.categories };
        let inner = Inner { place: Place { categories }, optional };
        let mut number = 0;
        let mut one = |walk: &mut Self, value: Value<'_>| {
            let index = count.as_ref().map_or(number, |count| **count as usize + number);
            number += 1;
            match field.repeated {
                true => walk.value(&field.item, value, &at.to(Step::Index(index)), inner),
                false => walk.value(&field.item, value, &at, inner),
            }
        };
        match value {
            // A list of numbers, one after the other.
            Value::Bytes(packed) if field.repeated && is_number(&field.item) => {
                let mut rest = packed;
                while let Some(next) = unpack(&field.item, &mut rest) {
                    one(self, next);
                }
            }
            value => one(self, value),
        }
        if let Some(count) = count {
            *count += number as u64;
        }
    }

    fn missing(&mut self, shape: &Shape, seen: u128, path: &Path<'_>) {
        for needed in &shape.needed {
            if seen & 1u128.checked_shl(needed.slot).unwrap_or(0) == 0 {
                self.say(&path.to(Step::Field(&needed.name)), Rule::Constraint, needed.words.clone());
            }
        }
    }

    /// An extension is found by the type of its configuration, so it needs one.
    fn without_config(&mut self, shape: &Shape, path: &Path<'_>, place: Place<'_>) {
        let own = shape.fields.iter().find(|field| field.name == "typed_config");
        let own = own.map(|field| field.categories.as_slice()).unwrap_or_default();
        let categories = if place.categories.is_empty() { own } else { place.categories };
        if !categories.is_empty() {
            let words = format!(
                "is missing: Envoy finds an extension of `{}` by its type",
                categories.join("` or `")
            );
            self.say(&path.to(Step::Field("typed_config")), Rule::Extension, words);
        }
    }

    fn counts(&mut self, shape: &Shape, bytes: &[u8], counts: &[u64], path: &Path<'_>) {
        if shape.counted == 0 {
            return;
        }
        for field in &shape.fields {
            let Some(count) = &field.count else { continue };
            let number = counts.get(count.index).copied().unwrap_or_default();
            if number == 0 && count.or_none {
                continue;
            }
            let at = path.to(Step::Field(&field.name));
            if let Some(words) = outside(number, (count.least, count.most), "element") {
                self.say(&at, Rule::Constraint, words);
            }
            if count.unique && has_duplicates(bytes, field.number) {
                self.say(&at, Rule::Constraint, "has an element twice".to_owned());
            }
        }
    }

    fn value(&mut self, item: &Item, value: Value<'_>, path: &Path<'_>, inner: Inner<'_>) {
        let words = match (item, value) {
            (Item::Whatever, _) => None,
            (Item::Integer(form, range), value) => {
                integer(*form, value).and_then(|number| range.violated(number, |number| number.to_string()))
            }
            (Item::Real(range), value) => {
                real(value).and_then(|number| range.violated(number, |number| number.to_string()))
            }
            (Item::Text(rule), Value::Bytes(text)) => rule.violated(text),
            (Item::Enum(rule), Value::Varint(number)) => rule.violated(number as i32, None),
            (Item::Duration(range), Value::Bytes(bytes)) => {
                range.violated(nanoseconds(bytes), show_nanoseconds)
            }
            (Item::Wrapped(item), Value::Bytes(bytes)) => {
                let value = last(bytes, 1).unwrap_or(default(item));
                return self.value(item, value, path, inner);
            }
            (Item::Map(key, value), Value::Bytes(entry)) => {
                return self.entry(key, value, entry, path, inner);
            }
            (Item::Any(rule), Value::Bytes(bytes)) => return self.any(rule, bytes, path, inner),
            (Item::Message(child), Value::Bytes(bytes)) => {
                return self.message(child.shape(), bytes, path, inner.place);
            }
            // Another wire type than the field's: a decoder takes it for an unknown field.
            _ => None,
        };
        if let Some(words) = words {
            self.say(path, Rule::Constraint, words);
        }
    }

    fn entry(&mut self, key: &Item, value: &Item, entry: &[u8], path: &Path<'_>, inner: Inner<'_>) {
        let number = last(entry, 1);
        let shown = match number {
            Some(Value::Varint(number)) => Cow::Owned(number.to_string().into_bytes()),
            other => Cow::Borrowed(other.and_then(Value::bytes).unwrap_or_default()),
        };
        let at = path.to(Step::Key(&shown));
        if inner.place.categories == [BY_KEY] {
            let any = message(entry, 2).unwrap_or_default();
            return self.protocol_options(&String::from_utf8_lossy(&shown), any, &at);
        }
        self.value(key, number.unwrap_or(default(key)), &at, inner);
        self.value(value, last(entry, 2).unwrap_or(default(value)), &at, inner);
    }

    /// The options of a protocol are found by their key, and read as the type that belongs to it.
    fn protocol_options(&mut self, key: &str, any: &[u8], path: &Path<'_>) {
        let Some(kind) = stock().options_of(key) else {
            let words = "is for an extension of stock Envoy that does not exist or has no protocol options";
            return self.say(path, Rule::Extension, words.to_owned());
        };
        match unwrapped(text(any, 1), message(any, 2).unwrap_or_default()) {
            Err(words) => self.say(path, Rule::Constraint, words),
            Ok((_, payload)) => {
                if let Some(shape) = shape_of(kind) {
                    self.message(&shape, &payload, path, Place::default());
                }
            }
        }
    }

    fn any(&mut self, rule: &AnyRule, bytes: &[u8], path: &Path<'_>, inner: Inner<'_>) {
        let (url, payload) = (text(bytes, 1), message(bytes, 2).unwrap_or_default());
        if !rule.one_of.is_empty() && !rule.one_of.iter().any(|allowed| allowed == url) {
            let words = format!("has the type {url:?}, but must have one of {}", rule.one_of.join(", "));
            return self.say(path, Rule::Constraint, words);
        }
        if rule.none_of.iter().any(|refused| refused == url) {
            return self.say(path, Rule::Constraint, format!("must not have the type {url:?}"));
        }
        if rule.opaque {
            return;
        }
        let (url, payload) = match unwrapped(url, payload) {
            Ok(config) => config,
            Err(words) => return self.say(path, Rule::Constraint, words),
        };
        let name = url.rsplit_once('/').map_or(url.as_ref(), |(_, name)| name);
        let categories = inner.place.categories;
        if categories.is_empty() {
            if let Some(shape) = shape_of(name) {
                self.message(&shape, &payload, path, Place::default());
            }
            return;
        }
        // Of a filter for one route that wraps another, the inner one is the extension.
        if name == "envoy.config.route.v3.FilterConfig" && categories.contains(&PER_ROUTE) {
            if let Some(shape) = shape_of(name) {
                self.message(&shape, &payload, path, Place::default());
            }
            return;
        }
        match stock().read_as(categories, name) {
            Some(kind) => {
                if let Some(shape) = shape_of(kind) {
                    self.message(&shape, &payload, path, Place::default());
                }
            }
            None if inner.optional => {}
            None => self.say(path, Rule::Extension, unknown(name, categories)),
        }
    }
}

/// What a value's place says about it.
#[derive(Clone, Copy)]
struct Inner<'a> {
    place: Place<'a>,
    /// Envoy leaves an extension out that it does not have, and does not refuse it.
    optional: bool,
}

/// Why Envoy has no use for an extension of the type in its place.
fn unknown(name: &str, categories: &[&str]) -> String {
    let wanted = categories.join("` or `");
    if name.is_empty() {
        return format!("has no type, but must be an extension of `{wanted}`");
    }
    let known = stock().categories_of(name);
    if known.is_empty() {
        return format!(
            "has the type `{name}`, which stock Envoy does not have as an extension of `{wanted}`"
        );
    }
    let known = known.join("` and `");
    format!("has the type `{name}`, which is an extension of `{known}`, but must be one of `{wanted}`")
}

/// Type URL and payload of the configuration that an `Any` stands for: a `TypedStruct` stands for a message
/// of another type in the form of JSON.
fn unwrapped<'a>(url: &'a str, payload: &'a [u8]) -> Result<(Cow<'a, str>, Cow<'a, [u8]>), String> {
    let name = url.rsplit_once('/').map_or(url, |(_, name)| name);
    if !matches!(name, "xds.type.v3.TypedStruct" | "udpa.type.v1.TypedStruct") {
        return Ok((Cow::Borrowed(url), Cow::Borrowed(payload)));
    }
    let inner = text(payload, 1);
    let json = to_json("google.protobuf.Struct", message(payload, 2).unwrap_or_default());
    let full_name = inner.rsplit_once('/').map_or(inner, |(_, name)| name);
    if shape_of(full_name).is_none() {
        // Nothing to read it as; whether Envoy has such an extension is looked up by its name.
        return Ok((Cow::Borrowed(inner), Cow::Borrowed(&[])));
    }
    match from_json_lenient(full_name, &json) {
        Ok((message, _)) => Ok((Cow::Borrowed(inner), Cow::Owned(encode(&message).to_vec()))),
        Err(error) => Err(format!("is not a `{full_name}`: {error}")),
    }
}

fn is_number(item: &Item) -> bool {
    matches!(item, Item::Integer(..) | Item::Real(_) | Item::Enum(_))
}

/// Takes one number off a packed list.
fn unpack<'a>(item: &Item, rest: &mut &'a [u8]) -> Option<Value<'a>> {
    match item {
        // No rule of the API is about packed numbers of a fixed size; what their size is, the shape does not
        // know.
        Item::Integer(Integer::Fixed | Integer::SignedFixed, _) | Item::Real(_) => None,
        _ => varint(rest).map(Value::Varint),
    }
}

/// What an absent field stands for.
fn default(item: &Item) -> Value<'static> {
    match item {
        Item::Integer(Integer::Fixed | Integer::SignedFixed, _) | Item::Real(_) => Value::Fixed64(0),
        Item::Integer(..) | Item::Enum(_) => Value::Varint(0),
        _ => Value::Bytes(&[]),
    }
}

fn integer(form: Integer, value: Value<'_>) -> Option<i128> {
    Some(match (form, value) {
        (Integer::Unsigned, Value::Varint(value)) => i128::from(value),
        (Integer::Signed, Value::Varint(value)) => i128::from(value as i64),
        (Integer::ZigZag, Value::Varint(value)) => i128::from((value >> 1) as i64 ^ -((value & 1) as i64)),
        (Integer::Fixed, Value::Fixed32(value)) => i128::from(value),
        (Integer::Fixed, Value::Fixed64(value)) => i128::from(value),
        (Integer::SignedFixed, Value::Fixed32(value)) => i128::from(value as i32),
        (Integer::SignedFixed, Value::Fixed64(value)) => i128::from(value as i64),
        _ => return None,
    })
}

fn real(value: Value<'_>) -> Option<f64> {
    match value {
        Value::Fixed32(bits) => Some(f64::from(f32::from_bits(bits))),
        Value::Fixed64(bits) => Some(f64::from_bits(bits)),
        _ => None,
    }
}

/// The length of an encoded `google.protobuf.Duration`.
pub fn nanoseconds(duration: &[u8]) -> i128 {
    let part = |number| last(duration, number).and_then(Value::varint).unwrap_or_default() as i64;
    i128::from(part(1)) * 1_000_000_000 + i128::from(part(2))
}

fn show_nanoseconds(nanoseconds: i128) -> String {
    let (seconds, rest) = (nanoseconds / 1_000_000_000, (nanoseconds % 1_000_000_000).unsigned_abs());
    if rest == 0 {
        return format!("{seconds}s");
    }
    let fraction = format!("{rest:09}");
    format!("{seconds}.{}s", fraction.trim_end_matches('0'))
}

/// Whether a repeated field has a value twice. Only lists of texts and messages are asked; numbers would be
/// packed.
fn has_duplicates(bytes: &[u8], number: u32) -> bool {
    let mut seen: BTreeSet<&[u8]> = BTreeSet::new();
    !messages(bytes, number).all(|element| seen.insert(element))
}
