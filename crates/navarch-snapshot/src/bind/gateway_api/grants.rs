//! References across namespaces: who may refer to what.

use navarch_model::Name;
use navarch_model::gateway_api::{ReferenceGrant, ReferenceGrantFrom, ReferenceGrantTo};

use crate::registry::store::{Input, Reader};

/// A reference from an object to one of another namespace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reference<'a> {
    /// API group and kind of the object that refers.
    pub from: (&'a str, &'a str),
    pub from_namespace: &'a str,
    pub to: Referent<'a>,
}

/// What is referred to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Referent<'a> {
    pub group: &'a str,
    pub kind: &'a str,
    pub namespace: &'a Name,
    pub name: &'a str,
}

/// Whether the namespace that is referred to allows it by a ReferenceGrant, or it is the same.
pub(crate) fn granted(reader: &Reader<'_>, reference: &Reference<'_>) -> bool {
    let Reference { from, from_namespace, to } = reference;
    if **to.namespace == **from_namespace {
        return true;
    }
    let allows = |grant: &ReferenceGrant| {
        grant.from.iter().any(|stated| {
            let ReferenceGrantFrom { group, kind, namespace } = stated;
            (group.as_str(), kind.as_str()) == *from && **namespace == **from_namespace
        }) && grant.to.iter().any(|stated| {
            let ReferenceGrantTo { group, kind, name } = stated;
            (group.as_str(), kind.as_str()) == (to.group, to.kind)
                && name.as_ref().is_none_or(|name| name.is_empty() || **name == *to.name)
        })
    };
    let mut grants = reader.members(&Input::Grants(to.namespace.clone()));
    grants.any(|grant| grant.spec::<ReferenceGrant>().is_some_and(|grant| allows(grant)))
}
