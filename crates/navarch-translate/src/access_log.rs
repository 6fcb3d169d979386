//! Access logs: files and log services, from the mesh's settings and from extension providers.

use std::sync::LazyLock;

use navarch_envoy::any::any;
use navarch_envoy::proto::envoy::config::accesslog::v3::{
    AccessLog, AccessLogFilter, AndFilter, ExtensionFilter, ResponseFlagFilter, access_log,
    access_log_filter, extension_filter,
};
use navarch_envoy::proto::envoy::config::core::v3::{
    ApiVersion, DataSource, GrpcService, JsonFormatOptions, SubstitutionFormatString, TypedExtensionConfig,
    data_source, grpc_service, substitution_format_string,
};
use navarch_envoy::proto::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};
use navarch_envoy::proto::envoy::extensions::access_loggers::filters::cel::v3::ExpressionFilter;
use navarch_envoy::proto::envoy::extensions::access_loggers::grpc::v3::{
    CommonGrpcAccessLogConfig, HttpGrpcAccessLogConfig, TcpGrpcAccessLogConfig,
};
use navarch_envoy::proto::envoy::extensions::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig;
use navarch_envoy::proto::envoy::extensions::formatter::req_without_query::v3::ReqWithoutQuery;
use navarch_envoy::proto::opentelemetry::proto::common::v1::{AnyValue, KeyValue, KeyValueList, any_value};
use navarch_envoy::wkt;
use navarch_model::mesh::{
    AccessLogEncoding, EnvoyFileAccessLogProvider, ExtensionProvider, FileLogFormat, MeshConfig, Provider,
};
use navarch_model::values::Json;
use prost::{Message, Name};
use prost_types::Struct;

use crate::encoded::Encoded;

/// The text format of Istio's documentation, one line per request or connection.
const TEXT_FORMAT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% ",
    "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ",
    "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
);

/// The fields of the same format as JSON.
const JSON_FIELDS: &[(&str, &str)] = &[
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
];

/// Filter state about the peers, as earlier and current metadata exchange filters name it.
const PEER_STATE: &[&str] = &["upstream_peer", "downstream_peer"];
const PEER_STATE_ALL: &[&str] = &[
    "upstream_peer",
    "downstream_peer",
    "wasm.upstream_peer",
    "wasm.upstream_peer_id",
    "wasm.downstream_peer",
    "wasm.downstream_peer_id",
];

const FILE: &str = "envoy.access_loggers.file";
const HTTP_GRPC: &str = "envoy.access_loggers.http_grpc";
const TCP_GRPC: &str = "envoy.tcp_grpc_access_log";
const OPEN_TELEMETRY: &str = "envoy.access_loggers.open_telemetry";
/// The cluster of the access log service that a proxy's bootstrap defines.
const SERVICE_CLUSTER: &str = "envoy_accesslog_service";

/// What a log is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Http,
    Tcp,
    /// The listener itself: only connections that no filter chain took.
    Listener,
}

/// Where a provider's service is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Upstream {
    pub host: String,
    pub cluster: String,
}

/// The logs that the mesh's own settings ask for (`accessLogFile`, `enableEnvoyAccessLogService`), used where
/// neither Telemetry nor default providers say anything.
pub fn from_mesh(mesh: &MeshConfig, place: Place) -> Vec<AccessLog> {
    if place == Place::Listener && mesh.disable_envoy_listener_log {
        return Vec::new();
    }
    let mut logs = Vec::new();
    if !mesh.access_log_file.is_empty() {
        logs.push(mesh_file(&mesh.access_log_file, mesh));
    }
    if mesh.enable_envoy_access_log_service {
        logs.push(mesh_service(place));
    }
    if place == Place::Listener { logs.into_iter().map(for_listener).collect() } else { logs }
}

/// Restricts a log to connections that no filter chain took, which no other log sees.
fn for_listener(log: AccessLog) -> AccessLog {
    let flags = ResponseFlagFilter { flags: vec!["NR".to_owned()] };
    with_filter(
        log,
        AccessLogFilter {
            filter_specifier: Some(access_log_filter::FilterSpecifier::ResponseFlagFilter(flags)),
        },
    )
}

