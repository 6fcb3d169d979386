//! Downstream TLS: what a listener demands of clients and shows to them.

use navarch_envoy::any::any;
use navarch_envoy::proto::envoy::config::core::v3::{
    DataSource, TransportSocket, data_source, transport_socket,
};
use navarch_envoy::proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, TlsParameters,
    certificate_validation_context, common_tls_context, tls_parameters,
};
use navarch_envoy::proto::envoy::r#type::matcher::v3::{StringMatcher, string_matcher};
use navarch_model::mesh::{self, MeshConfig};
use navarch_model::networking::{ServerTlsMode, ServerTlsSettings, TlsProtocol};
use navarch_model::proxy::CertificateFiles;
use navarch_model::{Name, TrustDomains, identity};

use crate::sds;

/// Cipher suites of mesh mutual TLS unless the mesh states others: AES-GCM with forward secrecy, and without
/// for clients that have no better.
const MESH_CIPHERS: &[&str] = &[
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];

/// Cipher suites that Envoy's TLS library knows; others in configuration are left out, because Envoy would
/// reject the listener.
const KNOWN_CIPHERS: &[&str] = &[
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-PSK-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-PSK-AES128-CBC-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "ECDHE-PSK-AES256-CBC-SHA",
    "AES128-GCM-SHA256",
    "PSK-AES128-CBC-SHA",
    "AES128-SHA",
    "AES256-GCM-SHA384",
    "PSK-AES256-CBC-SHA",
    "AES256-SHA",
    "DES-CBC3-SHA",
    "ECDHE-RSA-AES128-SHA256",
    "ECDHE-RSA-AES256-SHA384",
    "[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]",
    "[ECDHE-RSA-AES128-GCM-SHA256|ECDHE-RSA-CHACHA20-POLY1305]",
];

/// Protocols offered where HTTP is served.
pub const ALPN_HTTP: &[&str] = &["h2", "http/1.1"];
/// Protocols offered where bytes are passed on; the first lets proxies exchange metadata.
pub const ALPN_TCP: &[&str] = &["istio-peer-exchange", "h2", "http/1.1"];
/// Protocols offered over QUIC.
pub const ALPN_HTTP3: &[&str] = &["h3"];

/// What mesh mutual TLS demands of clients.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MutualTls {
    pub cipher_suites: Vec<String>,
    pub min_version_13: bool,
    /// Clients must have an identity in one of these trust domains; empty: in any.
    pub trust_domains: Vec<Name>,
    pub files: CertificateFiles,
}

/// Names of the secrets that a server takes from files.
pub fn file_secrets(settings: &ServerTlsSettings) -> Vec<String> {
    let terminates = matches!(
        settings.mode,
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual
    );
    if !terminates || !settings.credential_names.is_empty() || !settings.credential_name.is_empty() {
        return Vec::new();
    }
    let own = [(&settings.server_certificate, &settings.private_key)];
    let several = settings.tls_certificates.iter().map(|pair| (&pair.server_certificate, &pair.private_key));
    let pairs = own.into_iter().chain(several);
    let mut names: Vec<String> =
        pairs.filter_map(|(certificate, key)| sds::certificate_files(certificate, key)).collect();
    names.extend(sds::root_file(&settings.ca_certificates));
    names
}

/// Names of the secrets that a proxy was started with as files.
pub fn own_file_secrets(files: &CertificateFiles) -> impl Iterator<Item = String> + use<> {
    [sds::certificate_files(&files.chain, &files.key), sds::root_file(&files.roots)].into_iter().flatten()
}

fn certificate_secret(chain: &str, key: &str) -> SdsSecretConfig {
    let name = sds::certificate_files(chain, key);
    sds::workload_secret(name.as_deref().unwrap_or(sds::WORKLOAD_CERTIFICATE))
}

fn roots_secret(roots: &str) -> SdsSecretConfig {
    let name = sds::root_file(roots);
    sds::workload_secret(name.as_deref().unwrap_or(sds::WORKLOAD_ROOTS))
}

impl MutualTls {
    /// The demands of a mesh on clients of a proxy.
    pub fn new(mesh: &MeshConfig, files: CertificateFiles) -> Self {
        let stated = mesh.mesh_mtls.clone().unwrap_or_default();
        MutualTls {
            cipher_suites: if stated.cipher_suites.is_empty() {
                MESH_CIPHERS.iter().map(|suite| (*suite).to_owned()).collect()
            } else {
                stated.cipher_suites
            },
            min_version_13: stated.min_protocol_version == mesh::TlsProtocol::Tlsv13,
            trust_domains: trust_domains(mesh),
            files,
        }
    }

