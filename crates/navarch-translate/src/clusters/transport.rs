//! Transport sockets: plain text, mutual TLS where both sides can, or TLS as a DestinationRule says.

use navarch_envoy::any::{any, unpack};
use navarch_envoy::proto::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, TransportSocketMatch};
use navarch_envoy::proto::envoy::config::core::v3::{
    ProxyProtocolConfig, TransportSocket, UpstreamHttpProtocolOptions, proxy_protocol_config,
};
use navarch_envoy::proto::envoy::extensions::clusters::dynamic_forward_proxy::v3::ClusterConfig;
use navarch_envoy::proto::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use navarch_envoy::wkt::Struct;
use navarch_model::networking::{ClientTlsMode, ClientTlsSettings, ProxyProtocol, ProxyProtocolVersion};
use navarch_model::proxy::ProxyKind;

use super::{ClusterMesh, ClusterView, Draft, pool};
use crate::endpoints::mtls_match;
use crate::tls;

/// What decides about TLS for a cluster, besides the rule.
pub(super) struct Context<'a> {
    pub mesh: &'a ClusterMesh,
    pub view: &'a ClusterView,
    /// Names that the server's certificate may carry if the rule names none.
    pub subject_alt_names: &'a [String],
    /// The server name of mesh TLS.
    pub sni: &'a str,
    pub mesh_external: bool,
    /// A ServiceEntry declared the service.
    pub is_service_entry: bool,
    /// Servers may be expected to accept mutual TLS where their endpoints say so.
    pub auto_mtls: bool,
    /// The rule selects workloads, so its secrets are meant for those.
    pub rule_selects_workloads: bool,
}

/// TLS settings, and whether somebody asked for them.
struct Chosen {
    settings: ClientTlsSettings,
    automatic: bool,
}

/// Sets the transport socket of a cluster.
pub(super) fn apply(draft: &mut Draft, rule: Option<&ClientTlsSettings>, context: &Context<'_>) {
    let Some(chosen) = choose(rule, context) else { return };
    let settings = &chosen.settings;
    if is_out_of_reach(settings, context) {
        return;
    }
    let settings = match settings.mode {
        ClientTlsMode::Simple | ClientTlsMode::Mutual => {
            from_request(draft, settings);
            with_registry_names(settings, context)
        }
        ClientTlsMode::IstioMutual => {
            if draft.dynamic {
                from_request(draft, settings);
            }
            settings.clone()
        }
        ClientTlsMode::Disable => return,
    };
    let upstream = tls::Upstream {
        cluster_name: &draft.cluster.name,
        http2: pool::is_http2(draft),
        dynamic: draft.dynamic,
        defaults: context.mesh.tls_defaults.as_ref(),
        certificate: context.view.backend_certificate.as_deref(),
    };
    let Some(tls_context) = tls::upstream(&settings, &upstream) else { return };
    let socket = tls::socket(&tls_context);
    let by_endpoint = chosen.automatic && settings.mode == ClientTlsMode::IstioMutual;
    // Endpoints of ORIGINAL_DST clusters have no metadata that could be matched.
    if by_endpoint && !draft.is_original_dst() {
        draft.cluster.transport_socket_matches = vec![
            socket_match("tlsMode-istio", mtls_match(), socket),
            socket_match("tlsMode-disabled", Struct::default(), tls::raw_buffer()),
        ];
    } else {
        draft.cluster.transport_socket = Some(socket);
    }
}

/// TLS as the rule says, or mutual TLS if the mesh may assume that the server accepts it.
fn choose(rule: Option<&ClientTlsSettings>, context: &Context<'_>) -> Option<Chosen> {
    let asked = |settings: ClientTlsSettings| Some(Chosen { settings, automatic: false });
    let certificates = context.view.client_certificates.as_ref();
    let with_certificates = |base: &ClientTlsSettings, names: &[String], sni: &str| {
        certificates.map(|certificates| ClientTlsSettings {
            mode: ClientTlsMode::Mutual,
            ca_certificates: certificates.roots.to_string(),
            client_certificate: certificates.chain.to_string(),
            private_key: certificates.key.to_string(),
            subject_alt_names: names.to_vec(),
            sni: sni.to_owned(),
            insecure_skip_verify: base.insecure_skip_verify,
            ..ClientTlsSettings::default()
        })
    };
    let Some(settings) = rule else {
        if context.mesh_external || !context.mesh.auto_mtls || !context.auto_mtls {
            return None;
        }
        let mesh_tls = ClientTlsSettings {
            mode: ClientTlsMode::IstioMutual,
            subject_alt_names: context.subject_alt_names.to_vec(),
            sni: context.sni.to_owned(),
            ..ClientTlsSettings::default()
        };
        let settings =
            with_certificates(&ClientTlsSettings::default(), context.subject_alt_names, context.sni)
                .unwrap_or(mesh_tls);
        return Some(Chosen { settings, automatic: true });
    };
    if matches!(settings.mode, ClientTlsMode::Disable | ClientTlsMode::Simple) {
        return asked(settings.clone());
    }
    // A server outside the mesh may trust other certificates than those the proxy was started with.
    if !context.mesh_external
        && let Some(settings) = with_certificates(settings, &settings.subject_alt_names, &settings.sni)
    {
        return asked(settings);
    }
    if settings.mode != ClientTlsMode::IstioMutual || certificates.is_some() {
        return asked(settings.clone());
    }
    let or = |stated: &String, otherwise: &str| {
        if stated.is_empty() { otherwise.to_owned() } else { stated.clone() }
    };
    asked(ClientTlsSettings {
        mode: ClientTlsMode::IstioMutual,
        sni: or(&settings.sni, context.sni),
        subject_alt_names: if settings.subject_alt_names.is_empty() {
            context.subject_alt_names.to_vec()
        } else {
            settings.subject_alt_names.clone()
        },
        insecure_skip_verify: settings.insecure_skip_verify,
        ..ClientTlsSettings::default()
    })
}

