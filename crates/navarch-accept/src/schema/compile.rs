//! From descriptors with their options to shapes.

use std::collections::{BTreeSet, HashMap};
use std::sync::OnceLock;

use navarch_envoy::json::pool;
use navarch_envoy::proto::validate::{
    BytesRules, DurationRules, EnumRules, FieldRules, KnownRegex, StringRules, field_rules::Type,
    string_rules::WellKnown,
};
use prost_reflect::{
    Cardinality, DynamicMessage, EnumDescriptor, ExtensionDescriptor, FieldDescriptor, Kind,
    MessageDescriptor, Value,
};
use regex::Regex;

use super::{AnyRule, Child, Count, EnumRule, Field, Header, Integer, Item, Needed, Range, Shape, TextRule};
use crate::extensions::categories;

/// Slots are bits of this many.
#[cfg(test)]
pub const SLOTS: u32 = 128;

/// The longest duration, in nanoseconds: as many whole seconds as fit into 64 bits of them.
const LONGEST: i128 = 9_223_372_036_999_999_999;

/// `Any`s that Envoy hands on as they are.
const OPAQUE: &[(&str, &str)] = &[
    ("envoy.config.core.v3.Metadata", "typed_filter_metadata"),
    ("envoy.extensions.filters.http.set_metadata.v3.Metadata", "typed_value"),
    (
        "envoy.extensions.filters.http.rate_limit_quota.v3.RateLimitQuotaBucketSettings.BucketIdBuilder",
        "custom_value",
    ),
];

/// The options that are read, found once.
struct Options {
    rules: Option<ExtensionDescriptor>,
    required: Option<ExtensionDescriptor>,
    disabled: Option<ExtensionDescriptor>,
    ignored: Option<ExtensionDescriptor>,
    disallowed: Option<ExtensionDescriptor>,
    disallowed_value: Option<ExtensionDescriptor>,
}

fn options() -> &'static Options {
    static OPTIONS: OnceLock<Options> = OnceLock::new();
    OPTIONS.get_or_init(|| {
        let find = |name: &str| pool().get_extension_by_name(name);
        Options {
            rules: find("validate.rules"),
            required: find("validate.required"),
            disabled: find("validate.disabled"),
            ignored: find("validate.ignored"),
            disallowed: find("envoy.annotations.disallowed_by_default"),
            disallowed_value: find("envoy.annotations.disallowed_by_default_enum"),
        }
    })
}

fn is_set(options: &DynamicMessage, extension: Option<&ExtensionDescriptor>) -> bool {
    extension.is_some_and(|extension| options.get_extension(extension).as_bool() == Some(true))
}

/// The rules that the API puts on a field.
pub fn rules(field: &FieldDescriptor) -> FieldRules {
    let found = options().rules.as_ref().and_then(|extension| {
        let options = field.options();
        match options.get_extension(extension).as_ref() {
            Value::Message(rules) if options.has_extension(extension) => rules.transcode_to().ok(),
            _ => None,
        }
    });
    found.unwrap_or_default()
}

/// Compiles the rules of a type of message.
pub fn message(kind: &MessageDescriptor) -> Shape {
    let mut shape = Shape {
        name: kind.full_name().to_owned(),
        fields: Vec::new(),
        needed: Vec::new(),
        counted: 0,
        optional: kind.get_field_by_name("is_optional").map(|field| field.number()),
        check: crate::structure::check_of(kind.full_name()),
        content: crate::structure::content_of(kind.full_name()),
        config: None,
    };
    let off = kind.options();
    if is_set(&off, options().disabled.as_ref()) || is_set(&off, options().ignored.as_ref()) {
        return shape;
    }
    let mut slots = Slots { next: 0, oneofs: HashMap::new() };
    for oneof in kind.oneofs().filter(|oneof| is_set(&oneof.options(), options().required.as_ref())) {
        let slot = slots.take();
        slots.oneofs.insert(oneof.name().to_owned(), slot);
        let names: Vec<String> = oneof.fields().map(|field| format!("`{}`", field.name())).collect();
        let words = format!("is missing: one of {} must be set", names.join(", "));
        shape.needed.push(Needed { slot, name: oneof.name().to_owned(), words });
    }
    shape.config = holder(kind).then(|| slots.take());
    for field in kind.fields() {
        if let Some(mut field) = compile(&mut shape, &mut slots, &field) {
            if matches!(field.name.as_str(), "typed_config" | "config_discovery") {
                field.slot = field.slot.or(shape.config);
            }
            shape.fields.push(field);
        }
    }
    shape.fields.sort_by_key(|field| field.number);
    shape
}

