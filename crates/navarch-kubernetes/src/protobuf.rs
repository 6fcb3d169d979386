//! Lists in Protobuf, which the API server makes and we read at a fraction of what JSON costs: half of a Pod
//! is who has managed which field, and is stepped over.
//!
//! An answer is [`MAGIC`] and an `Unknown`, which has the list ("Kubernetes API Concepts", Kubernetes
//! Protobuf encoding). What is read of an object becomes JSON, and from there on nobody knows how it came.
//! Numbers of fields are those of `generated.proto` of `k8s.io/api` and `k8s.io/apimachinery`.

use std::borrow::Cow;

use bytes::Bytes;
use navarch_model::Kind;
use navarch_model::timestamp::format_timestamp;
use prost::encoding::{WireType, decode_key, decode_varint};
use serde::ser::{Error as _, Serialize, SerializeMap, Serializer};

/// How it is asked for: an API server that has none answers in JSON.
pub(crate) const ACCEPT: &str = "application/vnd.kubernetes.protobuf, application/json";

/// How every answer begins, which JSON cannot.
pub(crate) const MAGIC: &[u8] = b"k8s\0";

/// What is read of a message.
#[derive(Debug)]
pub(crate) struct Message(&'static [Field]);

#[derive(Debug)]
struct Field {
    number: u32,
    /// In JSON.
    name: &'static str,
    ty: Type,
    /// It is a list.
    repeated: bool,
}

#[derive(Clone, Copy, Debug)]
enum Type {
    Text,
    Number,
    Truth,
    /// A message with the seconds since the epoch.
    Time,
    /// From texts to texts: a message for each.
    Texts,
    Message(&'static Message),
}

const fn one(number: u32, name: &'static str, ty: Type) -> Field {
    Field { number, name, ty, repeated: false }
}

const fn many(number: u32, name: &'static str, ty: Type) -> Field {
    Field { number, name, ty, repeated: true }
}

/// How objects of a kind are written in Protobuf. `None` if they are read in JSON: those that are few or
/// small, and those of CustomResourceDefinitions, of which there is no Protobuf.
pub(crate) fn message(kind: Kind) -> Option<&'static Message> {
    match kind {
        Kind::Pod => Some(&POD),
        Kind::EndpointSlice => Some(&ENDPOINT_SLICE),
        _ => None,
    }
}

static METADATA: Message = Message(&[
    one(1, "name", Type::Text),
    one(3, "namespace", Type::Text),
    one(5, "uid", Type::Text),
    one(6, "resourceVersion", Type::Text),
    one(7, "generation", Type::Number),
    one(8, "creationTimestamp", Type::Time),
    one(9, "deletionTimestamp", Type::Time),
    many(11, "labels", Type::Texts),
    many(12, "annotations", Type::Texts),
]);

static POD: Message = Message(&[
    one(1, "metadata", Type::Message(&METADATA)),
    one(
        2,
        "spec",
        Type::Message(&Message(&[
            many(2, "containers", Type::Message(&CONTAINER)),
            one(8, "serviceAccountName", Type::Text),
            one(10, "nodeName", Type::Text),
            one(11, "hostNetwork", Type::Truth),
            one(16, "hostname", Type::Text),
            one(17, "subdomain", Type::Text),
            many(20, "initContainers", Type::Message(&CONTAINER)),
        ])),
    ),
    one(
        3,
        "status",
        Type::Message(&Message(&[
            one(1, "phase", Type::Text),
            many(
                2,
                "conditions",
                Type::Message(&Message(&[one(1, "type", Type::Text), one(2, "status", Type::Text)])),
            ),
            one(5, "hostIP", Type::Text),
            one(6, "podIP", Type::Text),
            many(12, "podIPs", Type::Message(&Message(&[one(1, "ip", Type::Text)]))),
        ])),
    ),
]);

static CONTAINER: Message = Message(&[many(
    6,
    "ports",
    Type::Message(&Message(&[
        one(1, "name", Type::Text),
        one(3, "containerPort", Type::Number),
        one(4, "protocol", Type::Text),
    ])),
)]);

static ENDPOINT_SLICE: Message = Message(&[
    one(1, "metadata", Type::Message(&METADATA)),
    many(
        2,
        "endpoints",
        Type::Message(&Message(&[
            many(1, "addresses", Type::Text),
            one(
                2,
                "conditions",
                Type::Message(&Message(&[
                    one(1, "ready", Type::Truth),
                    one(2, "serving", Type::Truth),
                    one(3, "terminating", Type::Truth),
                ])),
            ),
            one(3, "hostname", Type::Text),
            one(
                4,
                "targetRef",
                Type::Message(&Message(&[
                    one(1, "kind", Type::Text),
                    one(2, "namespace", Type::Text),
                    one(3, "name", Type::Text),
                ])),
            ),
            one(6, "nodeName", Type::Text),
            one(7, "zone", Type::Text),
        ])),
    ),
    many(
        3,
        "ports",
        Type::Message(&Message(&[
            one(1, "name", Type::Text),
            one(2, "protocol", Type::Text),
            one(3, "port", Type::Number),
            one(4, "appProtocol", Type::Text),
        ])),
    ),
    one(4, "addressType", Type::Text),
]);

/// A list, of which the objects have not been looked at.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct List {
    pub version: String,
    /// Where the next page starts.
    pub rest: String,
    pub items: Vec<Bytes>,
}

