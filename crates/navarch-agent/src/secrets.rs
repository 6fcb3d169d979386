//! What Envoy asks the agent for by SDS: the certificate of the workload, the roots of the mesh, and files on
//! this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use navarch_envoy::proto::envoy::config::core::v3::{DataSource, data_source};
use navarch_envoy::proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret as EnvoySecret, TlsCertificate, secret,
};
use navarch_identity::Secret;
use prost::Message;
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use crate::certificate::Leaf;

/// The certificate and key of the workload.
const WORKLOAD: &str = "default";
/// The roots of the mesh.
const ROOTS: &str = "ROOTCA";
const FILE_CERT: &str = "file-cert:";
const FILE_ROOT: &str = "file-root:";
/// `file-root:system`: where distributions keep their roots.
const SYSTEM: &str = "system";
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How often files are looked at while somebody uses them.
pub const POLL: Duration = Duration::from_secs(2);
/// Bytes of a file with certificates or a key.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What a resource name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source<'n> {
    Workload,
    Roots,
    Pair(&'n Path, &'n Path),
    Root(&'n Path),
    SystemRoots,
}

/// What the agent answers itself.
#[derive(Clone)]
pub struct Secrets {
    leaf: Option<watch::Receiver<Option<Arc<Leaf>>>>,
}

/// An encoded secret with its version. It holds a key: it never prints.
pub struct Resource {
    pub name: String,
    pub version: String,
    encoded: Secret,
}

impl Resource {
    /// The bytes of the `Secret` message.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.encoded.expose()
    }
}

impl Secrets {
    /// Secrets with the certificate of the workload, if there is to be one.
    #[must_use]
    pub fn new(leaf: Option<watch::Receiver<Option<Arc<Leaf>>>>) -> Self {
        Secrets { leaf }
    }

    /// Whether the agent answers for this name. Others are the control plane's.
    #[must_use]
    pub fn is_local(&self, name: &str) -> bool {
        match source(name) {
            Some(Source::Workload | Source::Roots) => self.leaf.is_some(),
            Some(_) => true,
            None => false,
        }
    }

    /// Whether a name stands for files, which have to be looked at.
    #[must_use]
    pub fn is_file(name: &str) -> bool {
        matches!(source(name), Some(Source::Pair(..) | Source::Root(_) | Source::SystemRoots))
    }

    /// Returns when the workload has another certificate.
    pub async fn changed(&mut self) {
        if let Some(leaf) = &mut self.leaf
            && leaf.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }

    /// The secret, if it is there.
    pub async fn get(&self, name: &str) -> Option<Resource> {
        let kind = match source(name)? {
            Source::Workload => {
                let leaf = self.leaf.as_ref()?.borrow().clone()?;
                pair(leaf.chain.as_bytes(), leaf.key.expose())
            }
            Source::Roots => {
                let leaf = self.leaf.as_ref()?.borrow().clone()?;
                roots(leaf.roots.as_bytes())
            }
            Source::Pair(certificate, key) => {
                pair(file(certificate).await?.expose(), file(key).await?.expose())
            }
            Source::Root(path) => roots(file(path).await?.expose()),
            Source::SystemRoots => {
                let path = SYSTEM_ROOTS.into_iter().map(PathBuf::from).find(|path| path.exists())?;
                roots(file(&path).await?.expose())
            }
        };
        let message = EnvoySecret { name: name.to_owned(), r#type: Some(kind) };
        let encoded = Secret::new(message.encode_to_vec());
        let version = format!("{:016x}", xxh3_64(encoded.expose()));
        Some(Resource { name: name.to_owned(), version, encoded })
    }
}

fn source(name: &str) -> Option<Source<'_>> {
    if let Some(files) = name.strip_prefix(FILE_CERT) {
        // `<certificate>~<key>`; Istio also takes a third part, the authority, and serves the pair.
        let mut parts = files.split('~');
        let (certificate, key) = (parts.next()?, parts.next()?);
        let good = !certificate.is_empty() && !key.is_empty();
        return good.then(|| Source::Pair(Path::new(certificate), Path::new(key)));
    }
    match name.strip_prefix(FILE_ROOT) {
        Some(SYSTEM) => Some(Source::SystemRoots),
        Some("") => None,
        Some(path) => Some(Source::Root(Path::new(path))),
        None if name == WORKLOAD => Some(Source::Workload),
        None if name == ROOTS => Some(Source::Roots),
        None => None,
    }
}

