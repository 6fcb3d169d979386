//! One text as a source: standard input, a file that is named by itself.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;

use navarch_model::parse_bytes;

use crate::source::{Batch, Settled, Source, SourceError, Update};

/// A text that does not change any more.
pub struct Text {
    name: String,
    bytes: Option<Vec<u8>>,
}

impl Text {
    /// A text and what positions call it.
    pub fn new(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        Text { name: name.into(), bytes: Some(bytes) }
    }
}

impl Source for Text {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn changed(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(pending())
    }

    fn settled(&self) -> Settled {
        Settled::Edit
    }

    fn read(&mut self) -> Result<Batch, SourceError> {
        let place = Arc::from(std::path::Path::new(&self.name));
        let parsed = self.bytes.take().map(|bytes| parse_bytes(&self.name, &bytes));
        let places = parsed.into_iter().map(|parsed| (Arc::clone(&place), Update::Says(parsed))).collect();
        Ok(Batch { places, ..Batch::default() })
    }
}
