//! Secrets: those of a proxy's own namespace that configuration in force for it names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_envoy::Resource;
use navarch_model::fact::SecretAccess;
use navarch_model::key_pair::has_certificates;
use navarch_model::mesh::{CertificateSource, bundle_url};
use navarch_model::networking::{ClientTlsSettings, DestinationRule};
use navarch_model::service::Visibility;
use navarch_model::{Name, TrustDomains};
use navarch_snapshot::bound::BoundRule;
use navarch_snapshot::{BUCKETS, Bucket};
use navarch_translate::listeners::tls::own_file_secrets;
use navarch_translate::sds::{CA_SUFFIX, credential_resource};
use navarch_translate::secrets::{
    FileSecret, FileSecretInput, SecretContent, SecretResource, SecretResourceInput, SecretSource,
    StatedRoots, WorkloadRoots, WorkloadRootsInput,
};
use navarch_translate::tls::file_secrets;

use crate::class::{Class, Secrets};
use crate::composed::{BucketResources, Composed};
use crate::engine::{Cx, Gather};

/// Names of the secrets that a proxy may have.
#[derive(Debug, Default)]
pub struct Named {
    /// Secrets of the proxy's own namespace; others of these names it does not get.
    pub own: BTreeSet<String>,
    /// Secrets of any namespace, of which it is known that the proxy may have them.
    pub granted: BTreeSet<String>,
    /// Secrets in files on the proxy's own machine.
    pub files: BTreeSet<String>,
}

/// The secrets of these names that there are, the roots of the mesh, and the names of files. Proxies that
/// have not proven who they are do not get the first, and those whose account may not read Secrets get no
/// keys but those that are granted. As for istiod authorities are public in their namespace.
pub fn named(cx: &Cx<'_>, class: &Class, names: Named) -> Composed {
    let Named { own, granted, mut files } = names;
    let started_with = [&class.facts.client_certificates, &class.facts.server_certificates];
    files.extend(started_with.into_iter().flat_map(own_file_secrets));
    let files = files.into_iter().filter_map(|name| {
        let input = FileSecretInput::parse(&name, &class.facts.system_roots)?;
        Some((*cx.get::<FileSecret>(&input)).clone())
    });
    let open = workload_roots(cx).into_iter().chain(files);
    if class.secrets == Secrets::Withheld {
        return Composed::own(open.collect::<BucketResources>());
    }
    let found = |(name, source): (String, SecretSource)| Some((name, content(cx, &source)?));
    let own = own.into_iter().filter_map(|name| {
        let source = SecretSource::parse(&name, &class.facts.namespace)?;
        found((name, source))
    });
    let mut named: BTreeMap<String, SecretContent> = own.collect();
    let is_key = |content: &SecretContent| matches!(content, SecretContent::KeyPair(_));
    // Whose permissions are looked at is asked about: who needs no keys is not.
    if let Some(account) = class.secret_reader()
        && named.values().any(is_key)
        && cx.view().secret_access(&account) != Some(&SecretAccess::Allowed)
    {
        named.retain(|_, content| !is_key(content));
    }
    let granted = granted.into_iter().filter_map(|name| {
        let source = SecretSource::granted(&name)?;
        found((name, source))
    });
    named.extend(granted);
    let resources = named.into_iter().filter_map(|(name, content)| {
        let input = SecretResourceInput { name: Name::from(name), content };
        cx.get::<SecretResource>(&input).as_ref().as_ref().ok().cloned()
    });
    Composed::own(resources.chain(open).collect::<BucketResources>())
}

/// The roots that workloads are verified by, which are not secret; none where nobody issues certificates.
fn workload_roots(cx: &Cx<'_>) -> Option<Arc<Resource>> {
    let view = cx.view();
    let mesh = &view.mesh().config;
    let domains = TrustDomains::of(mesh);
    let own = domains.iter().next().and_then(|domain| view.trust_bundle(domain))?;
    let stated = mesh.ca_certificates.iter().filter_map(|data| {
        let roots = match data.certificate_data.as_ref()? {
            CertificateSource::Pem(pem) => Arc::from(pem.as_str()),
            CertificateSource::SpiffeBundleUrl(url) => view.trust_bundle(&bundle_url(url))?.roots.clone(),
        };
        // A trust domain that trusts nobody any more says so, and a text without certificates Envoy refuses.
        if !has_certificates(roots.as_bytes()) {
            return None;
        }
        let domains = data.trust_domains.iter().map(|domain| Name::from(domain.as_str())).collect();
        Some(StatedRoots { domains, roots })
    });
    let input = WorkloadRootsInput {
        domains: domains.iter().cloned().collect(),
        own: own.roots.clone(),
        lists: own.lists.clone(),
        stated: stated.collect(),
    };
    Some((*cx.get::<WorkloadRoots>(&input)).clone())
}

