//! What an API server said last, on disk, for a start while it is away.
//!
//! One file per part: a line per object as it was listed, then a line per change. A line that was
//! not written to its end, as when the machine stops, is left out; what it would have said is heard
//! again from the API server.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use navarch_sources::PlaceId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::read::{Reader, Told};

/// Changes that a file may have beside its objects before it is written again.
const CHANGES_MAX: usize = 10_000;

/// The first line of a file.
#[derive(Serialize, Deserialize)]
struct First {
    /// Which cluster it is of.
    cluster: String,
}

/// What a place said, or that it is gone.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    place: String,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    object: Option<&'a RawValue>,
}

/// What is kept of one part.
#[derive(Debug)]
pub(crate) struct Kept {
    path: PathBuf,
    cluster: String,
    /// Open for more changes, if the file is there and whole.
    changes: Option<File>,
    /// How many of them it has.
    count: usize,
}

/// A change to keep: what a place says, as the API server said it, or that it is gone.
pub(crate) type Change = (PlaceId, Option<Box<RawValue>>);

impl Kept {
    /// What is kept of a part in a directory, which is made on the first write.
    pub(crate) fn new(directory: &Path, cluster: &str, part: &str) -> Self {
        let name = part.replace([' ', '/'], "-");
        Kept { path: directory.join(name), cluster: cluster.to_owned(), changes: None, count: 0 }
    }

    /// What the part said last; `None` if that is not known.
    ///
    /// # Errors
    /// If the file is there and cannot be read, others may read it, or it is of another cluster.
    pub(crate) fn read(&self, reader: &Reader) -> io::Result<Option<Vec<Told>>> {
        let Some(lines) = self.lines()? else { return Ok(None) };
        let objects = lines.values().filter_map(|line| {
            let line: Line<'_> = serde_json::from_str(line).ok()?;
            reader.read(line.object?.get())
        });
        Ok(Some(objects.collect()))
    }

    /// The last line of each place that is not gone.
    fn lines(&self) -> io::Result<Option<BTreeMap<String, String>>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mode = file.metadata()?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let path = self.path.display();
            let what = format!(
                "{path} may be read by others (mode {mode:03o}); it may hold secrets: chmod 600 {path}"
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        let mut lines = BufReader::new(file).lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        match serde_json::from_str::<First>(&first) {
            Ok(first) if first.cluster == self.cluster => {}
            _ => return Err(io::Error::other(format!("it is not of cluster {}", self.cluster))),
        }
        let mut last = BTreeMap::new();
        for line in lines {
            let line = line?;
            // Only the last one may be broken.
            let Ok(Line { place, object }) = serde_json::from_str(&line) else { break };
            match object {
                Some(_) => last.insert(place, line.clone()),
                None => last.remove(&place),
            };
        }
        Ok(Some(last))
    }

    /// Whether a list is kept, and open for changes.
    pub(crate) fn is_whole(&self) -> bool {
        self.changes.is_some()
    }

    /// Begins to keep a list; what was kept before stays until it is whole.
    pub(crate) fn begin(&self) -> io::Result<Whole> {
        if let Some(directory) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let partial = self.path.with_extension("partial");
        // The mode is that of a file that is made.
        let _ = fs::remove_file(&partial);
        let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&partial)?;
        let mut whole = Whole { partial, file: BufWriter::new(file) };
        serde_json::to_writer(&mut whole.file, &First { cluster: self.cluster.clone() })?;
        whole.file.write_all(b"\n")?;
        Ok(whole)
    }

    /// From now on the list is what is kept.
    pub(crate) fn finish(&mut self, whole: Whole) -> io::Result<()> {
        let file = whole.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(&whole.partial, &self.path)?;
        (self.changes, self.count) = (Some(file), 0);
        Ok(())
    }

    /// Keeps changes. Nothing is written where no list is kept.
    pub(crate) fn change(&mut self, changes: &[Change]) -> io::Result<()> {
        let Some(file) = &mut self.changes else { return Ok(()) };
        let mut lines = Vec::new();
        for (place, object) in changes {
            write_line(&mut lines, place, object.as_deref())?;
        }
        self.count += changes.len();
        if let Err(error) = file.write_all(&lines) {
            // A line may be broken: nothing after it counts. The next list is kept whole.
            self.changes = None;
            return Err(error);
        }
        if self.count > CHANGES_MAX { self.shorten() } else { Ok(()) }
    }

    /// Writes the file without what has been said over.
    fn shorten(&mut self) -> io::Result<()> {
        self.changes = None;
        let lines = self.lines()?.unwrap_or_default();
        let mut whole = self.begin()?;
        for line in lines.into_values() {
            whole.file.write_all(line.as_bytes())?;
            whole.file.write_all(b"\n")?;
        }
        self.finish(whole)
    }
}

