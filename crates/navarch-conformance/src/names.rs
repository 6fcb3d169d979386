//! Names that the parts of the rig share.

/// The node of all pods.
pub const NODE: &str = "rig";
/// The GatewayClass that is tested.
pub const CLASS: &str = "navarch";
/// The name that proxies know the control plane by.
pub const SERVER: &str = "navarch.istio-system.svc";
