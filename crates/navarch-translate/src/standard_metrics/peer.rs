//! What workloads tell each other about themselves, for the labels of metrics.
//!
//! A client's proxy knows the server from its endpoint. A server's proxy knows the certificate of its client,
//! which names a service account and no workload; so clients say the rest in a header, as Istio's proxies do
//! and in their form, which they understand. The value is in the metadata of the node: its agent has put it
//! there.

use std::sync::LazyLock;

use navarch_envoy::proto::envoy::config::common::mutation_rules::v3::{HeaderMutation, header_mutation};
use navarch_envoy::proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use navarch_envoy::proto::envoy::config::core::v3::{
    DataSource, HeaderValue, HeaderValueOption, SubstitutionFormatString, data_source,
    substitution_format_string,
};
use navarch_envoy::proto::envoy::extensions::filters::common::set_filter_state::v3::{
    FilterStateValue, filter_state_value,
};
use navarch_envoy::proto::envoy::extensions::filters::http::header_mutation::v3 as mutation;
use navarch_envoy::proto::envoy::extensions::filters::http::set_filter_state::v3 as set_filter_state;
use navarch_envoy::proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;

use crate::filters::http::http_filter;
use crate::filters::{HttpFilters, HttpPhase};
use crate::http_connection_manager::Direction;

/// Istio's header: a `google.protobuf.Struct` in base64.
const HEADER: &str = "x-envoy-peer-metadata";

/// Filters of ours.
const REMEMBER: &str = "navarch.peer";
const HEADERS: &str = "navarch.peer_header";
const HOST: &str = "navarch.host";

/// Filter state.
const PEER_STATE: &str = "navarch.peer";
const HOST_STATE: &str = "navarch.host";

/// Bytes of what a client says, and of a host (RFC 1035), that are kept.
const PEER_MAX: usize = 2048;
const HOST_MAX: usize = 255;

/// Clients that have not proven who they are are not believed: anybody could have any number of series made.
/// Whether what they say agrees with what they have proven is for the agent to see, who can read the header.
const BELIEVED: &str = "connection.mtls ? request.headers['x-envoy-peer-metadata'] : ''";

/// Servers outside of the mesh are told nothing. Clusters without metadata of ours lead there, and those that
/// say that they do.
const TOLD: &str = concat!(
    "has(xds.cluster_metadata.filter_metadata.istio) ",
    "&& !has(xds.cluster_metadata.filter_metadata.istio.external) ",
    "? xds.node.metadata.PEER_METADATA : ''"
);

/// The host is worth a series only where there is no service that it could be a name of.
const UNKNOWN_HOST: &str = "has(xds.cluster_metadata.filter_metadata.istio) ? '' : request.host";

/// Adds the filters with which proxies tell each other about their workloads.
pub fn add_filters(direction: Direction, filters: &mut HttpFilters) {
    match direction {
        Direction::Inbound => {
            filters.push(HttpPhase::PeerMetadata, remember());
            filters.push(HttpPhase::PeerMetadata, forget());
        }
        Direction::Outbound => {
            filters.push(HttpPhase::Stats, tell());
            filters.push(HttpPhase::Stats, host());
        }
        Direction::Gateway => filters.push(HttpPhase::Stats, tell()),
    }
}

fn remember() -> HttpFilter {
    static FILTER: LazyLock<HttpFilter> = LazyLock::new(|| state(REMEMBER, PEER_STATE, BELIEVED, PEER_MAX));
    FILTER.clone()
}

fn host() -> HttpFilter {
    static FILTER: LazyLock<HttpFilter> = LazyLock::new(|| state(HOST, HOST_STATE, UNKNOWN_HOST, HOST_MAX));
    FILTER.clone()
}

/// The application does not see what was for its proxy.
fn forget() -> HttpFilter {
    static FILTER: LazyLock<HttpFilter> = LazyLock::new(|| headers(vec![removal()]));
    FILTER.clone()
}

/// What the application, or a client of a gateway, says in its place does not get through.
fn tell() -> HttpFilter {
    static FILTER: LazyLock<HttpFilter> = LazyLock::new(|| {
        let value =
            HeaderValue { key: HEADER.to_owned(), value: format!("%CEL({TOLD})%"), ..HeaderValue::default() };
        let append = HeaderValueOption {
            header: Some(value),
            append_action: HeaderAppendAction::OverwriteIfExistsOrAdd as i32,
            ..HeaderValueOption::default()
        };
        let addition = HeaderMutation { action: Some(header_mutation::Action::Append(append)) };
        headers(vec![removal(), addition])
    });
    FILTER.clone()
}

/// Takes off what is said in the header.
pub(crate) fn removal() -> HeaderMutation {
    HeaderMutation { action: Some(header_mutation::Action::Remove(HEADER.to_owned())) }
}

fn headers(request_mutations: Vec<HeaderMutation>) -> HttpFilter {
    let mutations = mutation::Mutations { request_mutations, ..mutation::Mutations::default() };
    let config = mutation::HeaderMutation { mutations: Some(mutations), ..Default::default() };
    http_filter(HEADERS, &config)
}

/// A filter that keeps the value of a CEL expression with a request.
fn state(name: &str, key: &str, expression: &str, bytes_max: usize) -> HttpFilter {
    let text = format!("%CEL({expression}):{bytes_max}%");
    let format = SubstitutionFormatString {
        omit_empty_values: true,
        format: Some(substitution_format_string::Format::TextFormatSource(DataSource {
            specifier: Some(data_source::Specifier::InlineString(text)),
            ..DataSource::default()
        })),
        ..SubstitutionFormatString::default()
    };
    let value = FilterStateValue {
        key: Some(filter_state_value::Key::ObjectKey(key.to_owned())),
        factory_key: "envoy.string".to_owned(),
        skip_if_empty: true,
        value: Some(filter_state_value::Value::FormatString(format)),
        ..FilterStateValue::default()
    };
    let config = set_filter_state::Config { on_request_headers: vec![value], ..Default::default() };
    http_filter(name, &config)
}
