//! What the authority brings to the port: who is calling, and `CreateCertificate`.

use std::future::ready;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use navarch_identity::authenticate::Purpose;
use navarch_identity::service::{self, MESSAGE_BYTES_MAX, Refused};
use navarch_xds::Peer;
use navarch_xds::server::{Authenticate, Code, Limits, Service, Status, UnaryCall};

use super::{Identity, now};

/// Requests for certificates at once. Each takes a fraction of a millisecond of a processor.
const CALLS_MAX: usize = 1024;

/// Over TLS everybody proves who they are. The plaintext port proves nothing and asks for nothing.
pub struct PortAuthenticator(pub Arc<Identity>);

impl Authenticate for PortAuthenticator {
    fn authenticate(&self, metadata: HeaderMap, peer: Arc<Peer>) -> BoxFuture<'_, Result<Arc<Peer>, Status>> {
        if !peer.encrypted {
            return Box::pin(ready(Ok(peer)));
        }
        Box::pin(async move {
            let caller = self.0.caller(&metadata, &peer, Purpose::Stream).await?;
            let identities = vec![caller.identity.to_string()];
            if peer.identities == identities {
                return Ok(peer);
            }
            Ok(Arc::new(Peer { identities, ..Peer::clone(&peer) }))
        })
    }
}

/// `istio.v1.auth.IstioCertificateService/CreateCertificate`.
pub struct CreateCertificate(pub Arc<Identity>);

impl Service for CreateCertificate {
    fn answer(&self, call: UnaryCall) -> BoxFuture<'_, Result<Bytes, Status>> {
        Box::pin(async move {
            let UnaryCall { message, metadata, peer } = call;
            // As in Istio: a plaintext port beside one over TLS has no such service.
            if !peer.encrypted {
                return Err(Status::new(Code::Unimplemented, "no such method"));
            }
            let identity = self.0.clone();
            if let Err(error) = identity.admit(peer.address.ip()) {
                tracing::warn!(peer = %peer.address, %error, "no certificate");
                return Err(Status::new(Code::ResourceExhausted, error.to_string()));
            }
            let caller = identity.caller(&metadata, &peer, Purpose::Certificate).await?;
            // It computes, and may write a file. It goes on when the client has given up: a token may be used
            // up already.
            let answered = tokio::task::spawn_blocking(move || {
                identity.service.create_certificate(&identity.authority(), &caller, &message, now())
            });
            let broken = |_| Status::new(Code::Internal, "the certificate cannot be signed");
            let answered = answered.await.map_err(broken)?;
            answered.map(Bytes::from).map_err(|refused| {
                let Refused { code, message, reason } = refused;
                tracing::warn!(peer = %peer.address, %reason, "no certificate");
                Status::new(status_code(code), message)
            })
        })
    }

    fn limits(&self) -> Limits {
        Limits { request_bytes_max: MESSAGE_BYTES_MAX, calls_max: CALLS_MAX, ..Limits::default() }
    }
}

fn status_code(code: service::Code) -> Code {
    match code {
        service::Code::InvalidArgument => Code::InvalidArgument,
        service::Code::ResourceExhausted => Code::ResourceExhausted,
        service::Code::Internal => Code::Internal,
        service::Code::Unavailable => Code::Unavailable,
        service::Code::Unauthenticated => Code::Unauthenticated,
    }
}
