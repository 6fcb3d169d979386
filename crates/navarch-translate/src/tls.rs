//! TLS from a proxy to an upstream.

use navarch_envoy::any::any;
use navarch_envoy::proto::envoy::config::core::v3::{
    DataSource, TransportSocket, data_source, transport_socket,
};
use navarch_envoy::proto::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use navarch_envoy::proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use navarch_envoy::proto::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use navarch_envoy::proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, SdsSecretConfig, TlsParameters, UpstreamTlsContext,
};
use navarch_envoy::proto::envoy::r#type::matcher::v3::StringMatcher;
use navarch_envoy::proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use navarch_model::mesh::TlsConfig;
use navarch_model::networking::{ClientTlsMode, ClientTlsSettings};

use crate::sds;

/// What TLS to an upstream is made of, besides the settings themselves.
#[derive(Clone, Copy, Debug)]
pub struct Upstream<'a> {
    /// Name of the cluster: the server name of mesh TLS if there is no other.
    pub cluster_name: &'a str,
    /// The cluster always speaks HTTP/2, so ALPN offers it.
    pub http2: bool,
    /// The server is known only when a request comes: its name comes from the request.
    pub dynamic: bool,
    /// `meshConfig.tlsDefaults`.
    pub defaults: Option<&'a TlsConfig>,
    /// The credential that the client has for servers to which the settings name none.
    pub certificate: Option<&'a str>,
}

/// The TLS context for `settings`; nothing if the mode is DISABLE, or if a MUTUAL client has no certificate.
///
/// ALPN `istio` marks mesh TLS: by it a server that accepts both tells mesh TLS from TLS that is meant for
/// the application.
pub fn upstream(settings: &ClientTlsSettings, upstream: &Upstream<'_>) -> Option<UpstreamTlsContext> {
    match settings.mode {
        ClientTlsMode::Disable => None,
        ClientTlsMode::IstioMutual => Some(mesh(settings, upstream)),
        ClientTlsMode::Simple => originated(settings, upstream, false),
        ClientTlsMode::Mutual => originated(settings, upstream, true),
    }
}

fn mesh(settings: &ClientTlsSettings, upstream: &Upstream<'_>) -> UpstreamTlsContext {
    let mut alpn = vec!["istio-peer-exchange".to_owned(), "istio".to_owned()];
    if upstream.http2 {
        alpn.push("h2".to_owned());
    }
    let sni = match settings.sni.as_str() {
        "" if !upstream.dynamic => upstream.cluster_name,
        sni => sni,
    };
    UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(parameters(None)),
            tls_certificate_sds_secret_configs: vec![sds::workload_secret(sds::WORKLOAD_CERTIFICATE)],
            validation_context_type: Some(validation(
                settings,
                sds::workload_secret(sds::WORKLOAD_ROOTS),
                false,
            )),
            alpn_protocols: alpn,
            ..CommonTlsContext::default()
        }),
        sni: sni.to_owned(),
        ..UpstreamTlsContext::default()
    }
}

/// TLS that a DestinationRule originates.
fn originated(
    settings: &ClientTlsSettings,
    upstream: &Upstream<'_>,
    mutual: bool,
) -> Option<UpstreamTlsContext> {
    let skip_verification = settings.insecure_skip_verify == Some(true);
    let mut context = CommonTlsContext {
        tls_params: Some(parameters(upstream.defaults)),
        alpn_protocols: if upstream.http2 { vec!["h2".to_owned()] } else { Vec::new() },
        ..CommonTlsContext::default()
    };
    if settings.credential_name.is_empty() {
        if mutual {
            let files = sds::certificate_files(&settings.client_certificate, &settings.private_key)?;
            context.tls_certificate_sds_secret_configs.push(file_secret(&files));
        }
        context.validation_context_type = match sds::root_file(roots_of(settings)) {
            Some(roots) if !skip_verification => Some(validation(settings, file_secret(&roots), true)),
            _ => Some(ValidationContextType::ValidationContext(CertificateValidationContext::default())),
        };
    } else {
        if mutual {
            context.tls_certificate_sds_secret_configs.push(sds::credential(&settings.credential_name));
        }
        if !skip_verification {
            let roots = sds::credential(&format!("{}{}", settings.credential_name, sds::CA_SUFFIX));
            context.validation_context_type = Some(validation(settings, roots, false));
        }
    }
    if let Some(certificate) = upstream.certificate.filter(|_| !mutual) {
        context.tls_certificate_sds_secret_configs.push(sds::credential(certificate));
    }
    Some(UpstreamTlsContext {
        common_tls_context: Some(context),
        sni: settings.sni.clone(),
        ..UpstreamTlsContext::default()
    })
}