/// Why something is not Protobuf, or not the one that was expected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error(transparent)]
    Encoding(#[from] prost::DecodeError),
    #[error("Protobuf that ends within a field")]
    Short,
    #[error("a field of an unexpected type")]
    Type,
}

impl List {
    /// Reads an answer that begins with [`MAGIC`].
    pub(crate) fn read(answer: &Bytes) -> Result<List, Broken> {
        let mut list = List::default();
        for stated in Stated(within_unknown(answer)?) {
            match stated? {
                (1, value) => {
                    list.version = text(within(value.bytes()?, 2)?).into_owned();
                    list.rest = text(within(value.bytes()?, 3)?).into_owned();
                }
                (2, value) => list.items.push(answer.slice_ref(value.bytes()?)),
                _ => {}
            }
        }
        Ok(list)
    }
}

impl Message {
    /// What is read of an object, as JSON.
    pub(crate) fn to_json(&'static self, object: &[u8]) -> serde_json::Result<String> {
        serde_json::to_string(&Written { message: self, bytes: object })
    }
}

/// The fields that a message states, in the order in which it states them.
struct Stated<'a>(&'a [u8]);

#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a type that no field that is read has.
    Other,
}

impl<'a> Value<'a> {
    fn bytes(self) -> Result<&'a [u8], Broken> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Number(_) | Value::Other => Err(Broken::Type),
        }
    }

    fn number(self) -> Result<u64, Broken> {
        match self {
            Value::Number(number) => Ok(number),
            Value::Bytes(_) | Value::Other => Err(Broken::Type),
        }
    }
}

impl<'a> Stated<'a> {
    fn field(&mut self) -> Result<(u32, Value<'a>), Broken> {
        let (number, ty) = decode_key(&mut self.0)?;
        let value = match ty {
            WireType::Varint => Value::Number(decode_varint(&mut self.0)?),
            WireType::LengthDelimited => {
                let length = decode_varint(&mut self.0)?;
                Value::Bytes(self.skip(usize::try_from(length).map_err(|_| Broken::Short)?)?)
            }
            WireType::ThirtyTwoBit => self.skip(4).map(|_| Value::Other)?,
            WireType::SixtyFourBit => self.skip(8).map(|_| Value::Other)?,
            WireType::StartGroup | WireType::EndGroup => return Err(Broken::Type),
        };
        Ok((number, value))
    }

    fn skip(&mut self, length: usize) -> Result<&'a [u8], Broken> {
        let (skipped, rest) = self.0.split_at_checked(length).ok_or(Broken::Short)?;
        self.0 = rest;
        Ok(skipped)
    }
}

impl<'a> Iterator for Stated<'a> {
    type Item = Result<(u32, Value<'a>), Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// What a message says in a field; nothing if it does not state it.
fn within(message: &[u8], number: u32) -> Result<&[u8], Broken> {
    let mut last = &[][..];
    for stated in Stated(message) {
        let (stated, value) = stated?;
        if stated == number {
            last = value.bytes()?;
        }
    }
    Ok(last)
}

/// The object of an answer that begins with [`MAGIC`].
fn within_unknown(answer: &[u8]) -> Result<&[u8], Broken> {
    within(answer.strip_prefix(MAGIC).ok_or(Broken::Type)?, 2)
}

/// What a `Status` says to people, as which the API server answers what it refuses; nothing if it is not in
/// Protobuf.
pub(crate) fn message_of_status(answer: &[u8]) -> Option<String> {
    let status = within_unknown(answer).ok()?;
    Some(text(within(status, 3).ok()?).into_owned())
}

/// The API server takes whatever bytes it is given in Protobuf, and writes in JSON U+FFFD for each one that
/// is not UTF-8, as Go does. Whoever may create a Pod must not be able to make the list of all unreadable.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.into();
    }
    let replaced = |chunk: std::str::Utf8Chunk<'_>| {
        let instead = "\u{fffd}".repeat(chunk.invalid().len());
        chunk.valid().to_owned() + &instead
    };
    bytes.utf8_chunks().map(replaced).collect::<String>().into()
}

