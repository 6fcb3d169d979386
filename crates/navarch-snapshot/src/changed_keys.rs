//! What differs between two maps that share most of their nodes.

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

/// Keys whose values differ, or that only one of the maps has. Nodes that the maps share are not visited.
pub(crate) fn changed_keys<'a, K: Ord, V: PartialEq>(
    after: &'a OrdMap<K, V>,
    before: &'a OrdMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    before.diff(after).map(|item| match item {
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) => key,
        DiffItem::Update { new: (key, _), .. } => key,
    })
}
