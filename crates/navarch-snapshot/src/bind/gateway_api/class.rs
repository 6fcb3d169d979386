//! Which gateways are ours: by the controller of their class.

use navarch_model::ClusterId;
use navarch_model::gateway_api::GatewayClass;

use crate::registry::store::Reader;

/// The controller of Istio's gateways, for which configuration is written today.
pub const ISTIO_CONTROLLER: &str = "istio.io/gateway-controller";
/// Our own.
pub const CONTROLLER: &str = "navarch/gateway-controller";

/// Classes that are ours if no GatewayClass says something else.
const CLASSES: [&str; 2] = ["istio", "navarch"];

/// Whether a controller is us.
pub(crate) fn serves_controller(controller: &str) -> bool {
    controller == CONTROLLER || controller == ISTIO_CONTROLLER
}

/// The controller of a class that is ours, as its author calls it.
pub(crate) fn controller_of(name: &str, class: Option<&GatewayClass>) -> &'static str {
    let is_own = match class {
        Some(class) => class.controller_name == CONTROLLER,
        None => name == CLASSES[1],
    };
    if is_own { CONTROLLER } else { ISTIO_CONTROLLER }
}

/// Whether gateways of a class are ours.
pub fn serves(reader: &Reader<'_>, class: &str) -> bool {
    match reader.get::<GatewayClass>(ClusterId::LOCAL, "", class) {
        Some((_, class)) => serves_controller(&class.controller_name),
        None => CLASSES.contains(&class),
    }
}
