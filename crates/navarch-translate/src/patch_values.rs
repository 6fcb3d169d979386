//! Whether the values of EnvoyFilter patches fit Envoy's API: what validation, which does not know that API,
//! cannot say.

use navarch_accept::extensions::stock;
use navarch_accept::{violations, violations_in_part};
use navarch_envoy::dynamic;
use navarch_envoy::json::from_json_lenient;
use navarch_envoy::proto::envoy::config::bootstrap::v3::Bootstrap;
use navarch_envoy::proto::envoy::config::cluster::v3::Cluster;
use navarch_envoy::proto::envoy::config::core::v3::TypedExtensionConfig;
use navarch_envoy::proto::envoy::config::listener::v3::{Filter, FilterChain, Listener, ListenerFilter};
use navarch_envoy::proto::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};
use navarch_envoy::proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use navarch_model::networking::{ApplyTo, EnvoyConfigObjectPatch, FilterMatch, ObjectTypes, PatchOperation};
use prost::Name;

/// Filters of Istio's own proxy. They are not part of Envoy, so there is nothing to patch.
const ISTIO_FILTERS: [&str; 3] = ["istio.alpn", "istio.metadata_exchange", "istio.stats"];

/// Filters that end a chain.
const TERMINAL_FILTERS: [&str; 3] = [
    "envoy.filters.http.router",
    "envoy.filters.network.http_connection_manager",
    "envoy.filters.network.tcp_proxy",
];

/// Something that keeps a patch from doing what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatchProblem {
    /// The field, relative to the patch, for example `patch.value.filters[0].name`.
    pub path: String,
    pub kind: PatchProblemKind,
    pub message: String,
}

/// What becomes of the patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchProblemKind {
    /// The value cannot be read; the patch is left out.
    Unusable,
    /// A field is not known and is left out.
    UnknownField,
    /// What the patch names is never there.
    NoTarget,
    /// Envoy would refuse what the patch makes; the patch is left out.
    Refused,
}

/// Everything that is wrong with a patch.
pub fn problems(patch: &EnvoyConfigObjectPatch) -> Vec<PatchProblem> {
    let mut found: Vec<PatchProblem> =
        missing_target(patch).into_iter().chain(behind_the_end(patch)).collect();
    let value = patch.patch.as_ref().and_then(|change| change.value.as_ref());
    let (Some(message), Some(value)) = (message_of(patch.apply_to), value) else { return found };
    let at = |path: &str| match path {
        "" => "patch.value".to_owned(),
        path => format!("patch.value.{path}"),
    };
    match from_json_lenient(&message, &value.to_serde()) {
        Ok((value, unknown)) => {
            found.extend(unknown.into_iter().map(|path| PatchProblem {
                path: at(&path),
                kind: PatchProblemKind::UnknownField,
                message: match replaced(&message, &path) {
                    Some(replacement) => {
                        format!("{message} has no such field any more; {replacement}; it is left out")
                    }
                    None => format!("{message} has no such field; it is left out"),
                },
            }));
            found.extend(refused(patch, &message, &dynamic::encode(&value)));
        }
        Err(error) => found.push(PatchProblem {
            path: at(&error.path),
            kind: PatchProblemKind::Unusable,
            message: format!(
                "does not fit {message}: {}{}; the patch is left out",
                error.problem,
                present_type(&error.problem.to_string()).unwrap_or_default()
            ),
        }),
    }
    found
}

/// What has taken the place of a field that Envoy's API had once, by its path in a value.
fn replaced(message: &str, path: &str) -> Option<&'static str> {
    let field = path.rsplit('.').next().unwrap_or(path);
    let field = field.split('[').next().unwrap_or(field);
    Some(match field {
        "config" => "use typed_config with an \"@type\"",
        "hosts" if message.ends_with(".Cluster") => "use load_assignment",
        "tls_context" => "use transport_socket with envoy.transport_sockets.tls",
        "allow_origin" => "use allow_origin_string_match",
        "allow_origin_regex" | "regex" | "regex_match" => "use a string match with safe_regex",
        "per_filter_config" => "use typed_per_filter_config",
        "request_timeout_ms" => "use a duration",
        _ => return None,
    })
}

