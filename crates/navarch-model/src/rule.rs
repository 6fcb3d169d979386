//! `EffectiveRule`: the DestinationRule that applies to one service for one client.

use crate::networking::DestinationRule;
use crate::object::ObjectKey;

/// What remains of all DestinationRules for a service after selection and merging (Istio: "Destination Rule",
/// precedence).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EffectiveRule {
    /// The merged specification: traffic policy of the oldest rule, subsets of all of them.
    pub spec: DestinationRule,
    /// The rules it was made of, oldest first.
    pub sources: Vec<ObjectKey>,
}
