//! From the fields of a VirtualService, with full names, to rules of a set of routes.
//!
//! Each message is taken apart field by field, so that a field that the API gets cannot be forgotten here.

use std::collections::BTreeMap;

use navarch_model::networking as api;
use navarch_model::object::ObjectKey;
use navarch_model::route::{
    Audience, Backend, ClientMatch, Forward, HostMeaning, HttpAction, HttpBackend, HttpMatch, HttpRule,
    Mirror, MissingBackend, Parent, PathMatch, PathRewrite, Rewrite, ServiceBackend, Share, StreamBackend,
    TcpMatch, TcpRule, TlsMatch, TlsRule,
};
use navarch_model::service::name;
use navarch_model::values::StringMatch;
use navarch_model::{Labels, Name, Origin};

/// Annotation by which a VirtualService says that it was made from an object of another API.
const DIALECT_ANNOTATION: &str = "internal.istio.io/route-semantics";

/// Whose rules hold for a VirtualService. What they decide becomes part of the routes; nobody asks later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Istio,
    /// Made from a route of the Kubernetes Gateway API.
    GatewayApi,
    /// Made from a Kubernetes Ingress.
    Ingress,
}

/// The fields that a rule and its mirrors were made from.
pub(super) struct RuleOrigin {
    pub rule: Origin,
    /// The route that has `mirror`.
    pub mirror: Origin,
    /// The route that has `mirrors`.
    pub mirrors: Origin,
}

impl RuleOrigin {
    /// Everything is from one route.
    pub fn of(rule: Origin) -> Self {
        RuleOrigin { mirror: rule.clone(), mirrors: rule.clone(), rule }
    }
}

impl Dialect {
    pub fn of(annotations: &Labels) -> Self {
        match annotations.get(DIALECT_ANNOTATION).map(|value| &**value) {
            Some("gateway") => Dialect::GatewayApi,
            Some("ingress") => Dialect::Ingress,
            _ => Dialect::Istio,
        }
    }

    pub fn audience(self) -> Audience {
        match self {
            Dialect::GatewayApi => Audience::ProducerOrConsumer,
            Dialect::Istio | Dialect::Ingress => Audience::Everyone,
        }
    }

    pub fn host_meaning(self) -> HostMeaning {
        match self {
            Dialect::GatewayApi => HostMeaning::Services,
            Dialect::Istio | Dialect::Ingress => HostMeaning::AnyName,
        }
    }

    /// Prefixes of the Gateway API and of Ingress end at a path segment; those of Istio anywhere.
    fn prefix(self, prefix: String) -> PathMatch {
        match self {
            Dialect::Istio => PathMatch::Prefix(prefix),
            Dialect::GatewayApi | Dialect::Ingress => PathMatch::PathPrefix(prefix),
        }
    }

    fn missing(self) -> MissingBackend {
        match self {
            Dialect::GatewayApi => MissingBackend::InternalError,
            Dialect::Istio | Dialect::Ingress => MissingBackend::Unavailable,
        }
    }

    /// The rule that a route without delegate is.
    pub fn http_rule(self, origin: RuleOrigin, route: api::HttpRoute) -> HttpRule {
        let api::HttpRoute {
            name,
            match_,
            route,
            redirect,
            direct_response,
            delegate: _,
            rewrite,
            timeout,
            retries,
            fault,
            mirror,
            mirrors,
            mirror_percent,
            mirror_percentage,
            cors_policy,
            headers,
        } = route;
        let RuleOrigin { rule: origin, mirror: mirror_origin, mirrors: mirrors_origin } = origin;
        let action = if let Some(redirect) = redirect {
            HttpAction::Redirect(redirect)
        } else if let Some(response) = direct_response {
            HttpAction::Respond(response)
        } else {
            let share = match (mirror_percentage, mirror_percent) {
                (Some(share), _) => Share::Fine(share),
                (None, Some(percent)) => Share::Percent(percent),
                (None, None) => Share::Percent(100),
            };
            let single = mirror.map(|destination| Mirror {
                backend: backend(Some(destination)),
                share,
                origin: below(&mirror_origin, "mirror"),
            });
            let several = mirrors.into_iter().enumerate().map(|(index, mirror)| {
                let api::HttpMirrorPolicy { destination, percentage } = mirror;
                Mirror {
                    backend: backend(destination),
                    share: percentage.map_or(Share::Percent(100), Share::Fine),
                    origin: below(&mirrors_origin, &format!("mirrors[{index}].destination")),
                }
            });
            HttpAction::Forward(Forward {
                backends: http_backends(&origin, route),
                missing: self.missing(),
                rewrite: rewrite.map(|rewrite| self.rewrite(rewrite)),
                timeout,
                retries,
                mirrors: single.into_iter().chain(several).collect(),
                session: None,
            })
        };
        HttpRule {
            origin,
            name,
            matches: match_.into_iter().map(|condition| self.http_match(condition)).collect(),
            action,
            headers,
            fault,
            cors: cors_policy,
        }
    }

    fn rewrite(self, rewrite: api::HttpRewrite) -> Rewrite {
        let api::HttpRewrite { uri, authority, uri_regex_rewrite } = rewrite;
        let path = match uri_regex_rewrite {
            Some(regex) => Some(PathRewrite::Regex(regex)),
            None if uri.is_empty() => None,
            None if self == Dialect::GatewayApi && uri == "/" => Some(PathRewrite::RemovePrefix),
            None => Some(PathRewrite::Matched(uri)),
        };
        Rewrite { authority, path }
    }