/// The type that has taken the place of one of Envoy's API v2, where there is one of the same name.
fn present_type(problem: &str) -> Option<String> {
    let url = problem.split('"').nth(1)?;
    let old = url.rsplit('/').next()?;
    let is_old = [".v2.", ".v2alpha.", ".v2alpha1.", ".v3alpha."].iter().any(|version| old.contains(version))
        || old.starts_with("envoy.config.filter.");
    let name = old.rsplit('.').next().filter(|_| is_old)?;
    let mut present = stock().types().filter(|kind| kind.rsplit('.').next() == Some(name));
    let parts: Vec<&str> = old.split('.').collect();
    // Of several, the one that has most of the words of the old name.
    let alike = |kind: &str| kind.split('.').filter(|part| parts.contains(part)).count();
    let first = present.next()?;
    let best = present.fold(first, |best, kind| if alike(kind) > alike(best) { kind } else { best });
    Some(format!(", which is of an API that Envoy does not have any more; use {best}"))
}

/// What Envoy would refuse in the value, whatever it is put into. A value that is merged may be a part.
fn refused(
    patch: &EnvoyConfigObjectPatch,
    message: &str,
    bytes: &[u8],
) -> impl Iterator<Item = PatchProblem> {
    let found = match patch.patch.as_ref().map(|change| change.operation) {
        Some(PatchOperation::Remove | PatchOperation::Invalid) | None => Vec::new(),
        Some(PatchOperation::Merge | PatchOperation::MergeAndReplaceList) => {
            violations_in_part(message, bytes)
        }
        _ => violations(message, bytes),
    };
    found.into_iter().map(|violation| PatchProblem {
        // The path is that of the message, whose names the value may spell otherwise.
        path: "patch.value".to_owned(),
        kind: PatchProblemKind::Refused,
        message: format!("Envoy would refuse it: {violation}; the patch is left out"),
    })
}

/// The message that a value must be.
fn message_of(apply_to: ApplyTo) -> Option<String> {
    Some(match apply_to {
        ApplyTo::Listener => Listener::full_name(),
        ApplyTo::FilterChain => FilterChain::full_name(),
        ApplyTo::NetworkFilter => Filter::full_name(),
        ApplyTo::HttpFilter => HttpFilter::full_name(),
        ApplyTo::ListenerFilter => ListenerFilter::full_name(),
        ApplyTo::RouteConfiguration => RouteConfiguration::full_name(),
        ApplyTo::VirtualHost => VirtualHost::full_name(),
        ApplyTo::HttpRoute => Route::full_name(),
        ApplyTo::Cluster => Cluster::full_name(),
        ApplyTo::ExtensionConfig => TypedExtensionConfig::full_name(),
        ApplyTo::Bootstrap => Bootstrap::full_name(),
        ApplyTo::Invalid => return None,
    })
}

/// The filter that a patch names.
fn filter_of(patch: &EnvoyConfigObjectPatch) -> Option<&FilterMatch> {
    match patch.match_.as_ref()?.object_types.as_ref()? {
        ObjectTypes::Listener(listener) => listener.filter_chain.as_ref()?.filter.as_ref(),
        _ => None,
    }
}

/// A filter that a patch puts behind the terminal filter: Envoy refuses the whole listener.
fn behind_the_end(patch: &EnvoyConfigObjectPatch) -> Option<PatchProblem> {
    let named = match patch.apply_to {
        ApplyTo::HttpFilter => {
            filter_of(patch).and_then(|filter| filter.sub_filter.as_ref()).map(|f| &f.name)
        }
        ApplyTo::NetworkFilter => filter_of(patch).map(|filter| &filter.name),
        _ => return None,
    };
    let behind = match patch.patch.as_ref()?.operation {
        PatchOperation::Add => true,
        PatchOperation::InsertAfter => named.is_none_or(|name| TERMINAL_FILTERS.contains(&name.as_str())),
        _ => false,
    };
    behind.then(|| PatchProblem {
        path: "patch.operation".to_owned(),
        kind: PatchProblemKind::Refused,
        message: "the filter goes behind the last one, which ends the chain; Envoy would refuse the listener, so the \
                  patch is left out"
            .to_owned(),
    })
}