async fn file(path: &Path) -> Option<Secret> {
    let read = async {
        let size = tokio::fs::metadata(path).await?.len();
        if size > FILE_BYTES_MAX {
            return Err(std::io::Error::other(format!("it has {size} bytes, more than {FILE_BYTES_MAX}")));
        }
        tokio::fs::read(path).await
    };
    match read.await {
        Ok(bytes) if !bytes.is_empty() => Some(Secret::new(bytes)),
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "a file that a secret is made of cannot be read");
            None
        }
    }
}

fn pair(chain: &[u8], key: &[u8]) -> secret::Type {
    secret::Type::TlsCertificate(TlsCertificate {
        certificate_chain: Some(inline(chain)),
        private_key: Some(inline(key)),
        ..TlsCertificate::default()
    })
}

fn roots(pem: &[u8]) -> secret::Type {
    secret::Type::ValidationContext(CertificateValidationContext {
        trusted_ca: Some(inline(pem)),
        ..CertificateValidationContext::default()
    })
}

fn inline(bytes: &[u8]) -> DataSource {
    DataSource {
        specifier: Some(data_source::Specifier::InlineBytes(bytes.to_vec().into())),
        ..DataSource::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_where_a_secret_comes_from() {
        let check = |name: &str, expected: Option<Source<'_>>| assert_eq!(source(name), expected, "{name}");
        check("default", Some(Source::Workload));
        check("ROOTCA", Some(Source::Roots));
        check("file-cert:/a.pem~/a.key", Some(Source::Pair(Path::new("/a.pem"), Path::new("/a.key"))));
        check("file-cert:/a~/b~/c", Some(Source::Pair(Path::new("/a"), Path::new("/b"))));
        check("file-cert:/a.pem", None);
        check("file-cert:~/a.key", None);
        check("file-root:/roots.pem", Some(Source::Root(Path::new("/roots.pem"))));
        check("file-root:system", Some(Source::SystemRoots));
        check("file-root:", None);
        check("kubernetes://web", None);
        check("defaults", None);
    }

    #[test]
    fn without_a_certificate_of_its_own_the_control_plane_is_asked() {
        let none = Secrets::new(None);
        assert!(!none.is_local("default") && !none.is_local("ROOTCA") && none.is_local("file-root:/a"));
        let (_sender, leaf) = watch::channel(None);
        let some = Secrets::new(Some(leaf));
        assert!(some.is_local("default") && some.is_local("ROOTCA") && !some.is_local("kubernetes://web"));
    }

    #[tokio::test]
    async fn files_are_read_and_their_content_is_their_version() {
        let temp = tempfile::tempdir().expect("a directory");
        let path = temp.path().join("roots.pem");
        let name = format!("file-root:{}", path.display());
        let secrets = Secrets::new(None);
        assert!(secrets.get(&name).await.is_none(), "it is not there");
        std::fs::write(&path, "one").expect("written");
        let one = secrets.get(&name).await.expect("a secret");
        let message = EnvoySecret::decode(one.expose()).expect("a secret");
        assert_eq!((message.name.as_str(), message.r#type), (name.as_str(), Some(roots(b"one"))));
        assert_eq!(secrets.get(&name).await.expect("a secret").version, one.version);
        std::fs::write(&path, "two").expect("written");
        assert_ne!(secrets.get(&name).await.expect("a secret").version, one.version);
    }
}
