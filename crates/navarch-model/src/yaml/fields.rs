//! Which fields a type reads, so that the others need not be held.

/// What is read of a mapping. What is no mapping is read as it is.
#[derive(Clone, Copy, Debug)]
pub enum Fields {
    /// Whatever is there.
    All,
    Of(&'static [Field]),
}

/// A field that a type reads.
#[derive(Debug)]
pub struct Field {
    /// Whether a key names it.
    pub is: fn(&str) -> bool,
    /// What is read of its value.
    pub fields: fn() -> Fields,
}

impl Fields {
    /// What is read of the value of a key; `None` if nothing is.
    pub(crate) fn below(self, key: &str) -> Option<Fields> {
        match self {
            Fields::All => Some(Fields::All),
            Fields::Of(fields) => fields.iter().find(|field| (field.is)(key)).map(|field| (field.fields)()),
        }
    }
}
