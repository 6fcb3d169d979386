//! All sources as one: when one of them may have changed, and what is different over all of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::task::Poll;

use navarch_model::change::ChangeSet;
use navarch_model::finding::Finding;
use navarch_sources::files::{FILE_BYTES_MAX, FileSource, MeshFile, Text};
use navarch_sources::{Claims, Difference, Health, Settled, Source, SourceError, SourceId, Written};

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
    /// Inputs that have read nothing yet. Of equal claims to an object, the earlier source wins.
    pub fn new(sources: Vec<Box<dyn Source>>) -> Self {
        let repeating = (0..).map(SourceId).zip(&sources).filter(|(_, source)| source.repeats());
        let claims = Claims::repeating(repeating.map(|(id, _)| id).collect());
        let input = |source| Input { source, woken: true, complete: false };
        Inputs { sources: sources.into_iter().map(input).collect(), claims, findings: Vec::new() }
    }

    /// What changed since the last call, and which sources could not be read; those keep what they said.
    /// Nothing changes before every source has been read as a whole.
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

    /// Looks at everything of every source at the next [`Inputs::read`], whatever was reported.
    pub fn look_again(&mut self) {
        for input in &mut self.sources {
            input.source.look_again();
            input.woken = true;
        }
    }

    /// The name of a source that has not been read as a whole yet.
    pub fn waits_for(&self) -> Option<String> {
        let missing = self.sources.iter().find(|input| !input.complete);
        missing.map(|input| input.source.name())
    }

    /// How well sources are heard that may be out of reach, by name.
    pub fn healths(&self) -> Vec<(String, Health)> {
        self.sources
            .iter()
            .filter_map(|Input { source, .. }| Some((source.name(), source.health()?)))
            .collect()
    }

    /// What is wrong with what was read last.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Whether some source wants to know what became of its objects.
    pub fn wants_statuses(&mut self) -> bool {
        self.sources.iter_mut().any(|input| input.source.status_writer().is_some())
    }

    /// Gives statuses to the sources that the versions in use are from, if they want them.
    pub fn write(&mut self, statuses: Vec<Written>) {
        let mut by_source: BTreeMap<SourceId, Vec<Written>> = BTreeMap::new();
        for written in statuses {
            if let Some(source) = self.claims.source_of(&written.object) {
                by_source.entry(source).or_default().push(written);
            }
        }
        for (id, input) in (0..).map(SourceId).zip(&mut self.sources) {
            if let (Some(statuses), Some(writer)) = (by_source.get(&id), input.source.status_writer()) {
                writer.write(statuses);
            }
        }
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

    fn set_unfinished_aside(&mut self) {
        let woken = self.sources.iter_mut().filter(|input| input.woken);
        woken.for_each(|input| input.source.set_unfinished_aside());
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

/// The sources of directories, files and standard input (`-`), in this order, and of the file with the
/// MeshConfig if there is one. Positions call files as the paths do, so that editors find them.
///
/// # Errors
/// If a path cannot be read, or a file has more than [`FILE_BYTES_MAX`] bytes.
pub fn of_paths(paths: &[PathBuf], mesh_config: Option<&Path>) -> Result<Vec<Box<dyn Source>>, SourceError> {
    let of_path = |path: &PathBuf| -> io::Result<Box<dyn Source>> {
        if path.as_os_str() == "-" {
            return Ok(Box::new(Text::new("<stdin>", bytes_of(io::stdin().lock())?)));
        }
        if std::fs::metadata(path)?.is_dir() {
            return Ok(Box::new(FileSource::new(path).called(path)));
        }
        Ok(Box::new(Text::new(path.display().to_string(), bytes_of(File::open(path)?)?)))
    };
    let mut sources = Vec::new();
    for path in paths {
        let failed = |cause: io::Error| SourceError { name: path.display().to_string(), cause: cause.into() };
        sources.push(of_path(path).map_err(failed)?);
    }
    sources.extend(mesh_config.map(|path| Box::new(MeshFile::new(path)) as Box<dyn Source>));
    Ok(sources)
}

fn bytes_of(read: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// As [`of_files`], for who follows their changes. There need not be a directory where there is
/// another source.
pub fn of_watched_files(config: Option<&Path>, mesh_config: Option<&Path>) -> Vec<Box<dyn Source>> {
    let directory = config.map(|config| Box::new(FileSource::new(config).watched()) as Box<dyn Source>);
    let mut sources: Vec<_> = directory.into_iter().collect();
    sources.extend(mesh_config.map(|path| Box::new(MeshFile::new(path).watched()) as Box<dyn Source>));
    sources
}
