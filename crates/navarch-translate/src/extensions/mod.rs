//! Extensions of users in the filter chains: Lua scripts and Wasm modules (TrafficExtension, WasmPlugin).
//!
//! Lua goes into the chain as it is. A Wasm module is fetched first, so the chain only names it, and its
//! configuration is a resource of its own (ECDS): the listener waits for the module, and a change of the
//! module does not touch the listener.

mod wasm;

use std::time::Duration;

use navarch_envoy::any::any;
use navarch_envoy::json::from_json_lenient;
use navarch_envoy::proto::envoy::config::core::v3::{
    AggregatedConfigSource, ApiVersion, ConfigSource, DataSource, ExtensionConfigSource,
    TypedExtensionConfig, config_source, data_source,
};
use navarch_envoy::proto::envoy::config::listener::v3::{Filter, filter};
use navarch_envoy::proto::envoy::extensions::filters::http::lua::v3::Lua;
use navarch_envoy::proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpFilter, http_filter,
};
use navarch_envoy::{Resource, XdsType, dynamic, wkt};
use navarch_model::extensions::{
    ExecutionPhase, FilterConfig, PluginPhase, PluginType, TrafficExtension, TrafficSelector, WasmConfig,
    WasmPlugin,
};
use navarch_model::networking::{ApplyTo, EnvoyConfigObjectPatch, PatchOperation};
use navarch_model::types::WorkloadMode;
use navarch_model::{Config, Kind, Name, ObjectKey};
use prost::{Message, Name as _};

use crate::filters::{HttpFilters, HttpPhase, NetworkFilters, NetworkPhase};
use crate::http_connection_manager::Direction;

pub use wasm::{ExtensionResource, ExtensionResourceInput};

/// What the names of extension resources start with.
const NAME_PREFIX: &str = "extensions.istio.io/trafficextension/";
/// Marks the name of an extension that was made from a WasmPlugin, which may have the name of a
/// TrafficExtension.
const TRANSLATED: &str = "~istio-translated-wasmplugin";
/// Istio's limit for a script.
const LUA_CODE_MAX_BYTES: usize = 65_536;

/// The TrafficExtension that a WasmPlugin stands for.
pub fn of_wasm_plugin(config: &Config<WasmPlugin>) -> Config<TrafficExtension> {
    let plugin = &config.spec;
    let target_refs = if plugin.target_refs.is_empty() {
        plugin.target_ref.iter().cloned().collect()
    } else {
        plugin.target_refs.clone()
    };
    let wasm = WasmConfig {
        url: plugin.url.clone(),
        sha256: plugin.sha256.clone(),
        image_pull_policy: plugin.image_pull_policy,
        image_pull_secret: plugin.image_pull_secret.clone(),
        verification_key: plugin.verification_key.clone(),
        plugin_config: plugin.plugin_config.clone(),
        plugin_name: plugin.plugin_name.clone(),
        fail_strategy: plugin.fail_strategy,
        vm_config: plugin.vm_config.clone(),
        type_: plugin.type_,
    };
    let phase = match plugin.phase {
        PluginPhase::UnspecifiedPhase => ExecutionPhase::Unspecified,
        PluginPhase::Authn => ExecutionPhase::Authn,
        PluginPhase::Authz => ExecutionPhase::Authz,
        PluginPhase::Stats => ExecutionPhase::Stats,
    };
    Config {
        namespace: config.namespace.clone(),
        name: Name::from(format!("{}{TRANSLATED}", config.name)),
        created_at: config.created_at,
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        spec: TrafficExtension {
            selector: plugin.selector.clone(),
            target_refs,
            phase,
            priority: plugin.priority,
            match_: plugin.match_.clone(),
            filter_config: Some(FilterConfig::Wasm(wasm)),
        },
    }
}

/// The name of an extension's filter and of its resource.
pub fn resource_name(config: &Config<TrafficExtension>) -> String {
    format!("{NAME_PREFIX}{}.{}", config.namespace, config.name)
}

/// Whether the extension can be used at all: it has a script of bearable size, or a module.
pub fn is_usable(extension: &TrafficExtension) -> bool {
    match &extension.filter_config {
        Some(FilterConfig::Lua(lua)) => {
            (1..=LUA_CODE_MAX_BYTES).contains(&lua.inline_code.len()) && script_problem(extension).is_none()
        }
        Some(FilterConfig::Wasm(wasm)) => !wasm.url.is_empty(),
        None => false,
    }
}

