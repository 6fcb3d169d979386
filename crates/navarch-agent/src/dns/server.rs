//! Sockets: questions come in over UDP and TCP, and what is not the mesh's goes to other servers and back.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout};

use super::answer::{Domains, answer};
use super::message::{Code, Query, Unread, denies, is_answer, malformed};
use super::names::Names;
use super::resolv::Resolv;

/// Bytes of a message over UDP that are read; questions are small.
const UDP_BYTES_MAX: usize = 4096;
/// Time for another server to answer, over UDP and over TCP.
const UDP_TIMEOUT: Duration = Duration::from_secs(2);
const TCP_TIMEOUT: Duration = Duration::from_secs(5);
/// Questions that may wait for other servers at a time. Each has a socket; more fail at once, so that a flood
/// of them takes nothing from anybody else on the machine.
const WAITING_MAX: usize = 256;
/// Connections at a time, and how long one may be idle (RFC 7766, 6.2.3).
const CONNECTIONS_MAX: usize = 64;
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the file with the servers is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// What the server is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens, over UDP and TCP. Of several the first has to be free.
    pub listen: Vec<SocketAddr>,
    /// Servers for other names; if there are none, those of the file.
    pub servers: Vec<SocketAddr>,
    pub resolv_conf: PathBuf,
    pub namespace: String,
    /// The domain of the mesh.
    pub domain: String,
}

/// What was asked, for metrics.
#[derive(Debug, Default)]
pub struct Counted {
    pub questions: AtomicU64,
    /// Questions that other servers were asked, and those that none of them answered.
    pub forwarded: AtomicU64,
    pub failures: AtomicU64,
    /// Questions that were not asked on because too many were.
    pub refused: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The sockets of a server that has not begun.
pub struct Bound {
    sockets: Vec<(UdpSocket, TcpListener)>,
    server: Arc<Server>,
}

/// Listens, so that who is told of it can ask.
///
/// # Errors
/// If the first address is taken. Of the others one may not exist, where a machine has no IPv6.
pub async fn bind(options: Options, names: Names, counted: Arc<Counted>) -> io::Result<Bound> {
    let mut sockets = Vec::new();
    for address in &options.listen {
        let bound = async {
            let udp = UdpSocket::bind(address).await?;
            // The same port for both, also where any will do.
            let tcp = TcpListener::bind(udp.local_addr()?).await?;
            io::Result::Ok((udp, tcp))
        };
        match bound.await {
            Ok(pair) => sockets.push(pair),
            Err(error) if sockets.is_empty() => return Err(error),
            Err(error) => tracing::warn!(%address, %error, "no names are answered here"),
        }
    }
    let server = Arc::new(Server {
        names,
        counted,
        elsewhere: Mutex::new(Elsewhere::default()),
        waiting: Arc::new(Semaphore::new(WAITING_MAX)),
        connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        turn: AtomicU64::new(0),
        options,
    });
    Ok(Bound { sockets, server })
}

impl Bound {
    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|(udp, _)| udp.local_addr().ok()).collect()
    }

    /// Answers from now on.
    pub fn start(self) {
        for (udp, tcp) in self.sockets {
            tokio::spawn(self.server.clone().datagrams(Arc::new(udp)));
            tokio::spawn(self.server.clone().connections(tcp));
        }
    }
}

/// What `resolv.conf` says, and when it was looked at last.
#[derive(Default)]
struct Elsewhere {
    looked: Option<Instant>,
    changed: Option<SystemTime>,
    servers: Arc<[SocketAddr]>,
    domains: Arc<Domains>,
}

struct Server {
    options: Options,
    names: Names,
    counted: Arc<Counted>,
    elsewhere: Mutex<Elsewhere>,
    waiting: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    turn: AtomicU64,
}

/// What is to be done with a message.
enum Next {
    Nothing,
    Answer(Vec<u8>),
    Forward,
}

