//! References to secrets.

use std::time::Duration;

use navarch_envoy::proto::envoy::config::core::v3::{
    AggregatedConfigSource, ApiVersion, ConfigSource, config_source,
};
use navarch_envoy::proto::envoy::extensions::transport_sockets::tls::v3::SdsSecretConfig;
use navarch_envoy::wkt;

/// Name of the secret with the certificate and key of a workload.
pub const WORKLOAD_CERTIFICATE: &str = "default";
/// Name of the secret with the roots that workloads are verified by.
pub const WORKLOAD_ROOTS: &str = "ROOTCA";
/// What a credential name ends with if only its certificate authority is meant.
pub const CA_SUFFIX: &str = "-cacert";

/// What the names of secrets start with that are a certificate and a key in files.
pub const FILE_CERTIFICATE: &str = "file-cert:";
/// What the names of secrets start with that are a certificate authority in a file.
pub const FILE_ROOT: &str = "file-root:";
/// Stands for the file with the roots of the operating system.
pub const SYSTEM_ROOTS: &str = "system";

const KUBERNETES: &str = "kubernetes://";
const BUILTIN: &str = "builtin://";
const EXTERNAL: &str = "sds://";
const INVALID: &str = "invalid://";

/// How long a listener or cluster waits for a workload's certificate. It comes over the stream that brought
/// the listener, at once or not at all; and state of the world cannot say "not at all", so that waiting
/// without limit, as Istio's proxies do beside their agent, would keep a proxy from ever becoming ready where
/// nobody issues certificates.
const WORKLOAD_SECRET_WAIT: Duration = Duration::from_secs(1);

/// A secret of the workload itself, or a file.
pub fn workload_secret(name: &str) -> SdsSecretConfig {
    SdsSecretConfig { name: name.to_owned(), sds_config: Some(ads(Some(WORKLOAD_SECRET_WAIT))) }
}

/// The secret that a `credentialName` names.
///
/// There is a limit to the waiting (Envoy's default of 15 s), so that a missing secret does not hold up the
/// whole listener.
pub fn credential(name: &str) -> SdsSecretConfig {
    if name == BUILTIN {
        return workload_secret(WORKLOAD_CERTIFICATE);
    }
    if name.strip_prefix(BUILTIN) == Some(CA_SUFFIX) {
        return workload_secret(WORKLOAD_ROOTS);
    }
    SdsSecretConfig { name: credential_resource(name), sds_config: Some(ads(None)) }
}

/// The resource name of a credential: `kubernetes://<name>` unless it says what it is.
pub fn credential_resource(name: &str) -> String {
    let name = name.strip_prefix(EXTERNAL).unwrap_or(name);
    if name.starts_with(BUILTIN) {
        return WORKLOAD_CERTIFICATE.to_owned();
    }
    if name.starts_with(INVALID) {
        return INVALID.to_owned();
    }
    let typed = [KUBERNETES, "kubernetes-gateway://", "configmap://"];
    if typed.iter().any(|prefix| name.starts_with(prefix)) {
        name.to_owned()
    } else {
        format!("{KUBERNETES}{name}")
    }
}

/// The resource name of a certificate and a key in files; nothing if one of them is not stated.
pub fn certificate_files(certificate: &str, key: &str) -> Option<String> {
    (!certificate.is_empty() && !key.is_empty()).then(|| format!("{FILE_CERTIFICATE}{certificate}~{key}"))
}

/// The resource name of a certificate authority in a file.
pub fn root_file(path: &str) -> Option<String> {
    (!path.is_empty()).then(|| format!("{FILE_ROOT}{path}"))
}

fn ads(initial_fetch_timeout: Option<Duration>) -> ConfigSource {
    ConfigSource {
        initial_fetch_timeout: initial_fetch_timeout.map(wkt::duration),
        resource_api_version: ApiVersion::V3 as i32,
        config_source_specifier: Some(config_source::ConfigSourceSpecifier::Ads(
            AggregatedConfigSource::default(),
        )),
        ..ConfigSource::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_a_kubernetes_secret_unless_it_says_otherwise() {
        let check = |name: &str, expected: &str| assert_eq!(credential(name).name, expected, "{name}");
        check("web", "kubernetes://web");
        check("web-cacert", "kubernetes://web-cacert");
        check("kubernetes-gateway://edge/web", "kubernetes-gateway://edge/web");
        check("configmap://edge/roots", "configmap://edge/roots");
        check("sds://web", "kubernetes://web");
        check("builtin://", "default");
        check("builtin://-cacert", "ROOTCA");
    }
}
