//! Secrets that configuration names and that are not there, cannot be used, or end soon.
//!
//! Connections to a port whose certificate is missing are refused, and nothing but a finding says why.

use navarch_model::Name;
use navarch_model::fact::{Account, SecretAccess};
use navarch_model::finding::{Code, Finding, Severity};
use navarch_model::key_pair::certificate_end;
use navarch_model::kinds::Kind;
use navarch_model::networking::{
    ClientTlsMode, ClientTlsSettings, DestinationRule, ServerTlsMode, ServerTlsSettings,
};
use navarch_model::object::ObjectKey;
use navarch_snapshot::bound::BoundRule;
use navarch_snapshot::{BUCKETS, Bucket, View};
use navarch_translate::sds::{CA_SUFFIX, credential_resource};
use navarch_translate::secrets::{
    OF_AUTHORITIES, SecretContent, SecretResource, SecretResourceInput, SecretSource,
};

use super::problem::Problem;
use crate::engine::{Cx, Gather};
use crate::gather::shared::secrets::content;

/// How long before its end a certificate is warned of.
const WARNED: i64 = 14;

const DAY: i64 = 86_400;

/// Accounts that a finding names.
const SHOWN: usize = 3;

/// What is wrong with secrets that gateways and DestinationRules name.
pub(super) struct CredentialProblems;

impl Gather for CredentialProblems {
    const NAME: &'static str = "references.credentials";
    type Key = ();
    type Output = Vec<Problem>;

    fn run((): &(), cx: &Cx<'_>) -> Vec<Problem> {
        let view = cx.view();
        // Those of the Gateway API have statuses of their own for this.
        let gateways = view.gateways().filter(|gateway| gateway.key().kind == Kind::Gateway);
        let listeners = gateways.flat_map(|gateway| &gateway.listeners);
        let mut named = Vec::new();
        for listener in listeners {
            let Some(tls) = &listener.tls else { continue };
            let origin = &listener.origin;
            named.extend(of_server(tls).into_iter().map(|(field, credential)| Named {
                key: origin.key.clone(),
                path: format!("{}.tls.{field}", origin.field),
                credential,
            }));
        }
        let mut problems: Vec<Problem> = named.into_iter().filter_map(|named| named.problem(cx)).collect();
        for bucket in 0..BUCKETS {
            problems.extend(cx.gather::<InBucket>(&bucket).iter().cloned());
        }
        let wildcards = view.wildcard_destination_rules().iter().flat_map(|rule| of_rule(rule));
        problems.extend(wildcards.filter_map(|named| named.problem(cx)));
        problems
    }
}

/// Those of DestinationRules for hosts of a bucket.
struct InBucket;

impl Gather for InBucket {
    const NAME: &'static str = "references.credentials_in_bucket";
    type Key = Bucket;
    type Output = Vec<Problem>;

    fn run(bucket: &Bucket, cx: &Cx<'_>) -> Vec<Problem> {
        let rules = cx.view().destination_rules_in(*bucket).values().flatten();
        rules.flat_map(|rule| of_rule(rule)).filter_map(|named| named.problem(cx)).collect()
    }
}

/// A credential, and the field that names it.
struct Named {
    key: ObjectKey,
    path: String,
    credential: String,
}

/// The credentials of a server that terminates TLS, by field.
fn of_server(tls: &ServerTlsSettings) -> Vec<(String, String)> {
    let asks = match tls.mode {
        ServerTlsMode::Simple => false,
        ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => true,
        _ => return Vec::new(),
    };
    let mut named: Vec<(String, String)> = match &tls.credential_names[..] {
        [] if tls.credential_name.is_empty() => return Vec::new(),
        [] => vec![("credentialName".to_owned(), tls.credential_name.clone())],
        names => {
            let field = |(index, name): (usize, &String)| (format!("credentialNames[{index}]"), name.clone());
            names.iter().enumerate().map(field).collect()
        }
    };
    if asks && !tls.ca_cert_credential_name.is_empty() {
        named.push(("caCertCredentialName".to_owned(), tls.ca_cert_credential_name.clone()));
    } else if asks && let Some((field, first)) = named.first().cloned() {
        named.push((field, format!("{first}{CA_SUFFIX}")));
    }
    named
}

/// The credentials of a rule.
fn of_rule(rule: &BoundRule) -> Vec<Named> {
    let config = &rule.config;
    let key = || ObjectKey::new(Kind::DestinationRule, &config.namespace, &config.name);
    let mut named = Vec::new();
    for (path, tls) in tls_settings(&config.spec) {
        let name = &tls.credential_name;
        if name.is_empty() {
            continue;
        }
        let path = format!("{path}.tls.credentialName");
        let mut add = |credential: String| named.push(Named { key: key(), path: path.clone(), credential });
        if tls.mode == ClientTlsMode::Mutual {
            add(name.clone());
        }
        if matches!(tls.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual)
            && tls.insecure_skip_verify != Some(true)
        {
            add(format!("{name}{CA_SUFFIX}"));
        }
    }
    named
}

/// All TLS settings of a rule with the path of what they are in.
pub(crate) fn tls_settings(rule: &DestinationRule) -> Vec<(String, &ClientTlsSettings)> {
    let own = rule.traffic_policy.iter().map(|policy| ("spec.trafficPolicy".to_owned(), policy));
    let subsets = rule.subsets.iter().enumerate().filter_map(|(index, subset)| {
        Some((format!("spec.subsets[{index}].trafficPolicy"), subset.traffic_policy.as_ref()?))
    });
    let mut found = Vec::new();
    for (path, policy) in own.chain(subsets) {
        let ports = policy.port_level_settings.iter().enumerate().filter_map(|(index, port)| {
            Some((format!("{path}.portLevelSettings[{index}]"), port.tls.as_ref()?))
        });
        found.extend(ports);
        found.extend(policy.tls.as_ref().map(|tls| (path.clone(), tls)));
    }
    found
}

