//! Statuses: what became of an object, told to who wrote it.
//!
//! The shape is that of Kubernetes' conditions and of the Gateway API (sections on `RouteParentStatus`,
//! `ListenerStatus` and `PolicyAncestorStatus`), so that whoever writes a status adds only what a clock or
//! the API server knows: times, and who writes.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::gateway_api::RouteKind;
use crate::key::ObjectKey;
use crate::service::Name;

/// What became of an object. Empty lists are not written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Status {
    /// `metadata.generation` of the version that this is about; 0 if it states none.
    pub generation: i64,
    /// Of the object as a whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Of a route with each of its `parents`, of a policy with each of its `ancestors`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<ParentStatus>,
    /// Of each listener of a gateway.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<ListenerStatus>,
    /// Where a gateway is reached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Name>,
    /// Addresses that hosts of a ServiceEntry have been allocated, which states none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allocated: Vec<HostAddress>,
    /// ListenerSets that add listeners to a gateway.
    #[serde(skip_serializing_if = "is_zero")]
    pub attached_listener_sets: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Status {
    /// The condition of the object as a whole that has a type.
    pub fn condition(&self, ty: ConditionType) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.ty == ty)
    }
}

/// An address of a host (Istio: `ServiceEntryAddress`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct HostAddress {
    pub host: Name,
    pub value: Name,
}

/// What a route is attached to, or a policy applies to, and how that goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ParentStatus {
    pub parent: ObjectKey,
    /// The part of it that is named (`sectionName`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    pub conditions: Vec<Condition>,
}

/// One listener of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ListenerStatus {
    pub name: Name,
    /// Routes that are attached to it.
    pub attached_routes: u32,
    /// Kinds of routes that it takes.
    pub supported_kinds: Vec<RouteKind>,
    pub conditions: Vec<Condition>,
}

/// One thing that is so or not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Condition {
    #[serde(rename = "type")]
    pub ty: ConditionType,
    pub status: Truth,
    /// One word in CamelCase, for programs.
    pub reason: &'static str,
    /// For people; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl Condition {
    /// A condition of a type that is so or not.
    pub fn new(ty: ConditionType, holds: bool, reason: &'static str, message: impl Into<String>) -> Self {
        let status = if holds { Truth::True } else { Truth::False };
        Condition { ty, status, reason, message: message.into() }
    }

    /// Whether it is as the author of the object wants it.
    pub fn is_good(&self) -> bool {
        self.status == if self.ty.is_good() { Truth::True } else { Truth::False }
    }
}

/// What a condition is about. The words are those of the Gateway API; objects of Istio have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The object, as it is written now, is in use.
    Accepted,
    /// Everything that it refers to is there and may be referred to.
    ResolvedRefs,
    /// It is or will soon be in effect at the proxies.
    Programmed,
    /// Something that it says is contradicted by something else.
    Conflicted,
    /// A part of it is not in use.
    PartiallyInvalid,
    /// Clients without a valid certificate are served, because the gateway says so.
    InsecureFrontendValidationMode,
}

impl ConditionType {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::Programmed => "Programmed",
            Self::Conflicted => "Conflicted",
            Self::PartiallyInvalid => "PartiallyInvalid",
            Self::InsecureFrontendValidationMode => "InsecureFrontendValidationMode",
        }
    }

    /// Whether one wants it to be so.
    pub const fn is_good(self) -> bool {
        match self {
            Self::Accepted | Self::ResolvedRefs | Self::Programmed => true,
            Self::Conflicted | Self::PartiallyInvalid | Self::InsecureFrontendValidationMode => false,
        }
    }
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Truth {
    True,
    False,
    Unknown,
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ConditionType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl fmt::Display for Truth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        })
    }
}

/// `Accepted=False (Invalid): spec.hosts: ...`
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={} ({})", self.ty, self.status, self.reason)?;
        match self.message.as_str() {
            "" => Ok(()),
            message => write!(f, ": {message}"),
        }
    }
}
