//! The secrets of a workload itself: its key and certificate, and the roots that it verifies others by.

use std::collections::BTreeMap;
use std::sync::Arc;

use navarch_envoy::any::any;
use navarch_envoy::proto::envoy::config::core::v3::TypedExtensionConfig;
use navarch_envoy::proto::envoy::extensions::transport_sockets::tls::v3::spiffe_cert_validator_config::TrustDomain;
use navarch_envoy::proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, SpiffeCertValidatorConfig, TlsCertificate, secret,
};
use navarch_envoy::{Resource, XdsType};
use navarch_model::Name;

use super::{encode, encode_secret, inline};
use crate::pure::{Pure, Sealed};
use crate::sds::{WORKLOAD_CERTIFICATE, WORKLOAD_ROOTS};

/// The validator that chooses roots by the trust domain that a certificate names.
const SPIFFE_VALIDATOR: &str = "envoy.tls.cert_validator.spiffe";

/// A certificate and its key, both in PEM, for the one proxy that has just proven that it is their workload.
///
/// This is not a [`Pure`]: keys are made for one stream, and nothing remembers them.
pub fn workload_certificate(chain: &str, key: &[u8]) -> Resource {
    let pair = secret::Type::TlsCertificate(TlsCertificate {
        certificate_chain: Some(inline(chain.as_bytes())),
        private_key: Some(inline(key)),
        ..TlsCertificate::default()
    });
    let message = encode_secret(WORKLOAD_CERTIFICATE, pair);
    Resource::builder(XdsType::Sds.type_url(), WORKLOAD_CERTIFICATE, &message).secret().build()
}

/// What workloads of a mesh are verified by.
#[derive(Clone, Debug, Hash)]
pub struct WorkloadRootsInput {
    /// The trust domain of the mesh and its aliases.
    pub domains: Vec<Name>,
    /// The roots of the mesh's authority, in PEM.
    pub own: Arc<str>,
    /// What its authorities have revoked, in PEM.
    pub lists: Option<Arc<str>>,
    /// What the mesh trusts besides.
    pub stated: Vec<StatedRoots>,
}

/// Roots that the mesh trusts besides its own. Istio: `MeshConfig.CertificateData`.
#[derive(Clone, Debug, Hash)]
pub struct StatedRoots {
    /// Trust domains that they vouch for; empty: all.
    pub domains: Vec<Name>,
    /// In PEM.
    pub roots: Arc<str>,
}

/// The roots of the mesh, as Envoy verifies workloads by them.
///
/// Where some vouch for certain trust domains alone, each trust domain has roots of its own: a mesh that one
/// federates with cannot make identities of this one.
pub struct WorkloadRoots;

impl Sealed for WorkloadRoots {}

impl Pure for WorkloadRoots {
    const NAME: &'static str = "secrets.workload_roots";
    type Input = WorkloadRootsInput;
    type Output = Arc<Resource>;

    fn run(input: &WorkloadRootsInput) -> Arc<Resource> {
        let WorkloadRootsInput { domains: _, own, lists, stated } = input;
        let everywhere = stated.iter().filter(|stated| stated.domains.is_empty());
        let roots = [own].into_iter().chain(everywhere.map(|stated| &stated.roots));
        let mut context = CertificateValidationContext {
            trusted_ca: Some(inline(joined(roots).as_bytes())),
            ..CertificateValidationContext::default()
        };
        if stated.iter().all(|stated| stated.domains.is_empty()) {
            context.crl = lists.as_ref().map(|lists| inline(lists.as_bytes()));
        } else {
            // The other fields count for who does not know this validator.
            context.custom_validator_config = Some(TypedExtensionConfig {
                name: SPIFFE_VALIDATOR.to_owned(),
                typed_config: Some(any(&by_trust_domain(input))),
            });
        }
        encode(WORKLOAD_ROOTS.into(), secret::Type::ValidationContext(context))
    }
}

