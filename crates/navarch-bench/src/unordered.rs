//! What an encoded message says, whatever the order of its fields.
//!
//! An encoder may write the entries of a map in any order, and other servers write them in a different one
//! each time. Without the schema a map cannot be told from a list, so that the order of lists is lost too:
//! where a server encodes the same content as the same bytes, these are to be compared.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Deeper bytes are taken as they are.
const DEPTH: usize = 64;

/// A hash that is the same for two messages with the same fields in any order, at any depth.
#[must_use]
pub fn hash(message: &[u8]) -> u64 {
    nested(message, DEPTH)
}

/// Text may look like a message; then its "fields" are taken for what they seem to be, in both messages.
fn nested(bytes: &[u8], depth: usize) -> u64 {
    depth.checked_sub(1).and_then(|depth| fields(bytes, depth)).unwrap_or_else(|| number(&bytes))
}

/// The hash of a message; nothing if the bytes are none.
fn fields(mut rest: &[u8], depth: usize) -> Option<u64> {
    let mut sum = 0u64;
    while !rest.is_empty() {
        let (key, value) = varint(rest)?;
        let (content, after) = match key & 7 {
            0 => varint(value)?,
            1 => fixed(value, 8)?,
            2 => {
                let (length, value) = varint(value)?;
                let (inner, after) = value.split_at_checked(usize::try_from(length).ok()?)?;
                (nested(inner, depth), after)
            }
            5 => fixed(value, 4)?,
            _ => return None,
        };
        // A sum has no order.
        sum = sum.wrapping_add(number(&(key, content)));
        rest = after;
    }
    Some(sum)
}

fn fixed(bytes: &[u8], length: usize) -> Option<(u64, &[u8])> {
    let (value, rest) = bytes.split_at_checked(length)?;
    Some((number(&value), rest))
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if *byte < 0x80 {
            return Some((value, bytes.get(index + 1..)?));
        }
    }
    None
}

fn number(value: &impl Hash) -> u64 {
    // Without a seed: the same in every run.
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use navarch_envoy::wire::{put_field, put_varint};

    fn message(parts: &[(u8, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        parts.iter().for_each(|(number, value)| put_field(&mut out, number << 3 | 2, value));
        out
    }

    #[test]
    fn only_the_order_of_fields_makes_no_difference() {
        let entry = |key: &str, value: &str| message(&[(1, key.as_bytes()), (2, value.as_bytes())]);
        let (a, b) = (entry("istio", "services"), entry("envoy.lb", "canary"));
        let outer = |parts: &[(u8, &[u8])]| message(&[(1, b"cluster"), (5, &message(parts))]);
        let one = outer(&[(1, &a), (1, &b)]);
        let mut port = one.clone();
        port.extend([0x10, 80]);
        let mut other_port = one.clone();
        other_port.extend([0x10, 81]);
        let mut number = one.clone();
        number.extend([0x25, 1, 0, 0, 0]);
        for (same, what, other) in [
            (true, "another order", outer(&[(1, &b), (1, &a)])),
            (false, "one is missing", outer(&[(1, &a)])),
            (false, "one is twice there", outer(&[(1, &a), (1, &b), (1, &b)])),
            (false, "another field", outer(&[(1, &a), (2, &b)])),
            (false, "another value", outer(&[(1, &a), (1, &entry("envoy.lb", "stable"))])),
            (
                false,
                "values change places",
                outer(&[(1, &entry("istio", "canary")), (1, &entry("envoy.lb", "services"))]),
            ),
            (false, "letters change places", outer(&[(1, &a), (1, &entry("envoy.lb", "canayr"))])),
            (false, "one more", port.clone()),
            (false, "a fixed one more", number),
        ] {
            assert_eq!(hash(&one) == hash(&other), same, "{what}");
        }
        assert_ne!(hash(&port), hash(&other_port));
    }

    #[test]
    fn what_is_no_message_is_compared_as_it_is() {
        for bytes in [&b"\xff"[..], b"\x0a\x7f", b"\x0d\x01", b"\x0b", &[0xff; 40]] {
            assert_ne!(hash(bytes), hash(b""), "{bytes:?}");
            assert_eq!(hash(bytes), hash(bytes), "{bytes:?}");
        }
        let mut deep = Vec::new();
        for _ in 0..10_000 {
            let mut outer = vec![0x0a];
            put_varint(&mut outer, deep.len() as u64);
            outer.extend(&deep);
            deep = outer;
        }
        assert_ne!(hash(&deep), hash(deep.get(1..).expect("not empty")));
    }
}
