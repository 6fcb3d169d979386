//! Bytes that never print.

use std::fmt;

use zeroize::Zeroizing;

/// Bytes of a key or of a token. They are wiped from memory when the value is dropped, and printed by
/// nothing.
///
/// There is no `Display`, no `Serialize` and no `Deref`: who needs the bytes says so with [`Secret::expose`].
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes over the bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Secret(Zeroizing::new(bytes))
    }

    /// The bytes themselves.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text, if they are.
    #[must_use]
    pub fn expose_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Whether two secrets are equal, in a time that depends on their lengths only.
    #[must_use]
    pub fn is_same(&self, other: &Secret) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Secret::new(text.into_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_nothing_of_itself() {
        #[derive(Debug)]
        struct Holder {
            #[expect(dead_code, reason = "only its Debug is read")]
            key: Secret,
        }
        let secret = Secret::from("hunter2".to_owned());
        assert_eq!(format!("{secret:?} {:#?}", Some(&secret)), "[redacted] Some(\n    [redacted],\n)");
        assert_eq!(format!("{:?}", Holder { key: secret }), "Holder { key: [redacted] }");
    }

    #[test]
    fn secrets_are_compared_as_a_whole() {
        let secret = |text: &str| Secret::from(text.to_owned());
        for (one, other, same) in [("a", "a", true), ("a", "b", false), ("a", "ab", false), ("", "", true)] {
            assert_eq!(secret(one).is_same(&secret(other)), same, "{one} {other}");
        }
    }
}
