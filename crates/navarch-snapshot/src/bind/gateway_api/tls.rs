//! TLS of listeners: which certificates they present, and whose they ask for.

use navarch_model::gateway_api::{
    FrontendTlsValidation, FrontendValidationMode, GROUP, Listener, ListenerTlsConfig, ObjectReference,
    SecretObjectReference, TlsMode,
};
use navarch_model::key_pair::{Authority, KeyPair};
use navarch_model::kubernetes::{ConfigMap, Secret};
use navarch_model::networking::{ServerTlsMode, ServerTlsSettings};
use navarch_model::{Kind, Labels, Name, ObjectKey};

use super::grants::{Reference, Referent, granted};
use crate::registry::store::Reader;

/// Asks for certificates of clients, or for those of the mesh on both sides (Istio).
const TERMINATE_MODE_OPTION: &str = "gateway.istio.io/tls-terminate-mode";
const CIPHER_SUITES_OPTION: &str = "gateway.istio.io/tls-cipher-suites";
const LISTENER_MODE_OPTION: &str = "gateway.istio.io/listener-protocol";
/// Labels of a gateway to another network, and the port that mesh TLS is passed on at.
const NETWORK_LABEL: &str = "topology.istio.io/network";
const GATEWAY_PORT_LABEL: &str = "networking.istio.io/gatewayPort";
const AUTO_PASSTHROUGH_PORT: &str = "15443";
/// The certificate of the workload itself.
const BUILTIN_CREDENTIAL: &str = "builtin://";
const CA_SUFFIX: &str = "-cacert";
/// One for each type of key.
const CERTIFICATES_MAX: usize = 2;

/// Why a listener cannot have the TLS that it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsProblem {
    pub reason: &'static str,
    pub message: String,
}

/// Who asks: the object with the listener, and the gateway that it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    pub key: &'a ObjectKey,
    pub labels: &'a Labels,
    pub gateway: &'a ObjectKey,
    /// What the gateway says of certificates of clients of the port.
    pub validation: Option<&'a FrontendTlsValidation>,
}

/// The settings, and what is wrong if something is. With settings, the listener can be served all the same.
pub fn settings(
    reader: &Reader<'_>,
    asker: Asker<'_>,
    listener: &Listener,
) -> (Option<ServerTlsSettings>, Option<TlsProblem>) {
    let Some(tls) = &listener.tls else { return (None, None) };
    let mut settings =
        ServerTlsSettings { cipher_suites: cipher_suites(tls), ..ServerTlsSettings::default() };
    if tls.mode() == TlsMode::Passthrough {
        settings.mode = match is_auto_passthrough(asker.labels, listener, tls) {
            true => ServerTlsMode::AutoPassthrough,
            false => ServerTlsMode::Passthrough,
        };
        return (Some(settings), None);
    }
    settings.mode = ServerTlsMode::Simple;
    let option = tls.options.get(TERMINATE_MODE_OPTION).map(String::as_str);
    match option {
        Some("ISTIO_MUTUAL") => {
            settings.mode = ServerTlsMode::IstioMutual;
            return (Some(settings), None);
        }
        Some("ISTIO_SIMPLE") => {
            settings.credential_name = BUILTIN_CREDENTIAL.to_owned();
            return (Some(settings), None);
        }
        Some("MUTUAL") => settings.mode = ServerTlsMode::Mutual,
        Some("OPTIONAL_MUTUAL") => settings.mode = ServerTlsMode::OptionalMutual,
        _ => {}
    }
    let problem = match certificates(reader, asker.key, &tls.certificate_refs) {
        (names, problem) if names.is_empty() => return (None, problem.or_else(no_certificate)),
        (mut names, problem) => {
            match names.len() {
                1 => settings.credential_name = names.remove(0),
                _ => settings.credential_names = names,
            }
            problem
        }
    };
    match asker.validation.filter(|validation| !validation.ca_certificate_refs.is_empty()) {
        Some(validation) => match client_validation(reader, asker, validation, option, &mut settings) {
            Ok(()) => (Some(settings), problem),
            Err(problem) => (None, Some(problem)),
        },
        None => (Some(settings), problem),
    }
}

fn no_certificate() -> Option<TlsProblem> {
    Some(TlsProblem { reason: "InvalidCertificateRef", message: "no certificate is named".to_owned() })
}

fn cipher_suites(tls: &ListenerTlsConfig) -> Vec<String> {
    let stated = tls.options.get(CIPHER_SUITES_OPTION).map_or("", String::as_str);
    stated.split(',').map(str::trim).filter(|suite| !suite.is_empty()).map(str::to_owned).collect()
}

/// Whether connections are passed on by the name that a workload of the mesh states, as gateways to other
/// networks do.
fn is_auto_passthrough(labels: &Labels, listener: &Listener, tls: &ListenerTlsConfig) -> bool {
    if tls.options.get(LISTENER_MODE_OPTION).is_some_and(|mode| mode == "auto-passthrough") {
        return true;
    }
    let port = labels.get(GATEWAY_PORT_LABEL).map_or(AUTO_PASSTHROUGH_PORT, |port| port);
    labels.contains_key(NETWORK_LABEL) && listener.port().to_string() == port
}