impl Server {
    async fn datagrams(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let mut buffer = vec![0; UDP_BYTES_MAX];
        loop {
            let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
                // What is told here is that somebody else has gone away.
                continue;
            };
            let message = &buffer[..length];
            match self.look(message, false).await {
                Next::Nothing => {}
                Next::Answer(answer) => _ = socket.send_to(&answer, client).await,
                Next::Forward => {
                    let Ok(permit) = self.waiting.clone().try_acquire_owned() else {
                        count(&self.counted.refused);
                        if let Some(answer) = failure(message) {
                            let _ = socket.send_to(&answer, client).await;
                        }
                        continue;
                    };
                    let (server, socket, message) = (self.clone(), socket.clone(), message.to_vec());
                    tokio::spawn(async move {
                        let _permit = permit;
                        if let Some(answer) = server.forward(&message, false).await {
                            let _ = socket.send_to(&answer, client).await;
                        }
                    });
                }
            }
        }
    }

    async fn connections(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok(permit) = self.connections.clone().acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // No more files, most likely: it gets better by waiting alone.
                    tracing::warn!(%error, "a connection for names cannot be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let server = self.clone();
            tokio::spawn(async move {
                let _permit = permit;
                let _ = server.connection(stream).await;
            });
        }
    }

    /// Questions one after the other, each with its length before it (RFC 1035, 4.2.2).
    async fn connection(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let message = timeout(IDLE_TIMEOUT, read_message(&mut stream)).await??;
            let answer = match self.look(&message, true).await {
                Next::Nothing => return Ok(()),
                Next::Answer(answer) => Some(answer),
                Next::Forward => match self.waiting.try_acquire() {
                    Ok(_permit) => self.forward(&message, true).await,
                    Err(_) => {
                        count(&self.counted.refused);
                        failure(&message)
                    }
                },
            };
            let Some(answer) = answer else { return Ok(()) };
            timeout(IDLE_TIMEOUT, write_message(&mut stream, &answer)).await??;
        }
    }

    /// What is to be done with a message.
    async fn look(&self, message: &[u8], is_stream: bool) -> Next {
        count(&self.counted.questions);
        let query = match Query::read(message) {
            Ok(query) => query,
            Err(Unread::Noise) => return Next::Nothing,
            Err(Unread::Malformed) => return malformed(message).map_or(Next::Nothing, Next::Answer),
            Err(Unread::Foreign) => return Next::Forward,
        };
        let (_, domains) = self.elsewhere().await;
        let bytes_max = if is_stream { usize::from(u16::MAX) } else { query.udp_bytes() };
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) as usize;
        let table = self.names.current();
        let answer = table.and_then(|table| answer(&table, &domains, &query, turn, bytes_max));
        answer.map_or(Next::Forward, Next::Answer)
    }

    /// The servers for other names, and the domains of clients.
    async fn elsewhere(&self) -> (Arc<[SocketAddr]>, Arc<Domains>) {
        let mut known = self.elsewhere.lock().await;
        if known.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            known.looked = Some(Instant::now());
            let changed = tokio::fs::metadata(&self.options.resolv_conf).await;
            let changed = changed.and_then(|file| file.modified()).ok();
            if changed.is_none() || changed != known.changed {
                known.changed = changed;
                let text = tokio::fs::read(&self.options.resolv_conf).await.unwrap_or_default();
                let said = Resolv::parse(&String::from_utf8_lossy(&text));
                let servers = match self.options.servers.is_empty() {
                    true => said.servers,
                    false => self.options.servers.clone(),
                };
                // Who asks itself never gets an answer.
                let is_other = |server: &SocketAddr| !self.options.listen.contains(server);
                known.servers = servers.into_iter().filter(is_other).collect();
                known.domains = Arc::new(Domains {
                    namespace: self.options.namespace.clone(),
                    mesh: self.options.domain.clone(),
                    search: said.search.into_iter().next(),
                });
            }
        }
        (known.servers.clone(), known.domains.clone())
    }

    /// The answer of the first server that has one, as it came; otherwise that there is none.
    async fn forward(&self, message: &[u8], is_stream: bool) -> Option<Vec<u8>> {
        count(&self.counted.forwarded);
        let (servers, _) = self.elsewhere().await;
        for server in servers.iter() {
            let answer = match is_stream {
                true => timeout(TCP_TIMEOUT, ask_stream(*server, message)).await,
                false => timeout(UDP_TIMEOUT, ask_datagram(*server, message)).await,
            };
            match answer {
                // While there are no names of the mesh yet, nobody can say that one is not there.
                Ok(Ok(answer)) if denies(&answer) && self.names.current().is_none() => break,
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%server, %error, "a server of names fails"),
                Err(_) => tracing::debug!(%server, "a server of names does not answer"),
            }
        }
        count(&self.counted.failures);
        failure(message)
    }
}

/// The answer that there is none.
fn failure(message: &[u8]) -> Option<Vec<u8>> {
    match Query::read(message) {
        Ok(query) => Some(query.answer(Code::Failed)),
        Err(_) => malformed(message),
    }
}

async fn ask_datagram(server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // A socket for each question: who wants to forge an answer has to guess its port.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(message).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if is_answer(message, &buffer[..length]) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_stream(server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_message(&mut stream, message).await?;
    let answer = read_message(&mut stream).await?;
    match is_answer(message, &answer) {
        true => Ok(answer),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is to another question")),
    }
}

async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len());
    let length = length.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a message is too long"))?;
    // In one piece: some clients read length and message at once (RFC 7766, 8).
    let mut whole = length.to_be_bytes().to_vec();
    whole.extend(message);
    stream.write_all(&whole).await
}
