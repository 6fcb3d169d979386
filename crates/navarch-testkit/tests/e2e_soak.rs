//! Everything that happens to a mesh in a year, in minutes and under calls: agents and their Envoys come and
//! go, hand over, are killed, and so is the control plane, while certificates are replaced all the time.

mod common;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use common::minute::Mesh;
use navarch_testkit::agent::Agent;
use navarch_testkit::{ports, wait, workspace};

/// How often what happens.
#[derive(Debug, Clone, Copy)]
struct Plan {
    cycles: usize,
    handovers: usize,
    agents_killed: usize,
    servers_killed: usize,
    /// It goes on for so long at least.
    lasting: Duration,
    /// How long a certificate lives: it is replaced about the middle of that.
    life: &'static str,
}

impl Plan {
    /// Short, unless `NAVARCH_SOAK=full`.
    fn from_environment() -> Result<Plan> {
        match std::env::var("NAVARCH_SOAK").as_deref() {
            Err(_) => Ok(Plan {
                cycles: 2,
                handovers: 2,
                agents_killed: 2,
                servers_killed: 1,
                lasting: Duration::ZERO,
                life: "16s",
            }),
            Ok("full") => Ok(Plan {
                cycles: 100,
                handovers: 20,
                agents_killed: 20,
                servers_killed: 20,
                lasting: Duration::from_secs(600),
                life: "10s",
            }),
            Ok(other) => bail!("NAVARCH_SOAK={other}: full, or nothing"),
        }
    }

