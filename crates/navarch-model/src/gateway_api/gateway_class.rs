//! GatewayClass: who serves the gateways of a class.

use crate::yaml::message;

message! {
    /// A class of gateways. Gateway API: `GatewayClassSpec`.
    pub struct GatewayClass {
        controller_name: String,
        parameters_ref: Option<ParametersReference>,
        description: String,
    }
}

message! {
    /// An object that says more about a class.
    pub struct ParametersReference {
        group: String,
        kind: String,
        name: String,
        namespace: Option<String>,
    }
}
