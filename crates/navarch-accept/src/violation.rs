//! What the model has to say about a resource.

use std::fmt;

/// One reason for which Envoy would refuse a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Where in the message, with the names of the `.proto` files:
    /// `filter_chains[0].filters[1].typed_config.stat_prefix`. Empty for the message itself.
    pub path: String,
    /// What kind of rule it is.
    pub rule: Rule,
    /// What is wrong, as a clause without a full stop: "is empty, but must have at least 1 character".
    pub words: String,
}

/// The kinds of what Envoy insists on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// The bytes are not a message of their type.
    Encoding,
    /// A constraint that the API's definition carries.
    Constraint,
    /// An extension that stock Envoy does not have, or not in this place.
    Extension,
    /// Something that Envoy's code insists on: the order of filters, unique names.
    Structure,
    /// Text in a language of its own: a regular expression, a format string.
    Content,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, rule: _, words } = self;
        if path.is_empty() { f.write_str(words) } else { write!(f, "`{path}` {words}") }
    }
}
