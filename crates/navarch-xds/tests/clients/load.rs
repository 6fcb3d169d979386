//! Clients of a listener: a steady stream of new connections, and one connection that stays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use navarch_testkit::{http, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const CLIENTS: usize = 4;

/// What became of the requests.
#[derive(Debug, Default)]
pub struct Outcome {
    pub good: u64,
    /// Status or error, and how often.
    pub bad: BTreeMap<String, u64>,
}

/// Requests without pause, each on a new connection.
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Outcome>>,
}

impl Load {
    pub fn start(port: u16) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::<AtomicU64>::default();
        let clients = (0..CLIENTS).map(|_| tokio::spawn(call(port, stop.clone(), sent.clone()))).collect();
        Load { stop, sent, clients }
    }

    pub async fn stop(mut self) -> Result<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Outcome::default();
        for client in &mut self.clients {
            let one = client.await?;
            all.good += one.good;
            for (what, count) in one.bad {
                *all.bad.entry(what).or_default() += count;
            }
        }
        Ok(all)
    }

    /// Ends it after some more requests; every one must have been answered well.
    pub async fn must_be_clean(self) -> Result<()> {
        let enough = self.sent.load(Ordering::Relaxed) + 20;
        wait::until_true("some more requests", wait::STEP, || {
            let sent = self.sent.load(Ordering::Relaxed);
            async move { Ok(sent > enough) }
        })
        .await?;
        let outcome = self.stop().await?;
        ensure!(outcome.bad.is_empty() && outcome.good > 0, "{outcome:?}");
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn call(port: u16, stop: Arc<AtomicBool>, sent: Arc<AtomicU64>) -> Outcome {
    let mut outcome = Outcome::default();
    while !stop.load(Ordering::Relaxed) {
        sent.fetch_add(1, Ordering::Relaxed);
        match http::get(crate::rig::url(port)).await {
            Ok(answer) if answer.status.is_success() => outcome.good += 1,
            Ok(answer) => *outcome.bad.entry(answer.status.to_string()).or_default() += 1,
            Err(error) => *outcome.bad.entry(format!("{error:#}")).or_default() += 1,
        }
    }
    outcome
}

/// One connection that is used again and again.
pub struct KeepAlive(TcpStream);

impl KeepAlive {
    pub async fn connect(port: u16) -> Result<KeepAlive> {
        Ok(KeepAlive(TcpStream::connect(("127.0.0.1", port)).await?))
    }

    /// The body of the next answer, and whether the server wants to close. An error if it has closed.
    pub async fn get(&mut self) -> Result<(String, bool)> {
        tokio::time::timeout(Duration::from_secs(10), self.exchange()).await.context("no answer")?
    }

    async fn exchange(&mut self) -> Result<(String, bool)> {
        self.0.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await?;
        let mut received = Vec::new();
        loop {
            ensure!(self.0.read_buf(&mut received).await? > 0, "closed");
            let text = String::from_utf8_lossy(&received).to_ascii_lowercase();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            if !head.starts_with("http/1.1 200") {
                bail!("{head}");
            }
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.context("no length")?.parse()? {
                return Ok((body.to_owned(), head.contains("connection: close")));
            }
        }
    }
}