    /// What happens, mixed: each kind is spread over the whole. With how often it has happened before.
    fn events(&self) -> Vec<(Event, usize)> {
        let kinds = [
            (Event::Cycle, self.cycles),
            (Event::Handover, self.handovers),
            (Event::KillAgent, self.agents_killed),
            (Event::KillServer, self.servers_killed),
        ];
        let placed = kinds.into_iter().flat_map(|(event, count)| {
            (0..count).map(move |index| ((2 * index + 1) * 1_000_000 / (2 * count), event, index))
        });
        let mut placed: Vec<(usize, Event, usize)> = placed.collect();
        placed.sort();
        placed.into_iter().map(|(_, event, index)| (event, index)).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// One of the two that are called is stopped, and started again.
    Cycle,
    /// An Envoy hands over to another one.
    Handover,
    /// An agent is killed, and started again.
    KillAgent,
    /// The control plane is killed, and started again.
    KillServer,
}

/// Where the second one that is called is.
const ANOTHER: &str = "127.0.5.1";

/// The two register themselves as soon as their applications answer. The second has a sidecar of its own.
fn groups(inbound: u16, applications: [u16; 2]) -> String {
    let group = |name: &str, application: u16| {
        format!(
            "apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {{name: {name}, namespace: shop}}
spec:
  metadata: {{labels: {{app: greeter, instance: {name}, security.istio.io/tlsMode: istio}}}}
  template: {{serviceAccount: greeter, ports: {{http: {inbound}}}}}
  probe:
    periodSeconds: 1
    httpGet: {{host: 127.0.0.1, port: {application}, path: /}}
---
"
        )
    };
    let [greeter, another] = applications;
    let mut text = group("one", greeter) + &group("another", another);
    text.push_str(&format!(
        "apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: another, namespace: shop}}
spec:
  workloadSelector: {{labels: {{instance: another}}}}
  ingress:
    - port: {{number: {inbound}, name: http, protocol: HTTP}}
      bind: {ANOTHER}
      defaultEndpoint: 127.0.0.1:{another}
  egress:
    - hosts: [\"~/*\"]
"
    ));
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_lost_whatever_happens() -> Result<()> {
    let plan = Plan::from_environment()?;
    let mut mesh = Mesh::start("soak").await?;
    let (inbound, application) = (mesh.inbound.port(), ports::free_port()?);
    // The example has an entry of its own; here the groups make them.
    let text = std::fs::read_to_string(mesh.server.config().join("mesh.yaml"))?;
    let documents = text.split("---\n").filter(|document| !document.contains("kind: WorkloadEntry"));
    mesh.server.write("mesh.yaml", &documents.collect::<Vec<_>>().join("---\n"))?;
    mesh.server.write("more.yaml", &groups(inbound, [mesh.application, application]))?;
    let (handover, drain) =
        (["--drain-duration", "1s", "--parent-shutdown-duration", "2s"], ["--drain-min", "1s"]);
    // As long as everybody needs to hear that a workload ends.
    let usual = [&["--certificate-life", plan.life], &handover[..], &drain].concat();
    // A loopback address identifies nobody: what they are, they say themselves.
    let of = |label: &'static str, group: &'static str, address: &'static str| {
        [&usual[..], &["--label", label, "--metadata", group, "--ip", address]].concat()
    };
    let script = workspace::root().join("examples/minute/greeter.py").display().to_string();
    let command = |port: u16| ["python3".to_owned(), script.clone(), port.to_string()];
    let start = |name: &str, more: &[&str], port: u16| {
        let command = command(port);
        mesh.agent(name, more, &command.each_ref().map(String::as_str))
    };
    let greeter =
        start("greeter", &of("instance=one", "AUTO_REGISTER_GROUP=one", "127.0.0.1"), mesh.application)?;
    let another =
        start("greeter", &of("instance=another", "AUTO_REGISTER_GROUP=another", ANOTHER), application)?;
    let caller = mesh.agent("caller", &[&usual[..], &["--ip", "127.0.0.9"]].concat(), &[])?;
    let mut agents = [greeter, another, caller];
    for agent in &mut agents {
        agent.wait_live().await?;
    }
    mesh.greeted().await?;
    both_are_called(&agents[2], inbound).await?;

    let (started, events) = (Instant::now(), plan.events());
    let pause = plan.lasting / u32::try_from(events.len()).context("few")?;
    let load = mesh.load();
    for (event, index) in events {
        // The caller is not stopped: nobody would answer.
        let who = if event == Event::Cycle { index % 2 } else { (index + 1) % agents.len() };
        eprintln!("{:?}: {event:?} of agent {who}", started.elapsed());
        nothing_rejected(&agents).await?;
        happen(event, &mut mesh, &mut agents[who]).await.with_context(|| format!("{event:?}, {index}"))?;
        both_are_called(&agents[2], inbound).await?;
        tokio::time::sleep(pause).await;
    }
    tokio::time::sleep(plan.lasting.saturating_sub(started.elapsed())).await;
    let calls = load.finish().await?;
    eprintln!("{calls} calls in {:?}, of which none was lost: {plan:?}", started.elapsed());
    nothing_rejected(&agents).await
}

async fn nothing_rejected(agents: &[Agent]) -> Result<()> {
    for agent in agents {
        let rejections = agent.rejections().await?;
        ensure!(rejections.is_empty(), "{rejections:?}");
    }
    Ok(())
}

/// Waits until the caller knows two that are well, so that one of them may go.
async fn both_are_called(caller: &Agent, port: u16) -> Result<()> {
    wait::until("two endpoints that are well", wait::STEP, || async {
        let clusters = caller.envoy("/clusters").await?.text();
        for address in ["127.0.0.1", ANOTHER] {
            let healthy = format!("greeter.shop::{address}:{port}::health_flags::healthy");
            ensure!(clusters.contains(&healthy), "{clusters}");
        }
        Ok(())
    })
    .await
}

async fn happen(event: Event, mesh: &mut Mesh, agent: &mut Agent) -> Result<()> {
    match event {
        Event::Cycle => {
            agent.terminate().await?;
            agent.launch()?;
            agent.wait_live().await?;
        }
        Event::Handover => {
            let answer = agent.post("/hot-restart").await?.ok()?.text();
            ensure!(answer == "ok\n", "{answer}");
        }
        Event::KillAgent => {
            agent.kill();
            agent.launch()?;
        }
        Event::KillServer => {
            mesh.server.kill();
            mesh.server.restart().await?;
        }
    }
    wait::until("the agent to be ready", wait::STEP, || async {
        let ready = agent.get("/healthz/ready").await?.ok()?.text();
        ensure!(ready == "ready\n", "{ready}");
        Ok(())
    })
    .await
}
