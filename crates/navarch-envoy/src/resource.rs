//! A resource, encoded once and shared by every stream it is sent on.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};
use zeroize::{Zeroize, Zeroizing};

use crate::types::XdsType;
use crate::wire::{self, TAG_RESOURCES, field_len, put_field, put_header, put_varint};

// Fields of envoy.service.discovery.v3.Resource.
const RESOURCE_VERSION: u8 = 0x0a;
const RESOURCE_NAME: u8 = 0x1a;
const RESOURCE_ALIASES: u8 = 0x22;
const RESOURCE_TTL: u8 = 0x32;
/// Not a field: what being on demand adds to the hash.
const ON_DEMAND: u8 = 0xff;
// Fields of google.protobuf.Any.
const ANY_TYPE_URL: u8 = 0x0a;
const ANY_VALUE: u8 = 0x12;

const RESOURCE_TYPE_URL: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";

/// The version of a resource is its content: 128 bits of unkeyed xxh3 over the bytes of the `Any`.
///
/// Unkeyed, because a client carries the version to other replicas and over restarts, where equal content
/// must have an equal version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u128);

impl Version {
    /// The version of a resource without time to live and aliases, from its encoded `google.protobuf.Any`.
    #[must_use]
    pub fn of_any(any: &[u8]) -> Self {
        Self(xxh3_128(any))
    }

    /// The version as it is sent, or nothing if `text` was not written by [`Version`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// One resource in the form in which it is sent.
///
/// `resources` is field 2 of both `DiscoveryResponse` and `DeltaDiscoveryResponse`, and `resource` is field 2
/// of the `Resource` that a delta response wraps around the `Any`. With the `Any` written last, the bytes for
/// state-of-the-world are the tail of the bytes for delta, and one buffer serves both.
#[derive(Clone)]
pub struct Resource {
    name: Arc<str>,
    version: Version,
    ttl: Option<Duration>,
    aliases: Vec<Arc<str>>,
    on_demand: bool,
    secret: bool,
    chunk: Bytes,
    /// Where the `Any` field (tag included) starts in `chunk`; its end if there is no body.
    any_field: usize,
    /// Where the `Any` starts.
    any: usize,
    /// Where the message starts.
    body: usize,
    /// The form for state-of-the-world, if it is not the tail of `chunk`: a resource with a time to live has
    /// to be wrapped there too.
    wrapped: Option<Bytes>,
}

impl Resource {
    /// A resource whose body is `message`, the encoded message of type `type_url`.
    ///
    /// `name` must be the name inside the message: Envoy accepts a different one and can then never delete
    /// the resource.
    #[must_use]
    pub fn new(type_url: &str, name: impl Into<Arc<str>>, message: &[u8]) -> Self {
        Builder::new(type_url, name, message).build()
    }

    /// As [`Resource::new`], for a type of the table.
    #[must_use]
    pub fn of(ty: XdsType, name: impl Into<Arc<str>>, message: &[u8]) -> Self {
        Self::new(ty.type_url(), name, message)
    }

    /// A resource with a time to live or aliases.
    #[must_use]
    pub fn builder<'a>(type_url: &'a str, name: impl Into<Arc<str>>, message: &'a [u8]) -> Builder<'a> {
        Builder::new(type_url, name, message)
    }

    /// A delta resource that has a name and aliases but no body: in VHDS it says at once that the aliases
    /// resolve to nothing (xDS spec, "Virtual Host Discovery Service"; Envoy answers the waiting request with
    /// 404).
    #[must_use]
    pub fn without_body(name: impl Into<Arc<str>>, aliases: Vec<Arc<str>>) -> Self {
        let nothing = Builder::new("", name, &[]);
        Builder { message: None, aliases, ..nothing }.build()
    }

    /// The name clients subscribe to.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The content hash.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// How long the client keeps the resource without hearing of it again.
    #[must_use]
    pub fn ttl(&self) -> Option<Duration> {
        self.ttl
    }

    /// Other names under which the resource may be asked for.
    #[must_use]
    pub fn aliases(&self) -> &[Arc<str>] {
        &self.aliases
    }

    /// Whether the resource is not part of the wildcard: only who names it gets it (on-demand clusters, for
    /// example).
    #[must_use]
    pub fn is_on_demand(&self) -> bool {
        self.on_demand
    }

