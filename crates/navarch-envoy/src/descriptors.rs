//! Descriptors of the messages of the API, for messages without generated types.

use std::sync::OnceLock;

use prost_reflect::{DescriptorPool, MessageDescriptor};

/// The encoded `FileDescriptorSet` of the whole API, as a gRPC reflection service serves it.
pub static DESCRIPTORS: &[u8] = include_bytes!("../descriptors.binpb");

/// Descriptors of every message of the API.
pub fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    // The set is part of the program, and a test decodes it: an empty pool cannot happen in a program that
    // was tested.
    POOL.get_or_init(|| DescriptorPool::decode(DESCRIPTORS).unwrap_or_default())
}

/// The descriptor of a message, by full name or type URL.
pub fn descriptor(name_or_url: &str) -> Option<MessageDescriptor> {
    let name = name_or_url.rsplit_once('/').map_or(name_or_url, |(_, name)| name);
    pool().get_message_by_name(name)
}
