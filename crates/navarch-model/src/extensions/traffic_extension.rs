//! TrafficExtension: a Wasm module or a Lua script in the filter chain.

use super::wasm_module::{FailStrategy, PluginType, PullPolicy, VmConfig};
use crate::types::{PolicyTargetReference, PortSelector, WorkloadMode, WorkloadSelector};
use crate::values::Json;
use crate::yaml::{closed_enum, message, oneof};

message! {
    /// A Wasm module or a Lua script in the filter chain of workloads.
    pub struct TrafficExtension {
        selector: Option<WorkloadSelector>,
        target_refs: Vec<PolicyTargetReference>,
        phase: ExecutionPhase,
        priority: Option<i32>,
        match_: Vec<TrafficSelector>,
        ;
        oneof filter_config: FilterConfig,
    }
}

oneof! {
    /// The code.
    pub enum FilterConfig {
        wasm => Wasm(WasmConfig),
        lua => Lua(LuaConfig),
    }
}

closed_enum! {
    /// Before which of the mesh's filters the code runs. Istio: `TrafficExtension.ExecutionPhase`.
    pub enum ExecutionPhase {
        Unspecified = 0 "UNSPECIFIED",
        Authn = 1 "AUTHN",
        Authz = 2 "AUTHZ",
        Stats = 3 "STATS",
    }
}

message! {
    /// A Wasm module.
    pub struct WasmConfig {
        url: String,
        sha256: String,
        image_pull_policy: PullPolicy,
        image_pull_secret: String,
        verification_key: String,
        plugin_config: Option<Json>,
        plugin_name: String,
        fail_strategy: FailStrategy,
        vm_config: Option<VmConfig>,
        type_: PluginType,
    }
}

message! {
    /// A Lua script.
    pub struct LuaConfig {
        inline_code: String,
    }
}

message! {
    /// Which traffic the code sees. Unset fields match everything.
    pub struct TrafficSelector {
        mode: WorkloadMode,
        ports: Vec<PortSelector>,
    }
}
