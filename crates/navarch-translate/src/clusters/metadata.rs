//! Metadata of clusters under `istio`: for telemetry, tools and filters; Envoy itself does not look at it.

use navarch_envoy::proto::envoy::config::core::v3::Metadata;
use navarch_envoy::wkt::{self, Struct, Value};
use navarch_model::ObjectKey;
use navarch_model::networking::ClientTlsMode;
use navarch_model::service::Service;

use super::Draft;
use crate::origin;

const ISTIO: &str = "istio";

/// Which services the cluster stands for.
pub(super) fn services<'a>(draft: &mut Draft, services: impl IntoIterator<Item = &'a Service>) {
    let list = services.into_iter().map(|service| {
        wkt::object([
            ("host", wkt::string(&*service.hostname)),
            ("name", wkt::string(&*service.name)),
            ("namespace", wkt::string(&*service.namespace)),
        ])
    });
    let list = wkt::list(list);
    set(draft, "services", list);
}

/// The service is outside the mesh.
pub(super) fn external(draft: &mut Draft) {
    set(draft, "external", wkt::boolean(true));
}

/// The DestinationRule that shaped the cluster.
pub(super) fn rule(draft: &mut Draft, key: &ObjectKey) {
    set(draft, "config", wkt::string(origin::path("v1", key)));
}

/// The subset that the cluster is.
pub(super) fn subset(draft: &mut Draft, name: &str) {
    set(draft, "subset", wkt::string(name));
}

/// Where TLS is originated for a server outside the mesh, ALPN must stay what the cluster says.
pub(super) fn alpn_override(draft: &mut Draft, mode: Option<ClientTlsMode>) {
    if matches!(mode, Some(ClientTlsMode::Simple | ClientTlsMode::Mutual)) {
        set(draft, "alpn_override", wkt::string("false"));
    }
}

fn set(draft: &mut Draft, key: &str, value: Value) {
    let metadata = draft.cluster.metadata.get_or_insert_with(Metadata::default);
    let fields: &mut Struct = metadata.filter_metadata.entry(ISTIO.to_owned()).or_default();
    fields.fields.insert(key.to_owned(), value);
}