    /// Whether its content must not be shown to anybody but its client.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.secret
    }

    /// Field `resources` of a `DeltaDiscoveryResponse`: tag, length and `Resource`.
    #[must_use]
    pub fn delta_chunk(&self) -> Bytes {
        self.chunk.clone()
    }

    /// Field `resources` of a `DiscoveryResponse`: tag, length and `Any`. Empty if the resource has no body,
    /// which state-of-the-world cannot express.
    #[must_use]
    pub fn sotw_chunk(&self) -> Bytes {
        match &self.wrapped {
            Some(wrapped) => wrapped.clone(),
            None => self.chunk.slice(self.any_field..),
        }
    }

    /// The encoded `google.protobuf.Any`.
    #[must_use]
    pub fn any(&self) -> Bytes {
        self.chunk.slice(self.any..)
    }

    /// The encoded message inside the `Any`.
    #[must_use]
    pub fn body(&self) -> Bytes {
        self.chunk.slice(self.body..)
    }

    /// Bytes the resource takes in a delta response.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chunk.len()
    }

    /// Never: a resource has at least a name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunk.is_empty()
    }

    /// Whether there is a message.
    #[must_use]
    pub fn has_body(&self) -> bool {
        self.any_field < self.chunk.len()
    }

    /// A resource with the same name, version and time to live but no body. It extends the time to live and
    /// changes nothing else (xDS spec, "Time to live"). Delta only: in state-of-the-world Envoy deletes what
    /// it is meant to keep.
    #[must_use]
    pub fn heartbeat_chunk(&self) -> Bytes {
        let ttl = self.ttl.map(encode_duration);
        let inner = inner_len(&self.name, ttl.as_deref(), &[]);
        let mut out = Vec::with_capacity(field_len(inner));
        put_header(&mut out, TAG_RESOURCES, inner);
        put_inner(&mut out, &self.name, self.version, ttl.as_deref(), &[]);
        Bytes::from(out)
    }

    /// What this resource adds to the hash of a set, which is the sum over its resources.
    #[must_use]
    pub fn set_hash(&self) -> u128 {
        let mut hasher = Xxh3::new();
        hasher.update(self.name.as_bytes());
        // No name contains a byte that is not UTF-8, so this cannot be confused with part of a name.
        hasher.update(&[0xff]);
        hasher.update(&self.version.0.to_le_bytes());
        hasher.digest128()
    }
}

/// Equal name and equal content.
impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version && self.name == other.name
    }
}

impl Eq for Resource {}

/// Never the body: it may be a private key.
impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

/// Puts a [`Resource`] together.
#[derive(Clone)]
pub struct Builder<'a> {
    type_url: &'a str,
    name: Arc<str>,
    message: Option<&'a [u8]>,
    ttl: Option<Duration>,
    aliases: Vec<Arc<str>>,
    on_demand: bool,
    secret: bool,
}

impl<'a> Builder<'a> {
    fn new(type_url: &'a str, name: impl Into<Arc<str>>, message: &'a [u8]) -> Self {
        Self {
            type_url,
            name: name.into(),
            message: Some(message),
            ttl: None,
            aliases: Vec::new(),
            on_demand: false,
            secret: false,
        }
    }

    /// The client drops the resource after `ttl` unless it hears of it again.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Other names under which the resource may be asked for (delta only).
    #[must_use]
    pub fn aliases(mut self, aliases: impl IntoIterator<Item = Arc<str>>) -> Self {
        self.aliases.extend(aliases);
        self
    }

    /// Leaves the resource out of the wildcard: only who names it gets it.
    #[must_use]
    pub fn on_demand(mut self) -> Self {
        self.on_demand = true;
        self
    }