/// Where the roots are that servers are verified by: those of the operating system if none are stated.
fn roots_of(settings: &ClientTlsSettings) -> &str {
    match settings.ca_certificates.as_str() {
        "" => sds::SYSTEM_ROOTS,
        path => path,
    }
}

/// Names of the secrets that TLS as `settings` say takes from files.
pub fn file_secrets(settings: &ClientTlsSettings) -> impl Iterator<Item = String> + use<> {
    let mutual = settings.mode == ClientTlsMode::Mutual;
    let from_files =
        settings.credential_name.is_empty() && (mutual || settings.mode == ClientTlsMode::Simple);
    let verifies = settings.insecure_skip_verify != Some(true);
    let pair = sds::certificate_files(&settings.client_certificate, &settings.private_key);
    let roots = sds::root_file(roots_of(settings));
    [pair.filter(|_| from_files && mutual), roots.filter(|_| from_files && verifies)].into_iter().flatten()
}

/// Whether the server name, and the name in the server's certificate, come from each request: where the
/// settings name none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FromRequest {
    pub sni: bool,
    pub san_validation: bool,
}

impl FromRequest {
    /// What `settings` leave to the request.
    pub fn of(settings: &ClientTlsSettings, dynamic: bool) -> Self {
        let sni = settings.sni.is_empty();
        let open = dynamic || (sni && settings.subject_alt_names.is_empty());
        FromRequest { sni, san_validation: open && settings.insecure_skip_verify != Some(true) }
    }
}

fn parameters(defaults: Option<&TlsConfig>) -> TlsParameters {
    TlsParameters {
        tls_minimum_protocol_version: TlsProtocol::TlSv12 as i32,
        tls_maximum_protocol_version: TlsProtocol::TlSv13 as i32,
        cipher_suites: defaults.map(|defaults| defaults.cipher_suites.clone()).unwrap_or_default(),
        ecdh_curves: defaults.map(|defaults| defaults.ecdh_curves.clone()).unwrap_or_default(),
        ..TlsParameters::default()
    }
}

fn validation(settings: &ClientTlsSettings, roots: SdsSecretConfig, with_crl: bool) -> ValidationContextType {
    let crl = (with_crl && !settings.ca_crl.is_empty()).then(|| DataSource {
        specifier: Some(data_source::Specifier::Filename(settings.ca_crl.clone())),
        ..DataSource::default()
    });
    ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(CertificateValidationContext {
            match_subject_alt_names: settings.subject_alt_names.iter().map(|name| exact(name)).collect(),
            crl,
            ..CertificateValidationContext::default()
        }),
        validation_context_sds_secret_config: Some(roots),
        ..CombinedCertificateValidationContext::default()
    })
}

/// A secret made of files on the proxy's machine. It may be missing without holding up the cluster forever.
fn file_secret(name: &str) -> SdsSecretConfig {
    let mut secret = sds::workload_secret(name);
    if let Some(source) = &mut secret.sds_config {
        source.initial_fetch_timeout = None;
    }
    secret
}

fn exact(text: &str) -> StringMatcher {
    StringMatcher { match_pattern: Some(MatchPattern::Exact(text.to_owned())), ..StringMatcher::default() }
}

/// A transport socket that does TLS.
pub fn socket(context: &UpstreamTlsContext) -> TransportSocket {
    transport_socket("envoy.transport_sockets.tls", any(context))
}

/// A transport socket that passes bytes as they are.
pub fn raw_buffer() -> TransportSocket {
    transport_socket("envoy.transport_sockets.raw_buffer", any(&RawBuffer::default()))
}

/// A transport socket of any kind.
pub fn transport_socket(name: &str, config: navarch_envoy::Any) -> TransportSocket {
    TransportSocket {
        name: name.to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(config)),
    }
}
