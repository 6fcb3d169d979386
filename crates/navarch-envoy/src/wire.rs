//! The few protobuf wire primitives that resources and responses are put together from.

/// Field 2, length-delimited: `resources` in both `DiscoveryResponse` and `DeltaDiscoveryResponse`, and
/// `resource` in `Resource`.
pub const TAG_RESOURCES: u8 = 0x12;

/// Bytes a varint takes.
#[must_use]
pub const fn varint_len(value: u64) -> usize {
    // 7 payload bits per byte; `| 1` so that zero takes one byte.
    (63 - (value | 1).leading_zeros() as usize) / 7 + 1
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes a length-delimited field with a one-byte tag takes.
#[must_use]
pub const fn field_len(payload: usize) -> usize {
    1 + varint_len(payload as u64) + payload
}

/// Appends tag and length of a length-delimited field with a one-byte tag.
pub fn put_header(out: &mut Vec<u8>, tag: u8, payload: usize) {
    out.push(tag);
    put_varint(out, payload as u64);
}

/// Appends a length-delimited field with a one-byte tag.
pub fn put_field(out: &mut Vec<u8>, tag: u8, payload: &[u8]) {
    put_header(out, tag, payload.len());
    out.extend_from_slice(payload);
}

/// One field of a message, as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire types 1 and 5, not looked at.
    Fixed,
}

/// The fields of an encoded message in the order they stand in. Ends early where the bytes stop being a
/// message.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Reads the fields of `message`.
    #[must_use]
    pub const fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        Some((number, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varint_lengths_match_what_is_written() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_len(value), "{value}");
            assert_eq!(Fields::new(&out).varint(), Some(value));
        }
    }

    #[test]
    fn fields_stop_at_garbage() {
        assert_eq!(Fields::new(&[0x0a, 0x05, b'x']).count(), 0);
        assert_eq!(Fields::new(&[0xff; 20]).count(), 0);
        let mut message = Vec::new();
        put_field(&mut message, 0x0a, b"name");
        message.extend_from_slice(&[0x10, 0x03]);
        let fields: Vec<_> = Fields::new(&message).collect();
        assert_eq!(fields, [(1, Value::Bytes(b"name")), (2, Value::Varint(3))]);
    }
}
