//! The numbers of the fields that the checks of this module read off the wire.

/// Declares constants for fields of messages, and a table of them all for the test that compares them with
/// the descriptors.
macro_rules! numbers {
    ($( $module:ident = $message:literal { $( $field:ident = $number:literal, )* } )*) => {
        $(
            pub mod $module {
                $( pub const $field: u32 = $number; )*
            }
        )*
        #[cfg(test)]
        const ALL: &[(&str, &[(&str, u32)])] = &[$( ($message, &[$( (stringify!($field), $number) ),*]) ),*];
    };
}

numbers! {
    jwt_authentication = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication" {
        PROVIDERS = 1,
        RULES = 2,
        FILTER_STATE_RULES = 3,
        REQUIREMENT_MAP = 5,
    }
    jwt_rule = "envoy.extensions.filters.http.jwt_authn.v3.RequirementRule" {
        REQUIRES = 2,
        REQUIREMENT_NAME = 3,
    }
    jwt_state_rule = "envoy.extensions.filters.http.jwt_authn.v3.FilterStateRule" {
        REQUIRES = 3,
    }
    jwt_requirement = "envoy.extensions.filters.http.jwt_authn.v3.JwtRequirement" {
        PROVIDER_NAME = 1,
        PROVIDER_AND_AUDIENCES = 2,
        REQUIRES_ANY = 3,
        REQUIRES_ALL = 4,
    }
    jwt_provider_with_audiences = "envoy.extensions.filters.http.jwt_authn.v3.ProviderWithAudiences" {
        PROVIDER_NAME = 1,
    }
    jwt_list = "envoy.extensions.filters.http.jwt_authn.v3.JwtRequirementOrList" {
        REQUIREMENTS = 1,
    }
    stats_counter = "envoy.extensions.access_loggers.stats.v3.Config.Counter" {
        VALUE_FORMAT = 2,
        VALUE_FIXED = 3,
    }
    listener = "envoy.config.listener.v3.Listener" {
        ADDRESS = 2,
        FILTER_CHAINS = 3,
        UDP_LISTENER_CONFIG = 18,
        API_LISTENER = 19,
        DEFAULT_FILTER_CHAIN = 25,
        INTERNAL_LISTENER = 27,
        FILTER_CHAIN_MATCHER = 32,
        ADDITIONAL_ADDRESSES = 33,
        FCDS_CONFIG = 36,
    }
    additional_address = "envoy.config.listener.v3.AdditionalAddress" {
        ADDRESS = 1,
    }
    api_listener = "envoy.config.listener.v3.ApiListener" {
        API_LISTENER = 1,
    }
    extension_source = "envoy.config.core.v3.ExtensionConfigSource" {
        DEFAULT_CONFIG = 2,
        APPLY_DEFAULT_CONFIG_WITHOUT_WARMING = 3,
        TYPE_URLS = 4,
    }
    eds = "envoy.config.cluster.v3.Cluster.EdsClusterConfig" {
        EDS_CONFIG = 1,
    }
    filter_chain = "envoy.config.listener.v3.FilterChain" {
        FILTER_CHAIN_MATCH = 1,
        FILTERS = 3,
        NAME = 7,
    }
    filter = "envoy.config.listener.v3.Filter" {
        NAME = 1,
        TYPED_CONFIG = 4,
    }
    chain_match = "envoy.config.listener.v3.FilterChainMatch" {
        PREFIX_RANGES = 3,
        ADDRESS_SUFFIX = 4,
        SUFFIX_LEN = 5,
        SOURCE_PREFIX_RANGES = 6,
        SOURCE_PORTS = 7,
        DESTINATION_PORT = 8,
        TRANSPORT_PROTOCOL = 9,
        APPLICATION_PROTOCOLS = 10,
        SERVER_NAMES = 11,
        SOURCE_TYPE = 12,
        DIRECT_SOURCE_PREFIX_RANGES = 13,
    }
    cidr = "envoy.config.core.v3.CidrRange" {
        ADDRESS_PREFIX = 1,
        PREFIX_LEN = 2,
    }
    address = "envoy.config.core.v3.Address" {
        SOCKET_ADDRESS = 1,
    }
    socket_address = "envoy.config.core.v3.SocketAddress" {
        PROTOCOL = 1,
        ADDRESS = 2,
        NAMED_PORT = 4,
        RESOLVER_NAME = 5,
    }
    connection_manager = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" {
        HTTP_FILTERS = 5,
        USE_REMOTE_ADDRESS = 14,
        UPGRADE_CONFIGS = 23,
        STRIP_MATCHING_HOST_PORT = 39,
        STRIP_ANY_HOST_PORT = 42,
        ORIGINAL_IP_DETECTION_EXTENSIONS = 46,
    }
    upgrade = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.UpgradeConfig" {
        UPGRADE_TYPE = 1,
        FILTERS = 2,
    }
    http_filter = "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter" {
        NAME = 1,
        TYPED_CONFIG = 4,
        DISABLED = 7,
    }
    router = "envoy.extensions.filters.http.router.v3.Router" {
        UPSTREAM_HTTP_FILTERS = 8,
    }
    http_options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions" {
        EXPLICIT_HTTP_CONFIG = 3,
        USE_DOWNSTREAM_PROTOCOL_CONFIG = 4,
        AUTO_CONFIG = 5,
        HTTP_FILTERS = 6,
    }
    explicit_http = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig" {
        HTTP2_PROTOCOL_OPTIONS = 2,
    }
    route_configuration = "envoy.config.route.v3.RouteConfiguration" {
        VIRTUAL_HOSTS = 2,
        RESPONSE_HEADERS_TO_ADD = 4,
        RESPONSE_HEADERS_TO_REMOVE = 5,
        REQUEST_HEADERS_TO_ADD = 6,
        REQUEST_HEADERS_TO_REMOVE = 8,
        MAX_DIRECT_RESPONSE_BODY_SIZE_BYTES = 11,
    }
    virtual_host = "envoy.config.route.v3.VirtualHost" {
        DOMAINS = 2,
        ROUTES = 3,
        REQUEST_HEADERS_TO_ADD = 7,
        RESPONSE_HEADERS_TO_ADD = 10,
        RESPONSE_HEADERS_TO_REMOVE = 11,
        REQUEST_HEADERS_TO_REMOVE = 13,
    }
    route = "envoy.config.route.v3.Route" {
        DIRECT_RESPONSE = 7,
        REQUEST_HEADERS_TO_ADD = 9,
        RESPONSE_HEADERS_TO_ADD = 10,
        RESPONSE_HEADERS_TO_REMOVE = 11,
        REQUEST_HEADERS_TO_REMOVE = 12,
    }
    direct_response = "envoy.config.route.v3.DirectResponseAction" {
        BODY = 2,
    }
    data_source = "envoy.config.core.v3.DataSource" {
        INLINE_BYTES = 2,
        INLINE_STRING = 3,
    }
    route_action = "envoy.config.route.v3.RouteAction" {
        PREFIX_REWRITE = 5,
        UPGRADE_CONFIGS = 25,
        REGEX_REWRITE = 32,
        PATH_REWRITE_POLICY = 41,
        PATH_REWRITE = 45,
    }
    route_upgrade = "envoy.config.route.v3.RouteAction.UpgradeConfig" {
        UPGRADE_TYPE = 1,
    }
    mirror = "envoy.config.route.v3.RouteAction.RequestMirrorPolicy" {
        CLUSTER = 1,
        CLUSTER_HEADER = 5,
    }
    weighted_cluster = "envoy.config.route.v3.WeightedCluster" {
        CLUSTERS = 1,
    }
    cluster_weight = "envoy.config.route.v3.WeightedCluster.ClusterWeight" {
        NAME = 1,
        WEIGHT = 2,
        REQUEST_HEADERS_TO_ADD = 4,
        RESPONSE_HEADERS_TO_ADD = 5,
        RESPONSE_HEADERS_TO_REMOVE = 6,
        REQUEST_HEADERS_TO_REMOVE = 9,
        CLUSTER_HEADER = 12,
    }
    retry_back_off = "envoy.config.route.v3.RetryPolicy.RetryBackOff" {
        BASE_INTERVAL = 1,
        MAX_INTERVAL = 2,
    }
    filter_config = "envoy.config.route.v3.FilterConfig" {
        CONFIG = 1,
        DISABLED = 3,
    }
    header_value_option = "envoy.config.core.v3.HeaderValueOption" {
        HEADER = 1,
    }
    header_value = "envoy.config.core.v3.HeaderValue" {
        KEY = 1,
        VALUE = 2,
    }
    http_health_check = "envoy.config.core.v3.HealthCheck.HttpHealthCheck" {
        REQUEST_HEADERS_TO_ADD = 6,
        REQUEST_HEADERS_TO_REMOVE = 8,
        EXPECTED_STATUSES = 9,
    }
    health_check = "envoy.config.core.v3.HealthCheck" {
        GRPC_HEALTH_CHECK = 11,
    }
    int64_range = "envoy.type.v3.Int64Range" {
        START = 1,
        END = 2,
    }
    cluster = "envoy.config.cluster.v3.Cluster" {
        TYPE = 2,
        EDS_CLUSTER_CONFIG = 3,
        LB_POLICY = 6,
        HEALTH_CHECKS = 8,
        HTTP_PROTOCOL_OPTIONS = 13,
        HTTP2_PROTOCOL_OPTIONS = 14,
        LB_SUBSET_CONFIG = 22,
        RING_HASH_LB_CONFIG = 23,
        TRANSPORT_SOCKET = 24,
        PROTOCOL_SELECTION = 26,
        LOAD_ASSIGNMENT = 33,
        TYPED_EXTENSION_PROTOCOL_OPTIONS = 36,
        CLUSTER_TYPE = 38,
        LOAD_BALANCING_POLICY = 41,
        MAGLEV_LB_CONFIG = 52,
    }
    custom_type = "envoy.config.cluster.v3.Cluster.CustomClusterType" {
        NAME = 1,
        TYPED_CONFIG = 2,
    }
    ring_hash = "envoy.config.cluster.v3.Cluster.RingHashLbConfig" {
        MINIMUM_RING_SIZE = 1,
        MAXIMUM_RING_SIZE = 4,
    }
    maglev = "envoy.config.cluster.v3.Cluster.MaglevLbConfig" {
        TABLE_SIZE = 1,
    }
    balancing = "envoy.config.cluster.v3.LoadBalancingPolicy" {
        POLICIES = 1,
    }
    balancing_policy = "envoy.config.cluster.v3.LoadBalancingPolicy.Policy" {
        TYPED_EXTENSION_CONFIG = 4,
    }
    typed_extension = "envoy.config.core.v3.TypedExtensionConfig" {
        TYPED_CONFIG = 2,
    }
    transport_socket = "envoy.config.core.v3.TransportSocket" {
        TYPED_CONFIG = 3,
    }
    assignment = "envoy.config.endpoint.v3.ClusterLoadAssignment" {
        ENDPOINTS = 2,
    }
    locality_endpoints = "envoy.config.endpoint.v3.LocalityLbEndpoints" {
        LB_ENDPOINTS = 2,
    }
    lb_endpoint = "envoy.config.endpoint.v3.LbEndpoint" {
        ENDPOINT = 1,
    }
    endpoint = "envoy.config.endpoint.v3.Endpoint" {
        ADDRESS = 1,
    }
    rds = "envoy.extensions.filters.network.http_connection_manager.v3.Rds" {
        CONFIG_SOURCE = 1,
        ROUTE_CONFIG_NAME = 2,
    }
    downstream_tls = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext" {
        COMMON_TLS_CONTEXT = 1,
    }
    upstream_tls = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" {
        COMMON_TLS_CONTEXT = 1,
        SNI = 2,
        AUTO_SNI_SAN_VALIDATION = 7,
    }
    common_tls = "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext" {
        TLS_CERTIFICATES = 2,
        VALIDATION_CONTEXT = 3,
        ALPN_PROTOCOLS = 4,
        TLS_CERTIFICATE_SDS_SECRET_CONFIGS = 6,
        VALIDATION_CONTEXT_SDS_SECRET_CONFIG = 7,
        COMBINED_VALIDATION_CONTEXT = 8,
        TLS_CERTIFICATE_CERTIFICATE_PROVIDER = 9,
        TLS_CERTIFICATE_CERTIFICATE_PROVIDER_INSTANCE = 11,
        TLS_CERTIFICATE_PROVIDER_INSTANCE = 14,
        CUSTOM_TLS_CERTIFICATE_SELECTOR = 16,
    }
    validation = "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext" {
        TRUSTED_CA = 1,
        MATCH_SUBJECT_ALT_NAMES = 9,
        CA_CERTIFICATE_PROVIDER_INSTANCE = 13,
        MATCH_TYPED_SUBJECT_ALT_NAMES = 15,
        SYSTEM_ROOT_CERTS = 17,
    }
    tls_parameters = "envoy.extensions.transport_sockets.tls.v3.TlsParameters" {
        CIPHER_SUITES = 3,
    }
    token_bucket = "envoy.type.v3.TokenBucket" {
        FILL_INTERVAL = 3,
    }
    http_local_limit = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit" {
        TOKEN_BUCKET = 3,
    }
    network_local_limit = "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit" {
        TOKEN_BUCKET = 2,
    }
    lua = "envoy.extensions.filters.http.lua.v3.Lua" {
        INLINE_CODE = 1,
        SOURCE_CODES = 2,
        DEFAULT_SOURCE_CODE = 3,
    }
    ext_authz = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz" {
        GRPC_SERVICE = 1,
        HTTP_SERVICE = 3,
    }
    lua_per_route = "envoy.extensions.filters.http.lua.v3.LuaPerRoute" {
        SOURCE_CODE = 3,
    }
    cel_filter = "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter" {
        EXPRESSION = 1,
    }
    format = "envoy.config.core.v3.SubstitutionFormatString" {
        TEXT_FORMAT = 1,
        JSON_FORMAT = 2,
        TEXT_FORMAT_SOURCE = 5,
    }
    bind = "envoy.config.core.v3.BindConfig" {
        SOURCE_ADDRESS = 1,
    }
    file_log = "envoy.extensions.access_loggers.file.v3.FileAccessLog" {
        FORMAT = 2,
    }
    regex = "envoy.type.matcher.v3.RegexMatcher" {
        REGEX = 2,
    }
}

#[cfg(test)]
mod tests {
    use navarch_envoy::json::descriptor;

    use super::ALL;

    #[test]
    fn numbers_are_those_of_the_descriptors() {
        for (message, fields) in ALL {
            let message = descriptor(message).unwrap_or_else(|| panic!("{message} is gone"));
            for (field, number) in *fields {
                let found = message.get_field_by_name(&field.to_lowercase()).map(|field| field.number());
                assert_eq!(found, Some(*number), "{} {field}", message.full_name());
            }
        }
    }
}
