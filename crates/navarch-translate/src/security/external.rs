//! External authorization: the services that CUSTOM policies ask.

use navarch_envoy::proto::envoy::config::core::v3::{
    ApiVersion, GrpcService, HeaderValue, HttpUri, http_uri,
};
use navarch_envoy::proto::envoy::extensions::filters::http::ext_authz::v3 as http;
use navarch_envoy::proto::envoy::extensions::filters::network::ext_authz::v3 as network;
use navarch_envoy::proto::envoy::r#type::matcher::v3::{ListStringMatcher, MetadataMatcher, StringMatcher};
use navarch_envoy::proto::envoy::r#type::v3::{HttpStatus, StatusCode};
use navarch_envoy::wkt;
use navarch_model::mesh::{
    EnvoyExternalAuthorizationGrpcProvider, EnvoyExternalAuthorizationHttpProvider,
    EnvoyExternalAuthorizationRequestBody, ExtensionProvider, Provider,
};

use super::matchers;
use crate::access_log::{Upstream, grpc_service};

/// Prefix of what the shadow rules leave in metadata.
pub const SHADOW_PREFIX: &str = "istio_ext_authz_";
/// Prefix of the names of policies, by which external authorization knows that one of them matched.
pub const POLICY_PREFIX: &str = "istio-ext-authz";
/// Key of the metadata that names the policy whose shadow rules matched.
const EFFECTIVE_POLICY: &str = "shadow_effective_policy_id";
/// How long a check may take unless the provider says otherwise.
const DEFAULT_TIMEOUT_SECONDS: u32 = 600;
/// Prefix of the statistics of network filters.
pub const TCP_STATISTICS: &str = "tcp.";

/// A provider that a CUSTOM policy names, as far as the mesh knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExternalAuthorizer {
    pub name: String,
    pub lookup: Lookup,
}

/// What the mesh knows of a provider.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Lookup {
    /// No provider for external authorization has the name.
    Unknown,
    /// Several have it.
    Ambiguous,
    /// There is one; its service may be unknown.
    Found { provider: Box<ExtensionProvider>, upstream: Option<Upstream> },
}

/// What keeps a provider from being used. A policy that names it then denies everything it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unusable {
    #[error("no extension provider for external authorization has this name")]
    Unknown,
    #[error("several extension providers have this name")]
    Ambiguous,
    #[error("the name must be at most 63 lowercase letters, digits and inner hyphens")]
    Name,
    #[error("the service is not known, or known in several namespaces; use <namespace>/<host>")]
    Service,
    #[error("the port must be between 1 and 65535")]
    Port,
    #[error("statusOnError must be a status code that Envoy knows")]
    Status,
    #[error("pathPrefix must begin with /")]
    PathPrefix,
    #[error("a header of just * is not supported; use a prefix or a suffix")]
    HeaderWildcard,
}

/// The filters that ask a provider; `network` is missing for providers that only know requests.
pub struct Checks {
    pub http: http::ExtAuthz,
    pub network: Option<network::ExtAuthz>,
}

impl ExternalAuthorizer {
    /// The filters that ask this provider where one of its policies matched.
    pub fn checks(&self) -> Result<Checks, Unusable> {
        let (provider, upstream) = match &self.lookup {
            Lookup::Unknown => return Err(Unusable::Unknown),
            Lookup::Ambiguous => return Err(Unusable::Ambiguous),
            Lookup::Found { provider, upstream } => (&provider.provider, upstream.as_ref()),
        };
        if !is_label(&self.name) {
            return Err(Unusable::Name);
        }
        let upstream = upstream.ok_or(Unusable::Service)?;
        let port = match provider {
            Some(Provider::EnvoyExtAuthzHttp(provider)) => provider.port,
            Some(Provider::EnvoyExtAuthzGrpc(provider)) => provider.port,
            _ => return Err(Unusable::Unknown),
        };
        if port == 0 || port > u32::from(u16::MAX) {
            return Err(Unusable::Port);
        }
        match provider {
            Some(Provider::EnvoyExtAuthzHttp(provider)) => self.http(provider, upstream),
            Some(Provider::EnvoyExtAuthzGrpc(provider)) => self.grpc(provider, upstream),
            _ => Err(Unusable::Unknown),
        }
    }

