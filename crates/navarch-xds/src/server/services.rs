//! Services beside discovery on the same port: load reports (LRS) and client status (CSDS).
//!
//! Both are small: a request comes, an answer goes, and nothing is pushed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::Response;
use navarch_envoy::proto::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use navarch_envoy::proto::envoy::service::status::v3::{ClientStatusRequest, ClientStatusResponse};
use prost::Message;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::body::{Body, Part};
use super::grpc::{self, Code, Messages, Status};
use super::{Peer, Shared};
use crate::matcher::Nodes;
use crate::status::StreamStatus;
use crate::syncz::client_config;

/// A method of a service that is not discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// `LoadReportingService/StreamLoadStats`.
    LoadStats,
    /// `ClientStatusDiscoveryService/StreamClientStatus`.
    StreamStatus,
    /// `ClientStatusDiscoveryService/FetchClientStatus`.
    FetchStatus,
}

/// The service of a request path.
pub(super) fn service(path: &str) -> Option<Service> {
    match path {
        "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats" => Some(Service::LoadStats),
        "/envoy.service.status.v3.ClientStatusDiscoveryService/StreamClientStatus" => {
            Some(Service::StreamStatus)
        }
        "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus" => {
            Some(Service::FetchStatus)
        }
        _ => None,
    }
}

pub(super) fn spawn<B>(
    shared: Arc<Shared>,
    service: Service,
    body: B,
    peer: Arc<Peer>,
    close: CancellationToken,
) -> Response<Body>
where
    B: http_body::Body + Send + Unpin + 'static,
    B::Data: Buf + Send,
    B::Error: std::fmt::Display + Send,
{
    let (parts, receiver) = mpsc::channel(2);
    let messages = Messages::new(body, shared.settings.request_bytes_max);
    let exchange = Exchange { shared, messages, peer, parts, room: Arc::new(Semaphore::new(1)), close };
    tokio::spawn(exchange.run(service));
    grpc::accept(Body::new(receiver))
}

struct Exchange<B> {
    shared: Arc<Shared>,
    messages: Messages<B>,
    peer: Arc<Peer>,
    parts: mpsc::Sender<Part>,
    /// One permit: the next request is read when the transport has taken the last answer.
    room: Arc<Semaphore>,
    close: CancellationToken,
}

/// Forgets the reports of a stream whatever way it ends.
struct Reporting {
    shared: Arc<Shared>,
    stream: u64,
    node: String,
}

impl Drop for Reporting {
    fn drop(&mut self) {
        self.shared.loads.ended(self.stream, &self.node);
    }
}

impl<B> Exchange<B>
where
    B: http_body::Body + Unpin,
    B::Data: Buf,
    B::Error: std::fmt::Display,
{
    async fn run(mut self, service: Service) {
        let mut shutdown: watch::Receiver<_> = self.shared.shutdown.subscribe();
        let (close, parts) = (self.close.clone(), self.parts.clone());
        let result = tokio::select! {
            () = close.cancelled() => Ok(()),
            () = parts.closed() => Ok(()),
            _ = shutdown.wait_for(Option::is_some) => {
                Err(Status::new(Code::Unavailable, "shutting down"))
            }
            result = self.serve(service) => result,
        };
        let status = result.err().unwrap_or_else(|| Status::new(Code::Ok, ""));
        let grace = self.shared.settings.grace;
        if tokio::time::timeout(grace, self.parts.send(Part::End(status))).await.is_err() {
            self.close.cancel();
        }
    }

    async fn serve(&mut self, service: Service) -> Result<(), Status> {
        match service {
            Service::LoadStats => self.load_stats().await,
            Service::StreamStatus => {
                while self.client_status().await? {}
                Ok(())
            }
            Service::FetchStatus => self.client_status().await.map(|_| ()),
        }
    }

    async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        let message = self.messages.next().await?;
        let decoded = message.map(M::decode).transpose();
        decoded.map_err(|error| Status::new(Code::InvalidArgument, error.to_string()))
    }

    async fn answer(&mut self, message: &impl Message) -> Result<(), Status> {
        let send = async {
            let permit = self.room.clone().acquire_owned().await.map_err(|_| Status::cancelled())?;
            let part = Part::Message(vec![framed(message)], permit);
            self.parts.send(part).await.map_err(|_| Status::cancelled())
        };
        let sent = tokio::time::timeout(self.shared.settings.send_timeout, send).await;
        sent.unwrap_or_else(|_| Err(Status::new(Code::Unavailable, "responses are not being read")))
    }

    /// The client says who it is, is told how often to report, and reports. Nothing has to be said again: a client that
    /// lost its stream starts with its node.
    async fn load_stats(&mut self) -> Result<(), Status> {
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
        let reporting = Reporting { shared: self.shared.clone(), stream, node };
        loop {
            self.shared.loads.report(stream, &reporting.node, &request.cluster_stats);
            match self.next::<LoadStatsRequest>().await? {
                Some(next) => request = next,
                None => return Ok(()),
            }
        }
    }

    /// Answers one request; whether there was one.
    async fn client_status(&mut self) -> Result<bool, Status> {
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

fn framed(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(crate::encode::GRPC_HEADER + len);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    bytes.put_slice(&message.encode_to_vec());
    bytes.freeze()
}
