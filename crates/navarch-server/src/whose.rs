//! Which objects of a snapshot are ours to act upon, of several revisions of the control plane that share a
//! cluster.

use navarch_model::revision::LABEL;
use navarch_model::{Kind, Metadata, ObjectKey, Revision, Whose};
use navarch_snapshot::Snapshot;

/// Whether an object is ours, by its labels and those of its namespace.
pub(crate) fn is_ours(snapshot: &Snapshot, revision: &Revision, object: &ObjectKey) -> bool {
    let asked = |key: &ObjectKey| snapshot.object(key).map_or("", |object| asked(&object.metadata));
    let namespace = match &*object.namespace {
        "" => "",
        namespace => asked(&ObjectKey::new(Kind::Namespace, "", namespace)),
    };
    revision.whose(asked(object), namespace) == Whose::Ours
}

/// The revision or tag that an object names; empty if it names none.
fn asked(metadata: &Metadata) -> &str {
    metadata.labels.get(LABEL).map_or("", |asked| asked)
}
