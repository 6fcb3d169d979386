//! What clients and control planes say on a stream. The first byte says the protocol and whether names are
//! wanted, and each piece is a byte for who says it, a byte for its length, and the message. Or the first
//! byte says that the rest are the bytes of a connection.

use std::pin::pin;
use std::task::{Context, Waker};

use bytes::Bytes;
use navarch_agent::relay::authority::Readable;
use navarch_agent::relay::session::Session;
use navarch_agent::relay::wire::Protocol;
use tokio::io::AsyncReadExt;

pub fn run(data: &[u8]) {
    let Some((way, mut rest)) = data.split_first() else { return };
    if way & 4 != 0 {
        return connection(rest);
    }
    let protocol = if way & 1 == 0 { Protocol::Sotw } else { Protocol::Delta };
    let mut session = Session::new(protocol, None).wanting_names(way & 2 != 0);
    while let [who, length, more @ ..] = rest {
        let (message, next) = more.split_at(usize::from(*length).min(more.len()));
        rest = next;
        let message = Bytes::copy_from_slice(message);
        match who % 3 {
            0 => _ = session.request(message, |_, name| name == "default", who & 4 != 0),
            1 => {
                let heard = session.response(message);
                // Whoever is answered can be answered again.
                assert!(heard.upstream.len() <= 2);
            }
            _ => _ = session.opened(),
        }
    }
    let _ = session.local_types();
}

/// Nothing is lost, and nothing is waited for.
fn connection(said: &[u8]) {
    let mut heard = Vec::new();
    let mut reader = Readable::new(said);
    let read = pin!(reader.read_to_end(&mut heard)).poll(&mut Context::from_waker(Waker::noop()));
    assert!(read.is_ready());
    assert!(heard.len() <= said.len() && said.starts_with(&heard[..heard.len().min(24)]));
}
