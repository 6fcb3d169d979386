//! Reading a configuration directory once, and what one proxy would get from it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use navarch_envoy::{StaticConfig, static_config};
use navarch_model::change::ChangeSet;
use navarch_model::endpoint::Locality;
use navarch_model::finding::{Finding, Severity};
use navarch_model::proxy::ProxyFacts;
use navarch_model::{Hashed, mesh};
use navarch_plan::{Planner, TranslationFindings};
use navarch_snapshot::world::Options;
use navarch_snapshot::{Snapshot, World};
use navarch_sources::files::{FileSource, Hint};
use serde_json::{Map, Value};

use crate::error::Error;

/// A directory as it was when it was read.
#[derive(Debug)]
pub struct Loaded {
    pub snapshot: Arc<Snapshot>,
    /// Everything that is wrong, in the order of files and lines.
    pub findings: Vec<Finding>,
}

/// Reads a directory, and the file with the MeshConfig if there is one.
///
/// # Errors
/// If the directory or the file cannot be read. What is wrong inside is a finding.
pub fn load(config: &Path, mesh_config: Option<&Path>) -> Result<Loaded, Error> {
    let mut reader = Reader::new(config, mesh_config);
    let mut world = World::new(Options::default());
    let (changes, mut findings) = reader.read(&Hint::Anywhere)?;
    let snapshot = world.apply(changes);
    findings.extend(snapshot.findings().iter().cloned());
    findings.extend(TranslationFindings::default().about(&snapshot));
    findings.sort();
    Ok(Loaded { snapshot, findings })
}

impl Loaded {
    /// The static configuration of a proxy.
    ///
    /// # Errors
    /// If the node is not one that can be served.
    pub fn render(
        &self,
        id: &str,
        cluster: &str,
        metadata: &Map<String, Value>,
        locality: Option<(&str, &str, &str)>,
    ) -> Result<StaticConfig, Error> {
        let (region, zone, sub_zone) = locality.unwrap_or_default();
        let locality = Locality { region: region.into(), zone: zone.into(), sub_zone: sub_zone.into() };
        let (facts, problems) = ProxyFacts::read(id, cluster, metadata, locality)
            .map_err(|error| Error::Node(error.to_string()))?;
        for problem in problems {
            tracing::warn!(node = id, "{problem}");
        }
        let planner = Planner::new(self.snapshot.clone());
        let plan = planner.class_plan(Arc::new(Hashed::new(planner.classify(&facts))));
        Ok(static_config(&planner.resources(&plan)))
    }
}

/// Reads the configuration directory and the mesh file, again and again.
#[derive(Debug)]
pub struct Reader {
    source: FileSource,
    config: std::path::PathBuf,
    mesh: Option<MeshFile>,
    findings: Vec<Finding>,
}

/// The file with the MeshConfig. The last good version stays in use.
#[derive(Debug)]
struct MeshFile {
    path: std::path::PathBuf,
    text: Option<String>,
    findings: Vec<Finding>,
}

impl Reader {
    /// A reader that has read nothing yet.
    pub fn new(config: &Path, mesh_config: Option<&Path>) -> Self {
        Reader {
            source: FileSource::new(config),
            config: config.to_owned(),
            mesh: mesh_config.map(|path| MeshFile {
                path: path.to_owned(),
                text: None,
                findings: Vec::new(),
            }),
            findings: Vec::new(),
        }
    }

    /// What changed since the last call, at the places of the hint, and everything that is wrong now.
    ///
    /// # Errors
    /// If the directory or the mesh file cannot be read. What was read before stays valid.
    pub fn read(&mut self, hint: &Hint) -> Result<(ChangeSet, Vec<Finding>), Error> {
        let scan =
            self.source.scan(hint).map_err(|source| Error::Read { path: self.config.clone(), source })?;
        let mut changes = scan.changes;
        if let Some(findings) = scan.findings {
            self.findings = findings;
        }
        let mut findings = self.findings.clone();
        if let Some(file) = &mut self.mesh {
            changes.mesh = file.read().map_err(|source| Error::Read { path: file.path.clone(), source })?;
            findings.extend(file.findings.iter().cloned());
        }
        findings.sort();
        Ok((changes, findings))
    }
}

impl MeshFile {
    fn read(&mut self) -> io::Result<Option<mesh::MeshSettings>> {
        let text = std::fs::read_to_string(&self.path)?;
        if self.text.as_ref() == Some(&text) {
            return Ok(None);
        }
        let (config, findings) = mesh::parse_mesh_config(&text, &self.path.display().to_string(), 1);
        let usable = findings.iter().all(|finding| finding.severity != Severity::Error);
        self.findings = findings;
        self.text = Some(text);
        // Settings that are wrong never replace settings that work; at the start there are none that work but the defaults.
        Ok(usable.then(|| mesh::MeshSettings { config, ..mesh::MeshSettings::default() }))
    }
}
