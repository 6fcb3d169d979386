//! An authority that the operator provides, as files or entries of a Secret in one of two layouts.
//!
//! | Istio's | kubernetes.io/tls | |
//! |---|---|---|
//! | `ca-cert.pem` | `tls.crt` | the signing certificate; in `tls.crt` with the chain to the root behind it |
//! | `ca-key.pem` | `tls.key` | its key |
//! | `cert-chain.pem` | | what leads to the root |
//! | `root-cert.pem` | `ca.crt` | the roots |
//! | `ca-crl.pem` | `ca.crl` | revocation lists; may be absent |
//!
//! In a Secret `cert-chain.pem` may be empty or absent: nothing leads to a root that signs itself.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::CertificateDer;

use super::{Authority, Ending, LeafLife, Revoked, RevokedError, Signer, SignerError};
use crate::certificate::fingerprint;
use crate::pem::{self, PemError};
use crate::secret::Secret;
use crate::store::{StoreError, read_file};
use crate::time::Timestamp;

/// Seconds of a day.
const DAY: u64 = 86_400;

/// Where files are.
#[derive(Debug)]
enum Files {
    Directory(PathBuf),
    /// What is called so, and what it has.
    Given {
        name: PathBuf,
        entries: Entries,
    },
}

/// The entries of a Secret.
pub type Entries = BTreeMap<String, Secret>;

impl Files {
    fn has(&self, name: &str) -> bool {
        match self {
            Files::Directory(directory) => directory.join(name).exists(),
            Files::Given { entries, .. } => entries.get(name).is_some_and(|entry| !entry.expose().is_empty()),
        }
    }

    fn read(&self, name: &str) -> Result<Secret, StoreError> {
        match self {
            Files::Directory(directory) => read_file(&directory.join(name)),
            Files::Given { entries, .. } => entries.get(name).cloned().ok_or_else(|| StoreError::Io {
                doing: "open",
                path: self.path(name),
                source: io::ErrorKind::NotFound.into(),
            }),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    fn root(&self) -> &Path {
        match self {
            Files::Directory(path) | Files::Given { name: path, .. } => path,
        }
    }
}

/// Why an authority that is provided cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PluggedError {
    #[error("{directory} has neither ca-cert.pem nor tls.crt")]
    Nothing { directory: PathBuf },
    #[error("{path} is missing; beside {beside} there must be {needed}")]
    Partial { path: PathBuf, beside: &'static str, needed: String },
    #[error(transparent)]
    Read(#[from] StoreError),
    #[error("{path}: {problem}")]
    Pem { path: PathBuf, problem: PemError },
    #[error("{path}: {problem}")]
    Revoked { path: PathBuf, problem: RevokedError },
    #[error("{path}: {problem}")]
    Signer { path: PathBuf, problem: SignerError },
    #[error(
        "the roots in {path} replace those in use; proxies that trust only the old ones would refuse the new certificates. Put \
         old and new roots into it first, and take the old ones away when every proxy has the new ones"
    )]
    RootsReplaced { path: PathBuf },
}

/// The names of the files of a layout.
struct Layout {
    certificate: &'static str,
    key: &'static str,
    chain: Option<&'static str>,
    roots: &'static str,
    revoked: &'static str,
}

const ISTIO: Layout = Layout {
    certificate: "ca-cert.pem",
    key: "ca-key.pem",
    chain: Some("cert-chain.pem"),
    roots: "root-cert.pem",
    revoked: "ca-crl.pem",
};

const KUBERNETES: Layout =
    Layout { certificate: "tls.crt", key: "tls.key", chain: None, roots: "ca.crt", revoked: "ca.crl" };

impl Layout {
    /// Files that must be there, with the signing certificate.
    fn needed(&self) -> impl Iterator<Item = &'static str> {
        [Some(self.certificate), Some(self.key), self.chain, Some(self.roots)].into_iter().flatten()
    }

