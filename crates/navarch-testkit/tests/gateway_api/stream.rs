//! TCPRoute and UDPRoute at a gateway.

use super::rig::{Rig, endpoint, expect_from, port_of, route, services};
use crate::backend::Backend;
use anyhow::{Context, Result, ensure};
use navarch_testkit::{http::Call, wait};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::{net::UdpSocket, task::JoinHandle, time::timeout};

pub async fn tcp(rig: &Rig) -> Result<()> {
    let backend = Backend::echo("bytes").await?;
    let spec = "{parentRefs: [{name: edge, sectionName: tcp}], \
                rules: [{backendRefs: [{name: t-none, port: 80, weight: 0}, {name: t-all, port: 80, weight: 1}]}]}";
    let objects = route("TCPRoute", "tcp", "default", spec) + &services(&[("t-all", &backend)]);
    rig.apply("tcp", &objects).await?;
    let call = Call::get(format!("http://127.0.0.1:{}/", rig.tcp_port)).header("host", "anything");
    expect_from(&call, "bytes").await.map(drop)
}

/// Nobody repeats a datagram that is lost because nobody listens yet.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Answers every datagram with its name.
struct Datagrams {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Datagrams {
    async fn new(name: &'static str) -> Result<Datagrams> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = socket.local_addr()?;
        let task = tokio::spawn(async move {
            let mut buffer = [0; 64];
            while let Ok((_, from)) = socket.recv_from(&mut buffer).await {
                // Who does not wait for an answer gets none.
                let _ = socket.send_to(name.as_bytes(), from).await;
            }
        });
        Ok(Datagrams { address, task })
    }

    fn service(&self, name: &str) -> String {
        port_of(name, "default", "{name: http, port: 53, protocol: UDP}")
            + &endpoint(name, "default", 0, "UDP", self.address)
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Who answers a datagram of another client.
async fn ask(port: u16) -> Result<String> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect((Ipv4Addr::LOCALHOST, port)).await?;
    let mut buffer = [0; 64];
    socket.send(b"who is there?").await?;
    let length = timeout(ANSWER_MAX, socket.recv(&mut buffer)).await.context("no answer")??;
    Ok(String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned())
}

pub async fn udp(rig: &Rig) -> Result<()> {
    let (heavy, light) = (Datagrams::new("heavy").await?, Datagrams::new("light").await?);
    let spec = "{parentRefs: [{name: edge, sectionName: udp}], \
                rules: [{backendRefs: [{name: u-heavy, port: 53, weight: 70}, \
                {name: u-none, port: 53, weight: 0}, {name: u-light, port: 53, weight: 30}]}]}";
    let objects =
        route("UDPRoute", "udp", "default", spec) + &heavy.service("u-heavy") + &light.service("u-light");
    rig.apply("udp", &objects).await?;
    wait::until("an answer over UDP", wait::STEP, || async { ask(rig.tcp_port).await.map(drop) }).await?;
    let mut answers: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..200 {
        let asked = || async { ask(rig.tcp_port).await };
        *answers.entry(wait::until("an answer over UDP", wait::STEP, asked).await?).or_default() += 1;
    }
    let of = |name: &str| answers.get(name).copied().unwrap_or_default();
    // 60 are expected; the deviation is below 7.
    ensure!(of("heavy") + of("light") == 200 && (30..=95).contains(&of("light")), "{answers:?}");
    Ok(())
}
