//! The fields of an encoded message, one after the other, without decoding what is not asked for.

/// A field's value as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2: text, bytes, a message, or packed numbers.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

impl<'a> Value<'a> {
    /// The bytes of a length-delimited field.
    pub fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The number of a field of wire type 0.
    pub fn varint(self) -> Option<u64> {
        match self {
            Value::Varint(value) => Some(value),
            _ => None,
        }
    }
}

/// The bytes stop being a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Number and value of each field of a message, in the order in which they stand. The first malformed one
/// ends it.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Reads the fields of an encoded message.
    pub const fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u32, Value<'a>)> {
        let key = varint(&mut self.rest)?;
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut self.rest)?),
            1 => Value::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let len = varint(&mut self.rest)?;
                Value::Bytes(self.take(usize::try_from(len).ok()?)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        let number = u32::try_from(key >> 3).ok().filter(|number| *number != 0)?;
        Some((number, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field.ok_or(Malformed))
    }
}

/// Takes a varint off the front of `bytes`.
pub fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// The last value of a field, as a decoder would keep it.
pub fn last(message: &[u8], number: u32) -> Option<Value<'_>> {
    Fields::new(message).map_while(Result::ok).filter(|(found, _)| *found == number).map(|(_, v)| v).last()
}

/// The text of a field; empty if it is absent or not UTF-8.
pub fn text(message: &[u8], number: u32) -> &str {
    let bytes = last(message, number).and_then(Value::bytes).unwrap_or_default();
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// The bytes of a message in a field, if it is there.
pub fn message(outer: &[u8], number: u32) -> Option<&[u8]> {
    last(outer, number).and_then(Value::bytes)
}

/// The bytes of each message in a repeated field.
pub fn messages(outer: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    Fields::new(outer)
        .map_while(Result::ok)
        .filter(move |(found, _)| *found == number)
        .filter_map(|(_, value)| value.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_order() {
        // 1: varint 300, 2: "ab", 3: fixed32 1, 4: fixed64 2.
        let bytes = b"\x08\xac\x02\x12\x02ab\x1d\x01\0\0\0\x21\x02\0\0\0\0\0\0\0";
        let read: Vec<_> = Fields::new(bytes).map(Result::unwrap).collect();
        let expected = [
            (1, Value::Varint(300)),
            (2, Value::Bytes(b"ab")),
            (3, Value::Fixed32(1)),
            (4, Value::Fixed64(2)),
        ];
        assert_eq!(read, expected);
        assert_eq!((text(bytes, 2), text(bytes, 9)), ("ab", ""));
    }

    #[test]
    fn what_is_cut_off_or_unknown_is_malformed() {
        for bytes in [&b"\x08"[..], b"\x12\x05ab", b"\x0b", b"\x21\x01", b"\x00\x01", &[0xff; 12]] {
            assert_eq!(Fields::new(bytes).last(), Some(Err(Malformed)), "{bytes:?}");
        }
        assert_eq!(Fields::new(b"").next(), None);
    }
}
