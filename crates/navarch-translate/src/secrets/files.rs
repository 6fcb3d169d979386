//! Secrets that name files on the proxy's machine: what Istio's agent answers to its proxy, for proxies
//! without one.
//!
//! Only names are sent. Envoy reads the files, and reads them again when they are replaced.

use std::sync::Arc;

use navarch_envoy::proto::envoy::config::core::v3::{DataSource, WatchedDirectory, data_source};
use navarch_envoy::proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret,
};
use navarch_envoy::{Resource, XdsType};
use navarch_model::Name;
use prost::Message;

use crate::pure::{Pure, Sealed};
use crate::sds::{FILE_CERTIFICATE, FILE_ROOT, SYSTEM_ROOTS};

/// The key of [`FileSecret`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileSecretInput {
    /// Name of the resource.
    name: Name,
    files: Files,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Files {
    KeyPair { certificate: Name, key: Name },
    Roots(Name),
}

impl FileSecretInput {
    /// What a resource name stands for; nothing if it names no files. `system_roots` is where the proxy's
    /// machine has the roots that everybody trusts: Envoy has no words for them.
    pub fn parse(resource: &str, system_roots: &Name) -> Option<Self> {
        let files = if let Some(path) = resource.strip_prefix(FILE_ROOT) {
            Files::Roots(if path == SYSTEM_ROOTS { system_roots.clone() } else { Name::from(path) })
        } else {
            let (certificate, key) = resource.strip_prefix(FILE_CERTIFICATE)?.split_once('~')?;
            Files::KeyPair { certificate: Name::from(certificate), key: Name::from(key) }
        };
        Some(FileSecretInput { name: Name::from(resource), files })
    }
}

/// The resource of a secret that names files.
pub struct FileSecret;

impl Sealed for FileSecret {}

impl Pure for FileSecret {
    const NAME: &'static str = "secrets.file";
    type Input = FileSecretInput;
    type Output = Arc<Resource>;

    fn run(input: &FileSecretInput) -> Arc<Resource> {
        let kind = match &input.files {
            Files::KeyPair { certificate, key } => {
                let directory = directory(certificate);
                // Without a directory Envoy watches that of each file.
                let watched = (directory == self::directory(key)).then(|| watched(directory));
                secret::Type::TlsCertificate(TlsCertificate {
                    certificate_chain: Some(file(certificate)),
                    private_key: Some(file(key)),
                    watched_directory: watched,
                    ..TlsCertificate::default()
                })
            }
            Files::Roots(path) => secret::Type::ValidationContext(CertificateValidationContext {
                trusted_ca: Some(file(path)),
                watched_directory: Some(watched(directory(path))),
                ..CertificateValidationContext::default()
            }),
        };
        let message = Secret { name: input.name.to_string(), r#type: Some(kind) };
        Arc::new(Resource::of(XdsType::Sds, input.name.clone(), &message.encode_to_vec()))
    }
}

fn file(path: &str) -> DataSource {
    DataSource { specifier: Some(data_source::Specifier::Filename(path.to_owned())), ..DataSource::default() }
}

fn watched(directory: &str) -> WatchedDirectory {
    WatchedDirectory { path: directory.to_owned(), ..WatchedDirectory::default() }
}

/// The directory of a file; the one that Envoy runs in for a bare name.
fn directory(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((directory, _)) => directory,
        None => ".",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use navarch_envoy::json::any_to_json;
    use serde_json::{Value, json};

    fn check(resource: &str, expected: Value) {
        let made = FileSecretInput::parse(resource, &Name::from("/etc/roots.pem")).map(|input| {
            let mut made = any_to_json(XdsType::Sds.type_url(), &FileSecret::run(&input).body());
            assert_eq!(made["name"], resource);
            let fields = made.as_object_mut().expect("an object");
            fields.retain(|field, _| field != "name" && field != "@type");
            made
        });
        assert_eq!(made.unwrap_or_default(), expected, "{resource}");
    }

    #[test]
    fn files_are_named_and_their_directory_is_watched() {
        let pair = |watched: Value| {
            json!({"tlsCertificate": {
                "certificateChain": {"filename": "/a/tls.crt"}, "privateKey": {"filename": "/a/tls.key"},
                "watchedDirectory": watched,
            }})
        };
        check("file-cert:/a/tls.crt~/a/tls.key", pair(json!({"path": "/a"})));
        check(
            "file-cert:/a/tls.crt~/b/tls.key",
            json!({"tlsCertificate": {
                "certificateChain": {"filename": "/a/tls.crt"}, "privateKey": {"filename": "/b/tls.key"},
            }}),
        );
        let roots = |path: &str, directory: &str| json!({"validationContext": {"trustedCa": {"filename": path}, "watchedDirectory": {"path": directory}}});
        check("file-root:/a/ca.pem", roots("/a/ca.pem", "/a"));
        check("file-root:ca.pem", roots("ca.pem", "."));
        check("file-root:system", roots("/etc/roots.pem", "/etc"));
        check("file-cert:alone", Value::Null);
        check("kubernetes://web", Value::Null);
    }
}