/// What is wrong with the script of an extension; it would take the listener with it.
pub fn script_problem(extension: &TrafficExtension) -> Option<String> {
    match &extension.filter_config {
        Some(FilterConfig::Lua(lua)) => navarch_accept::lua::problem(&lua.inline_code),
        _ => None,
    }
}

/// The order inside a phase: higher priority first; without one, last; else as given.
pub fn sort_by_priority<T>(extensions: &mut [T], spec: impl Fn(&T) -> &TrafficExtension) {
    extensions.sort_by_key(|extension| std::cmp::Reverse(spec(extension).priority.unwrap_or(i32::MIN)));
}

/// Adds the filter of an extension to the chains of one direction, if it is meant for that.
pub fn add_filter(
    config: &Config<TrafficExtension>,
    direction: Direction,
    http: &mut HttpFilters,
    network: &mut NetworkFilters,
) {
    let Some(ports) = ports(&config.spec.match_, direction) else { return };
    let name = resource_name(config);
    match &config.spec.filter_config {
        Some(FilterConfig::Lua(lua)) => {
            http.push_for(http_phase(config.spec.phase), lua_filter(name, lua.inline_code.clone()), ports)
        }
        Some(FilterConfig::Wasm(wasm)) if wasm.type_ == PluginType::Network => {
            network.push_for(network_phase(config.spec.phase), network_discovery(name), ports);
        }
        Some(FilterConfig::Wasm(_)) => {
            http.push_for(http_phase(config.spec.phase), http_discovery(name), ports)
        }
        None => {}
    }
}

/// Whether an extension has a filter in the chains of one direction.
pub fn is_for(config: &Config<TrafficExtension>, direction: Direction) -> bool {
    config.spec.filter_config.is_some() && ports(&config.spec.match_, direction).is_some()
}

/// The object that an extension was made from.
pub fn key_of(config: &Config<TrafficExtension>) -> ObjectKey {
    match config.name.strip_suffix(TRANSLATED) {
        Some(name) => ObjectKey::new(Kind::WasmPlugin, &config.namespace, name),
        None => ObjectKey::new(Kind::TrafficExtension, &config.namespace, &config.name),
    }
}

/// The resource that an EnvoyFilter adds; nothing if the patch adds none, or its value is not an extension
/// (validation has said so).
pub fn added_by_patch(patch: &EnvoyConfigObjectPatch) -> Option<Resource> {
    let change = patch.patch.as_ref()?;
    if patch.apply_to != ApplyTo::ExtensionConfig || change.operation != PatchOperation::Add {
        return None;
    }
    let json = change.value.as_ref()?.to_serde();
    let (message, _) = from_json_lenient(&TypedExtensionConfig::full_name(), &json).ok()?;
    let config = TypedExtensionConfig::decode(dynamic::encode(&message)).ok()?;
    (!config.name.is_empty())
        .then(|| Resource::of(XdsType::Ecds, config.name.as_str(), &config.encode_to_vec()))
}

/// The ports that an extension is meant for in one direction: empty means every port, `None` that it is not
/// meant for the direction. Gateways count as clients.
fn ports(selectors: &[TrafficSelector], direction: Direction) -> Option<Vec<u16>> {
    if selectors.is_empty() {
        return Some(Vec::new());
    }
    let own = if direction == Direction::Inbound { WorkloadMode::Server } else { WorkloadMode::Client };
    let concerns = |mode: WorkloadMode| {
        mode == own || matches!(mode, WorkloadMode::Undefined | WorkloadMode::ClientAndServer)
    };
    let mut ports = Vec::new();
    for selector in selectors.iter().filter(|selector| concerns(selector.mode)) {
        if selector.ports.is_empty() {
            return Some(Vec::new());
        }
        ports.extend(
            selector
                .ports
                .iter()
                .filter_map(|port| u16::try_from(port.number).ok())
                .filter(|port| *port != 0),
        );
    }
    (!ports.is_empty()).then_some(ports)
}

