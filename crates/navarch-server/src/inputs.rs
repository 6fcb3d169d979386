//! All sources as one: when one of them may have changed, and what is different over all of them.

use std::future::poll_fn;
use std::path::Path;
use std::task::Poll;

use navarch_model::change::ChangeSet;
use navarch_model::finding::Finding;
use navarch_sources::files::{FileSource, MeshFile};
use navarch_sources::{Claims, Difference, Settled, Source, SourceError, SourceId};

use crate::debounce::Changes;

/// What the world is made from.
pub struct Inputs {
    sources: Vec<Input>,
    claims: Claims,
    findings: Vec<Finding>,
}

struct Input {
    source: Box<dyn Source>,
    /// It may have changed since it was read.
    woken: bool,
    /// It has been read as a whole.
    complete: bool,
}

impl Inputs {
    /// Inputs of which nothing has been read yet. Of equal claims to an object, the earlier source wins.
    pub fn new(sources: Vec<Box<dyn Source>>) -> Self {
        let input = |source| Input { source, woken: true, complete: false };
        Inputs {
            sources: sources.into_iter().map(input).collect(),
            claims: Claims::default(),
            findings: Vec::new(),
        }
    }

    /// What changed since the last call, and which sources could not be read; those keep what they said. Nothing changes before every
    /// source has been read as a whole.
    pub fn read(&mut self) -> (ChangeSet, Vec<SourceError>) {
        let mut errors = Vec::new();
        for (id, input) in (0..).map(SourceId).zip(&mut self.sources) {
            if !std::mem::take(&mut input.woken) {
                continue;
            }
            match input.source.read() {
                Ok(batch) => {
                    input.complete |= batch.complete;
                    self.claims.take(id, batch);
                }
                Err(error) => errors.push(error),
            }
        }
        if self.waits_for().is_some() {
            return (ChangeSet::default(), errors);
        }
        let Difference { changes, findings } = self.claims.settle();
        if let Some(findings) = findings {
            self.findings = findings;
        }
        (changes, errors)
    }

    /// The name of a source that has not been read as a whole yet.
    pub fn waits_for(&self) -> Option<String> {
        let missing = self.sources.iter().find(|input| !input.complete);
        missing.map(|input| input.source.name())
    }

    /// What is wrong with what was read last.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// What people call the sources.
    pub fn names(&self) -> String {
        let names: Vec<String> = self.sources.iter().map(|input| input.source.name()).collect();
        names.join(", ")
    }
}

impl Changes for Inputs {
    async fn changed(&mut self) {
        let mut waiting: Vec<_> =
            self.sources.iter_mut().map(|Input { source, woken, .. }| (source.changed(), woken)).collect();
        poll_fn(|context| {
            let mut any = false;
            for (changed, woken) in &mut waiting {
                if changed.as_mut().poll(context).is_ready() {
                    **woken = true;
                    any = true;
                }
            }
            if any { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn settled(&self) -> Settled {
        let woken = self.sources.iter().filter(|input| input.woken);
        woken.map(|input| input.source.settled()).max().unwrap_or_default()
    }
}

/// The sources of a directory, and of the file with the MeshConfig if there is one.
pub fn of_files(config: &Path, mesh_config: Option<&Path>) -> Vec<Box<dyn Source>> {
    let mut sources: Vec<Box<dyn Source>> = vec![Box::new(FileSource::new(config))];
    sources.extend(mesh_config.map(|path| Box::new(MeshFile::new(path)) as Box<dyn Source>));
    sources
}

/// As [`of_files`], for who follows their changes.
pub fn of_watched_files(config: &Path, mesh_config: Option<&Path>) -> Vec<Box<dyn Source>> {
    let mut sources: Vec<Box<dyn Source>> = vec![Box::new(FileSource::new(config).watched())];
    sources.extend(mesh_config.map(|path| Box::new(MeshFile::new(path).watched()) as Box<dyn Source>));
    sources
}
