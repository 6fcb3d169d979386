//! Objects from the files of a directory: the last good version of each, and what is wrong with the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use navarch_model::Span;
use navarch_model::change::ChangeSet;
use navarch_model::finding::{Code, Finding};
use navarch_model::object::{Object, ObjectKey};
use navarch_model::place::Position;

use super::tree::{Hint, Tree};

/// Reads the objects of a directory tree.
///
/// A scan sees the directory as a whole and yields one change set, however many files changed. An object whose text became
/// unreadable keeps its last good version; it is removed only when it is really gone: its file is deleted, or the file
/// is readable and no longer contains it. The cost of a change follows the size of the files that changed.
#[derive(Debug)]
pub struct FileSource {
    tree: Tree,
    files: BTreeMap<Arc<Path>, File>,
    claims: BTreeMap<ObjectKey, Claims>,
    /// Keys that more than one file claims, or that only a last good version claims.
    noteworthy: BTreeSet<ObjectKey>,
}

/// What one file contributes.
#[derive(Debug, Default)]
struct File {
    objects: Vec<Arc<Object>>,
    /// Last good versions of objects that the file still means but that cannot be read now.
    held: Vec<Arc<Object>>,
    findings: Vec<Finding>,
}

/// Versions of one object, the one in use first: what can be read goes before what is held, then paths decide. Nearly always one.
#[derive(Debug, Default)]
struct Claims(Vec<(Claim, Arc<Object>)>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    held: bool,
    path: Arc<Path>,
    position: usize,
}

impl Claims {
    fn place(&self, claim: &Claim) -> Result<usize, usize> {
        self.0.binary_search_by(|(own, _)| own.cmp(claim))
    }

    fn insert(&mut self, claim: Claim, object: Arc<Object>) {
        if let Err(place) = self.place(&claim) {
            self.0.reserve_exact(1);
            self.0.insert(place, (claim, object));
        }
    }

    fn remove(&mut self, claim: &Claim) {
        if let Ok(place) = self.place(claim) {
            self.0.remove(place);
        }
    }

    /// The version in use.
    fn used(&self) -> Option<&Arc<Object>> {
        self.0.first().map(|(_, object)| object)
    }
}

/// What a scan found.
#[derive(Debug, Default)]
pub struct Scan {
    /// What changed since the last scan; empty if nothing did.
    pub changes: ChangeSet,
    /// Everything that is wrong now, in the order of files and lines; `None` if that is as it was.
    pub findings: Option<Vec<Finding>>,
}

impl FileSource {
    /// A source that has read nothing yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        FileSource {
            tree: Tree::new(root.into()),
            files: BTreeMap::new(),
            claims: BTreeMap::new(),
            noteworthy: BTreeSet::new(),
        }
    }

    /// Reads what changed, at the places of the hint.
    ///
    /// # Errors
    /// If the directory cannot be listed. Everything read before stays valid.
    pub fn scan(&mut self, hint: &Hint) -> io::Result<Scan> {
        let rescan = self.tree.look(hint)?;
        let mut before = BTreeMap::new();
        for path in &rescan.removed {
            let Some((path, file)) = self.files.remove_entry(path.as_path()) else { continue };
            self.withdraw(&path, &file, &mut before);
        }
        for (path, text) in &rescan.changed {
            let known = self.files.remove_entry(path.as_path());
            let (path, known) = known.unwrap_or_else(|| (Arc::from(path.as_path()), File::default()));
            self.withdraw(&path, &known, &mut before);
            let file = File::read(&path, text, known);
            self.claim(&path, &file, &mut before);
            self.files.insert(path, file);
        }
        for (path, reason) in &rescan.unreadable {
            self.files.entry(Arc::from(path.as_path())).or_default().cannot_be_read(path, reason);
        }
        if before.is_empty()
            && rescan.changed.is_empty()
            && rescan.removed.is_empty()
            && rescan.unreadable.is_empty()
        {
            return Ok(Scan::default());
        }
        let changes = self.difference(before);
        Ok(Scan { changes, findings: Some(self.findings()) })
    }

    /// Removes what a file contributed, remembering in `before` what was in use.
    fn withdraw(&mut self, path: &Arc<Path>, file: &File, before: &mut InUse) {
        for (claim, object) in file.claims(path) {
            self.remember(&object.key, before);
            if let Some(claims) = self.claims.get_mut(&object.key) {
                claims.remove(&claim);
            }
        }
    }

    /// Adds what a file contributes, remembering in `before` what was in use.
    fn claim(&mut self, path: &Arc<Path>, file: &File, before: &mut InUse) {
        for (claim, object) in file.claims(path) {
            self.remember(&object.key, before);
            self.claims.entry(object.key.clone()).or_default().insert(claim, object.clone());
        }
    }

    fn remember(&self, key: &ObjectKey, before: &mut InUse) {
        if !before.contains_key(key) {
            let used = self.claims.get(key).and_then(Claims::used).cloned();
            before.insert(key.clone(), used);
        }
    }

    fn difference(&mut self, before: InUse) -> ChangeSet {
        let mut changes = ChangeSet::default();
        for (key, was) in before {
            let claims = self.claims.get(&key).map_or(&[][..], |claims| &claims.0);
            let only_one_to_read = matches!(claims, [(claim, _)] if !claim.held);
            match !claims.is_empty() && !only_one_to_read {
                true => self.noteworthy.insert(key.clone()),
                false => self.noteworthy.remove(&key),
            };
            match (was, claims.first().map(|(_, object)| object)) {
                (Some(was), Some(is)) if Arc::ptr_eq(&was, is) || was == *is => {}
                (_, Some(is)) => changes.upserts.push(is.clone()),
                (Some(_), None) => {
                    self.claims.remove(&key);
                    changes.removals.push(key);
                }
                (None, None) => {
                    self.claims.remove(&key);
                }
            }
        }
        changes
    }

    fn findings(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> =
            self.files.values().flat_map(|file| file.findings.iter().cloned()).collect();
        for claims in self.noteworthy.iter().filter_map(|key| self.claims.get(key)) {
            let mut claims = claims.0.iter();
            let Some((first, used)) = claims.next() else { continue };
            if first.held {
                findings.push(held(used));
            }
            let others = claims.filter(|(claim, _)| !claim.held);
            findings.extend(others.map(|(_, object)| duplicate(used, object)));
        }
        findings.sort();
        findings
    }
}