impl Named {
    /// What is wrong with the credential for proxies of the namespace of who names it.
    fn problem(self, cx: &Cx<'_>) -> Option<Problem> {
        let resource = credential_resource(&self.credential);
        let named = resource.rsplit('/').next().unwrap_or_default();
        if OF_AUTHORITIES.contains(&named) {
            let message = format!("Secret {named} has the key of an authority, and is nobody's credential");
            let finding = Finding::error(Code::InvalidReference, message);
            let finding = finding.hint("name a Secret with the certificate that is meant");
            return Some(Problem { key: self.key, path: self.path, finding });
        }
        let source = SecretSource::parse(&resource, &self.key.namespace)?;
        let finding = match content(cx, &source) {
            None => missing(cx.view(), &source)?,
            Some(content) => {
                let input = SecretResourceInput { name: Name::from(resource), content };
                match &*cx.get::<SecretResource>(&input) {
                    Err(error) => {
                        let message = format!(
                            "{} cannot be used: {error}; connections that need it are refused",
                            name_of(&source)
                        );
                        Finding::error(Code::InvalidReference, message)
                            .hint("give it the certificate, the key or the authority that is meant")
                            .against(key_of(&source), "data")
                    }
                    Ok(_) => refused(cx.view(), &source)
                        .or_else(|| ends(cx.view(), &source, &input.content))?
                        .against(key_of(&source), "data"),
                }
            }
        };
        Some(Problem { key: self.key, path: self.path, finding })
    }
}

fn name_of(source: &SecretSource) -> String {
    match source {
        SecretSource::KeyPair { namespace, name } | SecretSource::Authority { namespace, name } => {
            format!("Secret {namespace}/{name}")
        }
        SecretSource::AuthorityMap { namespace, name } => format!("ConfigMap {namespace}/{name}"),
    }
}

/// The object that is named.
fn key_of(source: &SecretSource) -> ObjectKey {
    match source {
        SecretSource::KeyPair { namespace, name } | SecretSource::Authority { namespace, name } => {
            ObjectKey::new(Kind::Secret, namespace, name)
        }
        SecretSource::AuthorityMap { namespace, name } => ObjectKey::new(Kind::ConfigMap, namespace, name),
    }
}

/// There is no such object. Proxies may run in another namespace than who configures them, and get secrets
/// of theirs.
fn missing(view: &View<'_>, source: &SecretSource) -> Option<Finding> {
    let elsewhere = match source {
        SecretSource::KeyPair { name, .. } | SecretSource::Authority { name, .. } => {
            let plain = name.strip_suffix(CA_SUFFIX).unwrap_or(name);
            let has = |namespace: &Name| {
                view.secret(namespace, name).is_some() || view.secret(namespace, plain).is_some()
            };
            view.secret_namespaces().into_iter().find(has)
        }
        SecretSource::AuthorityMap { .. } => None,
    };
    if let Some(namespace) = elsewhere {
        let message = format!(
            "there is no {}; one of namespace {namespace} has the name, and only proxies that run there get it",
            name_of(source)
        );
        let hint = "create it in the namespace of the proxies";
        // Gateways are often configured from another namespace than the one that they run in.
        return Some(Finding::new(Severity::Info, Code::InvalidReference, message).hint(hint));
    }
    let message = format!("there is no {}; connections that need it are refused", name_of(source));
    let hint = "create it in the namespace of the proxies, or correct the name";
    Some(Finding::error(Code::InvalidReference, message).hint(hint))
}

/// Who asks for the key and may not have it, because it may not read Secrets by itself.
fn refused(view: &View<'_>, source: &SecretSource) -> Option<Finding> {
    let SecretSource::KeyPair { namespace, .. } = source else { return None };
    let here = view.refused_secret_readers().filter(|(account, _)| account.namespace == *namespace);
    let here: Vec<(&Account, &SecretAccess)> = here.collect();
    let (_, access) = here.first()?;
    let mut names: Vec<String> = here.iter().map(|(account, _)| account.to_string()).take(SHOWN).collect();
    if here.len() > SHOWN {
        names.push(format!("{} more", here.len() - SHOWN));
    }
    let (secret, names) = (name_of(source), names.join(", "));
    Some(match access {
        SecretAccess::Unanswered { reason } => Finding::warning(
            Code::InvalidReference,
            format!("{secret} is withheld from proxies of {names}: whether they may read Secrets is not known ({reason})"),
        )
        .hint("the control plane needs `create` of subjectaccessreviews.authorization.k8s.io"),
        SecretAccess::Allowed | SecretAccess::Denied => Finding::warning(
            Code::InvalidReference,
            format!("{secret} is withheld from proxies of {names}, whose service accounts may not list Secrets"),
        )
        .hint(format!("if they serve it, bind a Role with `list` of secrets in {namespace} to the service account")),
    })
}

/// Its certificate has ended or ends soon, if somebody says which day it is.
fn ends(view: &View<'_>, source: &SecretSource, content: &SecretContent) -> Option<Finding> {
    let SecretContent::KeyPair(secret) = content else { return None };
    let today = view.day()?;
    let (text, end) = certificate_end(secret)?;
    let left = end.div_euclid(DAY) - i64::try_from(today).ok()?;
    if left > WARNED {
        return None;
    }
    let name = name_of(source);
    Some(
        match left < 0 {
            true => Finding::error(
                Code::InvalidReference,
                format!("the certificate of {name} ended at {text}; clients refuse it"),
            ),
            false => {
                Finding::warning(Code::InvalidReference, format!("the certificate of {name} ends at {text}"))
            }
        }
        .hint("renew it"),
    )
}
