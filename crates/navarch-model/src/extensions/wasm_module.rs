//! A Wasm module, and how it runs.

use crate::yaml::{closed_enum, message};

closed_enum! {
    /// Whether the module is an HTTP or a network filter.
    pub enum PluginType {
        UnspecifiedPluginType = 0 "UNSPECIFIED_PLUGIN_TYPE",
        Http = 1 "HTTP",
        Network = 2 "NETWORK",
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