/// Names of the resources that DestinationRules of a namespace ask for, and of the files that any rule for it
/// names.
pub fn of_own_rules(cx: &Cx<'_>, namespace: &Name) -> Named {
    names(cx, |credential| {
        credential.namespace == *namespace || credential.in_files && credential.export_to.includes(namespace)
    })
}

/// Names of the resources that DestinationRules ask for which a namespace may use.
pub fn of_visible_rules(cx: &Cx<'_>, namespace: &Name) -> Named {
    names(cx, |credential| credential.namespace == *namespace || credential.export_to.includes(namespace))
}

fn names(cx: &Cx<'_>, wanted: impl Fn(&Credential) -> bool) -> Named {
    let all = cx.gather::<AllCredentials>(&());
    let wanted = all.0.iter().filter(|credential| wanted(credential));
    let (files, own): (Vec<&Credential>, Vec<&Credential>) =
        wanted.partition(|credential| credential.in_files);
    let resources = |credentials: Vec<&Credential>| -> BTreeSet<String> {
        credentials.into_iter().map(|credential| credential.resource.clone()).collect()
    };
    let mut names = Named { own: resources(own), files: resources(files), ..Named::default() };
    let unknown = cx.view().mesh().config.outbound_traffic_policy.as_ref();
    names.files.extend(unknown.and_then(|policy| policy.tls.as_ref()).into_iter().flat_map(file_secrets));
    names
}

/// What a resource is made of, if it is there.
pub fn content(cx: &Cx<'_>, source: &SecretSource) -> Option<SecretContent> {
    let view = cx.view();
    match source {
        SecretSource::KeyPair { namespace, name } => {
            view.secret(namespace, name).cloned().map(SecretContent::KeyPair)
        }
        SecretSource::Authority { namespace, name } => view
            .secret(namespace, name)
            .or_else(|| view.secret(namespace, name.strip_suffix(CA_SUFFIX)?))
            .cloned()
            .map(SecretContent::Authority),
        SecretSource::AuthorityMap { namespace, name } => {
            view.config_map(namespace, name).cloned().map(SecretContent::AuthorityMap)
        }
    }
}

/// A resource that a DestinationRule names.
#[derive(Clone, Debug, PartialEq)]
struct Credential {
    namespace: Name,
    export_to: Visibility,
    resource: String,
    /// It names files on the proxy's machine.
    in_files: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Credentials(Vec<Credential>);

struct AllCredentials;

impl Gather for AllCredentials {
    const NAME: &'static str = "secrets.rule_credentials";
    type Key = ();
    type Output = Credentials;

    fn run((): &(), cx: &Cx<'_>) -> Credentials {
        let mut found = Credentials::default();
        for bucket in 0..BUCKETS {
            found.0.extend(cx.gather::<BucketCredentials>(&bucket).0.iter().cloned());
        }
        cx.view().wildcard_destination_rules().iter().for_each(|rule| found.add(rule));
        found
    }
}

struct BucketCredentials;

impl Gather for BucketCredentials {
    const NAME: &'static str = "secrets.bucket_credentials";
    type Key = Bucket;
    type Output = Credentials;

    fn run(bucket: &Bucket, cx: &Cx<'_>) -> Credentials {
        let mut found = Credentials::default();
        cx.view().destination_rules_in(*bucket).values().flatten().for_each(|rule| found.add(rule));
        found
    }
}

impl Credentials {
    fn add(&mut self, rule: &BoundRule) {
        let credential = |resource: String, in_files: bool| Credential {
            namespace: rule.config.namespace.clone(),
            export_to: rule.export_to.clone(),
            resource,
            in_files,
        };
        for tls in tls_settings(&rule.config.spec) {
            self.0.extend(file_secrets(tls).map(|name| credential(name, true)));
            if !tls.credential_name.is_empty() {
                for name in [tls.credential_name.clone(), format!("{}{CA_SUFFIX}", tls.credential_name)] {
                    self.0.push(credential(credential_resource(&name), false));
                }
            }
        }
    }
}

/// All TLS settings of a rule: of the host, its ports and its subsets.
fn tls_settings(rule: &DestinationRule) -> impl Iterator<Item = &ClientTlsSettings> {
    let subsets = rule.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref());
    rule.traffic_policy.iter().chain(subsets).flat_map(|policy| {
        let ports = policy.port_level_settings.iter().filter_map(|port| port.tls.as_ref());
        policy.tls.iter().chain(ports)
    })
}