/// Whether the message is a name with the configuration of an extension beside it, which Envoy cannot do
/// without.
fn holder(kind: &MessageDescriptor) -> bool {
    let config = kind.get_field_by_name("typed_config");
    kind.get_field_by_name("name").is_some()
        && config.is_some_and(|config| {
            let of_any =
                config.kind().as_message().is_some_and(|kind| kind.full_name() == "google.protobuf.Any");
            of_any && !is_required(&rules(&config))
        })
}

struct Slots {
    next: u32,
    /// Those of the `oneof`s that must have a field.
    oneofs: HashMap<String, u32>,
}

impl Slots {
    fn take(&mut self) -> u32 {
        self.next += 1;
        self.next - 1
    }
}

/// A field, if anything can be wrong with it.
fn compile(shape: &mut Shape, slots: &mut Slots, field: &FieldDescriptor) -> Option<Field> {
    let rules = rules(field);
    let required = is_required(&rules);
    let disallowed = is_set(&field.options(), options().disallowed.as_ref());
    let count = count(shape.counted, &rules);
    let item = item(field, &rules);
    let in_required = field.containing_oneof().and_then(|oneof| slots.oneofs.get(oneof.name()).copied());
    let absent = absent(field, required, &item);
    if count.is_none() && absent.is_none() && in_required.is_none() && !disallowed {
        item.as_ref()?;
    }
    // The elements of a list are counted in any case: what is wrong with one says which one it is.
    let uncounted = Count { index: shape.counted, least: None, most: None, unique: false, or_none: false };
    let count = count.or_else(|| field.is_list().then_some(uncounted));
    if count.is_some() {
        shape.counted += 1;
    }
    let slot = absent.map(|words| {
        let slot = slots.take();
        shape.needed.push(Needed { slot, name: field.name().to_owned(), words });
        slot
    });
    Some(Field {
        number: field.number(),
        name: field.name().to_owned(),
        slot: slot.or(in_required),
        count,
        repeated: field.is_list(),
        disallowed,
        item: item.unwrap_or(Item::Whatever),
        categories: categories(field.parent_message().full_name(), beside(field)),
    })
}

/// The field whose categories count: what is discovered is what would else stand beside it.
fn beside(field: &FieldDescriptor) -> &str {
    if field.name() == "config_discovery" { "typed_config" } else { field.name() }
}

/// What is wrong if the field is absent. A scalar that cannot be absent then has its default value.
fn absent(field: &FieldDescriptor, required: bool, item: &Option<Item>) -> Option<String> {
    // A field of a `oneof` has rules only while it is the one that is set.
    if field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic()) {
        return None;
    }
    if required {
        return Some("is missing, but required".to_owned());
    }
    if field.supports_presence() || field.cardinality() == Cardinality::Repeated {
        return None;
    }
    match item.as_ref()? {
        Item::Text(rule) => rule.violated(b""),
        Item::Integer(_, range) => range.violated(0, |value| value.to_string()),
        Item::Real(range) => range.violated(0.0, |value| value.to_string()),
        Item::Enum(rule) => rule.violated(0, field.kind().as_enum()),
        _ => None,
    }
}

fn is_required(rules: &FieldRules) -> bool {
    let of_type = match &rules.r#type {
        Some(Type::Any(any)) => any.required(),
        Some(Type::Duration(duration)) => duration.required(),
        Some(Type::Timestamp(timestamp)) => timestamp.required(),
        _ => false,
    };
    of_type || rules.message.as_ref().is_some_and(|message| message.required())
}

fn count(index: usize, rules: &FieldRules) -> Option<Count> {
    let count = match &rules.r#type {
        Some(Type::Repeated(repeated)) => Count {
            index,
            least: repeated.min_items,
            most: repeated.max_items,
            unique: repeated.unique(),
            or_none: repeated.ignore_empty(),
        },
        Some(Type::Map(map)) => Count {
            index,
            least: map.min_pairs,
            most: map.max_pairs,
            unique: false,
            or_none: map.ignore_empty(),
        },
        _ => return None,
    };
    (count.least.is_some() || count.most.is_some() || count.unique).then_some(count)
}

