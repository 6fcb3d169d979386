//! Secrets (SDS): key pairs and certificate authorities that configuration names.
//!
//! What is sent has been looked at: a key that does not belong to its certificate would make Envoy reject the
//! update, and with it keep the listener from changing at all. Values appear in no message and no debug
//! output.

mod files;
mod workload;

use std::sync::Arc;

use bytes::Bytes;
use navarch_envoy::proto::envoy::config::core::v3::{DataSource, data_source};
use navarch_envoy::proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret as EnvoySecret, TlsCertificate, secret,
};
use navarch_envoy::{Resource, XdsType};
use navarch_model::key_pair::{Authority, KeyPair, PairError};
use navarch_model::kubernetes::{ConfigMap, Secret};
use navarch_model::{Hashed, Name};
use prost::Message;
use zeroize::Zeroizing;

use crate::pure::{Pure, Sealed};
use crate::sds::CA_SUFFIX;

pub use files::{FileSecret, FileSecretInput};
pub use workload::{StatedRoots, WorkloadRoots, WorkloadRootsInput, workload_certificate};

const KUBERNETES: &str = "kubernetes://";
const KUBERNETES_GATEWAY: &str = "kubernetes-gateway://";
const CONFIG_MAP: &str = "configmap://";

/// The object that a secret resource is made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretSource {
    /// Certificate and key of a Secret.
    KeyPair { namespace: Name, name: Name },
    /// The certificate authority of a Secret: the one named with the suffix, else the one without.
    Authority { namespace: Name, name: Name },
    /// The certificate authority of a ConfigMap.
    AuthorityMap { namespace: Name, name: Name },
}

impl SecretSource {
    /// What a resource name stands for, for a proxy in `namespace`; nothing if it is not such a name, or not
    /// for that proxy: Secrets are given only to proxies of their own namespace. Certificate authorities in
    /// ConfigMaps are public.
    pub fn parse(resource: &str, namespace: &str) -> Option<Self> {
        if let Some(rest) = resource.strip_prefix(CONFIG_MAP) {
            let (stated, name) = rest.split_once('/')?;
            let name = name.strip_suffix(CA_SUFFIX).unwrap_or(name);
            return valid(name)
                .then(|| SecretSource::AuthorityMap { namespace: stated.into(), name: name.into() });
        }
        let name = match resource.strip_prefix(KUBERNETES_GATEWAY) {
            Some(rest) => rest.strip_prefix(namespace)?.strip_prefix('/')?,
            None => {
                let rest = resource.strip_prefix(KUBERNETES)?;
                match rest.split_once('/') {
                    Some((stated, name)) => (stated == namespace).then_some(name)?,
                    None => rest,
                }
            }
        };
        if !valid(name) {
            return None;
        }
        let (namespace, name) = (namespace.into(), Name::from(name));
        Some(if name.ends_with(CA_SUFFIX) {
            SecretSource::Authority { namespace, name }
        } else {
            SecretSource::KeyPair { namespace, name }
        })
    }
}

impl SecretSource {
    /// What the name of a Secret that a gateway may refer to stands for, whatever namespace it is in.
    pub fn granted(resource: &str) -> Option<Self> {
        let namespace = resource.strip_prefix(KUBERNETES_GATEWAY).and_then(|rest| rest.split_once('/'));
        Self::parse(resource, namespace.map_or("", |(namespace, _)| namespace))
    }
}

/// Secrets in which a control plane keeps the key of its authority: nobody's credential, in any namespace.
pub const OF_AUTHORITIES: [&str; 2] = ["cacerts", "istio-ca-secret"];

fn valid(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && !OF_AUTHORITIES.contains(&name)
}

/// What the source turned out to be.
#[derive(Clone, Debug, Hash)]
pub enum SecretContent {
    KeyPair(Arc<Hashed<Secret>>),
    Authority(Arc<Hashed<Secret>>),
    AuthorityMap(Arc<Hashed<ConfigMap>>),
}

/// The key of [`SecretResource`].
#[derive(Clone, Debug, Hash)]
pub struct SecretResourceInput {
    pub name: Name,
    pub content: SecretContent,
}

