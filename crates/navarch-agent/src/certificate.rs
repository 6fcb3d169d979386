//! The certificate of the workload, and the files that it is kept in.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use navarch_identity::certificate::{CertificateError, Facts};
use navarch_identity::pem::{self, PemError};
use navarch_identity::renewal::renew_at;
use navarch_identity::store::{StateDirectory, StoreError};
use navarch_identity::{Secret, Timestamp};
use rcgen::{KeyPair, PublicKeyData};

/// The file in the agent's directory: key, chain and roots in one, so that they are replaced in one step.
const KEPT: &str = "workload.pem";

/// What separates the roots from the chain in the file, and what says when it was signed.
const ROOTS_FOLLOW: &str = "\nRoots:\n";
const SIGNED: &str = "Signed: ";

/// A certificate of the workload, and what verifies others of its mesh.
#[derive(Debug)]
pub struct Leaf {
    /// The private key, PEM.
    pub key: Secret,
    /// The leaf and what leads to its root, PEM.
    pub chain: String,
    /// The roots, PEM.
    pub roots: String,
    /// When it was signed, by the clock of this machine: certificates are dated back, for clocks that are
    /// behind.
    pub signed_at: Timestamp,
    pub not_after: Timestamp,
    /// Who it says the workload is.
    pub identity: String,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    #[error("its key is not one")]
    Key(#[from] rcgen::Error),
    #[error("the answer has {0} certificates, and at least a leaf and roots are needed")]
    Chain(usize),
    #[error("the certificate is not readable")]
    Pem(#[from] PemError),
    #[error("the certificate is not readable")]
    Certificate(#[from] CertificateError),
    #[error("the certificate is for another key")]
    OtherKey,
    #[error("the certificate names no workload")]
    NoIdentity,
    #[error("the certificate has ended at {0}; is the clock right?")]
    Ended(Timestamp),
}

/// Why a certificate cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error("the agent's directory cannot be used")]
    Directory(#[from] StoreError),
    #[error("cannot write {path}")]
    Output { path: PathBuf, source: io::Error },
}

impl Leaf {
    /// Puts the parts together, if they belong together.
    ///
    /// # Errors
    /// If they do not.
    pub fn of(key: Secret, chain: String, roots: String, signed_at: Timestamp) -> Result<Self, LeafError> {
        let pair = KeyPair::from_pem(key.expose_text().unwrap_or_default())?;
        let certificates = pem::certificates(chain.as_bytes())?;
        pem::certificates(roots.as_bytes())?;
        let Some(leaf) = certificates.first() else { return Err(LeafError::Chain(0)) };
        let facts = Facts::of(leaf)?;
        if facts.public_key != pair.der_bytes() {
            return Err(LeafError::OtherKey);
        }
        let identity = facts.uris.into_iter().next().ok_or(LeafError::NoIdentity)?;
        Ok(Leaf { key, chain, roots, signed_at, not_after: facts.not_after, identity })
    }

    /// When another one is asked for.
    #[must_use]
    pub fn renew_at(&self, share: f64) -> Timestamp {
        renew_at(self.signed_at, self.not_after, share)
    }
}

/// The certificate of an earlier run, if it is still good.
#[must_use]
pub fn kept(directory: &StateDirectory, now: Timestamp) -> Option<Leaf> {
    let contents = match directory.read(KEPT) {
        Ok(contents) => contents?,
        Err(error) => {
            tracing::warn!(error = %crate::Chain(&error), "the certificate of an earlier run cannot be read");
            return None;
        }
    };
    let leaf = read_kept(&contents);
    if let Err(error) = &leaf {
        tracing::warn!(error = %crate::Chain(error), "the certificate of an earlier run is not used");
    }
    leaf.ok().filter(|leaf| leaf.not_after > now)
}

fn read_kept(contents: &Secret) -> Result<Leaf, LeafError> {
    let text = contents.expose_text().unwrap_or_default();
    let (own, roots) = text.split_once(ROOTS_FOLLOW).unwrap_or((text, ""));
    let (signed, own) = own.split_once('\n').unwrap_or((own, ""));
    let signed = signed.strip_prefix(SIGNED).and_then(|text| text.parse().ok()).unwrap_or_default();
    let begin = own.find("-----BEGIN CERTIFICATE-----").unwrap_or(own.len());
    let (key, chain) = own.split_at(begin);
    Leaf::of(Secret::from(key.to_owned()), chain.to_owned(), roots.to_owned(), Timestamp(signed))
}

/// Keeps a certificate for the next start, and copies it to `output` as Istio's agent does (`OUTPUT_CERTS`).
///
/// # Errors
/// If a file cannot be written.
pub fn keep(leaf: &Leaf, directory: &StateDirectory, output: Option<&Path>) -> Result<(), KeepError> {
    let Leaf { key, chain, roots, signed_at, not_after: _, identity: _ } = leaf;
    let signed = format!("{SIGNED}{}\n", signed_at.0);
    let contents =
        [signed.as_bytes(), key.expose(), chain.as_bytes(), ROOTS_FOLLOW.as_bytes(), roots.as_bytes()];
    directory.replace(KEPT, Secret::new(contents.concat()).expose())?;
    let Some(output) = output else { return Ok(()) };
    let copies = [
        ("key.pem", key.expose()),
        ("cert-chain.pem", chain.as_bytes()),
        ("root-cert.pem", roots.as_bytes()),
    ];
    for (name, contents) in copies {
        let path = output.join(name);
        write_private(&path, contents).map_err(|source| KeepError::Output { path, source })?;
    }
    Ok(())
}

/// Replaces a file in one step. Only its owner may read it.
pub(crate) fn write_private(path: &Path, contents: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut file =
        OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&unfinished)?;
    file.write_all(contents)?;
    file.sync_data()?;
    std::fs::rename(&unfinished, path)
}

pub(crate) fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, SanType};