/// A rule for everybody must not make every sidecar ask for a Secret it has no right to. ConfigMaps are open
/// to all.
fn is_out_of_reach(settings: &ClientTlsSettings, context: &Context<'_>) -> bool {
    !settings.credential_name.is_empty()
        && !settings.credential_name.starts_with("configmap://")
        && context.view.kind == ProxyKind::Sidecar
        && !context.rule_selects_workloads
        && matches!(settings.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual)
}

/// `subjectAltNames` of a ServiceEntry count where the rule names none.
fn with_registry_names(settings: &ClientTlsSettings, context: &Context<'_>) -> ClientTlsSettings {
    let mut settings = settings.clone();
    if context.is_service_entry && settings.subject_alt_names.is_empty() {
        settings.subject_alt_names = context.subject_alt_names.to_vec();
    }
    settings
}

/// Takes the server name and the name in its certificate from each request where the rule states none.
fn from_request(draft: &mut Draft, settings: &ClientTlsSettings) {
    let from = tls::FromRequest::of(settings, draft.dynamic);
    if draft.dynamic && !(from.sni && from.san_validation) {
        allow_insecure(draft);
    }
    if from.sni || from.san_validation {
        let options = draft
            .http()
            .upstream_http_protocol_options
            .get_or_insert_with(UpstreamHttpProtocolOptions::default);
        options.auto_sni |= from.sni;
        options.auto_san_validation |= from.san_validation;
    }
}

/// Envoy refuses a dynamic forward proxy that does not verify names unless told that this is meant.
fn allow_insecure(draft: &mut Draft) {
    if let Some(ClusterDiscoveryType::ClusterType(custom)) = &mut draft.cluster.cluster_discovery_type
        && let Some(mut config) =
            custom.typed_config.as_ref().and_then(|config| unpack::<ClusterConfig>(config).ok())
    {
        config.allow_insecure_cluster_options = true;
        custom.typed_config = Some(any(&config));
    }
}

fn socket_match(name: &str, matches: Struct, socket: TransportSocket) -> TransportSocketMatch {
    TransportSocketMatch { name: name.to_owned(), r#match: Some(matches), transport_socket: Some(socket) }
}

/// Puts the PROXY protocol in front of whatever socket there is.
pub(super) fn proxy_protocol(draft: &mut Draft, settings: Option<&ProxyProtocol>) {
    let Some(settings) = settings else { return };
    let version = match settings.version {
        ProxyProtocolVersion::V1 => proxy_protocol_config::Version::V1,
        ProxyProtocolVersion::V2 => proxy_protocol_config::Version::V2,
    };
    let wrap = |inner: TransportSocket| {
        let config = ProxyProtocolUpstreamTransport {
            config: Some(ProxyProtocolConfig { version: version as i32, ..ProxyProtocolConfig::default() }),
            transport_socket: Some(inner),
            ..ProxyProtocolUpstreamTransport::default()
        };
        tls::transport_socket("envoy.transport_sockets.upstream_proxy_protocol", any(&config))
    };
    let cluster = &mut draft.cluster;
    if cluster.transport_socket_matches.is_empty() {
        let inner = cluster.transport_socket.take().unwrap_or_else(tls::raw_buffer);
        cluster.transport_socket = Some(wrap(inner));
        return;
    }
    for candidate in &mut cluster.transport_socket_matches {
        candidate.transport_socket = candidate.transport_socket.take().map(wrap);
    }
}

/// TLS to unknown destinations, as the mesh originates it.
pub(super) fn originate(draft: &mut Draft, settings: Option<&ClientTlsSettings>, mesh: &ClusterMesh) {
    let Some(settings) = settings else { return };
    if settings.mode != ClientTlsMode::Disable {
        from_request(draft, settings);
    }
    let upstream = tls::Upstream {
        cluster_name: &draft.cluster.name,
        http2: pool::is_http2(draft),
        dynamic: draft.dynamic,
        defaults: mesh.tls_defaults.as_ref(),
        certificate: None,
    };
    draft.cluster.transport_socket = tls::upstream(settings, &upstream).map(|context| tls::socket(&context));
}
