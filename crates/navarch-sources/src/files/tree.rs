//! Reading a directory tree: which files there are, and which have changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::ops::Bound;
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
    /// Some file or directory is a symlink.
    links: bool,
}

/// Where something may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Anywhere.
    Anywhere,
    /// At these paths, and nowhere else.
    Paths(BTreeSet<PathBuf>),
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
    /// A tree about which nothing is known yet.
    pub fn new(root: PathBuf) -> Self {
        Tree { root, files: BTreeMap::new(), unreadable: BTreeSet::new(), links: false }
    }

    /// Looks at what the hint names, or at every file if the hint does not suffice.
    ///
    /// # Errors
    /// If the root cannot be listed; what was known stays known.
    pub fn look(&mut self, hint: &Hint) -> io::Result<Rescan> {
        match self.files_of(hint) {
            Some(paths) => Ok(self.rescan_files(&paths)),
            None => self.rescan(),
        }
    }

    /// The files a hint is about; `None` if they cannot be told without a rescan: directories come and go,
    /// and a symlink changes with a target that may have another path.
    fn files_of(&self, hint: &Hint) -> Option<Vec<PathBuf>> {
        let Hint::Paths(paths) = hint else { return None };
        if self.links || !self.unreadable.is_empty() {
            return None;
        }
        let mut files = Vec::new();
        for path in paths {
            let relative = path.strip_prefix(&self.root).ok()?;
            // Without symlinks nothing hidden is read: editors' temporary files, `.git`.
            if is_hidden(relative) {
                continue;
            }
            match fs::symlink_metadata(path) {
                Ok(metadata) if !metadata.is_file() => return None,
                Err(_) if self.was_directory(relative) => return None,
                _ if !is_configuration(relative) => continue,
                _ => {}
            }
            files.push(relative.to_owned());
        }
        Some(files)
    }

    /// Whether there were files below a path. They come next in the order of paths.
    fn was_directory(&self, path: &Path) -> bool {
        let after = (Bound::Excluded(path), Bound::Unbounded);
        self.files.range::<Path, _>(after).next().is_some_and(|(file, _)| file.starts_with(path))
    }

    fn rescan_files(&mut self, paths: &[PathBuf]) -> Rescan {
        let mut rescan = Rescan::default();
        for path in paths {
            match found(&self.root.join(path)) {
                Ok(stamp) => self.reread(path.clone(), stamp, &mut rescan),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if self.files.remove(path).is_some() {
                        rescan.removed.insert(path.clone());
                    }
                }
                Err(error) => {
                    rescan.unreadable.insert(path.clone(), error.to_string());
                }
            }
        }
        self.unreadable = rescan.unreadable.keys().cloned().collect();
        rescan
    }

    /// Looks at every file and reads those that may have changed.
    ///
    /// # Errors
    /// If the root cannot be listed; what was known stays known.
    pub fn rescan(&mut self) -> io::Result<Rescan> {
        let mut listing = Listing::default();
        listing.directory(&self.root, Path::new(""), 0)?;
        let mut rescan = Rescan { unreadable: listing.unreadable, ..Rescan::default() };
        self.links = listing.links;
        for (path, stamp) in listing.files {
            self.reread(path, stamp, &mut rescan);
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

    /// Reads a file unless it surely is what it was.
    fn reread(&mut self, path: PathBuf, stamp: Stamp, rescan: &mut Rescan) {
        let known = self.files.get(&path);
        if known.is_some_and(|known| known.stamp == stamp && !known.racy) {
            return;
        }
        // Taken before reading: what is written meanwhile must not look older than what was read.
        let racy = is_racy(&stamp, SystemTime::now());
        match read(&stamp) {
            Ok(text) => {
                let content = Fingerprint::of(&text);
                if known.is_none_or(|known| known.content != content) || self.unreadable.contains(&path) {
                    rescan.changed.insert(path.clone(), text.into());
                }
                self.files.insert(path, Known { stamp, racy, content });
            }
            Err(error) => {
                rescan.unreadable.insert(path, error.to_string());
            }
        }
    }
}

/// The text of a file.
///
/// # Errors
/// If it is not there, too large, or not text.
pub(super) fn read_file(path: &Path) -> io::Result<String> {
    read(&found(path)?)
}

/// Identifies a file that is there.
fn found(path: &Path) -> io::Result<Stamp> {
    let metadata = fs::metadata(path)?;
    Ok(Stamp { modified: metadata.modified().ok(), bytes: metadata.len(), target: fs::canonicalize(path)? })
}

fn is_hidden(relative: &Path) -> bool {
    relative.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."))
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
    links: bool,
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
            // Hidden entries are editors' swap files, `.git`, and the `..data` directories behind mounted
            // ConfigMaps.
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            self.links |= entry.file_type()?.is_symlink();
            self.entry(&entry.path(), &relative.join(&name), depth);
        }
        self.ancestors.pop();
        Ok(())
    }

    fn entry(&mut self, path: &Path, relative: &Path, depth: usize) {
        let looked = fs::canonicalize(path).and_then(|target| Ok((fs::metadata(&target)?, target)));
        match looked {
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

    fn hint(root: &Path, paths: &[&str]) -> Hint {
        Hint::Paths(paths.iter().map(|path| root.join(path)).collect())
    }

    #[test]
    fn a_hint_is_enough_for_plain_files() {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = dir.path();
        let mut tree = Tree::new(root.to_owned());
        write(root, "a.yaml", "1");
        write(root, "b.yaml", "1");
        check(&mut tree, "a.yaml b.yaml", "");
        write(root, "a.yaml", "2");
        write(root, "b.yaml", "2");
        let looked = tree.look(&hint(root, &["a.yaml", ".a.yaml.swp", "notes.txt"])).expect("readable");
        assert_eq!(names(&looked), ("a.yaml".to_owned(), String::new()), "b.yaml was not looked at");
        fs::remove_file(root.join("a.yaml")).expect("removed");
        let looked = tree.look(&hint(root, &["a.yaml"])).expect("readable");
        assert_eq!(names(&looked), (String::new(), "a.yaml".to_owned()));
    }

    #[test]
    fn a_directory_that_comes_or_goes_needs_a_rescan() {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = dir.path();
        let mut tree = Tree::new(root.to_owned());
        write(root, "sub/a.yaml", "1");
        let looked = tree.look(&hint(root, &["sub"])).expect("readable");
        assert_eq!(names(&looked), ("sub/a.yaml".to_owned(), String::new()));
        fs::rename(root.join("sub"), root.join("other")).expect("renamed");
        let looked = tree.look(&hint(root, &["sub", "other"])).expect("readable");
        assert_eq!(names(&looked), ("other/a.yaml".to_owned(), "sub/a.yaml".to_owned()));
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