/// The resource of a secret, or why there is none.
pub struct SecretResource;

impl Sealed for SecretResource {}

impl Pure for SecretResource {
    const NAME: &'static str = "secrets.resource";
    type Input = SecretResourceInput;
    type Output = Result<Arc<Resource>, PairError>;

    fn run(input: &SecretResourceInput) -> Result<Arc<Resource>, PairError> {
        let kind = match &input.content {
            SecretContent::KeyPair(secret) => key_pair(secret)?,
            SecretContent::Authority(secret) => authority(Authority::of_secret(secret)?),
            SecretContent::AuthorityMap(map) => authority(Authority::of_config_map(map)?),
        };
        Ok(encode(input.name.clone(), kind))
    }
}

fn encode(name: Name, kind: secret::Type) -> Arc<Resource> {
    let message = encode_secret(&name, kind);
    Arc::new(Resource::builder(XdsType::Sds.type_url(), name, &message).secret().build())
}

/// The message, in memory that is wiped.
fn encode_secret(name: &str, kind: secret::Type) -> Zeroizing<Vec<u8>> {
    let message = EnvoySecret { name: name.to_owned(), r#type: Some(kind) };
    Zeroizing::new(message.encode_to_vec())
}

fn key_pair(secret: &Secret) -> Result<secret::Type, PairError> {
    let KeyPair { certificate, key, staple } = KeyPair::of(secret)?;
    Ok(secret::Type::TlsCertificate(TlsCertificate {
        certificate_chain: Some(inline(certificate)),
        private_key: Some(inline(key)),
        ocsp_staple: staple.map(inline),
        ..TlsCertificate::default()
    }))
}

fn authority(authority: Authority<'_>) -> secret::Type {
    let Authority { roots, crl } = authority;
    secret::Type::ValidationContext(CertificateValidationContext {
        trusted_ca: Some(inline(roots)),
        crl: crl.map(inline),
        ..CertificateValidationContext::default()
    })
}

fn inline(bytes: &[u8]) -> DataSource {
    DataSource {
        specifier: Some(data_source::Specifier::InlineBytes(Bytes::from_owner(Zeroizing::new(
            bytes.to_vec(),
        )))),
        ..DataSource::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_for_proxies_of_their_namespace() {
        let check = |resource: &str, expected: Option<SecretSource>| {
            assert_eq!(SecretSource::parse(resource, "edge"), expected, "{resource}");
        };
        let pair = |name: &str| Some(SecretSource::KeyPair { namespace: "edge".into(), name: name.into() });
        check("kubernetes://web", pair("web"));
        check("kubernetes://edge/web", pair("web"));
        check("kubernetes-gateway://edge/web", pair("web"));
        check(
            "kubernetes://web-cacert",
            Some(SecretSource::Authority { namespace: "edge".into(), name: "web-cacert".into() }),
        );
        check("kubernetes://other/web", None);
        check("kubernetes-gateway://other/web", None);
        check("kubernetes-gateway://edgeweb", None);
        check("kubernetes://edge/a/b", None);
        check("kubernetes://", None);
        check(
            "configmap://other/roots",
            Some(SecretSource::AuthorityMap { namespace: "other".into(), name: "roots".into() }),
        );
        check("default", None);
        // What signs for everybody is nobody's credential.
        for name in OF_AUTHORITIES {
            for resource in [
                format!("kubernetes://{name}"),
                format!("kubernetes://edge/{name}"),
                format!("kubernetes-gateway://edge/{name}"),
            ] {
                assert_eq!(SecretSource::parse(&resource, "edge"), None, "{resource}");
                assert_eq!(SecretSource::granted(&resource), None, "{resource}");
            }
        }
        let granted = SecretSource::granted("kubernetes-gateway://other/web");
        assert_eq!(granted, Some(SecretSource::KeyPair { namespace: "other".into(), name: "web".into() }));
        assert_eq!(SecretSource::granted("kubernetes://other/web"), None);
        check("file-root:/etc/ca.pem", None);
    }
}
