//! The sync status of connected proxies in the form `istioctl proxy-status` asks for.

use navarch_envoy::proto::envoy::admin::v3::UpdateFailureState;
use navarch_envoy::proto::envoy::config::core::v3::Node;
use navarch_envoy::proto::envoy::service::status::v3::client_config::GenericXdsConfig;
use navarch_envoy::proto::envoy::service::status::v3::{ClientConfig, ConfigStatus};
use navarch_envoy::{Any, XdsType};
use prost::{Message, Name};

use crate::server::Answers;
use crate::status::{Registry, StreamStatus, SyncState, TypeStatus};

/// The type that asks for it. It is answered once per request and not watched.
pub const SYNCZ: &str = "istio.io/debug/syncz";

/// One `ClientConfig` per stream of this process, for proxies of `namespace` or of all. Other replicas answer
/// for theirs; the client puts them together.
#[must_use]
pub fn syncz(streams: &Registry, namespace: Option<&str>) -> Answers {
    let is_visible = |stream: &StreamStatus| {
        !stream.types.is_empty()
            && (namespace.is_none() || stream.node.metadata_str("NAMESPACE") == namespace)
    };
    let pack = |stream: StreamStatus| {
        let value = client_config(&stream).encode_to_vec().into();
        (stream.node.id.clone(), Any { type_url: ClientConfig::type_url(), value })
    };
    streams.streams().into_iter().filter(is_visible).map(pack).collect()
}

/// The state of one stream as a message.
#[must_use]
pub fn client_config(stream: &StreamStatus) -> ClientConfig {
    let hosts = stream.types.iter().find(|status| status.ty == XdsType::Vhds).map(|status| status.state);
    let state_of = |status: &TypeStatus| match (status.ty, hosts) {
        // Who asks knows nothing of virtual hosts that are resources of their own.
        (XdsType::Rds, Some(hosts)) => status.state.and(hosts),
        _ => status.state,
    };
    let mut types: Vec<_> = stream.types.iter().map(|status| type_status(status, state_of(status))).collect();
    types.sort_by(|a, b| a.type_url.cmp(&b.type_url));
    let shown = ["CLUSTER_ID", "NAMESPACE", "ISTIO_VERSION"];
    let fields = shown.into_iter().filter_map(|key| {
        let text = stream.node.metadata_str(key)?.to_owned();
        let kind = Some(prost_types::value::Kind::StringValue(text));
        Some((key.to_owned(), prost_types::Value { kind }))
    });
    ClientConfig {
        node: Some(Node {
            id: stream.node.id.clone(),
            metadata: Some(prost_types::Struct { fields: fields.collect() }),
            ..Node::default()
        }),
        generic_xds_configs: types,
        ..ClientConfig::default()
    }
}

fn type_status(status: &TypeStatus, state: SyncState) -> GenericXdsConfig {
    let config_status = match state {
        SyncState::NotSent => ConfigStatus::NotSent,
        SyncState::Stale => ConfigStatus::Stale,
        SyncState::Synced => ConfigStatus::Synced,
        SyncState::Error => ConfigStatus::Error,
    };
    GenericXdsConfig {
        type_url: status.ty.type_url().into(),
        version_info: status.sent.as_ref().map(|mark| mark.version.clone()).unwrap_or_default(),
        config_status: config_status.into(),
        error_state: status
            .error
            .as_ref()
            .map(|error| UpdateFailureState { details: error.text.clone(), ..UpdateFailureState::default() }),
        ..GenericXdsConfig::default()
    }
}
