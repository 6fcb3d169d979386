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

/// What gateways of a class that is not ours are for, where that is ambient mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ambient {
    /// Calls to services of a namespace go through them.
    Waypoint,
    /// They lead to the pods of another network.
    EastWest,
}

/// What gateways of a class are for, if that is ambient mode: by the controllers that Istio has for them, and
/// by the names of their classes where nobody has said anything.
pub(super) fn ambient(reader: &Reader<'_>, class: &str) -> Option<Ambient> {
    let known = reader.get::<GatewayClass>(ClusterId::LOCAL, "", class);
    match known.map_or(class, |(_, class)| class.controller_name.as_str()) {
        "istio.io/mesh-controller" | "istio-waypoint" => Some(Ambient::Waypoint),
        "istio.io/eastwest-controller" | "istio-east-west" => Some(Ambient::EastWest),
        _ => None,
    }
}

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