    fn http_match(self, condition: api::HttpMatchRequest) -> HttpMatch {
        let api::HttpMatchRequest {
            name,
            uri,
            scheme,
            method,
            authority,
            headers,
            port,
            source_labels,
            gateways,
            query_params,
            ignore_uri_case,
            without_headers,
            source_namespace,
            stat_prefix,
        } = condition;
        HttpMatch {
            name,
            client: client(port, gateways, source_labels, &source_namespace),
            path: uri.and_then(|uri| self.path(uri)),
            ignore_path_case: ignore_uri_case,
            scheme,
            method,
            authority,
            headers,
            without_headers,
            query_params,
            stat_prefix,
            share: None,
        }
    }

    fn path(self, uri: StringMatch) -> Option<PathMatch> {
        match uri {
            StringMatch::Any => None,
            StringMatch::Exact(path) => Some(PathMatch::Exact(path)),
            StringMatch::Prefix(prefix) => Some(self.prefix(prefix)),
            StringMatch::Regex(pattern) => Some(PathMatch::Regex(pattern)),
        }
    }
}

fn http_backends(origin: &Origin, route: Vec<api::HttpRouteDestination>) -> Vec<HttpBackend> {
    let backends = route.into_iter().enumerate().map(|(index, to)| {
        let api::HttpRouteDestination { destination, weight, headers } = to;
        HttpBackend {
            backend: backend(destination),
            weight: share(weight),
            headers,
            field: below(origin, &format!("route[{index}].destination")).field,
        }
    });
    backends.collect()
}

pub(super) fn tls_rules(key: &ObjectKey, routes: Vec<api::TlsRoute>) -> Vec<TlsRule> {
    let rules = routes.into_iter().enumerate().map(|(index, route)| {
        let api::TlsRoute { match_, route } = route;
        let origin = Origin::field(key.clone(), &format!("spec.tls[{index}]"));
        let matches = match_.into_iter().map(|condition| {
            let api::TlsMatchAttributes {
                sni_hosts,
                destination_subnets,
                port,
                source_labels,
                gateways,
                source_namespace,
            } = condition;
            TlsMatch {
                client: client(port, gateways, source_labels, &source_namespace),
                server_names: names(&sni_hosts),
                destination_blocks: names(&destination_subnets),
            }
        });
        TlsRule { matches: matches.collect(), backends: stream_backends(&origin, route), origin }
    });
    rules.collect()
}

pub(super) fn tcp_rules(key: &ObjectKey, routes: Vec<api::TcpRoute>) -> Vec<TcpRule> {
    let rules = routes.into_iter().enumerate().map(|(index, route)| {
        let api::TcpRoute { match_, route } = route;
        let origin = Origin::field(key.clone(), &format!("spec.tcp[{index}]"));
        let matches = match_.into_iter().map(|condition| {
            let api::L4MatchAttributes {
                destination_subnets,
                port,
                // Not looked at, as by istiod; validation says so.
                source_subnet: _,
                source_labels,
                gateways,
                source_namespace,
            } = condition;
            TcpMatch {
                client: client(port, gateways, source_labels, &source_namespace),
                destination_blocks: names(&destination_subnets),
            }
        });
        TcpRule { matches: matches.collect(), backends: stream_backends(&origin, route), origin }
    });
    rules.collect()
}

fn stream_backends(origin: &Origin, route: Vec<api::RouteDestination>) -> Vec<StreamBackend> {
    let backends = route.into_iter().enumerate().map(|(index, to)| {
        let api::RouteDestination { destination, weight } = to;
        StreamBackend {
            backend: backend(destination),
            weight: share(weight),
            field: below(origin, &format!("route[{index}].destination")).field,
        }
    });
    backends.collect()
}

/// What a destination names. One without host names nothing: validation refuses it.
fn backend(destination: Option<api::Destination>) -> Backend {
    let Some(destination) = destination.filter(|destination| !destination.host.is_empty()) else {
        return Backend::Invalid;
    };
    let api::Destination { host, subset, port } = destination;
    Backend::Service(ServiceBackend {
        host: Name::from(host),
        port: port.map(|port| u16::try_from(port.number).unwrap_or(0)),
        subset: name(&subset),
    })
}

fn client(
    port: u32,
    gateways: Vec<String>,
    labels: BTreeMap<String, String>,
    namespace: &str,
) -> ClientMatch {
    ClientMatch {
        port: u16::try_from(port).ok().filter(|port| *port != 0),
        parents: gateways.iter().map(|gateway| Parent::parse(gateway)).collect(),
        labels: labels.into_iter().map(|(key, value)| (Name::from(key), Name::from(value))).collect(),
        namespace: (!namespace.is_empty()).then(|| Name::from(namespace)),
    }
}

fn share(weight: i32) -> u32 {
    u32::try_from(weight).unwrap_or(0)
}

fn names(texts: &[String]) -> Vec<Name> {
    texts.iter().map(|text| Name::from(text.as_str())).collect()
}

/// A field below another.
fn below(origin: &Origin, field: &str) -> Origin {
    Origin::field(origin.key.clone(), &format!("{}.{field}", origin.field))
}