/// What an element of the field may be; nothing if everything is allowed.
fn item(field: &FieldDescriptor, rules: &FieldRules) -> Option<Item> {
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else { return None };
        let (key, value) = match &rules.r#type {
            Some(Type::Map(map)) => (map.keys.clone(), map.values.clone()),
            _ => (None, None),
        };
        let key = value_item(&entry.map_entry_key_field(), &key.unwrap_or_default());
        let value = value_item(&entry.map_entry_value_field(), &value.unwrap_or_default());
        return match (key, value) {
            (None, None) => None,
            (key, value) => Some(Item::Map(
                Box::new(key.unwrap_or(Item::Whatever)),
                Box::new(value.unwrap_or(Item::Whatever)),
            )),
        };
    }
    match &rules.r#type {
        Some(Type::Repeated(repeated)) => {
            value_item(field, repeated.items.as_deref().unwrap_or(&FieldRules::default()))
        }
        _ => value_item(field, rules),
    }
}

fn value_item(field: &FieldDescriptor, rules: &FieldRules) -> Option<Item> {
    match field.kind() {
        Kind::Message(kind) => message_item(field, &kind, rules),
        Kind::Enum(kind) => enum_item(&kind, rules),
        Kind::String => match &rules.r#type {
            Some(Type::String(rules)) => Some(Item::Text(text(rules))),
            // Text that is not UTF-8 does not decode, so every text can be wrong. What makes resources checks
            // that.
            _ => None,
        },
        Kind::Bytes => match &rules.r#type {
            Some(Type::Bytes(rules)) => Some(Item::Text(bytes(rules))),
            _ => None,
        },
        Kind::Float | Kind::Double => real(rules).map(Item::Real),
        Kind::Bool => match &rules.r#type {
            Some(Type::Bool(rules)) => {
                let exactly = rules.r#const.map(i128::from);
                Some(Item::Integer(Integer::Unsigned, Range { exactly, ..Range::default() }))
            }
            _ => None,
        },
        scalar => integers(rules).map(|range| Item::Integer(encoding(&scalar), range)),
    }
}

fn encoding(kind: &Kind) -> Integer {
    match kind {
        Kind::Sint32 | Kind::Sint64 => Integer::ZigZag,
        Kind::Fixed32 | Kind::Fixed64 => Integer::Fixed,
        Kind::Sfixed32 | Kind::Sfixed64 => Integer::SignedFixed,
        Kind::Int32 | Kind::Int64 => Integer::Signed,
        _ => Integer::Unsigned,
    }
}

fn message_item(field: &FieldDescriptor, kind: &MessageDescriptor, rules: &FieldRules) -> Option<Item> {
    if let Some(short) = kind.full_name().strip_prefix("google.protobuf.") {
        return match short {
            "Any" => Some(Item::Any(any(field, rules))),
            "Duration" => match &rules.r#type {
                Some(Type::Duration(rules)) => Some(Item::Duration(durations(rules))),
                // Envoy's code refuses what is negative, or too long, wherever it reads a duration.
                _ => Some(Item::Duration(Range {
                    at_least: Some(0),
                    at_most: Some(LONGEST),
                    ..Range::default()
                })),
            },
            _ => {
                // The wrappers of scalars are the messages with rules of another type than theirs.
                let inner = kind.get_field(1).filter(|_| rules.r#type.is_some())?;
                value_item(&inner, rules).map(|item| Item::Wrapped(Box::new(item)))
            }
        };
    }
    if rules.message.as_ref().is_some_and(|message| message.skip()) || !matters(kind) {
        return None;
    }
    Some(Item::Message(Child::new(kind.clone())))
}

/// Whether anything can be wrong in a message of the type or below it.
fn matters(kind: &MessageDescriptor) -> bool {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut pending = vec![kind.clone()];
    while let Some(kind) = pending.pop() {
        if !seen.insert(kind.full_name().to_owned()) {
            continue;
        }
        if has_rules(&kind) {
            return true;
        }
        pending.extend(kind.fields().filter_map(|field| field.kind().as_message().cloned()));
    }
    false
}