    use super::*;

    fn leaf(identity: &str, key: &KeyPair, other: &KeyPair) -> Result<Leaf, LeafError> {
        let root_key = KeyPair::generate()?;
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let roots = root.self_signed(&root_key)?.pem();
        let issuer = rcgen::Issuer::new(root, root_key);
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(identity.try_into()?)];
        let chain = params.signed_by(other, &issuer)?.pem();
        Leaf::of(Secret::from(key.serialize_pem()), chain, roots, Timestamp(1000))
    }

    #[test]
    fn what_is_kept_comes_back_while_it_is_valid() {
        let temp = tempfile::tempdir().expect("a directory");
        let directory = StateDirectory::open(&temp.path().join("agent")).expect("a directory");
        assert!(kept(&directory, Timestamp(0)).is_none());
        let key = KeyPair::generate().expect("a key");
        let made = leaf("spiffe://td/ns/a/sa/b", &key, &key).expect("a leaf");
        let output = temp.path().join("output");
        std::fs::create_dir(&output).expect("made");
        keep(&made, &directory, Some(&output)).expect("kept");
        let found = kept(&directory, made.signed_at).expect("a leaf");
        assert_eq!((found.signed_at, found.not_after), (made.signed_at, made.not_after));
        assert!(found.key.is_same(&made.key));
        assert_eq!((&found.chain.trim(), &found.roots), (&made.chain.trim(), &made.roots));
        assert_eq!(found.identity, "spiffe://td/ns/a/sa/b");
        assert!(kept(&directory, made.not_after).is_none(), "it has ended");
        assert_eq!(std::fs::read_to_string(output.join("root-cert.pem")).expect("a file"), made.roots);
        directory.replace(KEPT, b"broken").expect("written");
        assert!(kept(&directory, made.signed_at).is_none());
    }

    #[test]
    fn a_certificate_is_for_its_own_key() {
        let (key, other) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
        let error = leaf("spiffe://td/ns/a/sa/b", &key, &other).expect_err("another key");
        assert!(matches!(error, LeafError::OtherKey), "{error}");
    }
}