/// The roots of each trust domain. A trust domain without roots is not known: nobody proves to be of it.
fn by_trust_domain(input: &WorkloadRootsInput) -> SpiffeCertValidatorConfig {
    let WorkloadRootsInput { domains, own, lists, stated } = input;
    let mut bundles: BTreeMap<&Name, Vec<&Arc<str>>> = BTreeMap::new();
    // A wildcard in an alias is for policies: no certificate has it.
    for domain in domains.iter().filter(|domain| !domain.contains('*')) {
        bundles.entry(domain).or_insert_with(|| [own].into_iter().chain(lists).collect());
    }
    for domain in stated.iter().flat_map(|stated| &stated.domains) {
        bundles.entry(domain).or_default();
    }
    for (domain, bundle) in &mut bundles {
        let vouches = |stated: &&StatedRoots| stated.domains.is_empty() || stated.domains.contains(domain);
        bundle.extend(stated.iter().filter(vouches).map(|stated| &stated.roots));
    }
    let known = bundles.into_iter().filter(|(_, bundle)| !bundle.is_empty());
    let trust_domain = |(domain, bundle): (&Name, Vec<&Arc<str>>)| TrustDomain {
        name: domain.to_string(),
        trust_bundle: Some(inline(joined(bundle).as_bytes())),
        ..TrustDomain::default()
    };
    SpiffeCertValidatorConfig {
        trust_domains: known.map(trust_domain).collect(),
        ..SpiffeCertValidatorConfig::default()
    }
}

fn joined<'a>(texts: impl IntoIterator<Item = &'a Arc<str>>) -> String {
    let mut all = String::new();
    for text in texts {
        all.push_str(text.trim_end());
        all.push('\n');
    }
    all
}

#[cfg(test)]
mod tests {
    use navarch_envoy::any::unpack;
    use navarch_envoy::proto::envoy::config::core::v3::{DataSource, data_source};
    use navarch_envoy::proto::envoy::extensions::transport_sockets::tls::v3::Secret;
    use prost::Message;

    use super::*;

    fn text(source: Option<&DataSource>) -> String {
        match source.and_then(|source| source.specifier.as_ref()) {
            Some(data_source::Specifier::InlineBytes(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            _ => String::new(),
        }
    }

    /// Roots, revocation lists, and the bundle of each trust domain.
    #[track_caller]
    fn check(lists: Option<&str>, stated: &[(&[&str], &str)], expected: (&str, &str, &[(&str, &str)])) {
        let stated = stated.iter().map(|(domains, roots)| StatedRoots {
            domains: domains.iter().map(|domain| Name::from(*domain)).collect(),
            roots: (*roots).into(),
        });
        let input = WorkloadRootsInput {
            domains: ["us", "alias", "*.wild"].map(Name::from).to_vec(),
            own: "own\n\n".into(),
            lists: lists.map(Into::into),
            stated: stated.collect(),
        };
        let resource = WorkloadRoots::run(&input);
        let message = Secret::decode(resource.body()).expect("a secret");
        let Some(secret::Type::ValidationContext(context)) = message.r#type else { panic!("{resource:?}") };
        let found = (text(context.trusted_ca.as_ref()), text(context.crl.as_ref()));
        assert_eq!((found.0.as_str(), found.1.as_str()), (expected.0, expected.1));
        let validator = context.custom_validator_config.and_then(|custom| custom.typed_config);
        let validator = validator.map(|config| unpack::<SpiffeCertValidatorConfig>(&config).expect("it"));
        let bundles: Vec<(String, String)> = validator
            .into_iter()
            .flat_map(|validator| validator.trust_domains)
            .map(|domain| (domain.name, text(domain.trust_bundle.as_ref())))
            .collect();
        let bundles: Vec<(&str, &str)> =
            bundles.iter().map(|(name, bundle)| (name.as_str(), bundle.as_str())).collect();
        assert_eq!(bundles, expected.2);
    }

    #[test]
    fn roots_vouch_for_the_trust_domains_that_they_are_stated_for() {
        check(None, &[], ("own\n", "", &[]));
        check(Some("lists"), &[(&[], "more")], ("own\nmore\n", "lists", &[]));
        check(
            None,
            &[(&["them"], "theirs")],
            ("own\n", "", &[("alias", "own\n"), ("them", "theirs\n"), ("us", "own\n")]),
        );
        check(
            Some("lists"),
            &[(&["them", "us"], "both"), (&[], "all")],
            (
                "own\nall\n",
                "",
                &[("alias", "own\nlists\nall\n"), ("them", "both\nall\n"), ("us", "own\nlists\nboth\nall\n")],
            ),
        );
    }
}
