//! WasmPlugin: a Wasm module in the filter chain.

use super::traffic_extension::TrafficSelector;
use super::wasm_module::{FailStrategy, PluginType, PullPolicy, VmConfig};
use crate::types::{PolicyTargetReference, WorkloadSelector};
use crate::values::Json;
use crate::yaml::{closed_enum, message};

message! {
    /// A Wasm module in the filter chain of workloads.
    pub struct WasmPlugin {
        selector: Option<WorkloadSelector>,
        target_ref: Option<PolicyTargetReference>,
        target_refs: Vec<PolicyTargetReference>,
        url: String,
        sha256: String,
        image_pull_policy: PullPolicy,
        image_pull_secret: String,
        verification_key: String,
        plugin_config: Option<Json>,
        plugin_name: String,
        phase: PluginPhase,
        priority: Option<i32>,
        fail_strategy: FailStrategy,
        vm_config: Option<VmConfig>,
        match_: Vec<TrafficSelector>,
        type_: PluginType,
    }
}

closed_enum! {
    /// Before which of the mesh's filters the module runs.
    pub enum PluginPhase {
        UnspecifiedPhase = 0 "UNSPECIFIED_PHASE",
        Authn = 1 "AUTHN",
        Authz = 2 "AUTHZ",
        Stats = 3 "STATS",
    }
}
