//! Text to nodes.

use std::sync::Arc;

use super::node::Document;

/// Limits on what one text may expand to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Nesting of mappings and sequences.
    pub depth: usize,
    /// Nodes, with those that aliases repeat.
    pub nodes: usize,
    /// Bytes of text.
    pub bytes: usize,
}

/// A place where the text is not YAML, or too much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    pub line: u32,
    pub column: u32,
    pub message: String,
}

/// Reads all documents of a text.
pub fn parse(text: &str, budget: Budget) -> (Vec<Document>, Vec<SyntaxError>) {
    let _ = (budget, Arc::<str>::from(text));
    (Vec::new(), Vec::new())
}
