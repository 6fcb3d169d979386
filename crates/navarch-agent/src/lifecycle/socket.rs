//! The Unix socket on which the relay takes its clients.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use navarch_xds::Peer;
use navarch_xds::server::Server;
use tokio::net::UnixListener;

use crate::relay::authority::Readable;

/// Listens in place of an agent that has ended without tidying up. The lock on the directory says that it
/// has.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path).map_err(|error| match error.kind() {
        // `sun_path` of unix(7).
        io::ErrorKind::InvalidInput => io::Error::other(
            "a path of a socket has at most 107 bytes; choose a shorter directory with --dir",
        ),
        _ => error,
    })
}

/// Takes clients for ever. Who may open the socket is who may enter its directory.
pub async fn serve(listener: UnixListener, server: Server) {
    let nobody = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let peer = Arc::new(Peer::plaintext(nobody));
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                _ = tokio::spawn(server.clone().serve_connection(Readable::new(socket), peer.clone()))
            }
            Err(error) => {
                tracing::warn!(%error, "cannot take a client of the socket");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