/// Restricts a log to what a CEL expression selects.
fn for_expression(log: AccessLog, expression: &str) -> AccessLog {
    with_filter(log, selected_by(expression))
}

/// The condition that a CEL expression is true.
pub(crate) fn selected_by(expression: &str) -> AccessLogFilter {
    let config = ExpressionFilter { expression: expression.to_owned(), ..ExpressionFilter::default() };
    let filter = ExtensionFilter {
        name: "envoy.access_loggers.extension_filters.cel".to_owned(),
        config_type: Some(extension_filter::ConfigType::TypedConfig(any(&config))),
    };
    AccessLogFilter { filter_specifier: Some(access_log_filter::FilterSpecifier::ExtensionFilter(filter)) }
}

/// Adds a condition to those a log has.
pub(crate) fn with_filter(log: AccessLog, added: AccessLogFilter) -> AccessLog {
    use access_log_filter::FilterSpecifier;
    let filter = match log.filter {
        None => added,
        Some(AccessLogFilter { filter_specifier: Some(FilterSpecifier::AndFilter(mut all)) }) => {
            all.filters.push(added);
            AccessLogFilter { filter_specifier: Some(FilterSpecifier::AndFilter(all)) }
        }
        Some(earlier) => AccessLogFilter {
            filter_specifier: Some(FilterSpecifier::AndFilter(AndFilter { filters: vec![earlier, added] })),
        },
    };
    AccessLog { filter: Some(filter), ..log }
}

/// The service and port that a provider sends logs to, if it does.
pub fn provider_service(provider: &ExtensionProvider) -> Option<(&str, u32)> {
    match provider.provider.as_ref()? {
        Provider::EnvoyHttpAls(service) => Some((&service.service, service.port)),
        Provider::EnvoyTcpAls(service) => Some((&service.service, service.port)),
        Provider::EnvoyOtelAls(service) => Some((&service.service, service.port)),
        _ => None,
    }
}

/// The log of a provider, as settings of listeners take it.
#[derive(Clone, Debug)]
pub struct ProviderLog {
    log: AccessLog,
    /// A CEL expression that selects what is logged.
    expression: Option<String>,
}

impl ProviderLog {
    /// The log of a provider, of what a CEL expression selects if there is one; nothing if the provider has
    /// no log, or if the service it needs is unknown.
    pub fn new(
        provider: &ExtensionProvider,
        mesh: &MeshConfig,
        upstream: Option<&Upstream>,
        expression: Option<&str>,
    ) -> Option<Self> {
        let log = from_provider(provider, mesh, upstream)?;
        Some(ProviderLog { log, expression: expression.map(str::to_owned) })
    }

    /// The log of requests, or of all connections.
    pub fn of_everything(&self) -> Encoded<AccessLog> {
        self.restricted(self.log.clone())
    }

    /// The log of a listener, for what its chains do not see.
    pub fn of_listener(&self) -> Encoded<AccessLog> {
        self.restricted(for_listener(self.log.clone()))
    }

    fn restricted(&self, log: AccessLog) -> Encoded<AccessLog> {
        Encoded::new(match &self.expression {
            Some(expression) => for_expression(log, expression),
            None => log,
        })
    }
}

