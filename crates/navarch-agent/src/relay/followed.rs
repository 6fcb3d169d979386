//! A resource that the agent follows on each stream, whether the client asks for it or not: the roots of the
//! mesh. The control plane knows by its acknowledgement that whoever is behind the stream has it.

use bytes::Bytes;
use navarch_envoy::wire::{Fields, Value, put_field};

use super::wire::{
    Protocol, REMOVED, RESOURCES, bytes_of, name_and_version, name_in, tag, text_of, value_of,
};

/// `control_plane` of the two kinds of responses.
const CONTROL_PLANE_SOTW: u32 = 6;
const CONTROL_PLANE_DELTA: u32 = 7;

/// Whether a response is of a control plane that names itself so, as the `Component` of its identifier.
#[must_use]
pub fn is_of(component: &str, protocol: Protocol, message: &[u8]) -> bool {
    let field = match protocol {
        Protocol::Sotw => CONTROL_PLANE_SOTW,
        Protocol::Delta => CONTROL_PLANE_DELTA,
    };
    let Some(control_plane) = bytes_of(message, field).last() else { return false };
    let identifier: Option<serde_json::Value> = serde_json::from_str(text_of(control_plane, 1)).ok();
    identifier.is_some_and(|identifier| identifier["Component"] == component)
}

/// What is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    pub type_url: &'static str,
    pub name: &'static str,
    /// Who has it, as control planes name themselves in their responses: the `Component` of the identifier.
    /// Others count a request for a name that they do not know as an error.
    pub component: &'static str,
}

impl Followed {
    /// Whether a response is of a control plane that has the resource.
    #[must_use]
    pub fn is_served_by(&self, protocol: Protocol, message: &[u8]) -> bool {
        is_of(self.component, protocol, message)
    }

    /// Takes the resource out of a response.
    #[must_use]
    pub fn split(&self, protocol: Protocol, message: &Bytes) -> Split {
        let mut found = None;
        let mut rest = Vec::new();
        let mut is_taken = false;
        for (field, value) in Fields::new(message) {
            // What is left out here besides, `canary`, no client looks at.
            let Value::Bytes(bytes) = value else { continue };
            let is_it = match (protocol, field) {
                (Protocol::Delta, RESOURCES) => name_and_version(bytes).0 == self.name,
                (Protocol::Sotw, RESOURCES) => name_in(value_of(bytes)) == self.name,
                (Protocol::Delta, REMOVED) => bytes == self.name.as_bytes(),
                _ => false,
            };
            if !is_it {
                put_field(&mut rest, tag(field), bytes);
                continue;
            }
            is_taken = true;
            if field == RESOURCES {
                found = Some(match protocol {
                    Protocol::Delta => {
                        let any = bytes_of(bytes, 2).last().unwrap_or_default();
                        Found {
                            version: name_and_version(bytes).1.to_owned(),
                            message: message.slice_ref(value_of(any)),
                        }
                    }
                    Protocol::Sotw => {
                        Found { version: String::new(), message: message.slice_ref(value_of(bytes)) }
                    }
                });
            }
        }
        Split { found, rest: if is_taken { rest.into() } else { message.clone() } }
    }
}

/// A response in two parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The resource that is followed, if it was there.
    pub found: Option<Found>,
    /// The response without it, and without its removal.
    pub rest: Bytes,
}

/// The resource that is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Delta: its version.
    pub version: String,
    /// The encoded message.
    pub message: Bytes,
}
