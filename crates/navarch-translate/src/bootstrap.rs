//! What an agent makes the bootstrap of its Envoy from: the settings of the proxy that the control plane
//! knows, and what EnvoyFilters add.
//!
//! It is a `Bootstrap` as istiod's agents ask for it. Istiod answers with a whole one; here it is the part
//! that the agent cannot know, which it merges into its own.

use std::sync::Arc;

use navarch_envoy::json::from_json_lenient;
use navarch_envoy::proto::envoy::config::bootstrap::v3::Bootstrap;
use navarch_envoy::proto::envoy::config::core::v3::Node;
use navarch_envoy::{Resource, XdsType, dynamic, wkt};
use navarch_model::mesh::StatedProxyConfig;
use navarch_model::networking::{ApplyTo, EnvoyConfigObjectPatch, PatchOperation};
use navarch_model::values::Json;
use prost::{Message, Name as _};

use crate::patch_values;
use crate::pure::{Pure, Sealed};

/// The name of the resource. Who asks for bootstraps asks for all there are.
const NAME: &str = "bootstrap";

/// The keys of the node's metadata that hold settings, each over the one before. Between the second and the
/// third come those of the workload's own environment and annotations, which its agent knows.
const MESH: &str = "PROXY_CONFIG";
const NAMESPACE: &str = "PROXY_CONFIG_NAMESPACE";
const WORKLOAD: &str = "PROXY_CONFIG_WORKLOAD";

/// The key of [`BootstrapResource`].
#[derive(Clone, Debug, Hash)]
pub struct BootstrapInput {
    /// `defaultConfig` of the mesh.
    pub mesh: StatedProxyConfig,
    /// ProxyConfigs of the root namespace and of the proxy's own.
    pub namespace: StatedProxyConfig,
    /// The ProxyConfig that selects the workload.
    pub workload: StatedProxyConfig,
    /// What EnvoyFilters merge into it, in order.
    pub patches: Vec<Json>,
}

/// The resource for agents; none if there is nothing to say.
pub struct BootstrapResource;

impl Sealed for BootstrapResource {}

impl Pure for BootstrapResource {
    const NAME: &'static str = "bootstrap.resource";
    type Input = BootstrapInput;
    type Output = Option<Arc<Resource>>;

    fn run(input: &BootstrapInput) -> Option<Arc<Resource>> {
        let BootstrapInput { mesh, namespace, workload, patches } = input;
        let layers = [(MESH, mesh), (NAMESPACE, namespace), (WORKLOAD, workload)];
        let stated = layers.into_iter().filter(|(_, config)| !config.is_empty());
        let metadata =
            wkt::structure(stated.map(|(key, config)| (key, wkt::of_json(&config.to_json().to_serde()))));
        let mut bytes = Vec::new();
        if !metadata.fields.is_empty() {
            let node = Some(Node { metadata: Some(metadata), ..Node::default() });
            bytes = Bootstrap { node, ..Bootstrap::default() }.encode_to_vec();
        }
        for patch in patches {
            // Encoded messages one behind the other are the messages merged.
            if let Ok((message, _)) = from_json_lenient(&Bootstrap::full_name(), &patch.to_serde()) {
                bytes.extend_from_slice(&dynamic::encode(&message));
            }
        }
        (!bytes.is_empty()).then(|| Arc::new(Resource::of(XdsType::Bootstrap, NAME, &bytes)))
    }
}

/// What a patch merges into bootstraps; nothing if it is not for them, or cannot be used (validation has said
/// so).
pub fn merged_by(patch: &EnvoyConfigObjectPatch) -> Option<&Json> {
    let change = patch.patch.as_ref()?;
    let is_merge = patch.apply_to == ApplyTo::Bootstrap && change.operation == PatchOperation::Merge;
    let is_usable = || {
        patch_values::problems(patch)
            .iter()
            .all(|problem| problem.kind == patch_values::PatchProblemKind::UnknownField)
    };
    change.value.as_ref().filter(|_| is_merge && is_usable())
}
