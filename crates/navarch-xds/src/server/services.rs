//! Services beside discovery on the same port: load reports (LRS) and client status (CSDS).
//!
//! Both are small: a request comes, an answer goes, and nothing is pushed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use navarch_envoy::proto::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use navarch_envoy::proto::envoy::service::status::v3::{ClientStatusRequest, ClientStatusResponse};
use prost::Message;

use super::call::{Call, End};
use super::grpc::{Code, Status, framed};
use super::{Peer, Shared};
use crate::matcher::Nodes;
use crate::status::StreamStatus;
use crate::syncz::client_config;

/// A method of a service that is not discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BuiltIn {
    /// `LoadReportingService/StreamLoadStats`.
    LoadStats,
    /// `ClientStatusDiscoveryService/StreamClientStatus`.
    StreamStatus,
    /// `ClientStatusDiscoveryService/FetchClientStatus`.
    FetchStatus,
}

/// The service of a request path.
pub(super) fn service(path: &str) -> Option<BuiltIn> {
    match path {
        "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats" => Some(BuiltIn::LoadStats),
        "/envoy.service.status.v3.ClientStatusDiscoveryService/StreamClientStatus" => {
            Some(BuiltIn::StreamStatus)
        }
        "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus" => {
            Some(BuiltIn::FetchStatus)
        }
        _ => None,
    }
}

/// Answers a call until it ends.
pub(super) async fn serve(
    shared: &Shared,
    service: BuiltIn,
    call: &mut Call,
    peer: Arc<Peer>,
) -> Result<(), End> {
    let mut exchange = Exchange { shared, call, peer };
    match service {
        BuiltIn::LoadStats => exchange.load_stats().await,
        BuiltIn::StreamStatus => {
            while exchange.client_status().await? {}
            Ok(())
        }
        BuiltIn::FetchStatus => exchange.client_status().await.map(|_| ()),
    }
}

struct Exchange<'a> {
    shared: &'a Shared,
    call: &'a mut Call,
    peer: Arc<Peer>,
}

/// Forgets the reports of a stream whatever way it ends.
struct Reporting<'a> {
    shared: &'a Shared,
    stream: u64,
    node: String,
}

impl Drop for Reporting<'_> {
    fn drop(&mut self) {
        self.shared.loads.ended(self.stream, &self.node);
    }
}

impl Exchange<'_> {
    async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        let message = self.call.message().await?;
        let decoded = message.map(M::decode).transpose();
        decoded.map_err(|error| Status::new(Code::InvalidArgument, error.to_string()))
    }

    /// Sends an answer. It has been taken by the transport when this returns.
    async fn answer(&mut self, message: &impl Message) -> Result<(), End> {
        self.call.send([framed(&message.encode_to_vec())]);
        let taken = tokio::time::timeout(self.shared.settings.send_timeout, self.call.room());
        Ok(taken.await.map_err(|_| End::NotRead)??)
    }

    /// The client says who it is, is told how often to report, and reports. Nothing has to be said again: a
    /// client that lost its stream starts with its node.
    async fn load_stats(&mut self) -> Result<(), End> {
        let timeout = self.shared.settings.first_timeout;
        let first = tokio::time::timeout(timeout, self.next::<LoadStatsRequest>()).await;
        let late = |_| Status::new(Code::DeadlineExceeded, "no request");
        let Some(mut request) = first.map_err(late)?? else { return Ok(()) };
        let node = request.node.take().map(|node| node.id).filter(|id| !id.is_empty());
        let missing = || Status::new(Code::InvalidArgument, "the first request has no node");
        let node = node.ok_or_else(missing)?;
        let interval = self.shared.settings.load_report_interval;
        let response = LoadStatsResponse {
            // `clusters` stays empty: it would replace the selection.
            send_all_clusters: true,
            load_reporting_interval: interval.try_into().ok(),
            ..LoadStatsResponse::default()
        };
        self.answer(&response).await?;
        // Two streams of one node overlap in a hot restart.
        let stream = self.shared.streams.fetch_add(1, Ordering::Relaxed) + 1;
        let reporting = Reporting { shared: self.shared, stream, node };
        loop {
            self.shared.loads.report(stream, &reporting.node, &request.cluster_stats);
            match self.next::<LoadStatsRequest>().await? {
                Some(next) => request = next,
                None => return Ok(()),
            }
        }
    }

    /// Answers one request; whether there was one.
    async fn client_status(&mut self) -> Result<bool, End> {
        let Some(request) = self.next::<ClientStatusRequest>().await? else { return Ok(false) };
        let nodes = Nodes::of(&request.node_matchers);
        let nodes = nodes.map_err(|error| Status::new(Code::InvalidArgument, error.to_string()))?;
        let response = self.visible_streams(&nodes)?;
        self.answer(&response).await?;
        Ok(true)
    }

    fn visible_streams(&self, nodes: &Nodes) -> Result<ClientStatusResponse, Status> {
        let visible = self.shared.discovery.visible(&self.peer)?;
        let streams = self.shared.registry.streams();
        let is_shown = |stream: &&StreamStatus| {
            !stream.types.is_empty() && visible(stream) && nodes.contain(&stream.node)
        };
        let shown = streams.iter().filter(is_shown);
        Ok(ClientStatusResponse { config: shown.map(client_config).collect() })
    }
}
