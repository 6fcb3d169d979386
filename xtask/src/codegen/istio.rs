//! Messages that Istio defines itself and no package registry carries, as descriptor tables.

use prost_types::FileDescriptorProto;

/// Descriptors to add to the set.
pub fn files() -> Vec<FileDescriptorProto> {
    Vec::new()
}
