//! The file with the mesh settings as a source.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use navarch_model::document::Parsed;
use navarch_model::fact::Fact;
use navarch_model::finding::Severity;
use navarch_model::mesh::{MeshSettings, parse_mesh_config};

use super::source::POLL;
use super::tree;
use super::watch::{Reach, Watch};
use crate::source::{Batch, Settled, Source, SourceError, Update};

/// A file with a MeshConfig. Settings that are wrong never replace settings that work; at the start there are
/// none that work but the defaults.
pub struct MeshFile {
    path: PathBuf,
    text: Option<String>,
    watch: Watch,
}

impl MeshFile {
    /// A source that has read nothing yet. It is watched from the first time that somebody waits for a
    /// change.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        // The directory, since editors put another file in place of the one that is there.
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let watch = Watch::new(directory.unwrap_or(Path::new(".")), Reach::Directory, POLL);
        MeshFile { path, text: None, watch }
    }

    /// A source that has read nothing yet, watched from now on.
    #[must_use]
    pub fn watched(mut self) -> Self {
        self.watch.start();
        self
    }

    fn error(&self, cause: io::Error) -> SourceError {
        SourceError { name: self.name(), cause: cause.into() }
    }
}

impl Source for MeshFile {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn changed(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.watch.changed())
    }

    fn settled(&self) -> Settled {
        self.watch.settled()
    }

    fn look_again(&mut self) {
        self.watch.look_anywhere();
    }

    fn read(&mut self) -> Result<Batch, SourceError> {
        self.watch.take_hint();
        let text = tree::read_file(&self.path).map_err(|error| self.error(error))?;
        if self.text.as_ref() == Some(&text) {
            return Ok(Batch::default());
        }
        let (config, findings) = parse_mesh_config(&text, &self.name(), 1);
        let usable = findings.iter().all(|finding| finding.severity != Severity::Error);
        self.text = Some(text);
        let settings = MeshSettings { config, ..MeshSettings::default() };
        let facts = if usable { vec![Fact::MeshConfig(Arc::new(settings))] } else { Vec::new() };
        let said = Update::Says(Parsed { findings, ..Parsed::default() });
        Ok(Batch { places: vec![(Arc::from(self.path.as_path()), said)], facts, ..Batch::default() })
    }
}
