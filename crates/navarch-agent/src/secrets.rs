//! What Envoy asks the agent for by SDS: the certificate of the workload, the roots of the mesh, and files on
//! this machine.
//!
//! The roots are those that the control plane distributes, if it does; otherwise those that came with the
//! certificate.

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
use crate::roots::Roots;

/// The certificate and key of the workload.
pub const WORKLOAD: &str = "default";
/// The roots of the mesh.
pub const ROOTS: &str = "ROOTCA";
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
    own: Option<Own>,
}

/// What the agent has of the mesh.
#[derive(Clone)]
struct Own {
    leaf: watch::Receiver<Option<Arc<Leaf>>>,
    roots: Roots,
}

/// An encoded secret with its version. It holds a key: it never prints.
pub struct Resource {
    pub name: String,
    pub version: String,
    encoded: Secret,
}

impl Resource {
    fn of(name: &str, encoded: Secret) -> Self {
        Resource { name: name.to_owned(), version: version_of(encoded.expose()), encoded }
    }

    /// The bytes of the `Secret` message.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.encoded.expose()
    }
}

impl Secrets {
    /// Secrets with the certificate of the workload and the roots that are distributed.
    #[must_use]
    pub fn new(leaf: watch::Receiver<Option<Arc<Leaf>>>, roots: Roots) -> Self {
        Secrets { own: Some(Own { leaf, roots }) }
    }

    /// Secrets in files alone.
    #[must_use]
    pub fn of_files() -> Self {
        Secrets { own: None }
    }

    /// Whether the agent answers for this name. Others are the control plane's.
    #[must_use]
    pub fn is_local(&self, name: &str) -> bool {
        match source(name) {
            Some(Source::Workload | Source::Roots) => self.own.is_some(),
            Some(_) => true,
            None => false,
        }
    }

    /// Whether a name stands for files, which have to be looked at.
    #[must_use]
    pub fn is_file(name: &str) -> bool {
        matches!(source(name), Some(Source::Pair(..) | Source::Root(_) | Source::SystemRoots))
    }

    /// The control plane distributes these roots: an encoded secret.
    pub fn trust(&self, message: &[u8]) {
        if let Some(own) = &self.own {
            own.roots.take(message);
        }
    }

    /// The control plane distributes no roots.
    pub fn forget_distributed(&self) {
        if let Some(own) = &self.own {
            own.roots.forget();
        }
    }

    /// Returns when the workload has another certificate, or there are other roots.
    pub async fn changed(&mut self) {
        let Some(Own { leaf, roots }) = &mut self.own else { return std::future::pending().await };
        let changed = tokio::select! {
            changed = leaf.changed() => changed,
            changed = roots.changed() => changed,
        };
        if changed.is_err() {
            std::future::pending().await
        }
    }

    /// The secret, if it is there.
    pub async fn get(&self, name: &str) -> Option<Resource> {
        let kind = match source(name)? {
            Source::Workload => {
                let leaf = self.own.as_ref()?.leaf.borrow().clone()?;
                pair(leaf.chain.as_bytes(), leaf.key.expose())
            }
            Source::Roots => {
                let own = self.own.as_ref()?;
                if let Some(distributed) = own.roots.distributed() {
                    return Some(Resource::of(name, Secret::new(distributed.message.to_vec())));
                }
                let leaf = own.leaf.borrow().clone()?;
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
        Some(Resource::of(name, Secret::new(message.encode_to_vec())))
    }
}

/// The version of an encoded secret: equal for equal bytes.
#[must_use]
pub fn version_of(message: &[u8]) -> String {
    format!("{:016x}", xxh3_64(message))
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
    use navarch_identity::store::StateDirectory;

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
        let none = Secrets::of_files();
        assert!(!none.is_local("default") && !none.is_local("ROOTCA") && none.is_local("file-root:/a"));
        let temp = tempfile::tempdir().expect("a directory");
        let directory = StateDirectory::open(&temp.path().join("agent")).expect("a directory");
        let (_sender, leaf) = watch::channel(None);
        let some = Secrets::new(leaf, Roots::open(Arc::new(directory), None));
        assert!(some.is_local("default") && some.is_local("ROOTCA") && !some.is_local("kubernetes://web"));
    }

    #[tokio::test]
    async fn files_are_read_and_their_content_is_their_version() {
        let temp = tempfile::tempdir().expect("a directory");
        let path = temp.path().join("roots.pem");
        let name = format!("file-root:{}", path.display());
        let secrets = Secrets::of_files();
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