    /// The context of a chain that offers `alpn`.
    pub fn context(&self, alpn: &[&str]) -> DownstreamTlsContext {
        let min = if self.min_version_13 {
            tls_parameters::TlsProtocol::TlSv13
        } else {
            tls_parameters::TlsProtocol::TlSv12
        };
        let prefixes = self
            .trust_domains
            .iter()
            .map(|domain| string_match(string_matcher::MatchPattern::Prefix(identity::prefix_of(domain))));
        let validation = CertificateValidationContext {
            match_subject_alt_names: prefixes.collect(),
            ..CertificateValidationContext::default()
        };
        DownstreamTlsContext {
            require_client_certificate: Some(true),
            common_tls_context: Some(CommonTlsContext {
                alpn_protocols: strings(alpn),
                tls_params: Some(TlsParameters {
                    cipher_suites: self.cipher_suites.clone(),
                    tls_minimum_protocol_version: min as i32,
                    tls_maximum_protocol_version: tls_parameters::TlsProtocol::TlSv13 as i32,
                    ..TlsParameters::default()
                }),
                tls_certificate_sds_secret_configs: vec![certificate_secret(
                    &self.files.chain,
                    &self.files.key,
                )],
                validation_context_type: Some(combined(validation, roots_secret(&self.files.roots))),
                ..CommonTlsContext::default()
            }),
            ..DownstreamTlsContext::default()
        }
    }
}

/// The trust domain of the mesh, its aliases and those of extra roots, each once.
fn trust_domains(mesh: &MeshConfig) -> Vec<Name> {
    let extra = mesh.ca_certificates.iter().flat_map(|roots| roots.trust_domains.iter());
    let mut domains: Vec<Name> = Vec::new();
    for domain in
        TrustDomains::of(mesh).iter().cloned().chain(extra.map(|domain| Name::from(domain.as_str())))
    {
        if !domain.is_empty() && !domains.contains(&domain) {
            domains.push(domain);
        }
    }
    domains
}

/// What a terminating server of a Gateway (or of a Sidecar's ingress listener) needs beside its settings.
#[derive(Clone, Copy, Debug)]
pub struct ServerContext<'a> {
    /// TLS parameters of the mesh, for servers that state none.
    pub defaults: Option<&'a mesh::TlsConfig>,
    /// Files of the proxy, for ISTIO_MUTUAL.
    pub files: &'a CertificateFiles,
    /// HTTP/3 over QUIC.
    pub quic: bool,
    /// The server passes on bytes after terminating TLS.
    pub terminates_tcp: bool,
}

/// The context of a server that terminates TLS.
pub fn server_context(settings: &ServerTlsSettings, server: ServerContext<'_>) -> DownstreamTlsContext {
    let istio_mutual = settings.mode == ServerTlsMode::IstioMutual;
    let alpn = match () {
        () if server.quic => ALPN_HTTP3,
        () if istio_mutual && server.terminates_tcp => ALPN_TCP,
        () => ALPN_HTTP,
    };
    let demands = matches!(settings.mode, ServerTlsMode::Mutual | ServerTlsMode::IstioMutual);
    // Envoy cannot demand client certificates over QUIC (envoyproxy/envoy#23809).
    let require = demands && !server.quic;
    let validate = require || settings.mode == ServerTlsMode::OptionalMutual;
    let mut common = CommonTlsContext { alpn_protocols: strings(alpn), ..CommonTlsContext::default() };
    if istio_mutual {
        common.tls_certificate_sds_secret_configs =
            vec![certificate_secret(&server.files.chain, &server.files.key)];
        common.validation_context_type =
            validate.then(|| combined(files_validation(settings), roots_secret(&server.files.roots)));
    } else if settings.credential_names.is_empty() && settings.credential_name.is_empty() {
        file_certificates(&mut common, settings, validate);
    } else {
        credentials(&mut common, settings);
    }
    if matches!(settings.mode, ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual)
    {
        common.tls_params = parameters(settings, server.defaults);
    }
    DownstreamTlsContext {
        require_client_certificate: Some(require),
        common_tls_context: Some(common),
        ..DownstreamTlsContext::default()
    }
}

fn file_certificates(common: &mut CommonTlsContext, settings: &ServerTlsSettings, validate: bool) {
    common.tls_certificate_sds_secret_configs = if settings.tls_certificates.is_empty() {
        vec![certificate_secret(&settings.server_certificate, &settings.private_key)]
    } else {
        settings
            .tls_certificates
            .iter()
            .map(|pair| certificate_secret(&pair.server_certificate, &pair.private_key))
            .collect()
    };
    common.validation_context_type =
        validate.then(|| combined(files_validation(settings), roots_secret(&settings.ca_certificates)));
}

fn files_validation(settings: &ServerTlsSettings) -> CertificateValidationContext {
    CertificateValidationContext {
        match_subject_alt_names: exact_matches(&settings.subject_alt_names),
        crl: (!settings.ca_crl.is_empty()).then(|| DataSource {
            specifier: Some(data_source::Specifier::Filename(settings.ca_crl.clone())),
            ..DataSource::default()
        }),
        trust_chain_verification: trust_chain(settings),
        ..CertificateValidationContext::default()
    }
}

