//! WasmPlugin: a Wasm module in the filter chain.

use super::TrafficSelector;
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
    /// Whether the module is an HTTP or a network filter.
    pub enum PluginType {
        UnspecifiedPluginType = 0 "UNSPECIFIED_PLUGIN_TYPE",
        Http = 1 "HTTP",
        Network = 2 "NETWORK",
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

closed_enum! {
    /// Whether an image that is there already is fetched again.
    pub enum PullPolicy {
        UnspecifiedPolicy = 0 "UNSPECIFIED_POLICY",
        IfNotPresent = 1 "IfNotPresent",
        Always = 2 "Always",
    }
}

message! {
    /// The module's environment.
    pub struct VmConfig {
        env: Vec<EnvVar>,
    }
}

message! {
    /// A variable of the module's environment.
    pub struct EnvVar {
        name: String,
        value_from: EnvValueSource,
        value: String,
    }
}

closed_enum! {
    /// Where the value comes from.
    pub enum EnvValueSource {
        Inline = 0 "INLINE",
        Host = 1 "HOST",
    }
}

closed_enum! {
    /// What happens to traffic if the module cannot run.
    pub enum FailStrategy {
        FailClose = 0 "FAIL_CLOSE",
        FailOpen = 1 "FAIL_OPEN",
        FailReload = 2 "FAIL_RELOAD",
    }
}
