//! `google.protobuf.Any` with a shared payload, and packing and unpacking of messages.

use bytes::Bytes;
use prost::{DecodeError, Message, Name};

/// What comes before the message name in the type URL of an `Any`.
pub const TYPE_URL_PREFIX: &str = "type.googleapis.com/";

/// A message of any type, encoded.
///
/// Takes the place of `prost_types::Any`, whose payload is a `Vec<u8>`: here a clone shares the encoded
/// bytes.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Any {
    /// `type.googleapis.com/` and the full name of the message.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded message.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

impl Name for Any {
    const NAME: &'static str = "Any";
    const PACKAGE: &'static str = "google.protobuf";

    fn type_url() -> String {
        format!("{TYPE_URL_PREFIX}google.protobuf.Any")
    }
}

impl Any {
    /// The full name of the packed message: the type URL after its last slash.
    pub fn message_name(&self) -> &str {
        self.type_url.rsplit_once('/').map_or(self.type_url.as_str(), |(_, name)| name)
    }

    /// Whether a message of type `M` is packed inside.
    pub fn is<M: Name>(&self) -> bool {
        self.message_name() == M::full_name()
    }
}

/// Why an [`Any`] could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The payload has another type than asked for.
    #[error("expected {expected}, found {found}")]
    Type {
        /// Full name of the message asked for.
        expected: String,
        /// Type URL found.
        found: String,
    },
    /// The payload is not a valid encoding of its type.
    #[error("the payload of {type_url} does not decode")]
    Payload {
        /// Type URL of the payload.
        type_url: String,
        /// What is wrong with the bytes.
        source: DecodeError,
    },
}

/// Packs a message under its type URL, `type.googleapis.com/<full name>`.
pub fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: type_url::<M>(), value: message.encode_to_vec().into() }
}

/// The type URL of a message, `type.googleapis.com/<full name>`.
pub fn type_url<M: Name>() -> String {
    format!("{TYPE_URL_PREFIX}{}", M::full_name())
}

/// Decodes the payload, if it has the type `M`.
pub fn unpack<M: Message + Name + Default>(any: &Any) -> Result<M, UnpackError> {
    if !any.is::<M>() {
        return Err(UnpackError::Type { expected: M::full_name(), found: any.type_url.clone() });
    }
    M::decode(any.value.clone())
        .map_err(|source| UnpackError::Payload { type_url: any.type_url.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::envoy::config::cluster::v3::Cluster;
    use crate::proto::envoy::config::listener::v3::Listener;

    #[test]
    fn packs_under_the_full_name() {
        let cluster = Cluster { name: "outbound|80||a.example".to_owned(), ..Cluster::default() };
        let packed = any(&cluster);
        assert_eq!(packed.type_url, "type.googleapis.com/envoy.config.cluster.v3.Cluster");
        assert_eq!(unpack::<Cluster>(&packed).unwrap(), cluster);
    }

    #[test]
    fn refuses_another_type_and_broken_bytes() {
        let packed = any(&Cluster::default());
        assert!(matches!(unpack::<Listener>(&packed), Err(UnpackError::Type { .. })));
        let broken = Any { value: Bytes::from_static(&[0xff]), ..packed };
        assert!(matches!(unpack::<Cluster>(&broken), Err(UnpackError::Payload { .. })));
    }

    #[test]
    fn equals_the_well_known_type_on_the_wire() {
        let ours = any(&Cluster { name: "a".to_owned(), ..Cluster::default() });
        let theirs = prost_types::Any::decode(ours.encode_to_vec().as_slice()).unwrap();
        assert_eq!((theirs.type_url, Bytes::from(theirs.value)), (ours.type_url, ours.value));
    }
}