fn http_phase(phase: ExecutionPhase) -> HttpPhase {
    match phase {
        ExecutionPhase::Unspecified => HttpPhase::Extension,
        ExecutionPhase::Authn => HttpPhase::AuthenticationExtension,
        ExecutionPhase::Authz => HttpPhase::AuthorizationExtension,
        ExecutionPhase::Stats => HttpPhase::StatsExtension,
    }
}

fn network_phase(phase: ExecutionPhase) -> NetworkPhase {
    match phase {
        ExecutionPhase::Unspecified => NetworkPhase::Extension,
        ExecutionPhase::Authn => NetworkPhase::AuthenticationExtension,
        ExecutionPhase::Authz => NetworkPhase::AuthorizationExtension,
        ExecutionPhase::Stats => NetworkPhase::StatsExtension,
    }
}

fn lua_filter(name: String, code: String) -> HttpFilter {
    let config = Lua {
        default_source_code: Some(DataSource {
            specifier: Some(data_source::Specifier::InlineString(code)),
            ..DataSource::default()
        }),
        ..Lua::default()
    };
    HttpFilter {
        name,
        config_type: Some(http_filter::ConfigType::TypedConfig(any(&config))),
        ..HttpFilter::default()
    }
}

fn http_discovery(name: String) -> HttpFilter {
    let source = discovery(&[
        "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
        "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
    ]);
    HttpFilter {
        name,
        config_type: Some(http_filter::ConfigType::ConfigDiscovery(source)),
        ..HttpFilter::default()
    }
}

fn network_discovery(name: String) -> Filter {
    let source = discovery(&[
        "type.googleapis.com/envoy.extensions.filters.network.wasm.v3.Wasm",
        "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC",
    ]);
    Filter { name, config_type: Some(filter::ConfigType::ConfigDiscovery(source)) }
}

/// Configuration over ADS, without a limit of time: an extension may be what protects the workload. The
/// second type takes the place of a module that cannot be fetched and must fail closed.
fn discovery(types: &[&str]) -> ExtensionConfigSource {
    ExtensionConfigSource {
        config_source: Some(ConfigSource {
            initial_fetch_timeout: Some(wkt::duration(Duration::ZERO)),
            resource_api_version: ApiVersion::V3 as i32,
            config_source_specifier: Some(config_source::ConfigSourceSpecifier::Ads(
                AggregatedConfigSource::default(),
            )),
            ..ConfigSource::default()
        }),
        type_urls: types.iter().map(|text| (*text).to_owned()).collect(),
        ..ExtensionConfigSource::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use navarch_model::types::PortSelector;

    #[test]
    fn selectors_decide_directions_and_ports() {
        let selector = |mode, numbers: &[u32]| TrafficSelector {
            mode,
            ports: numbers.iter().map(|number| PortSelector { number: *number }).collect(),
        };
        let check = |selectors: &[TrafficSelector], inbound: Option<&[u16]>, outbound: Option<&[u16]>| {
            assert_eq!(ports(selectors, Direction::Inbound).as_deref(), inbound);
            assert_eq!(ports(selectors, Direction::Outbound).as_deref(), outbound);
            assert_eq!(ports(selectors, Direction::Gateway).as_deref(), outbound);
        };
        check(&[], Some(&[]), Some(&[]));
        check(&[selector(WorkloadMode::Client, &[])], None, Some(&[]));
        check(&[selector(WorkloadMode::Server, &[80, 81])], Some(&[80, 81]), None);
        check(
            &[selector(WorkloadMode::Server, &[80]), selector(WorkloadMode::ClientAndServer, &[])],
            Some(&[]),
            Some(&[]),
        );
        check(&[selector(WorkloadMode::Undefined, &[0])], None, None);
    }

    #[test]
    fn higher_priority_goes_first_and_none_last() {
        let extension = |priority| TrafficExtension { priority, ..TrafficExtension::default() };
        let mut extensions =
            [extension(None), extension(Some(1)), extension(Some(-5)), extension(Some(1000))];
        sort_by_priority(&mut extensions, |extension| extension);
        let priorities: Vec<_> = extensions.iter().map(|extension| extension.priority).collect();
        assert_eq!(priorities, [Some(1000), Some(1), Some(-5), None]);
    }
}