/// A message as JSON.
struct Written<'a> {
    message: &'static Message,
    bytes: &'a [u8],
}

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut stated = Vec::new();
        for field in Stated(self.bytes) {
            let (number, value) = field.map_err(S::Error::custom)?;
            stated.extend(
                self.message.0.iter().find(|field| field.number == number).map(|field| (field, value)),
            );
        }
        // Those of a list may have others between them.
        stated.sort_by_key(|(field, _)| field.number);
        let mut map = serializer.serialize_map(None)?;
        for values in stated.chunk_by(|(one, _), (other, _)| one.number == other.number) {
            let Some((field, last)) = values.last() else { continue };
            match field.repeated {
                true => map.serialize_entry(field.name, &Several { ty: field.ty, values })?,
                false => map.serialize_entry(field.name, &Single { ty: field.ty, value: *last })?,
            }
        }
        map.end()
    }
}

/// What a field states once.
struct Single<'a> {
    ty: Type,
    value: Value<'a>,
}

impl Serialize for Single<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number = || self.value.number().map_err(S::Error::custom);
        let bytes = || self.value.bytes().map_err(S::Error::custom);
        match self.ty {
            Type::Text => serializer.serialize_str(&text(bytes()?)),
            // As Protobuf's integers are written, which wrap around.
            Type::Number => serializer.serialize_i64(number()?.cast_signed()),
            Type::Truth => serializer.serialize_bool(number()? != 0),
            Type::Time => match seconds(bytes()?).map_err(S::Error::custom)? {
                // There is no time.
                0 => serializer.serialize_unit(),
                seconds => serializer.serialize_str(&format_timestamp(seconds)),
            },
            Type::Message(message) => Written { message, bytes: bytes()? }.serialize(serializer),
            Type::Texts => Err(S::Error::custom("a map has several")),
        }
    }
}

fn seconds(time: &[u8]) -> Result<i64, Broken> {
    let mut seconds = 0;
    for stated in Stated(time) {
        if let (1, value) = stated? {
            seconds = value.number()?.cast_signed();
        }
    }
    Ok(seconds)
}

/// What a field states one after the other.
struct Several<'a> {
    ty: Type,
    values: &'a [(&'static Field, Value<'a>)],
}

