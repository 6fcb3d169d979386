//! A server that is killed and started again while its configuration changes and calls are running.
//!
//! Each edit renames both subsets of a service and the route that uses them, so a gateway that returns holds
//! clusters and routes that the server has never heard of. Edits come while the server runs and while it is
//! down; it is killed at random moments, in the middle of a push as well.

use super::{
    backend::Backend,
    connection::Connection,
    edge::{Edge, routes, rule, service},
};
use anyhow::{Context, Result, ensure};
use http::StatusCode;
use navarch_testkit::wait;
use serde_json::Value;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinHandle;

const HOST: &str = "restarting.traffic.test";
const CALLERS: usize = 3;

/// How long it goes on.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How often the server is killed and started again.
    pub restarts: usize,
    /// How many calls there are at least.
    pub calls: u64,
    /// Chooses the moments.
    pub seed: u64,
}

impl Plan {
    /// Short, unless `NAVARCH_RESTARTS` says how many restarts, `NAVARCH_RESTART_CALLS` how many calls and
    /// `NAVARCH_RESTART_SEED` which moments.
    pub fn from_environment() -> Result<Plan> {
        let number = |name: &str, otherwise: u64| match std::env::var(name) {
            Ok(text) => text.parse().with_context(|| format!("{name}={text}")),
            Err(_) => Ok(otherwise),
        };
        Ok(Plan {
            restarts: usize::try_from(number("NAVARCH_RESTARTS", 6)?)?,
            calls: number("NAVARCH_RESTART_CALLS", 0)?,
            seed: number("NAVARCH_RESTART_SEED", 1)?,
        })
    }
}

/// No call is lost, and in the end the gateway has just what is configured.
pub async fn nothing_is_lost_when_the_server_restarts(edge: &mut Edge, plan: Plan) -> Result<()> {
    let backends = [Backend::echo("v1").await?, Backend::echo("v2").await?];
    let mut mesh = Mesh { backends, edits: 0 };
    edge.apply("restarting", &mesh.edit()).await?;
    wait_for(edge, mesh.edits).await?;

    let load = Load::start(edge.port, HOST);
    let mut random = Random(plan.seed);
    let mut restarts = 0;
    while restarts < plan.restarts || load.calls() < plan.calls {
        for _ in 0..=random.below(3) {
            edge.server.write("restarting.yaml", &mesh.edit())?;
            random.pause(300).await;
        }
        // Spread over the calls.
        let is_due = load.calls() * plan.restarts as u64 >= plan.calls * restarts as u64;
        if restarts < plan.restarts && is_due {
            restarts += 1;
            edge.server.kill();
            for _ in 0..random.below(3) {
                edge.server.write("restarting.yaml", &mesh.edit())?;
                random.pause(50).await;
            }
            edge.server.restart().await?;
        }
        // Sometimes the next edit or the next restart comes before the gateway has all.
        match random.below(4) {
            0 => {}
            1 => random.pause(500).await,
            _ => wait_for(edge, mesh.edits).await?,
        }
    }
    only_what_is_configured_is_left(edge, mesh.edits).await?;
    let lost = load.finish().await?;
    println!("{} calls, {restarts} restarts, {} edits, {} lost", lost.calls, mesh.edits, lost.answers.len());
    ensure!(
        lost.answers.is_empty(),
        "{plan:?}: lost {} of {} calls: {:?}",
        lost.answers.len(),
        lost.calls,
        { lost.answers.iter().take(5).collect::<Vec<_>>() }
    );
    Ok(())
}

/// What is configured.
struct Mesh {
    backends: [Backend; 2],
    edits: usize,
}