/// The version in use of each object that a scan touches, before the scan.
type InUse = BTreeMap<ObjectKey, Option<Arc<Object>>>;

impl File {
    fn read(path: &Path, text: &str, before: File) -> Self {
        let parsed = navarch_model::parse_text(&path.display().to_string(), text);
        let rejected: BTreeSet<ObjectKey> = parsed.rejected.into_iter().collect();
        let mut objects: Vec<_> = parsed.objects.into_iter().map(Arc::new).collect();
        // Collecting in place keeps the room of whole objects.
        objects.shrink_to_fit();
        let present: BTreeSet<&ObjectKey> = objects.iter().map(|object| &object.key).collect();
        // What could not be read at all may have been any of the file's objects.
        let meant = |key: &ObjectKey| !present.contains(key) && (parsed.incomplete || rejected.contains(key));
        let held =
            before.objects.into_iter().chain(before.held).filter(|object| meant(&object.key)).collect();
        File { objects, held, findings: parsed.findings }
    }

    /// The file is there but its contents are not to be had.
    fn cannot_be_read(&mut self, path: &Path, reason: &str) {
        let span = Span { file: path.display().to_string().into(), line: 1, column: 1 };
        self.findings = vec![
            Finding::error(Code::NotText, format!("the file cannot be read: {reason}"))
                .at(Position::from(span))
                .hint("what it held before stays in use; make it a readable UTF-8 text file, or delete it"),
        ];
    }

    /// What the file says of each object.
    fn claims<'a>(&'a self, path: &'a Arc<Path>) -> impl Iterator<Item = (Claim, &'a Arc<Object>)> {
        let readable = self.objects.iter().map(|object| (false, object));
        let held = self.held.iter().map(|object| (true, object));
        readable
            .chain(held)
            .enumerate()
            .map(|(position, (held, object))| (Claim { held, path: path.clone(), position }, object))
    }
}

fn place_of(object: &Object) -> String {
    object.position().map_or_else(|| "another place".to_owned(), |position| position.to_string())
}

fn duplicate(first: &Object, second: &Object) -> Finding {
    Finding::error(Code::DuplicateObject, format!("already defined at {}, which is used", place_of(first)))
        .at(second.position())
        .of(second.key.clone())
        .hint("remove one of the two, or give it another name")
}

