//! The state directory: the files that must outlive the process.
//!
//! Every change is one atomic step. A file is written beside its place, brought to the disk and then moved
//! there, so that a crash leaves the old contents or the new ones. Nobody but the owner may look into the
//! directory.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::secret::Secret;

/// Bytes of one file. All that is kept is small; more is a mistake or an attack.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// Which process serves from the directory.
const LOCK: &str = "serve.lock";

/// What a file is called until it is complete.
const UNFINISHED: &str = ".new";

/// Numbers what this process writes.
static CALLS: AtomicU64 = AtomicU64::new(0);

/// Why the state cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{path} may be entered by others (mode {mode:03o}); it holds private keys: chmod 700 {path}")]
    DirectoryOpen { path: PathBuf, mode: u32 },
    #[error("{path} may be read by others (mode {mode:03o}); it holds a secret: chmod 600 {path}")]
    FileOpen { path: PathBuf, mode: u32 },
    #[error("{path} belongs to user {owner}, and this is user {user}")]
    Owner { path: PathBuf, owner: u32, user: u32 },
    #[error("{path} is not there; `navarch serve --state` makes it")]
    Absent { path: PathBuf },
    #[error("{path} is not a directory")]
    NotADirectory { path: PathBuf },
    #[error("{path} has {bytes} bytes, more than the {FILE_BYTES_MAX} that a file of the state may have")]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error("another navarch serves from {path}; every server needs a state directory of its own")]
    InUse { path: PathBuf },
    #[error("cannot {doing} {path}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// How a directory was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It was not there, and has been made.
    Created,
    /// It was there, without a file in it.
    Empty,
    /// It was there and holds something.
    Used,
}

/// A directory that only its owner may enter.
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    found: Found,
    #[cfg(test)]
    pub(crate) power: power::Power,
}