fn missing_target(patch: &EnvoyConfigObjectPatch) -> Option<PatchProblem> {
    let filter = filter_of(patch)?;
    let inner = filter.sub_filter.as_ref().map(|inner| inner.name.as_str());
    let (path, name) = match inner {
        Some(name) => ("match.listener.filterChain.filter.subFilter.name", name),
        None => ("match.listener.filterChain.filter.name", filter.name.as_str()),
    };
    ISTIO_FILTERS.contains(&name).then(|| PatchProblem {
        path: path.to_owned(),
        kind: PatchProblemKind::NoTarget,
        message: format!(
            "{name} is part of Istio's own proxy only; in Envoy there is no such filter to patch"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use navarch_model::networking::{EnvoyConfigObjectMatch, FilterChainMatch, ListenerMatch, Patch};
    use navarch_model::values::Json;
    use serde_json::{Value, json};

    fn check(apply_to: ApplyTo, filter: &str, value: Value, expected: &[(&str, PatchProblemKind)]) {
        let filter = FilterMatch { name: filter.to_owned(), ..FilterMatch::default() };
        let chain = FilterChainMatch { filter: Some(filter), ..FilterChainMatch::default() };
        let listener = ListenerMatch { filter_chain: Some(chain), ..ListenerMatch::default() };
        let patch = EnvoyConfigObjectPatch {
            apply_to,
            match_: Some(EnvoyConfigObjectMatch {
                object_types: Some(ObjectTypes::Listener(listener)),
                ..EnvoyConfigObjectMatch::default()
            }),
            patch: Some(Patch { value: Some(Json::from(&value)), ..Patch::default() }),
        };
        let found = problems(&patch);
        let found: Vec<_> = found.iter().map(|problem| (problem.path.as_str(), problem.kind)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_keeps_a_patch_from_working() {
        use PatchProblemKind::{NoTarget, UnknownField, Unusable};
        let lua = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua";
        check(ApplyTo::HttpFilter, "", json!({"name": "a", "typed_config": {"@type": lua}}), &[]);
        check(ApplyTo::Cluster, "", json!({"connect_timeout": "1s"}), &[]);
        check(
            ApplyTo::Cluster,
            "",
            json!({"connect_timeout": 1}),
            &[("patch.value.connect_timeout", Unusable)],
        );
        check(ApplyTo::Cluster, "", json!({"new": 1}), &[("patch.value.new", UnknownField)]);
        check(
            ApplyTo::HttpFilter,
            "",
            json!({"typed_config": {"@type": "type.googleapis.com/stats.Unknown"}}),
            &[("patch.value.typed_config", Unusable)],
        );
        check(ApplyTo::Bootstrap, "", json!({"anything": 1}), &[("patch.value.anything", UnknownField)]);
        check(ApplyTo::Bootstrap, "", json!({"stats_flush_interval": "1s"}), &[]);
        check(
            ApplyTo::NetworkFilter,
            "istio.stats",
            json!({}),
            &[("match.listener.filterChain.filter.name", NoTarget)],
        );
    }
    #[test]
    fn nothing_may_follow_the_filter_that_ends_a_chain() {
        let problem = |apply_to, filter: &str, operation| {
            let filter = FilterMatch { name: filter.to_owned(), ..FilterMatch::default() };
            let chain = FilterChainMatch { filter: Some(filter), ..FilterChainMatch::default() };
            let listener = ListenerMatch { filter_chain: Some(chain), ..ListenerMatch::default() };
            let patch = EnvoyConfigObjectPatch {
                apply_to,
                match_: Some(EnvoyConfigObjectMatch {
                    object_types: Some(ObjectTypes::Listener(listener)),
                    ..EnvoyConfigObjectMatch::default()
                }),
                patch: Some(Patch { operation, ..Patch::default() }),
            };
            problems(&patch).iter().any(|problem| problem.kind == PatchProblemKind::Refused)
        };
        use ApplyTo::{HttpFilter, ListenerFilter, NetworkFilter};
        use PatchOperation::{Add, InsertAfter, InsertBefore};
        let tcp_proxy = "envoy.filters.network.tcp_proxy";
        for (apply_to, filter, operation, expected) in [
            (HttpFilter, "", Add, true),
            (HttpFilter, "", InsertAfter, true),
            (NetworkFilter, tcp_proxy, InsertAfter, true),
            (NetworkFilter, tcp_proxy, InsertBefore, false),
            (NetworkFilter, "envoy.filters.network.rbac", InsertAfter, false),
            (ListenerFilter, "", Add, false),
        ] {
            assert_eq!(problem(apply_to, filter, operation), expected, "{apply_to:?} {filter} {operation:?}");
        }
    }
}
