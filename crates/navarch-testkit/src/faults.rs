//! A TCP proxy that breaks connections: what lies between two programs, at its worst.
//!
//! It knows nothing of what is said. Which connections break, how, and after how many bytes follows
//! from a seed, so that what a test has found can be found again as far as the programs themselves
//! allow.

use anyhow::{Context, Result};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What is done to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is closed before anything has been said.
    Refuse,
    /// It is reset after some bytes of the answer.
    Reset,
    /// It ends after some bytes of the answer, as if that were all.
    End,
    /// The answer comes in small pieces.
    Trickle,
}

const FAULTS: [Fault; 4] = [Fault::Refuse, Fault::Reset, Fault::End, Fault::Trickle];

/// Most bytes of an answer before it breaks.
const BYTES_MAX: u64 = 40_000;

/// A proxy in front of one address, or of several that stand for each other. It ends when dropped.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    upstreams: Vec<SocketAddr>,
    /// Connections that have been made: each one begins with the next upstream.
    made: AtomicUsize,
    /// Faults that are left.
    left: AtomicUsize,
    state: AtomicU64,
    /// Connections that were made before the newest value end.
    cut: watch::Sender<u64>,
}

impl FaultProxy {
    /// Listens on a free port, and lets everything through.
    pub async fn start(upstream: SocketAddr, seed: u64) -> Result<FaultProxy> {
        FaultProxy::balance(vec![upstream], seed).await
    }

    /// The same in front of several: each connection goes to the next of them that takes it.
    pub async fn balance(upstreams: Vec<SocketAddr>, seed: u64) -> Result<FaultProxy> {
        let listener = TcpListener::bind(("127.0.0.1", crate::ports::free_port()?)).await?;
        let address = listener.local_addr().context("an address")?;
        let shared = Arc::new(Shared {
            upstreams,
            made: AtomicUsize::new(0),
            left: AtomicUsize::new(0),
            // A generator like this one must not start at nought.
            state: AtomicU64::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            cut: watch::channel(0).0,
        });
        let accepting = tokio::spawn({
            let shared = shared.clone();
            async move {
                while let Ok((connection, _)) = listener.accept().await {
                    tokio::spawn(carry(shared.clone(), connection));
                }
            }
        });
        Ok(FaultProxy { address, shared, accepting })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks that many of the next connections.
    pub fn break_next(&self, connections: usize) {
        self.shared.left.store(connections, Ordering::SeqCst);
    }

    /// Faults that have not happened yet.
    pub fn left(&self) -> usize {
        self.shared.left.load(Ordering::SeqCst)
    }

    /// Resets all connections.
    pub fn cut(&self) {
        self.shared.cut.send_modify(|count| *count += 1);
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

impl Shared {
    /// The next number of the generator (xorshift64).
    fn random(&self) -> u64 {
        let next = |mut state: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^ (state << 17)
        };
        let before = self.state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |state| Some(next(state)));
        next(before.unwrap_or_default())
    }

    async fn connect(&self) -> Option<TcpStream> {
        let first = self.made.fetch_add(1, Ordering::SeqCst) % self.upstreams.len();
        let (before, from) = self.upstreams.split_at(first);
        for upstream in from.iter().chain(before) {
            if let Ok(connection) = TcpStream::connect(upstream).await {
                return Some(connection);
            }
        }
        None
    }

    /// What is done to a connection, and after how many bytes.
    fn fault(&self) -> Option<(Fault, u64)> {
        let one_less = |left: usize| left.checked_sub(1);
        self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).ok()?;
        let random = self.random();
        let fault = FAULTS.get(random as usize % FAULTS.len()).copied()?;
        Some((fault, (random >> 16) % BYTES_MAX))
    }
}

async fn carry(shared: Arc<Shared>, mut client: TcpStream) {
    let mut cut = shared.cut.subscribe();
    let fault = shared.fault();
    if matches!(fault, Some((Fault::Refuse, _))) {
        let _ = client.set_zero_linger();
        return;
    }
    let Some(mut server) = shared.connect().await else { return };
    let ended = {
        let carried = both_ways(&mut client, &mut server, fault);
        tokio::select! {
            ended = carried => ended,
            _ = cut.changed() => Some(Fault::Reset),
        }
    };
    if ended == Some(Fault::Reset) {
        let _ = client.set_zero_linger();
    }
}

/// Copies until one side is done, or the fault has happened.
async fn both_ways(
    client: &mut TcpStream,
    server: &mut TcpStream,
    fault: Option<(Fault, u64)>,
) -> Option<Fault> {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let requests = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
        let _ = to_server.shutdown().await;
        std::future::pending().await
    };
    let answers = async {
        let mut carried = 0;
        let mut buffer = vec![0; 16 << 10];
        loop {
            let Ok(count @ 1..) = from_server.read(&mut buffer).await else {
                let _ = to_client.shutdown().await;
                return None;
            };
            let mut bytes = buffer.get(..count).unwrap_or_default();
            if let Some((fault @ (Fault::Reset | Fault::End), after)) = fault {
                let room = after.saturating_sub(carried) as usize;
                if room < bytes.len() {
                    let _ = to_client.write_all(bytes.get(..room).unwrap_or_default()).await;
                    return Some(fault);
                }
            }
            carried += count as u64;
            let piece = if matches!(fault, Some((Fault::Trickle, _))) { 512 } else { count };
            while !bytes.is_empty() {
                let (some, rest) = bytes.split_at(piece.min(bytes.len()));
                if to_client.write_all(some).await.is_err() {
                    return None;
                }
                bytes = rest;
                if !bytes.is_empty() {
                    tokio::time::sleep(Duration::from_micros(100)).await;
                }
            }
        }
    };
    tokio::select! {
        ended = requests => ended,
        ended = answers => ended,
    }
}