impl StateDirectory {
    /// Opens the directory, or makes it if it is not there.
    ///
    /// # Errors
    /// If others may enter it, or it cannot be used.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let found = match fs::metadata(path) {
            Ok(metadata) if !metadata.is_dir() => {
                return Err(StoreError::NotADirectory { path: path.to_owned() });
            }
            Ok(metadata) => {
                check_owner(path, &metadata)?;
                let mode = metadata.permissions().mode() & 0o777;
                if mode & 0o077 != 0 {
                    return Err(StoreError::DirectoryOpen { path: path.to_owned(), mode });
                }
                let mut entries = fs::read_dir(path).map_err(|source| io_error("list", path, source))?;
                if entries.next().is_none() { Found::Empty } else { Found::Used }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
                made.map_err(|source| io_error("make the directory", path, source))?;
                Found::Created
            }
            Err(source) => return Err(io_error("open", path, source)),
        };
        Ok(StateDirectory {
            path: path.to_owned(),
            found,
            #[cfg(test)]
            power: power::Power::default(),
        })
    }

    /// Opens a directory that is there.
    ///
    /// # Errors
    /// If it is not there, others may enter it, or it cannot be used.
    pub fn open_existing(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::Absent { path: path.to_owned() });
        }
        Self::open(path)
    }

    /// How the directory was found when it was opened.
    #[must_use]
    pub fn found(&self) -> Found {
        self.found
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Claims the directory for one server, for as long as the answer lives.
    ///
    /// # Errors
    /// If another process has claimed it.
    pub fn lock(&self) -> Result<Lock, StoreError> {
        let path = self.path.join(LOCK);
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(|source| io_error("open", &path, source))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: self.path.clone() }),
            Err(TryLockError::Error(source)) => Err(io_error("lock", &path, source)),
        }
    }

    /// The contents of a file, `None` if there is none.
    ///
    /// # Errors
    /// If others may read it, it is too large or cannot be read.
    pub fn read(&self, name: &str) -> Result<Option<Secret>, StoreError> {
        let path = self.path.join(name);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io_error("open", &path, source)),
        };
        let metadata = file.metadata().map_err(|source| io_error("look at", &path, source))?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(StoreError::FileOpen { path, mode });
        }
        read_limited(&mut file, &path).map(Some)
    }

    /// Whether a file is there.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.path.join(name).exists()
    }

    /// Writes a file, in place of the one that may be there. It is on the disk when this returns.
    ///
    /// # Errors
    /// If it cannot be written. Then the old contents are still there.
    pub fn replace(&self, name: &str, contents: &[u8]) -> Result<(), StoreError> {
        let (path, unfinished) = (self.path.join(name), self.write_unfinished(name, contents)?);
        self.step(&path)?;
        fs::rename(&unfinished, &path).map_err(|source| io_error("move into place", &path, source))?;
        self.sync_directory(&path)
    }

    /// Writes a file unless there is one of that name; whether it did. Of several that try at once, one
    /// succeeds.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn create(&self, name: &str, contents: &[u8]) -> Result<bool, StoreError> {
        let (path, unfinished) = (self.path.join(name), self.write_unfinished(name, contents)?);
        self.step(&path)?;
        // A link fails where there is something, which moving does not.
        let linked = fs::hard_link(&unfinished, &path);
        let _ = fs::remove_file(&unfinished);
        match linked {
            Ok(()) => self.sync_directory(&path).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(source) => Err(io_error("make", &path, source)),
        }
    }

    /// Removes a file; nothing happens if there is none.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.path.join(name);
        self.step(&path)?;
        match fs::remove_file(&path) {
            Ok(()) => self.sync_directory(&path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(io_error("remove", &path, source)),
        }
    }

    /// Adds a line to a file that only grows. It is on the disk when this returns.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn append(&self, name: &str, line: &str) -> Result<(), StoreError> {
        let path = self.path.join(name);
        self.step(&path)?;
        let write = || {
            let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
            // One write, so that the lines of two processes do not mix.
            file.write_all(format!("{line}\n").as_bytes())?;
            file.sync_data()
        };
        write().map_err(|source| io_error("append to", &path, source))
    }

    /// The names of the complete files in a directory below, in order; none if the directory is not there.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub fn list(&self, directory: &str) -> Result<Vec<String>, StoreError> {
        let path = self.path.join(directory);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(io_error("list", &path, source)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|source| io_error("list", &path, source))?;
            names.extend(entry.file_name().to_str().filter(|name| !is_unfinished(name)).map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    fn write_unfinished(&self, name: &str, contents: &[u8]) -> Result<PathBuf, StoreError> {
        let path = self.path.join(name);
        let parent = path.parent().unwrap_or(&self.path);
        if parent != self.path {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
            made.map_err(|source| io_error("make the directory", parent, source))?;
            self.sync_directory(parent)?;
        }
        let file_name = path.file_name().and_then(OsStr::to_str).unwrap_or(name);
        // Of its own for every process and every call, so that two do not write into one.
        let (process, call) = (std::process::id(), CALLS.fetch_add(1, Ordering::Relaxed));
        let unfinished = parent.join(format!(".{file_name}.{process}-{call}{UNFINISHED}"));
        self.step(&unfinished)?;
        let write = || {
            let _ = fs::remove_file(&unfinished);
            let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&unfinished)?;
            file.write_all(contents)?;
            file.sync_all()
        };
        write().map_err(|source| io_error("write", &unfinished, source))?;
        Ok(unfinished)
    }

    /// Brings the name of a file to the disk.
    fn sync_directory(&self, path: &Path) -> Result<(), StoreError> {
        self.step(path)?;
        let parent = path.parent().unwrap_or(&self.path);
        let sync = || File::open(parent)?.sync_all();
        sync().map_err(|source| io_error("bring to the disk", parent, source))
    }

    /// A moment at which a crash is tried in tests.
    fn step(&self, path: &Path) -> Result<(), StoreError> {
        #[cfg(test)]
        if self.power.is_out() {
            return Err(io_error("write without power to", path, io::Error::other("no power")));
        }
        let _ = path;
        Ok(())
    }
}

/// A claim on a directory; it ends with the process at the latest.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Reads a file that is not part of a state directory, such as a certificate that an operator provides.
///
/// # Errors
/// If it is too large or cannot be read.
pub fn read_file(path: &Path) -> Result<Secret, StoreError> {
    let mut file = File::open(path).map_err(|source| io_error("open", path, source))?;
    read_limited(&mut file, path)
}

fn read_limited(file: &mut File, path: &Path) -> Result<Secret, StoreError> {
    let mut bytes = Vec::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    let secret = Secret::new(bytes);
    read.map_err(|source| io_error("read", path, source))?;
    let bytes = secret.expose().len() as u64;
    if bytes > FILE_BYTES_MAX {
        return Err(StoreError::TooLarge { path: path.to_owned(), bytes });
    }
    Ok(secret)
}

fn is_unfinished(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(UNFINISHED)
}

/// Root may use what belongs to others; anybody else who finds a directory of another user was led there.
fn check_owner(path: &Path, metadata: &fs::Metadata) -> Result<(), StoreError> {
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner == user || user == 0 {
        return Ok(());
    }
    Err(StoreError::Owner { path: path.to_owned(), owner, user })
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { doing, path: path.to_owned(), source }
}