    fn http(
        &self,
        provider: &EnvoyExternalAuthorizationHttpProvider,
        upstream: &Upstream,
    ) -> Result<Checks, Unusable> {
        if !provider.path_prefix.is_empty() && !provider.path_prefix.starts_with('/') {
            return Err(Unusable::PathPrefix);
        }
        let lists = [
            &provider.include_request_headers_in_check,
            &provider.include_headers_in_check,
            &provider.headers_to_downstream_on_deny,
            &provider.headers_to_downstream_on_allow,
            &provider.headers_to_upstream_on_allow,
        ];
        if lists.into_iter().flatten().any(|header| header == "*") {
            return Err(Unusable::HeaderWildcard);
        }
        let to_add: Vec<HeaderValue> = provider
            .include_additional_headers_in_check
            .iter()
            .map(|(key, value)| HeaderValue {
                key: key.clone(),
                value: value.clone(),
                ..HeaderValue::default()
            })
            .collect();
        let service = http::HttpService {
            server_uri: Some(HttpUri {
                // Required, but only the cluster counts.
                uri: format!("http://{}", upstream.host),
                timeout: Some(timeout(provider.timeout)),
                http_upstream_type: Some(http_uri::HttpUpstreamType::Cluster(upstream.cluster.clone())),
            }),
            path_prefix: provider.path_prefix.clone(),
            authorization_request: (!to_add.is_empty()).then(|| http::AuthorizationRequest {
                headers_to_add: to_add,
                ..http::AuthorizationRequest::default()
            }),
            authorization_response: authorization_response(provider),
            ..http::HttpService::default()
        };
        let filter = http::ExtAuthz {
            status_on_error: status(&provider.status_on_error)?,
            failure_mode_allow: provider.fail_open,
            transport_api_version: ApiVersion::V3 as i32,
            filter_enabled_metadata: Some(self.enabled("envoy.filters.http.rbac")),
            with_request_body: body(provider.include_request_body_in_check.as_ref()),
            allowed_headers: headers(&provider.include_request_headers_in_check)
                .or_else(|| headers(&provider.include_headers_in_check)),
            services: Some(http::ext_authz::Services::HttpService(service)),
            ..http::ExtAuthz::default()
        };
        Ok(Checks { http: filter, network: None })
    }

    fn grpc(
        &self,
        provider: &EnvoyExternalAuthorizationGrpcProvider,
        upstream: &Upstream,
    ) -> Result<Checks, Unusable> {
        let service = GrpcService { timeout: Some(timeout(provider.timeout)), ..grpc_service(upstream) };
        let http = http::ExtAuthz {
            status_on_error: status(&provider.status_on_error)?,
            failure_mode_allow: provider.fail_open,
            transport_api_version: ApiVersion::V3 as i32,
            filter_enabled_metadata: Some(self.enabled("envoy.filters.http.rbac")),
            with_request_body: body(provider.include_request_body_in_check.as_ref()),
            services: Some(http::ext_authz::Services::GrpcService(service.clone())),
            ..http::ExtAuthz::default()
        };
        let network = network::ExtAuthz {
            stat_prefix: TCP_STATISTICS.to_owned(),
            failure_mode_allow: provider.fail_open,
            transport_api_version: ApiVersion::V3 as i32,
            grpc_service: Some(service),
            filter_enabled_metadata: Some(self.enabled("envoy.filters.network.rbac")),
            ..network::ExtAuthz::default()
        };
        Ok(Checks { http, network: Some(network) })
    }

    /// Only requests that the shadow rules of a policy of this provider matched are checked.
    fn enabled(&self, rbac: &str) -> MetadataMatcher {
        let key = format!("{SHADOW_PREFIX}{EFFECTIVE_POLICY}");
        let policy = matchers::prefix(format!("{POLICY_PREFIX}-{}", self.name));
        matchers::metadata(rbac, [key.as_str()], matchers::text_value(policy))
    }
}

fn authorization_response(
    provider: &EnvoyExternalAuthorizationHttpProvider,
) -> Option<http::AuthorizationResponse> {
    let response = http::AuthorizationResponse {
        allowed_upstream_headers: headers(&provider.headers_to_upstream_on_allow),
        allowed_client_headers: headers(&provider.headers_to_downstream_on_deny),
        allowed_client_headers_on_success: headers(&provider.headers_to_downstream_on_allow),
        ..http::AuthorizationResponse::default()
    };
    (response != http::AuthorizationResponse::default()).then_some(response)
}

/// Names of headers, each with at most one wildcard, without regard to case.
fn headers(names: &[String]) -> Option<ListStringMatcher> {
    let pattern = |name: &String| {
        let matcher = if let Some(end) = name.strip_prefix('*') {
            matchers::suffix(end)
        } else if let Some(start) = name.strip_suffix('*') {
            matchers::prefix(start)
        } else {
            matchers::exact(name)
        };
        StringMatcher { ignore_case: true, ..matcher }
    };
    (!names.is_empty()).then(|| ListStringMatcher { patterns: names.iter().map(pattern).collect() })
}

fn body(settings: Option<&EnvoyExternalAuthorizationRequestBody>) -> Option<http::BufferSettings> {
    settings.map(|settings| http::BufferSettings {
        max_request_bytes: settings.max_request_bytes,
        allow_partial_message: settings.allow_partial_message,
        pack_as_bytes: settings.pack_as_bytes,
    })
}

fn timeout(stated: Option<std::time::Duration>) -> wkt::Duration {
    stated.map_or_else(|| wkt::duration_secs(DEFAULT_TIMEOUT_SECONDS), wkt::duration)
}

fn status(stated: &str) -> Result<Option<HttpStatus>, Unusable> {
    if stated.is_empty() {
        return Ok(None);
    }
    let code: i32 = stated.parse().map_err(|_| Unusable::Status)?;
    let code = StatusCode::try_from(code).map_err(|_| Unusable::Status)?;
    Ok(Some(HttpStatus { code: code as i32 }))
}

/// Whether a name is a DNS label: names end up in keys of metadata and in names of policies.
fn is_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}