    /// Wipes the bytes from memory when nobody has them any more, and lets nobody quote them.
    #[must_use]
    pub fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Encodes the resource.
    #[must_use]
    pub fn build(self) -> Resource {
        let any_len = self.message.map(|message| field_len(self.type_url.len()) + field_len(message.len()));
        let mut any = Vec::with_capacity(any_len.unwrap_or(0));
        if let Some(message) = self.message {
            put_field(&mut any, ANY_TYPE_URL, self.type_url.as_bytes());
            put_field(&mut any, ANY_VALUE, message);
        }
        let ttl = self.ttl.map(encode_duration);
        let version = content_version(&any, ttl.as_deref(), &self.aliases, self.on_demand);

        let prefix_len = inner_len(&self.name, ttl.as_deref(), &self.aliases);
        let inner = prefix_len + any_len.map_or(0, field_len);
        let mut chunk = Vec::with_capacity(field_len(inner));
        put_header(&mut chunk, TAG_RESOURCES, inner);
        put_inner(&mut chunk, &self.name, version, ttl.as_deref(), &self.aliases);
        let any_field = chunk.len();
        if self.message.is_some() {
            put_field(&mut chunk, TAG_RESOURCES, &any);
        }
        let any_start = chunk.len() - any.len();
        let body = chunk.len() - self.message.map_or(0, <[u8]>::len);
        let wrapped = ttl.is_some().then(|| wrap(&chunk));
        if self.secret {
            any.zeroize();
        }
        Resource {
            name: self.name,
            version,
            ttl: self.ttl,
            aliases: self.aliases,
            on_demand: self.on_demand,
            secret: self.secret,
            chunk: if self.secret { Bytes::from_owner(Zeroizing::new(chunk)) } else { Bytes::from(chunk) },
            any_field,
            any: any_start,
            body,
            wrapped,
        }
    }
}

/// A time to live or an alias that changes must reach the client, so both are content. So is being part of
/// the wildcard: who follows it must hear of a resource that leaves it. Without any of them the version is
/// the plain hash of the `Any`.
fn content_version(any: &[u8], ttl: Option<&[u8]>, aliases: &[Arc<str>], on_demand: bool) -> Version {
    if ttl.is_none() && aliases.is_empty() && !on_demand {
        return Version::of_any(any);
    }
    let mut hasher = Xxh3::new();
    hasher.update(any);
    if on_demand {
        hasher.update(&[ON_DEMAND]);
    }
    if let Some(ttl) = ttl {
        hasher.update(&[RESOURCE_TTL]);
        hasher.update(ttl);
    }
    for alias in aliases {
        hasher.update(&[RESOURCE_ALIASES]);
        hasher.update(&(alias.len() as u64).to_le_bytes());
        hasher.update(alias.as_bytes());
    }
    Version(hasher.digest128())
}

/// Length of what [`put_inner`] writes.
fn inner_len(name: &str, ttl: Option<&[u8]>, aliases: &[Arc<str>]) -> usize {
    field_len(name.len())
        + field_len(32)
        + ttl.map_or(0, |ttl| field_len(ttl.len()))
        + aliases.iter().map(|alias| field_len(alias.len())).sum::<usize>()
}

/// The fields of `Resource` that come before the `Any`.
fn put_inner(out: &mut Vec<u8>, name: &str, version: Version, ttl: Option<&[u8]>, aliases: &[Arc<str>]) {
    put_field(out, RESOURCE_NAME, name.as_bytes());
    put_field(out, RESOURCE_VERSION, version.to_string().as_bytes());
    for alias in aliases {
        put_field(out, RESOURCE_ALIASES, alias.as_bytes());
    }
    if let Some(ttl) = ttl {
        put_field(out, RESOURCE_TTL, ttl);
    }
}

/// google.protobuf.Duration.
fn encode_duration(duration: Duration) -> Vec<u8> {
    let mut out = Vec::new();
    if duration.as_secs() > 0 {
        out.push(0x08);
        put_varint(&mut out, duration.as_secs());
    }
    if duration.subsec_nanos() > 0 {
        out.push(0x10);
        put_varint(&mut out, u64::from(duration.subsec_nanos()));
    }
    out
}

