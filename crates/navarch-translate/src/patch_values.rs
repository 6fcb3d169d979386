//! Whether the values of EnvoyFilter patches fit Envoy's API: what validation, which does not know that API, cannot say.

use navarch_envoy::json::from_json_lenient;
use navarch_envoy::proto::envoy::config::cluster::v3::Cluster;
use navarch_envoy::proto::envoy::config::core::v3::TypedExtensionConfig;
use navarch_envoy::proto::envoy::config::listener::v3::{Filter, FilterChain, Listener, ListenerFilter};
use navarch_envoy::proto::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};
use navarch_envoy::proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use navarch_model::networking::{ApplyTo, EnvoyConfigObjectPatch, ObjectTypes};
use prost::Name;

/// Filters of Istio's own proxy. They are not part of Envoy, so there is nothing to patch.
const ISTIO_FILTERS: [&str; 3] = ["istio.alpn", "istio.metadata_exchange", "istio.stats"];

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
}

/// Everything that is wrong with a patch.
pub fn problems(patch: &EnvoyConfigObjectPatch) -> Vec<PatchProblem> {
    let mut found: Vec<PatchProblem> = missing_target(patch).into_iter().collect();
    let value = patch.patch.as_ref().and_then(|change| change.value.as_ref());
    let (Some(message), Some(value)) = (message_of(patch.apply_to), value) else { return found };
    let at = |path: &str| match path {
        "" => "patch.value".to_owned(),
        path => format!("patch.value.{path}"),
    };
    match from_json_lenient(&message, &value.to_serde()) {
        Ok((_, unknown)) => found.extend(unknown.into_iter().map(|path| PatchProblem {
            path: at(&path),
            kind: PatchProblemKind::UnknownField,
            message: format!("{message} has no such field; it is left out"),
        })),
        Err(error) => found.push(PatchProblem {
            path: at(&error.path),
            kind: PatchProblemKind::Unusable,
            message: format!("does not fit {message}: {}; the patch is left out", error.problem),
        }),
    }
    found
}

/// The message that a value must be; nothing for what is not configuration of a running proxy.
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
        ApplyTo::Bootstrap | ApplyTo::Invalid => return None,
    })
}

fn missing_target(patch: &EnvoyConfigObjectPatch) -> Option<PatchProblem> {
    let Some(ObjectTypes::Listener(listener)) = &patch.match_.as_ref()?.object_types else { return None };
    let filter = listener.filter_chain.as_ref()?.filter.as_ref()?;
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
    use navarch_model::networking::{
        EnvoyConfigObjectMatch, FilterChainMatch, FilterMatch, ListenerMatch, Patch,
    };
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
        check(ApplyTo::Bootstrap, "", json!({"anything": 1}), &[]);
        check(
            ApplyTo::NetworkFilter,
            "istio.stats",
            json!({}),
            &[("match.listener.filterChain.filter.name", NoTarget)],
        );
    }
}