/// A list that is being written.
pub(crate) struct Whole {
    partial: PathBuf,
    file: BufWriter<File>,
}

impl Whole {
    /// Adds an object, as the API server said it.
    pub(crate) fn add(&mut self, place: &Path, json: &str) -> io::Result<()> {
        write_line(&mut self.file, place, Some(serde_json::from_str(json)?))
    }
}

fn write_line(to: &mut impl Write, place: &Path, object: Option<&RawValue>) -> io::Result<()> {
    let line = Line { place: place.display().to_string(), object };
    let mut text = serde_json::to_string(&line)?;
    if text.contains('\n') {
        // Between values, since in a text it would be escaped.
        text = text.replace('\n', " ");
    }
    to.write_all(text.as_bytes())?;
    to.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use navarch_model::document::WrittenIn;
    use navarch_model::{ClusterId, Kind};

    use super::*;

    fn raw(name: &str) -> Box<RawValue> {
        let text = format!("{{\"metadata\":\n{{\"name\":\"{name}\"}}}}");
        RawValue::from_string(text).expect("JSON")
    }

    fn place(name: &str) -> PlaceId {
        Path::new(&format!("Namespace/{name}")).into()
    }

    /// What a directory keeps of namespaces of a cluster.
    fn read(directory: &Path, cluster: &str) -> io::Result<Option<String>> {
        let origin = WrittenIn::Cluster { id: ClusterId::LOCAL, name: "c".into() };
        let reader = Reader { kind: Kind::Namespace, origin, revision: Default::default() };
        let told = Kept::new(directory, cluster, "Namespace").read(&reader)?;
        let names = |told: Vec<Told>| told.iter().map(|told| told.place.display().to_string()).collect();
        Ok(told.map(names).map(|names: Vec<String>| names.join(" ")))
    }

    #[test]
    fn a_list_and_its_changes_are_what_is_kept() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("kubernetes");
        assert_eq!(read(&path, "c")?, None);
        let mut kept = Kept::new(&path, "c", "Namespace");
        kept.change(&[(place("nobody"), Some(raw("nobody")))])?;
        let mut whole = kept.begin()?;
        for name in ["a", "b"] {
            whole.add(&place(name), raw(name).get())?;
        }
        assert_eq!(read(&path, "c")?, None, "not before it is whole");
        kept.finish(whole)?;
        kept.change(&[(place("a"), None), (place("c"), Some(raw("c")))])?;
        assert_eq!(read(&path, "c")?.as_deref(), Some("Namespace/b Namespace/c"));
        for _ in 0..CHANGES_MAX {
            kept.change(&[(place("b"), Some(raw("b")))])?;
        }
        assert_eq!(read(&path, "c")?.as_deref(), Some("Namespace/b Namespace/c"));
        let file = path.join("Namespace");
        assert!(std::fs::metadata(&file)?.len() < 200_000, "what has been said over is not kept");

        // The machine stops while a line is written.
        let broken = std::fs::read_to_string(&file)? + "{\"place\": \"Namespace/b";
        std::fs::write(&file, broken)?;
        assert_eq!(read(&path, "c")?.as_deref(), Some("Namespace/b Namespace/c"));
        assert!(read(&path, "another").is_err(), "of another cluster");

        fs::set_permissions(&file, fs::Permissions::from_mode(0o640))?;
        let refused = read(&path, "c").expect_err("others may read it").to_string();
        assert!(refused.contains("mode 640"), "{refused}");
        // One that is made has its own mode, whatever was left where it is written.
        fs::write(path.join("Namespace.partial"), "")?;
        let whole = kept.begin()?;
        kept.finish(whole)?;
        assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&path, "c")?.as_deref(), Some(""));
        Ok(())
    }
}