    /// The layout of a directory: that of `tls.crt` if there is one, as istiod decides.
    fn of(files: &Files) -> Result<&'static Layout, PluggedError> {
        let has = |name: &&str| files.has(name);
        if has(&KUBERNETES.certificate) {
            return Ok(&KUBERNETES);
        }
        [&ISTIO, &KUBERNETES]
            .into_iter()
            .find(|layout| layout.needed().any(|name| has(&name)))
            .ok_or_else(|| PluggedError::Nothing { directory: files.root().to_owned() })
    }
}

/// The contents of the files.
struct Contents {
    layout: &'static Layout,
    certificate: Secret,
    key: Secret,
    chain: Option<Secret>,
    roots: Secret,
    revoked: Option<Secret>,
}

impl Contents {
    fn read(files: &Files) -> Result<Self, PluggedError> {
        let layout = Layout::of(files)?;
        let read = |name: &'static str| match files.read(name) {
            Err(StoreError::Io { path, source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let others: Vec<_> = layout.needed().filter(|other| *other != name).collect();
                let beside = others.iter().copied().find(|other| files.has(other));
                Err(PluggedError::Partial {
                    path,
                    beside: beside.unwrap_or(layout.certificate),
                    needed: layout.needed().collect::<Vec<_>>().join(", "),
                })
            }
            read => Ok(read?),
        };
        let revoked = if files.has(layout.revoked) { Some(read(layout.revoked)?) } else { None };
        let (certificate, key) = (read(layout.certificate)?, read(layout.key)?);
        let may_lack = matches!(files, Files::Given { .. });
        let chain = layout.chain.filter(|name| !may_lack || files.has(name)).map(read).transpose()?;
        Ok(Contents { layout, certificate, key, chain, roots: read(layout.roots)?, revoked })
    }

    fn fingerprint(&self) -> String {
        let Contents { layout: _, certificate, key, chain, roots, revoked } = self;
        let pieces = [Some(certificate), Some(key), chain.as_ref(), Some(roots), revoked.as_ref()];
        // Where one file ends is part of it.
        let lengths = pieces.map(|piece| piece.map_or(0, |piece| piece.expose().len()).to_be_bytes());
        let bytes = pieces.iter().flatten().map(|piece| piece.expose());
        fingerprint(lengths.iter().map(|length| &length[..]).chain(bytes))
    }

    fn authority(&self, files: &Files, life: LeafLife, now: Timestamp) -> Result<Provided, PluggedError> {
        let Contents { layout, certificate, key, chain, roots, revoked } = self;
        let path = |name: &str| files.path(name);
        let pem = |name: &str| {
            let path = path(name);
            move |problem| PluggedError::Pem { path, problem }
        };
        let signing = pem::certificates(certificate.expose()).map_err(pem(layout.certificate))?;
        let roots = pem::certificates(roots.expose()).map_err(pem(layout.roots))?;
        let mut between: Vec<CertificateDer<'static>> = signing[1..].to_vec();
        if let (Some(name), Some(chain)) = (layout.chain, chain) {
            between.extend(pem::certificates(chain.expose()).map_err(pem(name))?);
        }
        let blame = |problem: &SignerError| match problem {
            SignerError::Key { .. } | SignerError::OtherKey { .. } => layout.key,
            SignerError::Chain { .. } => layout.chain.unwrap_or(layout.roots),
            _ => layout.certificate,
        };
        let signer = Signer::new(&signing[0], key, &between, &roots, now)
            .map_err(|problem| PluggedError::Signer { path: path(blame(&problem)), problem })?;
        let revoked = revoked.as_ref().map(|text| Revoked::read(text.expose(), &signer, &roots, now));
        let revoked = revoked
            .transpose()
            .map_err(|problem| PluggedError::Revoked { path: path(layout.revoked), problem })?;
        Ok(Provided { authority: Arc::new(Authority::new(signer, roots, life, None)), revoked })
    }
}

struct Provided {
    authority: Arc<Authority>,
    revoked: Option<Revoked>,
}

/// An authority whose files are read again when they change.
#[derive(Debug)]
pub struct Plugged {
    files: Files,
    life: LeafLife,
    /// Of the contents that were looked at last, good or not.
    seen: String,
    authority: Arc<Authority>,
    revoked: Option<Revoked>,
    /// Which end of lists was told last, and on which day.
    told: Option<(Ending, u64)>,
}