fn has_rules(kind: &MessageDescriptor) -> bool {
    matches!(kind.full_name(), "google.protobuf.Any" | "google.protobuf.Duration")
        || crate::structure::check_of(kind.full_name()).is_some()
        || crate::structure::content_of(kind.full_name()).is_some()
        || kind.oneofs().any(|oneof| is_set(&oneof.options(), options().required.as_ref()))
        || kind.fields().any(|field| {
            let rules = rules(&field);
            rules != FieldRules::default()
                || is_set(&field.options(), options().disallowed.as_ref())
                || field.kind().as_enum().is_some_and(|kind| !disallowed_values(kind).is_empty())
        })
}

fn any(field: &FieldDescriptor, rules: &FieldRules) -> AnyRule {
    let parent = field.parent_message();
    let opaque = OPAQUE.contains(&(parent.full_name(), field.name()))
        // The value of a map is the field of a message that was made for the map.
        || parent.parent_message().is_some_and(|outer| {
            outer.fields().any(|field| {
                field.kind().as_message() == Some(parent) && OPAQUE.contains(&(outer.full_name(), field.name()))
            })
        });
    match &rules.r#type {
        Some(Type::Any(rules)) => {
            AnyRule { one_of: rules.r#in.clone(), none_of: rules.not_in.clone(), opaque }
        }
        _ => AnyRule { opaque, ..AnyRule::default() },
    }
}

fn disallowed_values(kind: &EnumDescriptor) -> BTreeSet<i32> {
    let refused = kind.values().filter(|value| is_set(&value.options(), options().disallowed_value.as_ref()));
    refused.map(|value| value.number()).collect()
}

fn enum_item(kind: &EnumDescriptor, rules: &FieldRules) -> Option<Item> {
    let disallowed = disallowed_values(kind);
    let rule = match &rules.r#type {
        Some(Type::Enum(rules)) => {
            let EnumRules { r#const: exactly, defined_only, r#in: one_of, not_in } = rules;
            EnumRule {
                defined: defined_only
                    .unwrap_or_default()
                    .then(|| kind.values().map(|value| value.number()).collect()),
                disallowed,
                range: Range {
                    exactly: exactly.map(i128::from),
                    one_of: one_of.iter().map(|value| i128::from(*value)).collect(),
                    none_of: not_in.iter().map(|value| i128::from(*value)).collect(),
                    ..Range::default()
                },
            }
        }
        _ if !disallowed.is_empty() => EnumRule { disallowed, ..EnumRule::default() },
        _ => return None,
    };
    Some(Item::Enum(rule))
}

impl EnumRule {
    /// What is wrong with a value; `kind` knows the names of the values.
    pub fn violated(&self, value: i32, kind: Option<&EnumDescriptor>) -> Option<String> {
        let show = |value: i128| {
            let known = i32::try_from(value).ok().zip(kind).and_then(|(value, kind)| kind.get_value(value));
            known.map_or_else(|| value.to_string(), |known| known.name().to_owned())
        };
        if self.defined.as_ref().is_some_and(|defined| !defined.contains(&value)) {
            return Some(format!("is {value}, which is not a value of its type"));
        }
        if self.disallowed.contains(&value) {
            return Some(format!("is {}, which is no longer supported", show(i128::from(value))));
        }
        self.range.violated(i128::from(value), show)
    }
}

fn text(rules: &StringRules) -> TextRule {
    let bytes = |text: &Option<String>| text.clone().unwrap_or_default().into_bytes();
    let list = |texts: &[String]| texts.iter().map(|text| text.clone().into_bytes()).collect();
    let StringRules {
        r#const: exactly,
        len,
        min_len,
        max_len,
        len_bytes,
        min_bytes,
        max_bytes,
        pattern,
        prefix,
        suffix,
        contains,
        not_contains,
        r#in: one_of,
        not_in,
        well_known,
        strict: _,
        ignore_empty,
    } = rules;
    TextRule {
        or_empty: ignore_empty.unwrap_or_default(),
        exactly: exactly.clone().map(String::into_bytes),
        chars: (len.or(*min_len), len.or(*max_len)),
        bytes: (len_bytes.or(*min_bytes), len_bytes.or(*max_bytes)),
        pattern: pattern.as_ref().and_then(|pattern| Regex::new(pattern).ok()),
        header: header(well_known.as_ref(), rules.strict()),
        prefix: bytes(prefix),
        suffix: bytes(suffix),
        contains: bytes(contains),
        lacks: bytes(not_contains),
        one_of: list(one_of),
        none_of: list(not_in),
    }
}

