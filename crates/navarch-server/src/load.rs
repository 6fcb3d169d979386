//! Reading a configuration directory once, and what one proxy would get from it.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use navarch_envoy::{ProxyResources, StaticConfig, XdsType, static_config};
use navarch_model::Hashed;
use navarch_model::change::ChangeSet;
use navarch_model::endpoint::Locality;
use navarch_model::finding::Finding;
use navarch_model::proxy::ProxyFacts;
use navarch_plan::{Planner, TranslationFindings, presumed_fates, unmatched};
use navarch_snapshot::world::Options;
use navarch_snapshot::{Places, Snapshot, World};
use navarch_sources::Source;
use serde_json::{Map, Value};

use crate::debounce::Changes as _;
use crate::error::Error;
use crate::inputs::{self, Inputs};

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
    load_from(inputs::of_files(config, mesh_config))
}

/// As [`load`], from whatever sources that can be read as a whole at once.
///
/// # Errors
/// If a source cannot be read. What is wrong inside is a finding.
pub fn load_from(sources: Vec<Box<dyn Source>>) -> Result<Loaded, Error> {
    let mut inputs = Inputs::new(sources);
    let changes = read(&mut inputs)?;
    Ok(loaded(&inputs, changes))
}

/// As [`load_from`]; waits until every source has been read as a whole.
///
/// # Errors
/// If a source cannot be read. What is wrong inside is a finding.
pub async fn load_whole(sources: Vec<Box<dyn Source>>) -> Result<Loaded, Error> {
    let mut inputs = Inputs::new(sources);
    loop {
        let changes = read(&mut inputs)?;
        if inputs.waits_for().is_none() {
            return Ok(loaded(&inputs, changes));
        }
        inputs.changed().await;
    }
}

fn read(inputs: &mut Inputs) -> Result<ChangeSet, Error> {
    let (changes, errors) = inputs.read();
    match errors.into_iter().next() {
        Some(error) => Err(error.into()),
        None => Ok(changes),
    }
}

fn loaded(inputs: &Inputs, changes: ChangeSet) -> Loaded {
    let snapshot = World::new(Options::default()).apply(changes);
    let mut findings = inputs.findings().to_vec();
    findings.extend(snapshot.placed_findings(&mut Places::default()));
    findings.extend(TranslationFindings::default().about(&snapshot, &presumed_fates(&snapshot)));
    findings.extend(unmatched(&snapshot));
    findings.sort();
    Loaded { snapshot, findings }
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
        Ok(static_config(&*self.resources(id, cluster, metadata, locality)?))
    }

    /// What the agent of a proxy would be told before it starts Envoy: an encoded bootstrap, to be merged
    /// with the agent's own.
    ///
    /// # Errors
    /// If the node is not one that can be served.
    pub fn bootstrap(
        &self,
        id: &str,
        cluster: &str,
        metadata: &Map<String, Value>,
        locality: Option<(&str, &str, &str)>,
    ) -> Result<Bytes, Error> {
        let resources = self.resources(id, cluster, metadata, locality)?;
        let bootstrap = resources.set(XdsType::Bootstrap).iter().next().map(|resource| resource.body());
        Ok(bootstrap.unwrap_or_default())
    }

    fn resources(
        &self,
        id: &str,
        cluster: &str,
        metadata: &Map<String, Value>,
        locality: Option<(&str, &str, &str)>,
    ) -> Result<Arc<ProxyResources>, Error> {
        let (region, zone, sub_zone) = locality.unwrap_or_default();
        let locality = Locality { region: region.into(), zone: zone.into(), sub_zone: sub_zone.into() };
        let (facts, problems) = ProxyFacts::read(id, cluster, metadata, locality)
            .map_err(|error| Error::Node(error.to_string()))?;
        for problem in problems {
            tracing::warn!(node = id, "{problem}");
        }
        let planner = Planner::new(self.snapshot.clone());
        let plan = planner.class_plan(Arc::new(Hashed::new(planner.classify(&facts))));
        Ok(planner.resources(&plan))
    }
}
