//! What the agent asks the control plane for before Envoy starts: settings of the proxy, and what is merged
//! into its bootstrap.
//!
//! It is asked for as Istio's agents ask for bootstraps. A control plane that is not navarch answers with a
//! whole one, of which nothing is taken. The last answer is kept, for a start while the control plane is
//! away.

use std::time::Duration;

use bytes::Bytes;
use navarch_envoy::proto::envoy::config::core::v3 as core;
use navarch_envoy::proto::envoy::service::discovery::v3::DiscoveryRequest;
use navarch_envoy::wire::{Fields, Value, put_varint};
use navarch_envoy::wkt;
use navarch_identity::store::StateDirectory;
use navarch_model::mesh::StatedProxyConfig;
use navarch_model::values::Json;
use prost::Message;
use tokio::time::{sleep, timeout};

use crate::node::Node;
use crate::relay::followed::is_of;
use crate::relay::wire::{Protocol, resources, value_of};
use crate::upstream::{Upstream, UpstreamError};

const TYPE_URL: &str = "type.googleapis.com/envoy.config.bootstrap.v3.Bootstrap";
const STREAM: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
/// The control plane whose answers are used.
const COMPONENT: &str = "navarch";
/// The file in the agent's directory.
const KEPT: &str = "bootstrap.pb";
/// `node` of a bootstrap.
const NODE: u32 = 1;

/// How long the answer is waited for: if one is kept, and if not.
const PATIENCE: Duration = Duration::from_millis(300);
const FIRST_PATIENCE: Duration = Duration::from_secs(1);
/// How long the first certificate is waited for.
const CERTIFICATE_PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked for.
const POLL: Duration = Duration::from_millis(20);

/// What the control plane says of a proxy that starts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Provision {
    /// Settings of the mesh, of the namespace, and of the workload, each over the one before.
    pub mesh: StatedProxyConfig,
    pub namespace: StatedProxyConfig,
    pub workload: StatedProxyConfig,
    /// What is merged into the bootstrap, encoded.
    pub patch: Vec<u8>,
}

impl Provision {
    /// Reads an encoded bootstrap.
    #[must_use]
    pub fn of(bootstrap: &Bytes) -> Self {
        let mut provision = Provision::default();
        let mut node = Vec::new();
        for (field, value) in Fields::new(bootstrap) {
            let tag = u64::from(field) << 3;
            match value {
                Value::Bytes(bytes) if field == NODE => node.extend_from_slice(bytes),
                Value::Bytes(bytes) => {
                    put_varint(&mut provision.patch, tag | 2);
                    put_varint(&mut provision.patch, bytes.len() as u64);
                    provision.patch.extend_from_slice(bytes);
                }
                Value::Varint(number) => {
                    put_varint(&mut provision.patch, tag);
                    put_varint(&mut provision.patch, number);
                }
                // A bootstrap has none at its top.
                Value::Fixed => {}
            }
        }
        let metadata = navarch_xds::Node::decode(node.into()).map(|node| node.metadata).unwrap_or_default();
        let layers = [
            ("PROXY_CONFIG", &mut provision.mesh),
            ("PROXY_CONFIG_NAMESPACE", &mut provision.namespace),
            ("PROXY_CONFIG_WORKLOAD", &mut provision.workload),
        ];
        for (key, layer) in layers {
            if let Some(stated) = metadata.get(key) {
                layer.put(&Json::from(stated));
            }
        }
        provision
    }
}

/// Asks the control plane; if it does not answer in time, what it said last counts. Nothing if it has never
/// said anything.
pub async fn fetch(upstream: &Upstream, node: &Node, directory: &StateDirectory) -> Option<Provision> {
    let kept = directory.read(KEPT).ok().flatten();
    let patience = if kept.is_some() { PATIENCE } else { FIRST_PATIENCE };
    let asked = async {
        let mut call = opened(upstream, kept.is_some()).await?;
        let request = DiscoveryRequest {
            node: Some(node_message(node)),
            type_url: TYPE_URL.to_owned(),
            ..DiscoveryRequest::default()
        };
        let answer = async {
            call.send(&request.encode_to_vec())?;
            call.message().await
        };
        match timeout(patience, answer).await {
            Ok(answer) => answer.map(Some).map_err(UpstreamError::Refused),
            Err(_) => Ok(None),
        }
    };
    let answer = match asked.await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::warn!(error = %crate::Chain(&error), "the settings of the proxy cannot be asked for");
            None
        }
    };
    let kept = kept.map(|kept| Provision::of(&Bytes::copy_from_slice(kept.expose())));
    let Some(answer) = answer else { return kept };
    if !is_of(COMPONENT, Protocol::Sotw, &answer) {
        return Some(kept.unwrap_or_default());
    }
    // State of the world: no resource says that there is nothing to say.
    let bootstrap = resources(&answer).next().map(|any| answer.slice_ref(value_of(any))).unwrap_or_default();
    if let Err(error) = directory.replace(KEPT, &bootstrap) {
        tracing::warn!(error = %crate::Chain(&error), "the settings of the proxy are not kept");
    }
    Some(Provision::of(&bootstrap))
}

/// A stream to the control plane, once there is a certificate to open one with.
async fn opened(upstream: &Upstream, has_kept: bool) -> Result<crate::grpc::Call, UpstreamError> {
    let waited = timeout(if has_kept { PATIENCE } else { CERTIFICATE_PATIENCE }, async {
        loop {
            match upstream.open(STREAM).await {
                Err(UpstreamError::NoCertificate) => sleep(POLL).await,
                opened => return opened,
            }
        }
    });
    waited.await.unwrap_or(Err(UpstreamError::NoCertificate))
}

fn node_message(node: &Node) -> core::Node {
    let Node { id, cluster, metadata, locality } = node;
    let metadata = wkt::structure(metadata.iter().map(|(key, value)| (key.as_str(), wkt::of_json(value))));
    core::Node {
        id: id.clone(),
        cluster: cluster.clone(),
        metadata: Some(metadata),
        locality: locality.clone().map(|place| core::Locality {
            region: place.region,
            zone: place.zone,
            sub_zone: place.sub_zone,
        }),
        user_agent_name: "navarch-agent".to_owned(),
        ..core::Node::default()
    }
}