/// The `Resource` of a delta chunk inside an `Any`, as state-of-the-world carries it.
fn wrap(delta_chunk: &[u8]) -> Bytes {
    let resource = match wire::Fields::new(delta_chunk).next() {
        Some((_, wire::Value::Bytes(resource))) => resource,
        _ => &[],
    };
    let any_len = field_len(RESOURCE_TYPE_URL.len()) + field_len(resource.len());
    let mut out = Vec::with_capacity(field_len(any_len));
    put_header(&mut out, TAG_RESOURCES, any_len);
    put_field(&mut out, ANY_TYPE_URL, RESOURCE_TYPE_URL.as_bytes());
    put_field(&mut out, ANY_VALUE, resource);
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::Any;

    use super::*;

    /// A stand-in for envoy.service.discovery.v3.Resource, decoded by prost.
    #[derive(Clone, PartialEq, Message)]
    struct Wire {
        #[prost(string, tag = "1")]
        version: String,
        #[prost(message, optional, tag = "2")]
        resource: Option<Any>,
        #[prost(string, tag = "3")]
        name: String,
        #[prost(string, repeated, tag = "4")]
        aliases: Vec<String>,
        #[prost(message, optional, tag = "6")]
        ttl: Option<prost_types::Duration>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Delta {
        #[prost(message, repeated, tag = "2")]
        resources: Vec<Wire>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Sotw {
        #[prost(message, repeated, tag = "2")]
        resources: Vec<Any>,
    }

    fn delta(chunk: Bytes) -> Wire {
        Delta::decode(chunk).unwrap().resources.remove(0)
    }

    #[test]
    fn one_buffer_serves_both_protocols() {
        for size in [0, 1, 100, 127, 128, 20_000] {
            let body = vec![7; size];
            let resource = Resource::of(XdsType::Cds, "c1", &body);
            let wire = delta(resource.delta_chunk());
            assert_eq!((wire.name.as_str(), wire.version), ("c1", resource.version().to_string()));
            let any = wire.resource.unwrap();
            assert_eq!((any.type_url.as_str(), &any.value), (XdsType::Cds.type_url(), &body));
            assert_eq!(Sotw::decode(resource.sotw_chunk()).unwrap().resources, std::slice::from_ref(&any));
            assert_eq!(Any::decode(resource.any()).unwrap(), any);
            assert_eq!(resource.body(), body);
            assert_eq!(resource.version(), Version(xxh3_128(&resource.any())));
            assert_eq!(resource.sotw_chunk().as_ptr_range().end, resource.delta_chunk().as_ptr_range().end);
        }
    }

    #[test]
    fn version_text_is_stable_and_parses() {
        let version = Resource::of(XdsType::Cds, "a", b"x").version();
        assert_eq!(version, Resource::of(XdsType::Cds, "b", b"x").version());
        assert_ne!(version, Resource::of(XdsType::Cds, "a", b"y").version());
        assert_eq!(version.to_string().len(), 32);
        assert_eq!(Version::parse(&version.to_string()), Some(version));
        assert_eq!(Version::parse("1"), None);
        assert_eq!(Version(1).to_string(), "00000000000000000000000000000001");
    }

    #[test]
    fn time_to_live_and_aliases_are_content() {
        let plain = Resource::of(XdsType::Vhds, "a", b"x");
        let url = XdsType::Vhds.type_url();
        let timed = Resource::builder(url, "a", b"x").ttl(Duration::from_millis(1500)).build();
        let named = Resource::builder(url, "a", b"x").aliases([Arc::from("b"), Arc::from("c")]).build();
        assert_ne!(plain.version(), timed.version());
        assert_ne!(plain.version(), named.version());
        let wire = delta(timed.delta_chunk());
        assert_eq!(wire.ttl, Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }));
        assert_eq!(delta(named.delta_chunk()).aliases, ["b", "c"]);

        let wrapped = Sotw::decode(timed.sotw_chunk()).unwrap().resources.remove(0);
        assert_eq!(wrapped.type_url, RESOURCE_TYPE_URL);
        assert_eq!(Wire::decode(wrapped.value.as_slice()).unwrap(), wire);

        let heartbeat = delta(timed.heartbeat_chunk());
        assert_eq!((heartbeat.resource, heartbeat.ttl, heartbeat.version), (None, wire.ttl, wire.version));
    }

    #[test]
    fn without_body_has_name_and_aliases_only() {
        let resource = Resource::without_body("r/a", vec![Arc::from("r/b")]);
        let wire = delta(resource.delta_chunk());
        assert_eq!((wire.name.as_str(), wire.aliases.as_slice()), ("r/a", &["r/b".to_owned()][..]));
        assert!(wire.resource.is_none() && !resource.has_body() && resource.body().is_empty());
        assert!(resource.sotw_chunk().is_empty());
    }

    #[test]
    fn debug_does_not_show_the_body() {
        let resource = Resource::of(XdsType::Sds, "key", b"SECRET");
        assert!(!format!("{resource:?}").contains("SECRET"));
        assert!(!format!("{resource:?}").contains("83, 69"));
    }
}