fn held(object: &Object) -> Finding {
    Finding::warning(Code::LastGood, "its last good version stays in use until the file is mended")
        .at(object.position())
        .of(object.key.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn namespace(name: &str, label: &str) -> String {
        format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{v: '{label}'}}}}\n")
    }

    /// A directory and the source that reads it.
    struct Rig {
        dir: tempfile::TempDir,
        source: FileSource,
    }

    impl Rig {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("tempdir");
            let source = FileSource::new(dir.path());
            Rig { dir, source }
        }

        fn write(&self, file: &str, text: &str) -> &Self {
            fs::write(self.dir.path().join(file), text).expect("written");
            self
        }

        fn remove(&self, file: &str) -> &Self {
            fs::remove_file(self.dir.path().join(file)).expect("removed");
            self
        }

        /// `+name=label` for each upsert, `-name` for each removal; then the codes of the findings, if they were read again.
        fn scan(&mut self) -> String {
            let scan = self.source.scan(&Hint::Anywhere).expect("a readable directory");
            let label = |object: &Object| {
                object.metadata.labels.get("v").map(ToString::to_string).unwrap_or_default()
            };
            let mut words: Vec<String> = Vec::new();
            let upserts = scan.changes.upserts.iter();
            words.extend(upserts.map(|object| format!("+{}={}", object.key.name, label(object))));
            words.extend(scan.changes.removals.iter().map(|key| format!("-{}", key.name)));
            words.extend(scan.findings.into_iter().flatten().map(|finding| finding.code.to_string()));
            words.join(" ")
        }
    }

    #[test]
    fn a_state_of_the_directory_is_one_change_set() {
        let mut rig = Rig::new();
        rig.write("a.yaml", &namespace("a", "1")).write("b.yaml", &namespace("b", "1"));
        assert_eq!(rig.scan(), "+a=1 +b=1");
        assert_eq!(rig.scan(), "");
        rig.write("a.yaml", &namespace("a", "2")).remove("b.yaml").write("c.yaml", &namespace("c", "1"));
        assert_eq!(rig.scan(), "+a=2 +c=1 -b");
    }

    #[test]
    fn an_object_that_moves_to_another_file_stays() {
        let mut rig = Rig::new();
        rig.write("a.yaml", &namespace("a", "1"));
        rig.scan();
        rig.remove("a.yaml").write("b.yaml", &namespace("a", "1"));
        // Told again, because its position is another one; nothing that is read from it is.
        assert_eq!(rig.scan(), "+a=1");
    }

    #[test]
    fn broken_text_keeps_what_it_held_until_it_is_mended_or_deleted() {
        let mut rig = Rig::new();
        rig.write("a.yaml", &format!("{}---\n{}", namespace("a", "1"), namespace("b", "1")));
        rig.scan();
        rig.write("a.yaml", &format!("{}---\nkind: [", namespace("a", "2")));
        assert_eq!(rig.scan(), "+a=2 NAV0206 NAV0001", "b stays, a follows");
        rig.write("a.yaml", "{{{");
        assert_eq!(rig.scan().matches("NAV0206").count(), 2, "a and b stay");
        rig.write("a.yaml", &namespace("a", "3"));
        assert_eq!(rig.scan(), "+a=3 -b");
        rig.write("a.yaml", "{{{");
        rig.scan();
        rig.remove("a.yaml");
        assert_eq!(rig.scan(), "-a");
    }

    #[test]
    fn an_object_that_is_wrong_keeps_its_last_good_version() {
        let rule = |weight: &str| {
            format!(
                "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: r, labels: {{v: '{weight}'}}}}\n\
                 spec: {{hosts: [r], http: [{{route: [{{destination: {{host: r}}, weight: {weight}}}]}}]}}\n"
            )
        };
        let mut rig = Rig::new();
        rig.write("r.yaml", &rule("100"));
        assert_eq!(rig.scan(), "+r=100");
        rig.write("r.yaml", &rule("lots"));
        assert_eq!(rig.scan(), "NAV0206 NAV0102");
        rig.write("r.yaml", &rule("50"));
        assert_eq!(rig.scan(), "+r=50");
    }

    #[test]
    fn of_two_definitions_the_first_file_counts_and_the_second_takes_over() {
        let mut rig = Rig::new();
        rig.write("a.yaml", &namespace("n", "a")).write("b.yaml", &namespace("n", "b"));
        assert_eq!(rig.scan(), "+n=a NAV0205");
        rig.write("b.yaml", &namespace("n", "b2"));
        assert_eq!(rig.scan(), "NAV0205");
        rig.remove("a.yaml");
        assert_eq!(rig.scan(), "+n=b2");
    }

    #[test]
    fn a_file_that_is_not_text_keeps_what_it_held() {
        let mut rig = Rig::new();
        rig.write("a.yaml", &namespace("a", "1"));
        rig.scan();
        fs::write(rig.dir.path().join("a.yaml"), [0xff, 0xfe]).expect("written");
        assert_eq!(rig.scan(), "NAV0002");
        rig.write("a.yaml", &namespace("a", "1"));
        assert_eq!(rig.scan(), "", "no finding any more, and nothing to tell");
        rig.write("a.yaml", &namespace("a", "2"));
        assert_eq!(rig.scan(), "+a=2");
    }
}
