//! What is asked of each type of message, compiled once per type from its descriptor.
//!
//! In: descriptors with the options of protoc-gen-validate, and the table of the fields that hold extensions.
//! Out: a [`Shape`], which lists only the fields in which something can be wrong. The source of the rules'
//! meaning is `validate/validate.proto`; where that leaves room, what the C++ generator makes of it counts,
//! since Envoy runs that.

mod compile;
mod range;
mod text;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use navarch_envoy::json::descriptor;
use prost_reflect::MessageDescriptor;

use crate::structure::Check;

pub use range::Range;
pub use text::{Header, TextRule, outside};

/// What is asked of a type of message.
#[derive(Debug)]
pub struct Shape {
    /// Full name of the type.
    pub name: String,
    /// By number; only those with rules, or with something below that has.
    pub fields: Vec<Field>,
    /// What is wrong if no field with the slot is there.
    pub needed: Vec<Needed>,
    /// How many fields have elements that are counted.
    pub counted: usize,
    /// The number of a field `is_optional`: if it is set, Envoy leaves out an extension that it does not
    /// have.
    pub optional: Option<u32>,
    /// The bit that the configuration of an extension sets, in a message that holds one.
    pub config: Option<u32>,
    /// What Envoy's code insists on beyond the rules.
    pub check: Option<Check>,
    /// The same, for what is wrong whatever else the message has: texts in languages of their own, names of
    /// headers.
    pub content: Option<Check>,
}

/// Something that has to be there.
#[derive(Debug)]
pub struct Needed {
    /// The bit that seeing it sets.
    pub slot: u32,
    /// The field's name; that of a `oneof` if any of its fields will do.
    pub name: String,
    pub words: String,
}

/// A field in which something can be wrong.
#[derive(Debug)]
pub struct Field {
    pub number: u32,
    pub name: String,
    /// The bit that is set when the field is seen, if it is needed.
    pub slot: Option<u32>,
    pub count: Option<Count>,
    pub repeated: bool,
    /// Envoy refuses the field whatever it says, unless its runtime allows it.
    pub disallowed: bool,
    pub item: Item,
    /// The categories of extensions that the field may hold; empty if it holds none.
    pub categories: Vec<&'static str>,
}

/// How many elements a repeated field or a map may have.
#[derive(Debug, Clone)]
pub struct Count {
    /// Which of the message's counted fields it is.
    pub index: usize,
    pub least: Option<u64>,
    pub most: Option<u64>,
    pub unique: bool,
    /// None at all is allowed whatever else the rule says.
    pub or_none: bool,
}

/// What one value of a field may be.
#[derive(Debug)]
pub enum Item {
    /// Anything; only its presence counts.
    Whatever,
    Integer(Integer, Range<i128>),
    Real(Range<f64>),
    Text(TextRule),
    /// The numbers that the enum defines, if no others are allowed, with their names; and those that Envoy
    /// refuses.
    Enum(EnumRule),
    /// Nanoseconds.
    Duration(Range<i128>),
    /// A scalar in a message of its own, as `google.protobuf.UInt32Value` is.
    Wrapped(Box<Item>),
    /// Key and value.
    Map(Box<Item>, Box<Item>),
    Any(AnyRule),
    Message(Child),
}

/// How an integer is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Integer {
    /// `int32`, `int64`: a negative number has ten bytes.
    Signed,
    Unsigned,
    ZigZag,
    /// `fixed32`, `fixed64`.
    Fixed,
    /// `sfixed32`, `sfixed64`.
    SignedFixed,
}

/// What an enum field may be.
#[derive(Debug, Default)]
pub struct EnumRule {
    pub defined: Option<BTreeSet<i32>>,
    pub disallowed: BTreeSet<i32>,
    pub range: Range<i128>,
}

/// Which types an `Any` may have.
#[derive(Debug, Default)]
pub struct AnyRule {
    /// Type URLs; it has to be one of them if there are any.
    pub one_of: Vec<String>,
    pub none_of: Vec<String>,
    /// Its content is not looked at, because Envoy does not.
    pub opaque: bool,
}

/// The type of a message inside a message, compiled when it is first met.
#[derive(Debug)]
pub struct Child {
    kind: MessageDescriptor,
    shape: OnceLock<Arc<Shape>>,
}

impl Child {
    fn new(kind: MessageDescriptor) -> Self {
        Self { kind, shape: OnceLock::new() }
    }

    /// What is asked of the message.
    pub fn shape(&self) -> &Arc<Shape> {
        self.shape.get_or_init(|| shape(&self.kind))
    }
}

/// The shape of a type by its full name or type URL, if the descriptor set has it.
pub fn shape_of(name_or_url: &str) -> Option<Arc<Shape>> {
    let name = name_or_url.rsplit_once('/').map_or(name_or_url, |(_, name)| name);
    if let Some(found) = known().read().unwrap_or_else(PoisonError::into_inner).get(name) {
        return Some(found.clone());
    }
    descriptor(name).map(|kind| shape(&kind))
}

type Known = HashMap<String, Arc<Shape>>;

fn known() -> &'static RwLock<Known> {
    static KNOWN: OnceLock<RwLock<Known>> = OnceLock::new();
    KNOWN.get_or_init(RwLock::default)
}

fn shape(kind: &MessageDescriptor) -> Arc<Shape> {
    if let Some(found) = known().read().unwrap_or_else(PoisonError::into_inner).get(kind.full_name()) {
        return found.clone();
    }
    let made = Arc::new(compile::message(kind));
    let mut known = known().write().unwrap_or_else(PoisonError::into_inner);
    known.entry(kind.full_name().to_owned()).or_insert(made).clone()
}

#[cfg(test)]
mod tests;
