//! The file with the mesh settings as a source.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use navarch_model::document::Parsed;
use navarch_model::fact::Fact;
use navarch_model::finding::Severity;
use navarch_model::mesh::{MeshSettings, StatedProxyConfig, parse_mesh_config};

use super::tree::{self, Hint};
use super::watch::Reach;
use super::watched::{Reader, Watched};
use crate::source::{Batch, Update};

/// A file with a MeshConfig. Settings that are wrong never replace settings that work; at the start there are
/// none that work but the defaults.
pub type MeshFile = Watched<SettingsFile>;

/// Reads a file with a MeshConfig.
pub struct SettingsFile {
    path: PathBuf,
    text: Option<String>,
}

impl MeshFile {
    /// A source that has read nothing yet. It is watched from the first time that somebody waits for a
    /// change.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        // The directory, since editors put another file in place of the one that is there.
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new(".")).to_owned();
        let reader = SettingsFile { path: path.clone(), text: None };
        Watched::over(&path, &directory, Reach::Directory, reader)
    }
}

impl Reader for SettingsFile {
    fn read(&mut self, _hint: &Hint) -> io::Result<Batch> {
        let text = tree::read_file(&self.path)?;
        if self.text.as_ref() == Some(&text) {
            return Ok(Batch::default());
        }
        let (config, findings) = parse_mesh_config(&text, &self.path.display().to_string(), 1);
        let usable = findings.iter().all(|finding| finding.severity != Severity::Error);
        let default_config = StatedProxyConfig::of_mesh(&text);
        self.text = Some(text);
        let settings = MeshSettings { config, default_config, ..MeshSettings::default() };
        let facts = if usable { vec![Fact::MeshConfig(Arc::new(settings))] } else { Vec::new() };
        let said = Update::Says(Parsed { findings, ..Parsed::default() });
        Ok(Batch { places: vec![(Arc::from(self.path.as_path()), said)], facts, ..Batch::default() })
    }
}