/// A crash, for tests: after so many steps nothing is written any more.
#[cfg(test)]
pub(crate) mod power {
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Debug)]
    pub struct Power(AtomicUsize);

    impl Default for Power {
        fn default() -> Self {
            Power(AtomicUsize::new(usize::MAX))
        }
    }

    impl Power {
        /// The power goes out after so many steps.
        pub fn lasts(&self, steps: usize) {
            self.0.store(steps, Ordering::Relaxed);
        }

        pub fn is_out(&self) -> bool {
            let left = self.0.load(Ordering::Relaxed);
            if left != usize::MAX && left > 0 {
                self.0.store(left - 1, Ordering::Relaxed);
            }
            left == 0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> StateDirectory {
        StateDirectory::open(path).expect("a directory")
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("metadata").permissions().mode() & 0o777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    }

    #[test]
    fn only_the_owner_gets_in() {
        let temp = tempfile::tempdir().expect("a directory");
        let path = temp.path().join("a/b");
        let state = open(&path);
        assert_eq!(state.found(), Found::Created);
        assert_eq!(open(&path).found(), Found::Empty);
        state.replace("keys/one", b"secret").expect("written");
        state.append("audit.jsonl", "{}").expect("written");
        assert_eq!(open(&path).found(), Found::Used);
        for (name, expected) in [("", 0o700), ("keys", 0o700), ("keys/one", 0o600), ("audit.jsonl", 0o600)] {
            assert_eq!(mode(&path.join(name)), expected, "{name}");
        }
        set_mode(&path.join("keys/one"), 0o640);
        let error = state.read("keys/one").expect_err("others may read it");
        assert!(error.to_string().contains("mode 640"), "{error}");
        set_mode(&path, 0o750);
        let error = StateDirectory::open(&path).expect_err("others may enter");
        assert!(error.to_string().contains("chmod 700"), "{error}");
    }

    #[test]
    fn what_cannot_be_a_state_is_refused() {
        let temp = tempfile::tempdir().expect("a directory");
        let absent = temp.path().join("absent");
        assert!(matches!(StateDirectory::open_existing(&absent), Err(StoreError::Absent { .. })));
        assert!(!absent.exists());
        let file = temp.path().join("file");
        fs::write(&file, "x").expect("written");
        assert!(matches!(StateDirectory::open(&file), Err(StoreError::NotADirectory { .. })));
        let state = open(&temp.path().join("state"));
        state.replace("large", &vec![0; FILE_BYTES_MAX as usize + 1]).expect("written");
        assert!(matches!(state.read("large"), Err(StoreError::TooLarge { .. })));
        assert!(state.read("absent").expect("no error").is_none());
    }

    #[test]
    fn one_server_has_a_directory() {
        let temp = tempfile::tempdir().expect("a directory");
        let state = open(&temp.path().join("state"));
        let lock = state.lock().expect("a lock");
        let other = open(state.path());
        assert!(matches!(other.lock(), Err(StoreError::InUse { .. })));
        drop(lock);
        assert!(other.lock().is_ok());
    }

    #[test]
    fn a_file_is_made_once() {
        let temp = tempfile::tempdir().expect("a directory");
        let state = open(&temp.path().join("state"));
        assert!(state.create("used/a", b"1").expect("written"));
        assert!(!state.create("used/a", b"2").expect("no error"));
        assert_eq!(state.read("used/a").expect("read").expect("there").expose(), b"1");
        assert_eq!(state.list("used").expect("listed"), ["a"]);
    }

    #[test]
    fn a_crash_leaves_the_old_contents_or_the_new_ones() {
        let temp = tempfile::tempdir().expect("a directory");
        let path = temp.path().join("state");
        open(&path).replace("file", b"old").expect("written");
        let mut seen = Vec::new();
        for steps in 0..10 {
            let state = open(&path);
            state.power.lasts(steps);
            let done = state.replace("file", b"new");
            let contents = open(&path).read("file").expect("read").expect("there").expose().to_vec();
            assert!(contents == b"old" || contents == b"new", "{contents:?}");
            assert!(done.is_err() || contents == b"new", "what is reported as written is there");
            assert_eq!(open(&path).list("").expect("listed"), ["file"], "unfinished files do not show");
            seen.push(contents == b"new");
            open(&path).replace("file", b"old").expect("written");
        }
        assert!(seen.contains(&false) && seen.contains(&true), "{seen:?}");
    }
}