/// Names of the certificates that can be used, and what is wrong with the first that cannot.
fn certificates(
    reader: &Reader<'_>,
    asker: &ObjectKey,
    references: &[SecretObjectReference],
) -> (Vec<String>, Option<TlsProblem>) {
    if references.len() > CERTIFICATES_MAX {
        let message = format!("{} certificates, of which there may be {CERTIFICATES_MAX}", references.len());
        return (Vec::new(), Some(TlsProblem { reason: "InvalidCertificateRef", message }));
    }
    let mut names = Vec::new();
    let mut problem = None;
    for reference in references {
        match certificate(reader, asker, reference) {
            Ok(name) => names.push(name),
            Err(found) => problem = problem.or(Some(found)),
        }
    }
    (names, problem)
}

/// The name of a certificate, if the object that asks may refer to it and it is usable.
pub fn certificate(
    reader: &Reader<'_>,
    asker: &ObjectKey,
    reference: &SecretObjectReference,
) -> Result<String, TlsProblem> {
    let SecretObjectReference { group: _, kind: _, name, namespace } = reference;
    let namespace = namespace.as_ref().unwrap_or(&asker.namespace);
    let invalid = |message| TlsProblem { reason: "InvalidCertificateRef", message };
    if !reference.is_secret() {
        return Err(invalid(format!("{name} is not a Secret")));
    }
    // Whether there is such a Secret must not show to who may not refer to it.
    permit(reader, asker, Referent { group: "", kind: "Secret", namespace, name })?;
    let key = ObjectKey::new(Kind::Secret, namespace, name);
    let Some(secret) = reader.object(&key).and_then(|object| object.spec::<Secret>()) else {
        return Err(invalid(format!("there is no {key}")));
    };
    KeyPair::of(secret).map_err(|problem| invalid(format!("{key} cannot be used: {problem}")))?;
    Ok(format!("kubernetes-gateway://{namespace}/{name}"))
}

fn permit(reader: &Reader<'_>, asker: &ObjectKey, to: Referent<'_>) -> Result<(), TlsProblem> {
    let from = (GROUP, asker.kind.as_str());
    if granted(reader, &Reference { from, from_namespace: &asker.namespace, to }) {
        return Ok(());
    }
    let Referent { kind, namespace, name, .. } = to;
    let message = format!(
        "{kind} {namespace}/{name} may not be referred to from namespace {}: there is no ReferenceGrant",
        asker.namespace
    );
    Err(TlsProblem { reason: "RefNotPermitted", message })
}

/// Asks for certificates of clients.
fn client_validation(
    reader: &Reader<'_>,
    asker: Asker<'_>,
    validation: &FrontendTlsValidation,
    option: Option<&str>,
    settings: &mut ServerTlsSettings,
) -> Result<(), TlsProblem> {
    let FrontendTlsValidation { ca_certificate_refs, mode } = validation;
    let [reference] = ca_certificate_refs.as_slice() else {
        let message = "only one authority for certificates of clients can be used".to_owned();
        return Err(TlsProblem { reason: "InvalidCACertificateRef", message });
    };
    settings.ca_cert_credential_name = authority(reader, asker.gateway, reference)?;
    let lenient = *mode == FrontendValidationMode::AllowInsecureFallback;
    let (mode, skip) = match (option, lenient) {
        (Some("MUTUAL"), _) | (None, false) => (ServerTlsMode::Mutual, false),
        (Some("OPTIONAL_MUTUAL"), _) => (ServerTlsMode::OptionalMutual, false),
        (_, true) => (ServerTlsMode::OptionalMutual, true),
        (_, false) => (ServerTlsMode::Mutual, false),
    };
    settings.mode = mode;
    settings.insecure_skip_verify = Some(skip);
    Ok(())
}

/// The name of a certificate authority, if it may be referred to and is usable.
fn authority(
    reader: &Reader<'_>,
    asker: &ObjectKey,
    reference: &ObjectReference,
) -> Result<String, TlsProblem> {
    let ObjectReference { group, kind, name, namespace } = reference;
    let namespace: &Name = namespace.as_ref().unwrap_or(&asker.namespace);
    let (object, scheme) = match (group.as_str(), kind.as_str()) {
        ("", "ConfigMap") => (Kind::ConfigMap, "configmap"),
        ("", "Secret") => (Kind::Secret, "kubernetes-gateway"),
        _ => {
            let message = format!("{kind} {name}: only a ConfigMap or a Secret can hold an authority");
            return Err(TlsProblem { reason: "InvalidCACertificateKind", message });
        }
    };
    permit(reader, asker, Referent { group, kind, namespace, name })?;
    let key = ObjectKey::new(object, namespace, name);
    let invalid = |message| TlsProblem { reason: "InvalidCACertificateRef", message };
    let Some(found) = reader.object(&key) else { return Err(invalid(format!("there is no {key}"))) };
    let secret = found.spec::<Secret>().map(|secret| Authority::of_secret(secret));
    let map = || found.spec::<ConfigMap>().map(|map| Authority::of_config_map(map));
    if let Some(Err(problem)) = secret.or_else(map) {
        return Err(invalid(format!("{key} cannot be used: {problem}")));
    }
    Ok(format!("{scheme}://{namespace}/{name}{CA_SUFFIX}"))
}
