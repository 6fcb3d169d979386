//! What a rule does with requests and responses on their way.

use super::backend_policy::LocalObjectReference;
use super::reference::BackendObjectReference;
use super::values::RouteDuration;
use crate::yaml::{closed_enum, message};

message! {
    /// A step in what is done with requests of a rule or of a backend. The type says which of the others is
    /// set.
    pub struct HttpRouteFilter {
        type_: Option<HttpFilterType>,
        request_header_modifier: Option<HttpHeaderFilter>,
        response_header_modifier: Option<HttpHeaderFilter>,
        request_mirror: Option<HttpRequestMirrorFilter>,
        request_redirect: Option<HttpRequestRedirectFilter>,
        url_rewrite: Option<HttpUrlRewriteFilter>,
        cors: Option<HttpCorsFilter>,
        external_auth: Option<HttpExternalAuthFilter>,
        extension_ref: Option<LocalObjectReference>,
    }
}

impl HttpRouteFilter {
    /// Whether it changes headers and does nothing else.
    pub fn is_of_headers(&self) -> bool {
        matches!(
            self.type_,
            Some(HttpFilterType::RequestHeaderModifier | HttpFilterType::ResponseHeaderModifier)
        )
    }
}

closed_enum! {
    /// The type of a filter of requests.
    pub enum HttpFilterType {
        RequestHeaderModifier = 0 "RequestHeaderModifier",
        ResponseHeaderModifier = 1 "ResponseHeaderModifier",
        RequestMirror = 2 "RequestMirror",
        RequestRedirect = 3 "RequestRedirect",
        UrlRewrite = 4 "URLRewrite",
        Cors = 5 "CORS",
        ExternalAuth = 6 "ExternalAuth",
        ExtensionRef = 7 "ExtensionRef",
    }
}

message! {
    /// A step in what is done with calls of a rule or of a backend.
    pub struct GrpcRouteFilter {
        type_: Option<GrpcFilterType>,
        request_header_modifier: Option<HttpHeaderFilter>,
        response_header_modifier: Option<HttpHeaderFilter>,
        request_mirror: Option<HttpRequestMirrorFilter>,
        extension_ref: Option<LocalObjectReference>,
    }
}

closed_enum! {
    /// The type of a filter of gRPC calls.
    pub enum GrpcFilterType {
        RequestHeaderModifier = 0 "RequestHeaderModifier",
        ResponseHeaderModifier = 1 "ResponseHeaderModifier",
        RequestMirror = 2 "RequestMirror",
        ExtensionRef = 3 "ExtensionRef",
    }
}

message! {
    /// Changes to headers: overwritten, appended, removed. Of entries with one name the first counts.
    pub struct HttpHeaderFilter {
        set: Vec<HttpHeader>,
        add: Vec<HttpHeader>,
        remove: Vec<String>,
    }
}

message! {
    /// A header and its value.
    pub struct HttpHeader {
        name: String,
        value: String,
    }
}

message! {
    /// Copies a share of the requests to another backend, whose answers are dropped. Without a share: all.
    pub struct HttpRequestMirrorFilter {
        backend_ref: BackendObjectReference,
        percent: Option<i32>,
        fraction: Option<Fraction>,
    }
}

message! {
    /// So many of so many. Without a denominator: of a hundred.
    pub struct Fraction {
        numerator: i32,
        denominator: Option<i32>,
    }
}

message! {
    /// Answers with a redirect. What is not stated stays as it is in the request.
    pub struct HttpRequestRedirectFilter {
        scheme: Option<String>,
        hostname: Option<String>,
        path: Option<HttpPathModifier>,
        port: Option<u32>,
        /// Unset means 302.
        status_code: Option<u32>,
    }
}

message! {
    /// Changes host and path before the request is passed on.
    pub struct HttpUrlRewriteFilter {
        hostname: Option<String>,
        path: Option<HttpPathModifier>,
    }
}

message! {
    /// A change to the path. The type says which of the others is set.
    pub struct HttpPathModifier {
        type_: Option<HttpPathModifierType>,
        replace_full_path: Option<String>,
        replace_prefix_match: Option<String>,
    }
}

closed_enum! {
    /// What of the path is replaced.
    pub enum HttpPathModifierType {
        ReplaceFullPath = 0 "ReplaceFullPath",
        ReplacePrefixMatch = 1 "ReplacePrefixMatch",
    }
}

message! {
    /// What browsers of other origins may do.
    pub struct HttpCorsFilter {
        allow_origins: Vec<String>,
        allow_credentials: Option<bool>,
        allow_methods: Vec<String>,
        allow_headers: Vec<String>,
        expose_headers: Vec<String>,
        /// In seconds; unset means 5.
        max_age: Option<i32>,
    }
}

message! {
    /// Asks another service whether a request may pass. (Experimental.)
    pub struct HttpExternalAuthFilter {
        protocol: Option<ExternalAuthProtocol>,
        backend_ref: BackendObjectReference,
        grpc: Option<GrpcAuthConfig>,
        http: Option<HttpAuthConfig>,
        forward_body: Option<ExternalAuthBody>,
    }
}

closed_enum! {
    /// How the other service is asked.
    pub enum ExternalAuthProtocol {
        Http = 0 "HTTP",
        Grpc = 1 "GRPC",
    }
}

message! {
    /// How it is asked over gRPC.
    pub struct GrpcAuthConfig {
        allowed_headers: Vec<String>,
    }
}

message! {
    /// How it is asked over HTTP.
    pub struct HttpAuthConfig {
        path: String,
        allowed_headers: Vec<String>,
        allowed_response_headers: Vec<String>,
    }
}

message! {
    /// How much of the body it is given.
    pub struct ExternalAuthBody {
        max_size: u32,
    }
}

message! {
    /// Sends the requests of one session to one endpoint. (GEP-1619, experimental; its fields were renamed in
    /// the versions of the API, and all names are read.)
    pub struct SessionPersistence {
        session_name: Option<String>,
        type_: SessionPersistenceType,
        absolute_timeout: Option<RouteDuration>,
        idle_timeout: Option<RouteDuration>,
        cookie_config: Option<CookieConfig>,
        cookie: Option<SessionCookie>,
        header: Option<SessionHeader>,
    }
}

closed_enum! {
    /// What holds the session.
    pub enum SessionPersistenceType {
        Cookie = 0 "Cookie",
        Header = 1 "Header",
    }
}

message! {
    /// How long the cookie lives.
    pub struct CookieConfig {
        lifetime_type: CookieLifetime,
    }
}

message! {
    /// The cookie.
    pub struct SessionCookie {
        name: Option<String>,
        path: Option<String>,
        lifetime_type: CookieLifetime,
    }
}

message! {
    /// The header.
    pub struct SessionHeader {
        name: String,
    }
}

closed_enum! {
    /// Whether a cookie ends with the browser's session or at a time.
    pub enum CookieLifetime {
        Session = 0 "Session",
        Permanent = 1 "Permanent",
    }
}