/// The one family of well-known texts that Envoy's API uses.
fn header(known: Option<&WellKnown>, strict: bool) -> Option<Header> {
    let Some(WellKnown::WellKnownRegex(known)) = known else { return None };
    match (KnownRegex::try_from(*known).ok()?, strict) {
        (KnownRegex::HttpHeaderName, true) => Some(Header::Name),
        (KnownRegex::HttpHeaderValue, true) => Some(Header::Value),
        (KnownRegex::HttpHeaderName | KnownRegex::HttpHeaderValue, false) => Some(Header::Loose),
        (KnownRegex::Unknown, _) => None,
    }
}

fn bytes(rules: &BytesRules) -> TextRule {
    let bytes = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map(|bytes| bytes.to_vec()).unwrap_or_default();
    let list = |items: &[bytes::Bytes]| items.iter().map(|item| item.to_vec()).collect();
    let BytesRules {
        r#const: exactly,
        len,
        min_len,
        max_len,
        pattern,
        prefix,
        suffix,
        contains,
        r#in: one_of,
        not_in,
        well_known: _,
        ignore_empty,
    } = rules;
    TextRule {
        or_empty: ignore_empty.unwrap_or_default(),
        exactly: exactly.as_ref().map(|bytes| bytes.to_vec()),
        bytes: (len.or(*min_len), len.or(*max_len)),
        pattern: pattern.as_ref().and_then(|pattern| Regex::new(pattern).ok()),
        prefix: bytes(prefix),
        suffix: bytes(suffix),
        contains: bytes(contains),
        one_of: list(one_of),
        none_of: list(not_in),
        ..TextRule::default()
    }
}

fn durations(rules: &DurationRules) -> Range<i128> {
    let nanos = |duration: &prost_types::Duration| {
        i128::from(duration.seconds) * 1_000_000_000 + i128::from(duration.nanos)
    };
    let DurationRules { required: _, r#const: exactly, lt, lte, gt, gte, r#in: one_of, not_in } = rules;
    Range {
        or_zero: false,
        exactly: exactly.as_ref().map(nanos),
        below: lt.as_ref().map(nanos),
        at_most: lte.as_ref().map(nanos),
        above: gt.as_ref().map(nanos),
        at_least: gte.as_ref().map(nanos),
        one_of: one_of.iter().map(nanos).collect(),
        none_of: not_in.iter().map(nanos).collect(),
    }
}

/// The rules for numbers have one shape and as many types as protobuf has kinds of numbers.
macro_rules! range {
    ($rules:expr, $number:ty) => {{
        let rules = $rules;
        Range {
            or_zero: rules.ignore_empty(),
            exactly: rules.r#const.map(<$number>::from),
            below: rules.lt.map(<$number>::from),
            at_most: rules.lte.map(<$number>::from),
            above: rules.gt.map(<$number>::from),
            at_least: rules.gte.map(<$number>::from),
            one_of: rules.r#in.iter().map(|value| <$number>::from(*value)).collect(),
            none_of: rules.not_in.iter().map(|value| <$number>::from(*value)).collect(),
        }
    }};
}

fn integers(rules: &FieldRules) -> Option<Range<i128>> {
    Some(match rules.r#type.as_ref()? {
        Type::Int32(rules) => range!(rules, i128),
        Type::Int64(rules) => range!(rules, i128),
        Type::Uint32(rules) => range!(rules, i128),
        Type::Uint64(rules) => range!(rules, i128),
        Type::Sint32(rules) => range!(rules, i128),
        Type::Sint64(rules) => range!(rules, i128),
        Type::Fixed32(rules) => range!(rules, i128),
        Type::Fixed64(rules) => range!(rules, i128),
        Type::Sfixed32(rules) => range!(rules, i128),
        Type::Sfixed64(rules) => range!(rules, i128),
        _ => return None,
    })
}

fn real(rules: &FieldRules) -> Option<Range<f64>> {
    Some(match rules.r#type.as_ref()? {
        Type::Float(rules) => range!(rules, f64),
        Type::Double(rules) => range!(rules, f64),
        _ => return None,
    })
}

/// How many slots the type needs.
#[cfg(test)]
pub fn slots(kind: &MessageDescriptor) -> u32 {
    message(kind).needed.iter().map(|needed| needed.slot + 1).max().unwrap_or_default()
}
