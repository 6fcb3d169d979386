//! Reading a directory tree: which files there are, and which have changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use navarch_model::Fingerprint;

/// Directories below the root that are looked into.
const DEPTH_MAX: usize = 32;
/// Files that are read; a tree with more is not a configuration directory.
const FILES_MAX: usize = 200_000;
/// Bytes that one file may have.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// What identifies the state of a file without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    /// A symlink that now leads to another file is another file (mounted ConfigMaps are swapped that way).
    target: PathBuf,
}

/// A file as it was last read.
#[derive(Clone, Debug)]
struct Known {
    stamp: Stamp,
    /// The file had been modified so shortly before it was read that a later write may carry the same stamp.
    racy: bool,
    content: Fingerprint,
}

/// The files of a directory tree, kept up to date by rescanning.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    files: BTreeMap<PathBuf, Known>,
    /// Files that could not be read last time: told again when they can, even with the contents from before.
    unreadable: BTreeSet<PathBuf>,
}

/// What a rescan found.
#[derive(Debug, Default)]
pub struct Rescan {
    /// Files that are new or have other contents, with their text; the path is relative to the root.
    pub changed: BTreeMap<PathBuf, Arc<str>>,
    /// Files that are no longer there.
    pub removed: BTreeSet<PathBuf>,
    /// Files that are there but could not be read.
    pub unreadable: BTreeMap<PathBuf, String>,
}

impl Tree {
    /// A tree of which nothing is known yet.
    pub fn new(root: PathBuf) -> Self {
        Tree { root, files: BTreeMap::new(), unreadable: BTreeSet::new() }
    }

    /// Looks at every file and reads those that may have changed.
    ///
    /// # Errors
    /// If the root cannot be listed; what was known stays known.
    pub fn rescan(&mut self) -> io::Result<Rescan> {
        let mut listing = Listing::default();
        listing.directory(&self.root, Path::new(""), 0)?;
        let now = SystemTime::now();
        let mut rescan = Rescan { unreadable: listing.unreadable, ..Rescan::default() };
        for (path, stamp) in listing.files {
            let known = self.files.get(&path);
            if known.is_some_and(|known| known.stamp == stamp && !known.racy) {
                continue;
            }
            match read(&stamp) {
                Ok(text) => {
                    let content = Fingerprint::of(&text);
                    if known.is_none_or(|known| known.content != content) || self.unreadable.contains(&path) {
                        rescan.changed.insert(path.clone(), text.into());
                    }
                    let racy = is_racy(&stamp, now);
                    self.files.insert(path, Known { stamp, racy, content });
                }
                Err(error) => {
                    rescan.unreadable.insert(path, error.to_string());
                }
            }
        }
        let seen = |path: &PathBuf| listing.seen.contains(path) || rescan.unreadable.contains_key(path);
        let gone: Vec<PathBuf> = self.files.keys().filter(|path| !seen(path)).cloned().collect();
        for path in gone {
            self.files.remove(&path);
            rescan.removed.insert(path);
        }
        self.unreadable = rescan.unreadable.keys().cloned().collect();
        Ok(rescan)
    }
}

fn is_racy(stamp: &Stamp, now: SystemTime) -> bool {
    let age = stamp.modified.and_then(|modified| now.duration_since(modified).ok());
    age.is_none_or(|age| age.as_secs() < 2)
}

fn read(stamp: &Stamp) -> io::Result<String> {
    if stamp.bytes > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("larger than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    let mut text = Vec::new();
    // The file may grow between the listing and here.
    fs::File::open(&stamp.target)?.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
    String::from_utf8(text).map_err(|_| io::Error::other("not UTF-8 text"))
}

/// The files found below a root.
#[derive(Default)]
struct Listing {
    files: Vec<(PathBuf, Stamp)>,
    seen: BTreeSet<PathBuf>,
    unreadable: BTreeMap<PathBuf, String>,
    /// Real paths of the directories on the way, so that a symlink to a parent ends there.
    ancestors: Vec<PathBuf>,
}

impl Listing {
    fn directory(&mut self, directory: &Path, relative: &Path, depth: usize) -> io::Result<()> {
        let real = fs::canonicalize(directory)?;
        if depth > DEPTH_MAX || self.ancestors.contains(&real) || self.files.len() >= FILES_MAX {
            return Ok(());
        }
        self.ancestors.push(real);
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            // Hidden entries are editors' swap files, `.git`, and the `..data` directories behind mounted ConfigMaps.
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            self.entry(&entry.path(), &relative.join(&name), depth);
        }
        self.ancestors.pop();
        Ok(())
    }

    fn entry(&mut self, path: &Path, relative: &Path, depth: usize) {
        let found = fs::canonicalize(path).and_then(|target| Ok((fs::metadata(&target)?, target)));
        match found {
            Ok((metadata, _)) if metadata.is_dir() => {
                if let Err(error) = self.directory(path, relative, depth + 1) {
                    self.unreadable.insert(relative.to_owned(), error.to_string());
                }
            }
            Ok((metadata, target)) if metadata.is_file() && is_configuration(relative) => {
                let stamp = Stamp { modified: metadata.modified().ok(), bytes: metadata.len(), target };
                self.seen.insert(relative.to_owned());
                self.files.push((relative.to_owned(), stamp));
            }
            Ok(_) => {}
            // Gone since the listing, or a dangling link: both are the same as not being there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                if is_configuration(relative) {
                    self.unreadable.insert(relative.to_owned(), error.to_string());
                }
            }
        }
    }
}

