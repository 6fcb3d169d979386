//! What proxies have refused: it is left out of what proxies of their namespace get, as long as it says what
//! it said then.

use std::hash::Hash;

use navarch_model::extensions::{
    ExecutionPhase, FailStrategy, FilterConfig, PluginPhase, TrafficExtension, WasmPlugin,
};
use navarch_model::fact::Rejected;
use navarch_model::hashed::stable_hash;
use navarch_model::networking::{EnvoyConfigObjectPatch, EnvoyFilter};
use navarch_model::telemetry::Telemetry;
use navarch_model::{Kind, Name, Origin};
use navarch_snapshot::{Listed, View};

/// Whether proxies of a namespace have refused what is written at a place.
pub fn is_left_out<T: Hash>(view: &View<'_>, namespace: &Name, origin: &Origin, written: &T) -> bool {
    let here = view.rejected_in(namespace).filter(|rejected| rejected.origin == *origin);
    // Nearly always there is none.
    let mut here = here.peekable();
    here.peek().is_some() && {
        let content = content(written);
        here.any(|rejected| rejected.content == content)
    }
}

fn content<T: Hash>(written: &T) -> u128 {
    stable_hash(|hasher| written.hash(hasher))
}

/// A hash of what is written at a place that may be left out: a patch of an EnvoyFilter, an extension, a
/// Telemetry. Nothing for others, and where nothing is.
pub fn content_at(view: &View<'_>, origin: &Origin) -> Option<u128> {
    match origin.key.kind {
        Kind::EnvoyFilter => patch_at(view, origin).map(content),
        Kind::TrafficExtension => spec_at::<TrafficExtension>(view, origin).map(content),
        Kind::WasmPlugin => spec_at::<WasmPlugin>(view, origin).map(content),
        Kind::Telemetry => spec_at::<Telemetry>(view, origin).map(content),
        _ => None,
    }
}

/// Whether an extension is there to decide who gets in: by its phase, or since a module that fails lets
/// nobody through (Istio: `failStrategy`; only FAIL_OPEN says otherwise).
pub fn decides_at(view: &View<'_>, origin: &Origin) -> bool {
    match origin.key.kind {
        Kind::TrafficExtension => spec_at::<TrafficExtension>(view, origin).is_some_and(|extension| {
            let closes = match &extension.filter_config {
                Some(FilterConfig::Wasm(wasm)) => wasm.fail_strategy != FailStrategy::FailOpen,
                Some(FilterConfig::Lua(_)) | None => false,
            };
            closes || matches!(extension.phase, ExecutionPhase::Authn | ExecutionPhase::Authz)
        }),
        Kind::WasmPlugin => spec_at::<WasmPlugin>(view, origin).is_some_and(|plugin| {
            plugin.fail_strategy != FailStrategy::FailOpen
                || matches!(plugin.phase, PluginPhase::Authn | PluginPhase::Authz)
        }),
        _ => false,
    }
}

/// Whether what was refused says what it said then.
pub fn is_current(view: &View<'_>, rejected: &Rejected) -> bool {
    content_at(view, &rejected.origin) == Some(rejected.content)
}

/// The patch of an EnvoyFilter at a place.
pub fn patch_at<'s>(view: &View<'s>, origin: &Origin) -> Option<&'s EnvoyConfigObjectPatch> {
    let filter = spec_at::<EnvoyFilter>(view, origin)?;
    let index = origin.field.strip_prefix("spec.configPatches[")?.strip_suffix(']')?;
    filter.config_patches.get(index.parse::<usize>().ok()?)
}

fn spec_at<'s, T: Listed>(view: &View<'s>, origin: &Origin) -> Option<&'s T> {
    let objects = view.objects::<T>(&origin.key.namespace);
    objects.iter().find(|object| object.name == origin.key.name).map(|object| &object.spec)
}
