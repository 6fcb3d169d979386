//! ReferenceGrant: which objects of other namespaces may refer to those of this one.

use crate::service::Name;
use crate::yaml::message;

message! {
    /// Who may refer to what. Gateway API: `ReferenceGrantSpec`.
    pub struct ReferenceGrant {
        from: Vec<ReferenceGrantFrom>,
        to: Vec<ReferenceGrantTo>,
    }
}

message! {
    /// Objects that refer.
    pub struct ReferenceGrantFrom {
        group: String,
        kind: String,
        namespace: Name,
    }
}

message! {
    /// Objects that are referred to, all of the kind if there is no name.
    pub struct ReferenceGrantTo {
        group: String,
        kind: String,
        name: Option<Name>,
    }
}