impl Mesh {
    /// The next state: other subsets, and a route to both that says in its answers which edit it is of.
    /// Without retries: they would hide what is to be seen.
    fn edit(&mut self) -> String {
        self.edits += 1;
        let nth = self.edits;
        let [v1, v2] = &self.backends;
        let endpoints = [(v1, ", labels: {version: v1}"), (v2, ", labels: {version: v2}")];
        let subset =
            |letter: &str, version: &str| format!("{{name: {letter}{nth}, labels: {{version: {version}}}}}");
        let subsets = format!("subsets: [{}, {}]", subset("a", "v1"), subset("b", "v2"));
        let to =
            |letter: &str| format!("{{destination: {{host: {HOST}, subset: {letter}{nth}}}, weight: 50}}");
        let headers = format!("headers: {{response: {{set: {{x-edit: '{nth}'}}}}}}");
        let route = format!("{{retries: {{attempts: 0}}, {headers}, route: [{}, {}]}}", to("a"), to("b"));
        service(HOST, &endpoints) + &rule(HOST, &subsets) + &routes(HOST, &format!("[{route}]"))
    }
}

async fn wait_for(edge: &Edge, edit: usize) -> Result<()> {
    wait::until(&format!("edit {edit}"), wait::STEP, || async {
        let answer = edge.call(HOST, "/").send().await?.ok()?;
        let found = answer.header("x-edit");
        ensure!(found == edit.to_string(), "edit {found} answered");
        Ok(())
    })
    .await
}

/// What was kept for a gateway that came back goes in the end.
async fn only_what_is_configured_is_left(edge: &Edge, edit: usize) -> Result<()> {
    let expected = [format!("|a{edit}|"), format!("|b{edit}|")];
    wait::until("former clusters to go", wait::STEP, || async {
        let page = edge.envoy.clusters().await?;
        let clusters = page["cluster_statuses"].as_array().context("no clusters")?;
        let names = clusters.iter().filter_map(|cluster: &Value| cluster["name"].as_str());
        let ours = names.filter(|name| name.ends_with(HOST) && !name.contains("||"));
        let others: Vec<_> = ours.filter(|name| !expected.iter().any(|part| name.contains(part))).collect();
        ensure!(others.is_empty(), "{others:?}");
        Ok(())
    })
    .await
}

/// Numbers that look random, the same ones for a seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// Waits for up to so many milliseconds. Nothing is waited for: it is the moment that is chosen.
    async fn pause(&mut self, milliseconds: u64) {
        tokio::time::sleep(Duration::from_millis(self.below(milliseconds))).await;
    }
}

/// Callers that call without a pause, each over one connection.
pub struct Load {
    done: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    lost: Arc<Mutex<Vec<String>>>,
    callers: Vec<JoinHandle<()>>,
}

/// How the calls went.
pub struct Outcome {
    pub calls: u64,
    /// The answers other than 200.
    pub answers: Vec<String>,
}

impl Load {
    /// Calls `host` at a port.
    pub fn start(port: u16, host: &'static str) -> Load {
        let (done, calls, lost) = (Arc::default(), Arc::default(), Arc::default());
        let mut load = Load { done, calls, lost, callers: Vec::new() };
        for _ in 0..CALLERS {
            let (done, calls) = (Arc::clone(&load.done), Arc::clone(&load.calls));
            let lost = Arc::clone(&load.lost);
            load.callers.push(tokio::spawn(async move {
                let mut connection = None;
                while !done.load(Ordering::SeqCst) {
                    if let Err(error) = call(port, host, &mut connection).await {
                        lost.lock().expect("no caller panics").push(format!("{error:#}"));
                        connection = None;
                    }
                    calls.fetch_add(1, Ordering::SeqCst);
                    // The machine is also for the gateway and its control plane.
                    tokio::task::yield_now().await;
                }
            }));
        }
        load
    }

    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    pub async fn finish(self) -> Result<Outcome> {
        self.done.store(true, Ordering::SeqCst);
        for caller in self.callers {
            caller.await?;
        }
        let answers = std::mem::take(&mut *self.lost.lock().expect("no caller panics"));
        Ok(Outcome { calls: self.calls.load(Ordering::SeqCst), answers })
    }
}

/// One call, over the connection that there is.
async fn call(port: u16, host: &str, connection: &mut Option<Connection>) -> Result<()> {
    let connection = match connection {
        Some(open) => open,
        None => connection.insert(Connection::open(port).await?),
    };
    let (status, body, closes) = connection.get(host).await?;
    ensure!(status == StatusCode::OK, "{status} {}", String::from_utf8_lossy(&body));
    ensure!(!closes, "the gateway closes the connection");
    Ok(())
}