/// What came of another look at the files.
#[derive(Debug)]
pub enum Refreshed {
    Unchanged,
    /// They are in use.
    Replaced,
    /// They cannot be used, and the last good ones stay in use. Said once for the same contents.
    Kept(PluggedError),
}

impl Plugged {
    /// Whether a directory has files of an authority.
    #[must_use]
    pub fn is_in(directory: &Path) -> bool {
        Layout::of(&Files::Directory(directory.to_owned())).is_ok()
    }

    /// Reads the files of a directory.
    ///
    /// # Errors
    /// If one is missing, or they do not fit each other.
    pub fn open(directory: &Path, life: LeafLife, now: Timestamp) -> Result<Self, PluggedError> {
        Self::of(Files::Directory(directory.to_owned()), life, now)
    }

    /// Reads what somebody else has read, such as the entries of a Secret; messages call it by `name`.
    ///
    /// # Errors
    /// If something is missing, or it does not fit each other.
    pub fn given(name: &str, entries: Entries, life: LeafLife, now: Timestamp) -> Result<Self, PluggedError> {
        Self::of(Files::Given { name: name.into(), entries }, life, now)
    }

    fn of(files: Files, life: LeafLife, now: Timestamp) -> Result<Self, PluggedError> {
        let contents = Contents::read(&files)?;
        let Provided { authority, revoked } = contents.authority(&files, life, now)?;
        Ok(Plugged { files, life, seen: contents.fingerprint(), authority, revoked, told: None })
    }

    /// What was given has these entries now. Files in a directory are read when they are looked at.
    pub fn give(&mut self, given: Entries) {
        if let Files::Given { entries, .. } = &mut self.files {
            *entries = given;
        }
    }

    /// Looks at the files again. What cannot be used changes nothing.
    pub fn refresh(&mut self, now: Timestamp) -> Refreshed {
        let contents = match Contents::read(&self.files) {
            Ok(contents) => contents,
            Err(error) => return self.kept(error.to_string(), error),
        };
        let seen = contents.fingerprint();
        if seen == self.seen {
            return Refreshed::Unchanged;
        }
        let provided = match contents.authority(&self.files, self.life, now) {
            Ok(provided) => provided,
            Err(error) => return self.kept(seen, error),
        };
        if !overlap(self.authority.roots(), provided.authority.roots()) {
            let path = self.files.path(contents.layout.roots);
            return self.kept(seen, PluggedError::RootsReplaced { path });
        }
        Provided { authority: self.authority, revoked: self.revoked } = provided;
        self.seen = seen;
        Refreshed::Replaced
    }

    fn kept(&mut self, seen: String, error: PluggedError) -> Refreshed {
        if seen == self.seen {
            return Refreshed::Unchanged;
        }
        self.seen = seen;
        Refreshed::Kept(error)
    }

    /// What is in use.
    #[must_use]
    pub fn authority(&self) -> Arc<Authority> {
        self.authority.clone()
    }

    /// How near the end of the revocation lists is, if it is near. Told once a day, and when it has passed.
    pub fn ending(&mut self, now: Timestamp) -> Option<Ending> {
        let until = self.revoked.as_ref()?.until()?;
        let ending = Ending::of(until, now)?;
        let told = Some((ending, now.0 / DAY));
        (std::mem::replace(&mut self.told, told) != told).then_some(ending)
    }

    /// Revocation lists beside it, if there are any.
    #[must_use]
    pub fn revoked(&self) -> Option<&Revoked> {
        self.revoked.as_ref()
    }
}

/// Whether one set of roots has all of the other. Then a proxy that has one of them can talk with one that
/// has the other.
fn overlap(one: &[CertificateDer<'_>], other: &[CertificateDer<'_>]) -> bool {
    let set = |roots: &[CertificateDer<'_>]| roots.iter().map(|root| root.to_vec()).collect::<BTreeSet<_>>();
    let (one, other) = (set(one), set(other));
    one.is_subset(&other) || other.is_subset(&one)
}