fn from_provider(
    provider: &ExtensionProvider,
    mesh: &MeshConfig,
    upstream: Option<&Upstream>,
) -> Option<AccessLog> {
    Some(match provider.provider.as_ref()? {
        // The built-in provider has the format of the mesh's settings.
        Provider::EnvoyFileAccessLog(file)
            if provider.name == "envoy" && file.log_format.is_none() && !file.omit_empty_values =>
        {
            mesh_file(&file.path, mesh)
        }
        Provider::EnvoyFileAccessLog(file) => provider_file(file),
        Provider::EnvoyHttpAls(service) => {
            let common = common(
                or(&service.log_name, "http_envoy_accesslog"),
                upstream?,
                state(&service.filter_state_objects_to_log),
            );
            let config = HttpGrpcAccessLogConfig {
                common_config: Some(common),
                additional_request_headers_to_log: service.additional_request_headers_to_log.clone(),
                additional_response_headers_to_log: service.additional_response_headers_to_log.clone(),
                additional_response_trailers_to_log: service.additional_response_trailers_to_log.clone(),
            };
            log(HTTP_GRPC, &config)
        }
        Provider::EnvoyTcpAls(service) => {
            let common = common(
                or(&service.log_name, "tcp_envoy_accesslog"),
                upstream?,
                state(&service.filter_state_objects_to_log),
            );
            log(TCP_GRPC, &TcpGrpcAccessLogConfig { common_config: Some(common) })
        }
        Provider::EnvoyOtelAls(service) => {
            let format = service.log_format.as_ref();
            let text = format.map_or("", |format| format.text.as_str());
            let labels = format.and_then(|format| format.labels.as_ref());
            open_telemetry(
                or(&service.log_name, "otel_envoy_accesslog"),
                upstream?,
                or(text, TEXT_FORMAT),
                labels,
            )
        }
        _ => return None,
    })
}

fn mesh_file(path: &str, mesh: &MeshConfig) -> AccessLog {
    let format = match mesh.access_log_encoding {
        AccessLogEncoding::Json => {
            // A format that is no JSON object cannot be obeyed; the default still logs something.
            let parsed = serde_json::from_str::<serde_json::Value>(&mesh.access_log_format).ok();
            let fields = parsed.as_ref().map(Json::from).and_then(|json| structure(&json));
            json_format(fields.unwrap_or_else(default_json), false)
        }
        _ => text_format(&mesh.access_log_format, false),
    };
    file(path, format)
}

fn provider_file(provider: &EnvoyFileAccessLogProvider) -> AccessLog {
    let path = or(&provider.path, "/dev/stdout");
    let omit = provider.omit_empty_values;
    let format = match &provider.log_format {
        Some(FileLogFormat::Labels(labels)) => {
            let fields = structure(labels).filter(|fields| !fields.fields.is_empty());
            json_format(fields.unwrap_or_else(default_json), omit)
        }
        Some(FileLogFormat::Text(text)) => text_format(text, omit),
        _ => text_format("", omit),
    };
    file(path, format)
}

fn file(path: &str, format: SubstitutionFormatString) -> AccessLog {
    let config = FileAccessLog {
        path: path.to_owned(),
        access_log_format: Some(file_access_log::AccessLogFormat::LogFormat(format)),
    };
    log(FILE, &config)
}

fn text_format(text: &str, omit_empty_values: bool) -> SubstitutionFormatString {
    let text = match text {
        "" => TEXT_FORMAT.to_owned(),
        text if text.ends_with('\n') => text.to_owned(),
        // Entries would run into one line (MeshConfig.accessLogFormat: a newline is added if missing).
        text => format!("{text}\n"),
    };
    SubstitutionFormatString {
        omit_empty_values,
        formatters: formatters([text.as_str()]),
        format: Some(substitution_format_string::Format::TextFormatSource(DataSource {
            specifier: Some(data_source::Specifier::InlineString(text)),
            ..DataSource::default()
        })),
        ..SubstitutionFormatString::default()
    }
}

fn json_format(fields: Struct, omit_empty_values: bool) -> SubstitutionFormatString {
    SubstitutionFormatString {
        omit_empty_values,
        formatters: formatters(strings_of(&fields)),
        json_format_options: Some(JsonFormatOptions::default()),
        format: Some(substitution_format_string::Format::JsonFormat(fields)),
        ..SubstitutionFormatString::default()
    }
}

fn strings_of(fields: &Struct) -> Vec<&str> {
    fields
        .fields
        .values()
        .filter_map(|value| match &value.kind {
            Some(prost_types::value::Kind::StringValue(text)) => Some(text.as_str()),
            _ => None,
        })
        .collect()
}