fn credentials(common: &mut CommonTlsContext, settings: &ServerTlsSettings) {
    let names = if settings.credential_names.is_empty() {
        std::slice::from_ref(&settings.credential_name)
    } else {
        settings.credential_names.as_slice()
    };
    common.tls_certificate_sds_secret_configs = names.iter().map(|name| sds::credential(name)).collect();
    // One certificate authority for all certificates: Envoy validates clients before it knows which was
    // chosen.
    let roots = match names.first() {
        _ if !settings.ca_cert_credential_name.is_empty() => settings.ca_cert_credential_name.clone(),
        Some(first) => format!("{first}{}", sds::CA_SUFFIX),
        None => return,
    };
    common.validation_context_type =
        if matches!(settings.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual) {
            let validation = CertificateValidationContext {
                match_subject_alt_names: exact_matches(&settings.subject_alt_names),
                verify_certificate_spki: settings.verify_certificate_spki.clone(),
                verify_certificate_hash: settings.verify_certificate_hash.clone(),
                trust_chain_verification: trust_chain(settings),
                ..CertificateValidationContext::default()
            };
            Some(combined(validation, sds::credential(&roots)))
        } else if settings.subject_alt_names.is_empty() {
            None
        } else {
            Some(common_tls_context::ValidationContextType::ValidationContext(CertificateValidationContext {
                match_subject_alt_names: exact_matches(&settings.subject_alt_names),
                ..CertificateValidationContext::default()
            }))
        };
}

/// Protocol versions and ciphers: those of the server over those of the mesh.
fn parameters(settings: &ServerTlsSettings, defaults: Option<&mesh::TlsConfig>) -> Option<TlsParameters> {
    let mut parameters = TlsParameters::default();
    if let Some(defaults) = defaults {
        parameters.ecdh_curves.clone_from(&defaults.ecdh_curves);
        parameters.cipher_suites.clone_from(&defaults.cipher_suites);
        parameters.tls_minimum_protocol_version = match defaults.min_protocol_version {
            mesh::TlsProtocol::TlsAuto => 0,
            mesh::TlsProtocol::Tlsv13 => tls_parameters::TlsProtocol::TlSv13 as i32,
            _ => tls_parameters::TlsProtocol::TlSv12 as i32,
        };
    }
    if settings.min_protocol_version != TlsProtocol::TlsAuto {
        parameters.tls_minimum_protocol_version = version(settings.min_protocol_version);
    }
    if settings.max_protocol_version != TlsProtocol::TlsAuto {
        parameters.tls_maximum_protocol_version = version(settings.max_protocol_version);
    }
    let suites = known_ciphers(&settings.cipher_suites);
    if !suites.is_empty() {
        parameters.cipher_suites = suites;
    }
    (parameters != TlsParameters::default()).then_some(parameters)
}

/// The cipher suites that Envoy knows, each once.
pub fn known_ciphers(suites: &[String]) -> Vec<String> {
    let mut known: Vec<String> = Vec::new();
    for suite in suites {
        if KNOWN_CIPHERS.contains(&suite.as_str()) && !known.contains(suite) {
            known.push(suite.clone());
        }
    }
    known
}

fn version(protocol: TlsProtocol) -> i32 {
    use tls_parameters::TlsProtocol as Envoy;
    let version = match protocol {
        TlsProtocol::Tlsv10 => Envoy::TlSv10,
        TlsProtocol::Tlsv11 => Envoy::TlSv11,
        TlsProtocol::Tlsv12 => Envoy::TlSv12,
        TlsProtocol::Tlsv13 => Envoy::TlSv13,
        _ => Envoy::TlsAuto,
    };
    version as i32
}

fn trust_chain(settings: &ServerTlsSettings) -> i32 {
    use certificate_validation_context::TrustChainVerification;
    if settings.insecure_skip_verify.unwrap_or(false) {
        TrustChainVerification::AcceptUntrusted as i32
    } else {
        TrustChainVerification::VerifyTrustChain as i32
    }
}

fn combined(
    validation: CertificateValidationContext,
    roots: SdsSecretConfig,
) -> common_tls_context::ValidationContextType {
    common_tls_context::ValidationContextType::CombinedValidationContext(
        common_tls_context::CombinedCertificateValidationContext {
            default_validation_context: Some(validation),
            validation_context_sds_secret_config: Some(roots),
            ..common_tls_context::CombinedCertificateValidationContext::default()
        },
    )
}

fn exact_matches(names: &[String]) -> Vec<StringMatcher> {
    names.iter().map(|name| string_match(string_matcher::MatchPattern::Exact(name.clone()))).collect()
}

fn string_match(pattern: string_matcher::MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// A TLS transport socket.
pub fn transport_socket(context: &DownstreamTlsContext) -> TransportSocket {
    TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(any(context))),
    }
}
