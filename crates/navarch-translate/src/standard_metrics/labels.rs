//! What Envoy says of each request or connection, as tags of its statistics.
//!
//! Tags with names of ours hold what the agent makes several labels of. One text for the peer, say, costs
//! Envoy less than eight, and endpoints carry it in this form already.

use std::collections::BTreeSet;

use navarch_envoy::proto::envoy::extensions::access_loggers::stats::v3::config::Tag;
use navarch_model::standard_metrics::{
    self, DESTINATION, PEER, PRINCIPALS, REMOVED, REPORTER, REQUEST_PROTOCOL, SOURCE,
};

use super::expression::for_envoy;
use super::input::{LabelChange, MetricChange};
use crate::http_connection_manager::Direction;

/// A tag, how it is found out, and the labels that the agent makes of it.
struct Source {
    name: &'static str,
    format: &'static str,
    labels: &'static [&'static [&'static str]],
}

/// `istio.workload` of the endpoint: workload, namespace, canonical service, revision and cluster.
const ENDPOINT: Source = Source {
    name: PEER,
    format: "%UPSTREAM_METADATA(istio:workload)%",
    labels: &[&DESTINATION, &["destination_service_namespace"]],
};

/// What the client said of itself, where it could be believed: see [`super::peer`].
const CLIENT: Source =
    Source { name: PEER, format: "%FILTER_STATE(navarch.peer:PLAIN)%", labels: &[&SOURCE] };

/// The services of the cluster; without any, the cluster, and without one (`block_all`) the route.
const SERVICE: Source = Source {
    name: standard_metrics::SERVICE,
    format: concat!(
        r#"%COALESCE({"operators":[{"command":"METADATA","param":"CLUSTER:istio:services"},"#,
        r#""UPSTREAM_CLUSTER_RAW","ROUTE_NAME"]})%"#
    ),
    labels: &[&["destination_service", "destination_service_name", "destination_service_namespace"]],
};

/// The host that is asked for, where no service is known: see [`super::peer`].
const HOST: Source = Source {
    name: standard_metrics::HOST,
    format: "%FILTER_STATE(navarch.host:PLAIN)%",
    labels: &[&["destination_service"]],
};

/// The identities of this side and of the other.
const SERVER_PRINCIPALS: Source = Source {
    name: PRINCIPALS,
    format: "%UPSTREAM_LOCAL_URI_SAN% %UPSTREAM_PEER_URI_SAN%",
    labels: &[&[
        "source_principal",
        "destination_principal",
        "destination_workload_namespace",
        "destination_service_namespace",
    ]],
};
const CLIENT_PRINCIPALS: Source = Source {
    name: PRINCIPALS,
    format: "%DOWNSTREAM_LOCAL_URI_SAN% %DOWNSTREAM_PEER_URI_SAN%",
    labels: &[&[
        "source_principal",
        "destination_principal",
        "source_workload_namespace",
        "connection_security_policy",
    ]],
};

const CODE: Source =
    Source { name: "response_code", format: "%RESPONSE_CODE%", labels: &[&["response_code"]] };
/// Envoy says it of gRPC alone, so that it tells the protocol, too.
const GRPC_STATUS: Source = Source {
    name: standard_metrics::GRPC_STATUS,
    format: "%GRPC_STATUS_NUMBER%",
    labels: &[&[standard_metrics::GRPC_STATUS, REQUEST_PROTOCOL]],
};
const FLAGS: Source =
    Source { name: "response_flags", format: "%RESPONSE_FLAGS%", labels: &[&["response_flags"]] };
const TCP: Source = Source { name: REQUEST_PROTOCOL, format: "tcp", labels: &[&[REQUEST_PROTOCOL]] };
/// Whose the numbers are. Always there: what all else means depends on it.
const AT_SOURCE: Source = Source { name: REPORTER, format: "source", labels: &[&["reporter"]] };
const AT_DESTINATION: Source = Source { name: REPORTER, format: "destination", labels: &[&["reporter"]] };

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Traffic {
    Http,
    Tcp,
}

fn sources(direction: Direction, traffic: Traffic) -> Vec<Source> {
    let mut sources = match direction {
        Direction::Inbound => vec![AT_DESTINATION, SERVICE, CLIENT_PRINCIPALS],
        Direction::Outbound | Direction::Gateway => vec![AT_SOURCE, ENDPOINT, SERVICE, SERVER_PRINCIPALS],
    };
    match traffic {
        Traffic::Http => {
            if direction == Direction::Inbound {
                sources.push(CLIENT);
            }
            // As istiod has it: hosts that clients of a gateway, or of a workload, make up are not counted.
            if direction == Direction::Outbound {
                sources.push(HOST);
            }
            sources.extend([CODE, GRPC_STATUS]);
        }
        Traffic::Tcp => sources.push(TCP),
    }
    sources.push(FLAGS);
    sources
}

/// The tags of a metric.
pub(super) fn tags(direction: Direction, traffic: Traffic, change: &MetricChange) -> Vec<Tag> {
    let is_removed = |label: &str| change.labels.get(label) == Some(&LabelChange::Removed);
    let expressions: Vec<(&str, String)> = change
        .labels
        .iter()
        .filter_map(|(name, change)| match change {
            LabelChange::Expression(text) => Some((name.as_str(), for_envoy(text).ok()?)),
            LabelChange::Removed => None,
        })
        .collect();
    let is_set = |label: &str| expressions.iter().any(|(name, _)| *name == label);
    let needed = |source: &Source| {
        let is_wanted =
            source.labels.iter().copied().flatten().any(|label| !is_removed(label) && !is_set(label));
        source.name == REPORTER || (is_wanted && !is_set(source.name))
    };
    let sources = sources(direction, traffic);
    let mut tags: Vec<Tag> = sources
        .iter()
        .filter(|source| needed(source))
        .map(|source| tag(source.name, source.format))
        .collect();
    tags.extend(expressions.iter().map(|(name, expression)| tag(name, &format!("%CEL({expression})%"))));
    let removed: BTreeSet<&str> =
        change.labels.keys().map(String::as_str).filter(|label| is_removed(label)).collect();
    if !removed.is_empty() {
        tags.push(tag(REMOVED, &Vec::from_iter(removed).join(",")));
    }
    tags
}

fn tag(name: &str, format: &str) -> Tag {
    Tag { name: name.to_owned(), value_format: format.to_owned(), ..Tag::default() }
}
