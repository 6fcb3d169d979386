//! Who is calling, if not only the transport can say.

use std::future::ready;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::HeaderMap;

use super::Peer;
use super::grpc::Status;

/// Says who is calling, from what comes with a call. A token, for example, is in its metadata.
pub trait Authenticate: Send + Sync + 'static {
    /// The peer, with the identities that this call proves, too. Called once for each call of discovery, load
    /// reports and client status, after its admission and before anything of it is read. A service that was
    /// brought sees the metadata itself.
    ///
    /// The future runs on the task of the connection, so it must not block. It has as long as a client has
    /// for its first request.
    ///
    /// # Errors
    /// A status ends the call.
    fn authenticate(&self, metadata: HeaderMap, peer: Arc<Peer>) -> BoxFuture<'_, Result<Arc<Peer>, Status>>;
}

/// Everybody is who the transport says.
impl Authenticate for () {
    fn authenticate(&self, _: HeaderMap, peer: Arc<Peer>) -> BoxFuture<'_, Result<Arc<Peer>, Status>> {
        Box::pin(ready(Ok(peer)))
    }
}