/// Formatters that are not built into Envoy's core and must be named to be used.
fn formatters<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<TypedExtensionConfig> {
    if !texts.into_iter().any(|text| text.contains("%REQ_WITHOUT_QUERY")) {
        return Vec::new();
    }
    vec![TypedExtensionConfig {
        name: "envoy.formatter.req_without_query".to_owned(),
        typed_config: Some(any(&ReqWithoutQuery::default())),
    }]
}

fn default_json() -> Struct {
    static FIELDS: LazyLock<Struct> = LazyLock::new(|| {
        wkt::structure(JSON_FIELDS.iter().map(|(name, value)| (*name, wkt::string(*value))))
    });
    FIELDS.clone()
}

/// A JSON object as a protobuf `Struct`.
fn structure(json: &Json) -> Option<Struct> {
    match wkt::of_json(&json.to_serde()).kind {
        Some(wkt::Kind::StructValue(fields)) => Some(fields),
        _ => None,
    }
}

fn mesh_service(place: Place) -> AccessLog {
    let upstream = Upstream { host: String::new(), cluster: SERVICE_CLUSTER.to_owned() };
    let common = |name: &str| Some(common(name, &upstream, texts(PEER_STATE_ALL)));
    match place {
        Place::Http => {
            let config = HttpGrpcAccessLogConfig {
                common_config: common("http_envoy_accesslog"),
                ..HttpGrpcAccessLogConfig::default()
            };
            log(HTTP_GRPC, &config)
        }
        Place::Tcp => log(TCP_GRPC, &TcpGrpcAccessLogConfig { common_config: common("tcp_envoy_accesslog") }),
        Place::Listener => {
            log(TCP_GRPC, &TcpGrpcAccessLogConfig { common_config: common("listener_envoy_accesslog") })
        }
    }
}

fn common(name: &str, upstream: &Upstream, state: Vec<String>) -> CommonGrpcAccessLogConfig {
    CommonGrpcAccessLogConfig {
        log_name: name.to_owned(),
        grpc_service: Some(grpc_service(upstream)),
        transport_api_version: ApiVersion::V3 as i32,
        filter_state_objects_to_log: state,
        ..CommonGrpcAccessLogConfig::default()
    }
}

/// A gRPC service reached through a cluster.
pub fn grpc_service(upstream: &Upstream) -> GrpcService {
    let envoy = grpc_service::EnvoyGrpc {
        cluster_name: upstream.cluster.clone(),
        authority: upstream.host.clone(),
        ..grpc_service::EnvoyGrpc::default()
    };
    GrpcService {
        target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(envoy)),
        ..GrpcService::default()
    }
}

fn open_telemetry(name: &str, upstream: &Upstream, text: &str, labels: Option<&Json>) -> AccessLog {
    let string = |text: &str| AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) };
    let labels = match labels {
        Some(Json::Object(fields)) => fields
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
            .collect::<Vec<_>>(),
        _ => Vec::new(),
    };
    let config = OpenTelemetryAccessLogConfig {
        common_config: Some(common(name, upstream, texts(PEER_STATE_ALL))),
        disable_builtin_labels: true,
        body: Some(string(text)),
        formatters: formatters(std::iter::once(text).chain(labels.iter().map(|(_, value)| *value))),
        attributes: (!labels.is_empty()).then(|| KeyValueList {
            values: labels
                .iter()
                .map(|(key, value)| KeyValue {
                    key: (*key).to_owned(),
                    value: Some(string(value)),
                    ..KeyValue::default()
                })
                .collect(),
        }),
        ..OpenTelemetryAccessLogConfig::default()
    };
    log(OPEN_TELEMETRY, &config)
}

fn log<M: Message + Name>(name: &str, config: &M) -> AccessLog {
    AccessLog {
        name: name.to_owned(),
        filter: None,
        config_type: Some(access_log::ConfigType::TypedConfig(any(config))),
    }
}

fn state(stated: &[String]) -> Vec<String> {
    if stated.is_empty() { texts(PEER_STATE) } else { stated.to_vec() }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn or<'a>(stated: &'a str, default: &'a str) -> &'a str {
    if stated.is_empty() { default } else { stated }
}
