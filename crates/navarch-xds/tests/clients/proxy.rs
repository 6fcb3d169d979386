//! A proxy between a client and the control plane. It reads HTTP/2 frames as far as needed to see which types
//! of xDS pass, and fails on demand, in ways that a process that ends cannot.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, ensure};
use navarch_envoy::XdsType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Bytes of the connection preface of a client (RFC 9113 3.4).
const PREFACE: usize = 24;
/// Bytes of a frame header (RFC 9113 4.1): length, type, flags, stream.
const HEADER: usize = 9;
const DATA: u8 = 0;

/// A message that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Request(XdsType),
    Response(XdsType),
}

/// A running proxy; dropping it ends it.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accept: JoinHandle<()>,
}

struct Shared {
    server: SocketAddr,
    connections: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Connections up to this number are black holes: open, and nothing passes.
    holes: u64,
    /// A response of this type does not pass; its connection is closed instead, and new ones are refused.
    cut_before: Option<XdsType>,
    refusing: bool,
    seen: Vec<Seen>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

impl Proxy {
    pub async fn start(server: SocketAddr) -> Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { server, connections: AtomicU64::new(0), state: Mutex::default() });
        let accept = tokio::spawn({
            let shared = shared.clone();
            async move {
                loop {
                    let Ok((client, _)) = listener.accept().await else { continue };
                    if !shared.state().refusing {
                        tokio::spawn(connect(client, shared.clone()));
                    }
                }
            }
        });
        Ok(Proxy { address, shared, accept })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Nothing passes any more on the connections there are, and neither side is told. New ones work.
    pub fn black_hole(&self) {
        self.shared.state().holes = self.shared.connections.load(Ordering::SeqCst);
    }

    /// The next response of this type is lost, and its connection; no other one is let through.
    pub fn cut_before(&self, ty: XdsType) {
        self.shared.state().cut_before = Some(ty);
    }

    /// An error as long as [`Proxy::cut_before`] has not happened.
    pub fn has_cut(&self) -> Result<()> {
        ensure!(self.shared.state().refusing, "nothing has been cut");
        Ok(())
    }

    /// Lets connections through again, and forgets what was seen.
    pub fn heal(&self) {
        let mut state = self.shared.state();
        state.refusing = false;
        state.seen.clear();
    }

    /// What passed, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What becomes of a frame of connection `number`.
    fn judge(&self, number: u64, from_client: bool, frame: &[u8]) -> Fate {
        let mut state = self.state();
        if number <= state.holes {
            return Fate::Lost;
        }
        if frame.get(3) != Some(&DATA) {
            return Fate::Passes;
        }
        // A request names one type. A response names its own before those of its resources.
        let types = types(frame);
        if from_client {
            state.seen.extend(types.map(Seen::Request));
            return Fate::Passes;
        }
        let mut types = types;
        let Some(ty) = types.next() else { return Fate::Passes };
        if state.cut_before == Some(ty) {
            state.cut_before = None;
            state.refusing = true;
            return Fate::Cut;
        }
        state.seen.push(Seen::Response(ty));
        Fate::Passes
    }
}

enum Fate {
    Passes,
    Lost,
    Cut,
}

/// The types whose names are in the bytes, in order.
fn types(bytes: &[u8]) -> impl Iterator<Item = XdsType> {
    (0..bytes.len()).filter_map(|at| {
        let rest = bytes.get(at..)?;
        // A name is preceded by its length, so that one is not taken for another that starts like it.
        let (length, text) = rest.split_first()?;
        XdsType::ALL.into_iter().find(|ty| {
            let url = ty.type_url().as_bytes();
            usize::from(*length) == url.len() && text.starts_with(url)
        })
    })
}

async fn connect(client: TcpStream, shared: Arc<Shared>) {
    let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
    let Ok(server) = TcpStream::connect(shared.server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    tokio::select! {
        _ = pump(&mut from_client, &mut to_server, &shared, number, true) => {}
        _ = pump(&mut from_server, &mut to_client, &shared, number, false) => {}
    }
    if number <= shared.state().holes {
        // What comes out of a black hole is not even an end.
        std::future::pending::<()>().await;
    }
}

async fn pump(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    shared: &Shared,
    number: u64,
    from_client: bool,
) -> Result<()> {
    if from_client {
        let mut preface = [0; PREFACE];
        from.read_exact(&mut preface).await?;
        to.write_all(&preface).await?;
    }
    loop {
        let mut frame = vec![0; HEADER];
        from.read_exact(&mut frame).await?;
        let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]) as usize;
        frame.resize(HEADER + length, 0);
        from.read_exact(&mut frame[HEADER..]).await?;
        match shared.judge(number, from_client, &frame) {
            Fate::Passes => to.write_all(&frame).await?,
            Fate::Lost => {}
            Fate::Cut => return Ok(()),
        }
    }
}
