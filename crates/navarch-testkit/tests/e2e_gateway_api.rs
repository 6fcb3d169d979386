//! The features of the Gateway API, one by one, as calls through a stock Envoy feel them. The table in
//! `docs/gateway-api.md` is made from the names here.

#[path = "traffic/backend.rs"]
#[allow(dead_code, reason = "written for other tests, of which this one uses a part")]
mod backend;
#[path = "traffic/certificate.rs"]
mod certificate;
#[path = "traffic/connection.rs"]
#[allow(dead_code, reason = "written for other tests, of which this one uses a part")]
mod connection;
mod gateway_api;

use anyhow::{Result, ensure};
use gateway_api::{example, http, mesh, rig::Rig, stream, table, tls};

/// The features that a group of tests shows, and the tests.
macro_rules! features {
    ($(#[$meta:meta])* $name:ident: $rig:ty; $($feature:literal => $test:path),+ $(,)?) => {
        $(#[$meta])*
        mod $name {
            pub const FEATURES: &[(&str, &str)] = &[$(($feature, stringify!($test))),+];
        }

        $(#[$meta])*
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() -> Result<()> {
            let rig = <$rig>::new(stringify!($name)).await?;
            let mut broken = Vec::new();
            $(if let Err(error) = $test(&rig).await {
                broken.push(format!("{} ({}): {error:#}", $feature, stringify!($test)));
            })+
            ensure!(broken.is_empty(), "{}", broken.join("\n"));
            rig.nothing_rejected().await
        }
    };
}

features! {
    /// At a gateway.
    features_of_gateways: Rig;
    "HTTPRoute" => http::matches_and_precedence,
    "HTTPRoute, weights" => http::weights,
    "HTTPRoute, hostnames" => http::hostnames,
    "HTTPRoute, backends that cannot be used" => http::invalid_backends,
    "HTTPRoute, request headers" => http::request_headers,
    "ReferenceGrant" => http::reference_grant,
    "HTTPRouteQueryParamMatching" => http::query_params,
    "HTTPRouteMethodMatching" => http::methods,
    "HTTPRouteResponseHeaderModification" => http::response_headers,
    "HTTPRouteBackendRequestHeaderModification" => http::backend_headers,
    "HTTPRoutePortRedirect" => http::port_redirect,
    "HTTPRouteSchemeRedirect" => http::scheme_redirect,
    "HTTPRoutePathRedirect" => http::path_redirect,
    "HTTPRoute303RedirectStatusCode" => http::redirect_303,
    "HTTPRoute307RedirectStatusCode" => http::redirect_307,
    "HTTPRoute308RedirectStatusCode" => http::redirect_308,
    "HTTPRouteHostRewrite" => http::host_rewrite,
    "HTTPRoutePathRewrite" => http::path_rewrite,
    "HTTPRouteRequestMirror" => http::mirror,
    "HTTPRouteRequestMultipleMirrors" => http::mirrors,
    "HTTPRouteRequestPercentageMirror" => http::percentage_mirror,
    "HTTPRouteRequestTimeout" => http::request_timeout,
    "HTTPRouteBackendTimeout" => http::backend_timeout,
    "HTTPRouteRetry" => http::retry,
    "HTTPRouteRetryConnectionError" => http::retry_connection_error,
    "HTTPRouteRetryBackendTimeout" => http::retry_backend_timeout,
    "HTTPRouteBackendProtocolH2C" => http::h2c,
    "HTTPRouteBackendProtocolWebSocket" => http::web_socket,
    "HTTPRouteBackendURLRewrite" => http::backend_rewrite,
    "HTTPRouteBackendRequestRedirect" => http::backend_redirect,
    "HTTPRoute, sessions in a cookie" => http::session_cookie,
    "HTTPRouteParentRefPort" => http::parent_port,
    "HTTPRouteNamedRouteRule" => http::named_rule,
    "HTTPRouteCORS" => http::cors,
    "GatewayHTTPListenerIsolation" => http::listener_isolation,
    "GRPCRoute" => http::grpc_methods,
    "GRPCRouteRequestHeaderModifier" => http::grpc_headers,
    "GRPCRouteNamedRouteRule" => http::grpc_named_rule,
    "GRPCRoute, weights" => http::grpc_weights,
    "GRPCRoute, sessions in a header" => http::session_header,
    "TCPRoute" => stream::tcp,
    "UDPRoute" => stream::udp,
}

features! {
    /// At a gateway, with TLS.
    features_of_tls: tls::Site;
    "TLSRoute" => tls::passthrough,
    "TLSRouteModeTerminate" => tls::terminate,
    "TLSRouteModeMixed" => tls::mixed_modes,
    "GatewayHTTPSListenerDetectMisdirectedRequests" => tls::misdirected,
    "GatewayFrontendClientCertificateValidation" => tls::client_certificates,
    "GatewayFrontendClientCertificateValidationInsecureFallback" => tls::insecure_fallback,
    "BackendTLSPolicy" => tls::backend_policy,
    "GatewayBackendClientCertificate" => tls::backend_client_certificate,
    "BackendTLSPolicySANValidation" => tls::backend_policy_names,
    "ListenerSet" => tls::listener_set,
}

features! {
    /// Within the mesh.
    features_of_meshes: mesh::Mesh;
    "Mesh" => mesh::producer,
    "MeshConsumerRoute" => mesh::consumer,
    "MeshHTTPRouteRewritePath" => mesh::rewrite_path,
    "MeshHTTPRouteRedirectPort" => mesh::redirect_port,
    "MeshHTTPRouteSchemeRedirect" => mesh::redirect_scheme,
    "MeshHTTPRouteRedirectPath" => mesh::redirect_path,
    "MeshHTTPRouteBackendRequestHeaderModification" => mesh::backend_headers,
    "MeshHTTPRouteQueryParamMatching" => mesh::query_params,
    "MeshHTTPRouteNamedRouteRule" => mesh::named_rule,
    "HTTPRouteDestinationPortMatching" => mesh::ports,
    "Mesh, GRPCRoute" => mesh::grpc_methods,
    "Mesh, GRPCRoute, weights" => mesh::grpc_weights,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_does_what_it_says() -> Result<()> {
    example::does_what_it_says().await
}

#[test]
fn the_table_in_the_documents_is_that_of_these_tests() -> Result<()> {
    table::check(&[features_of_gateways::FEATURES, features_of_tls::FEATURES, features_of_meshes::FEATURES])
}
