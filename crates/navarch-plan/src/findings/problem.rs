//! Findings about objects, before they have a place.

use navarch_model::ObjectKey;
use navarch_model::finding::Finding;

/// A finding whose place in the files is not looked up yet: objects move in their files without changing.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    pub key: ObjectKey,
    pub path: String,
    pub finding: Finding,
}