/// YAML and JSON files are configuration; everything else in the directory is not ours.
fn is_configuration(path: &Path) -> bool {
    path.extension().is_some_and(|extension| {
        ["yaml", "yml", "json"].iter().any(|known| extension.eq_ignore_ascii_case(known))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
        fs::write(path, text).expect("file");
    }

    fn names(rescan: &Rescan) -> (String, String) {
        let join = |paths: Vec<&PathBuf>| {
            paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ")
        };
        (join(rescan.changed.keys().collect()), join(rescan.removed.iter().collect()))
    }

    fn check(tree: &mut Tree, changed: &str, removed: &str) {
        let rescan = tree.rescan().expect("a readable root");
        assert_eq!(names(&rescan), (changed.to_owned(), removed.to_owned()));
    }

    #[test]
    fn finds_changes_by_content() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut tree = Tree::new(dir.path().to_owned());
        write(dir.path(), "a.yaml", "1");
        write(dir.path(), "sub/b.json", "1");
        write(dir.path(), "notes.txt", "not ours");
        write(dir.path(), ".hidden.yaml", "not ours");
        check(&mut tree, "a.yaml sub/b.json", "");
        check(&mut tree, "", "");
        write(dir.path(), "a.yaml", "1");
        check(&mut tree, "", "");
        write(dir.path(), "a.yaml", "2");
        check(&mut tree, "a.yaml", "");
        fs::remove_file(dir.path().join("sub/b.json")).expect("removed");
        check(&mut tree, "", "sub/b.json");
    }

    #[cfg(unix)]
    #[test]
    fn follows_the_swap_of_a_mounted_config_map() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().expect("tempdir");
        let root = dir.path();
        write(root, "..v1/a.yaml", "1");
        write(root, "..v2/a.yaml", "2");
        symlink("..v1", root.join("..data")).expect("link");
        symlink("..data/a.yaml", root.join("a.yaml")).expect("link");
        let mut tree = Tree::new(root.to_owned());
        check(&mut tree, "a.yaml", "");
        symlink("..v2", root.join("..tmp")).expect("link");
        fs::rename(root.join("..tmp"), root.join("..data")).expect("swap");
        check(&mut tree, "a.yaml", "");
        check(&mut tree, "", "");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_a_parent_ends() {
        let dir = tempfile::tempdir().expect("tempdir");
        write(dir.path(), "sub/a.yaml", "1");
        std::os::unix::fs::symlink("..", dir.path().join("sub/up")).expect("link");
        check(&mut Tree::new(dir.path().to_owned()), "sub/a.yaml", "");
    }

    #[test]
    fn a_missing_root_is_an_error_and_forgets_nothing() {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = dir.path().join("conf");
        write(&root, "a.yaml", "1");
        let mut tree = Tree::new(root.clone());
        check(&mut tree, "a.yaml", "");
        fs::rename(&root, dir.path().join("away")).expect("renamed");
        assert!(tree.rescan().is_err());
        fs::rename(dir.path().join("away"), &root).expect("renamed");
        check(&mut tree, "", "");
    }

    #[test]
    fn text_that_is_not_utf8_is_unreadable_and_keeps_what_was() {
        let dir = tempfile::tempdir().expect("tempdir");
        write(dir.path(), "a.yaml", "1");
        let mut tree = Tree::new(dir.path().to_owned());
        check(&mut tree, "a.yaml", "");
        fs::write(dir.path().join("a.yaml"), [0xff, 0xfe, 0x00]).expect("file");
        let rescan = tree.rescan().expect("a readable root");
        assert_eq!(names(&rescan), (String::new(), String::new()));
        assert_eq!(rescan.unreadable.len(), 1);
    }
}