impl Serialize for Several<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let values = self.values.iter().map(|(_, value)| *value);
        let Type::Texts = self.ty else {
            return serializer.collect_seq(values.map(|value| Single { ty: self.ty, value }));
        };
        let mut map = serializer.serialize_map(Some(values.len()))?;
        for value in values {
            let entry = value.bytes().map_err(S::Error::custom)?;
            let side = |number| within(entry, number).map(text).map_err(S::Error::custom);
            map.serialize_entry(&side(1)?, &side(2)?)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use navarch_model::document::RawMetadata;
    use navarch_model::yaml::{Decode, Fields};
    use prost::encoding::{encode_key, encode_varint};

    use super::*;

    fn number(field: u32, value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        encode_key(field, WireType::Varint, &mut out);
        encode_varint(value, &mut out);
        out
    }

    fn bytes(field: u32, value: impl AsRef<[u8]>) -> Vec<u8> {
        let mut out = Vec::new();
        encode_key(field, WireType::LengthDelimited, &mut out);
        encode_varint(value.as_ref().len() as u64, &mut out);
        out.extend_from_slice(value.as_ref());
        out
    }

    fn skipped() -> Vec<u8> {
        let mut out = Vec::new();
        encode_key(98, WireType::SixtyFourBit, &mut out);
        out.extend_from_slice(&[7; 8]);
        encode_key(99, WireType::ThirtyTwoBit, &mut out);
        out.extend_from_slice(&[7; 4]);
        out
    }

    fn pod() -> Vec<u8> {
        let label = |key: &str, value: &str| bytes(11, [bytes(1, key), bytes(2, value)].concat());
        let metadata = [
            bytes(1, "web-1"),
            bytes(3, "shop"),
            number(7, 3),
            bytes(8, number(1, 1_800_000_000)),
            bytes(9, []),
            label("app", "web"),
            bytes(17, "whoever manages it"),
            label("version", "v1"),
        ];
        let port = |name: &str, port: u64| bytes(6, [bytes(1, name), number(3, port)].concat());
        let containers =
            [bytes(2, [bytes(1, "web"), port("http", 80), port("\"", 81)].concat()), bytes(2, [])];
        let spec = [containers[0].clone(), number(11, 1), skipped(), containers[1].clone(), number(11, 0)];
        [bytes(1, metadata.concat()), bytes(2, spec.concat()), bytes(3, [])].concat()
    }

    const POD: &str = r#"{"metadata":{"name":"web-1","namespace":"shop","generation":3,"creationTimestamp":"2027-01-15T08:00:00Z","deletionTimestamp":null,"labels":{"app":"web","version":"v1"}},"spec":{"containers":[{"ports":[{"name":"http","containerPort":80},{"name":"\"","containerPort":81}]},{}],"hostNetwork":false},"status":{}}"#;

    fn answer(items: &[Vec<u8>]) -> Bytes {
        let metadata = bytes(1, [bytes(2, "42"), bytes(3, "next")].concat());
        let items = items.iter().flat_map(|item| bytes(2, item));
        let list: Vec<u8> = metadata.into_iter().chain(items).collect();
        let unknown = [bytes(1, bytes(2, "PodList")), bytes(2, list), bytes(4, "")].concat();
        [MAGIC, &unknown].concat().into()
    }

    #[test]
    fn what_is_read_of_an_object_becomes_json() {
        let List { version, rest, items } = List::read(&answer(&[pod(), Vec::new()])).expect("a list");
        assert_eq!((&*version, &*rest), ("42", "next"));
        let json = |item: &Bytes| super::POD.to_json(item).expect("an object");
        assert_eq!(items.iter().map(json).collect::<Vec<_>>(), [POD, "{}"]);
    }

    #[test]
    fn what_is_broken_is_an_error() {
        let answer = answer(&[pod()]);
        for end in 0..answer.len() {
            // Whole fields may be missing.
            let _ = List::read(&answer.slice(..end));
        }
        assert!(List::read(&answer.slice(..answer.len() - 3)).is_err());
        let pod = pod();
        for at in 0..pod.len() {
            let _ = super::POD.to_json(&pod[..at]);
            let mut other = pod.clone();
            other[at] ^= 0x5a;
            let _ = super::POD.to_json(&other);
        }
        for broken in [number(1, 1), bytes(1, number(1, 1)), vec![0x0a, 0x7f]] {
            assert!(super::POD.to_json(&broken).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_what_they_are_in_json() {
        let pod = bytes(
            1,
            [bytes(1, b"a\xff\xe2\x82b"), bytes(11, [bytes(1, b"\xf0"), bytes(2, "v")].concat())].concat(),
        );
        let json = super::POD.to_json(&pod).expect("readable");
        assert_eq!(
            json,
            "{\"metadata\":{\"name\":\"a\u{fffd}\u{fffd}\u{fffd}b\",\"labels\":{\"\u{fffd}\":\"v\"}}}"
        );
    }

    /// Whether all fields that are read of something are fields of a message.
    fn has_all(message: &Message, fields: Fields) -> bool {
        let Fields::Of(fields) = fields else { return false };
        fields.iter().all(|field| {
            let found = message.0.iter().find(|known| (field.is)(known.name));
            found.is_some_and(|found| match found.ty {
                Type::Message(message) => has_all(message, (field.fields)()),
                _ => matches!((field.fields)(), Fields::All),
            })
        })
    }

    #[test]
    fn everything_that_is_read_is_known_by_its_number() {
        for kind in Kind::ALL {
            let Some(message) = message(*kind) else { continue };
            assert!(has_all(message, kind.fields()), "something that is read of a {kind} is missing");
        }
        let of_metadata = RawMetadata::fields();
        assert!(has_all(&METADATA, of_metadata), "something that is read of metadata is missing");
    }
}
