//! Changes while calls are running: everything that is added is there before it is used, nothing is taken
//! away before it is unused.

use super::{
    backend::Backend,
    connection::Connection,
    edge::{Edge, gateway, routes, rule, service},
};
use anyhow::{Context, Result, ensure};
use http::StatusCode;
use navarch_testkit::{ports, wait};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::task::JoinHandle;

const CALLERS: usize = 3;

/// Each edit sends everything to a subset that did not exist before it, and removes the one that was used
/// until then. Every other one also opens or closes a port.
pub async fn routes_subsets_and_listeners_change_under_load(edge: &Edge) -> Result<()> {
    const EDITS: usize = 20;
    let host = "changing.traffic.test";
    let (v1, v2) = (Backend::echo("v1").await?, Backend::echo("v2").await?);
    let state = |nth: usize| {
        let endpoints = [(&v1, ", labels: {version: v1}"), (&v2, ", labels: {version: v2}")];
        let subset = format!("subsets: [{{name: s{nth}, labels: {{version: {}}}}}]", version(nth));
        service(host, &endpoints) + &rule(host, &subset) + &to_subset(host, &format!(", subset: s{nth}"))
    };
    edge.apply("changing", &state(0)).await?;
    wait_for(edge, host, "v1").await?;

    let load = Load::start(edge, host, Closing::IsAnError);
    let extra = ports::free_port()?;
    for nth in 1..=EDITS {
        edge.apply("changing", &state(nth)).await?;
        wait_for(edge, host, version(nth)).await?;
        let server = format!("{{port: {{number: {extra}, name: extra, protocol: HTTP}}, hosts: ['*']}}");
        match nth % 4 {
            1 => edge.apply("extra", &gateway("extra", &server)).await?,
            3 => edge.apply("extra", "").await?,
            _ => {}
        }
    }
    load.finish(EDITS).await
}

/// Each edit moves the service to another backend, and changes settings of the connections to it.
pub async fn endpoints_and_settings_change_under_load(edge: &Edge) -> Result<()> {
    const EDITS: usize = 10;
    let host = "moving.traffic.test";
    let backends = [Backend::echo("v1").await?, Backend::echo("v2").await?];
    let state = |nth: usize| {
        let settings = format!(
            "trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: {}, connectTimeout: {}s}}}}}}",
            1000 + nth,
            5 + nth
        );
        service(host, &[(&backends[nth % 2], "")]) + &rule(host, &settings) + &to_subset(host, "")
    };
    edge.apply("moving", &state(0)).await?;
    wait_for(edge, host, "v1").await?;

    let load = Load::start(edge, host, Closing::IsAnError);
    for nth in 1..=EDITS {
        edge.apply("moving", &state(nth)).await?;
        wait_for(edge, host, version(nth)).await?;
    }
    load.finish(EDITS).await
}

/// A policy is part of the listener. Envoy lets go of connections to what a listener was by announcing it in
/// an answer; no call is lost.
pub async fn policies_change_under_load(edge: &Edge) -> Result<()> {
    let host = "guarded.traffic.test";
    let backend = Backend::echo("v1").await?;
    let state = service(host, &[(&backend, "")]) + &to_subset(host, "");
    edge.apply("guarded", &state).await?;
    wait_for(edge, host, "v1").await?;

    let load = Load::start(edge, host, Closing::IsAnnounced);
    for team in ["a", "b", "c"] {
        let policy = format!(
            "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: edge, namespace: default}}
spec:
  selector: {{matchLabels: {{istio: edge}}}}
  action: DENY
  rules: [{{when: [{{key: 'request.headers[x-team]', values: [{team}]}}]}}]
"
        );
        edge.apply("policy", &policy).await?;
        edge.expect(&edge.call(host, "/").header("x-team", team), 403).await?;
    }
    edge.apply("policy", "").await?;
    edge.expect(&edge.call(host, "/").header("x-team", "c"), 200).await?;
    load.finish(4).await
}

fn version(nth: usize) -> &'static str {
    if nth.is_multiple_of(2) { "v1" } else { "v2" }
}

/// Everything to one destination, without retries: they would hide what is to be seen.
fn to_subset(host: &str, subset: &str) -> String {
    let route = format!("route: [{{destination: {{host: {host}{subset}}}}}]");
    routes(host, &format!("[{{retries: {{attempts: 0}}, {route}}}]"))
}

async fn wait_for(edge: &Edge, host: &str, version: &str) -> Result<()> {
    wait::until(&format!("{version} of {host}"), wait::STEP, || async {
        let found = edge.answered(host).await?;
        ensure!(found == version, "{found} answered");
        Ok(())
    })
    .await
}

/// What it means that the gateway announces the end of a connection.
#[derive(Clone, Copy, PartialEq)]
enum Closing {
    IsAnError,
    /// The caller opens another.
    IsAnnounced,
}

/// Callers that call without a pause, each over one connection. An answer other than 200 and a lost
/// connection are errors.
struct Load {
    done: Arc<AtomicBool>,
    callers: Vec<JoinHandle<Result<usize>>>,
}

impl Load {
    fn start(edge: &Edge, host: &'static str, closing: Closing) -> Load {
        let done = Arc::new(AtomicBool::new(false));
        let caller = |_| tokio::spawn(call(edge.port, host, closing, Arc::clone(&done)));
        let callers = (0..CALLERS).map(caller).collect();
        Load { done, callers }
    }

    /// Stops; an error also if a caller got fewer answers than `least`.
    async fn finish(self, least: usize) -> Result<()> {
        self.done.store(true, Ordering::SeqCst);
        for caller in self.callers {
            let calls = caller.await??;
            ensure!(calls >= least, "only {calls} calls");
        }
        Ok(())
    }
}

async fn call(port: u16, host: &str, closing: Closing, done: Arc<AtomicBool>) -> Result<usize> {
    let mut connection = Connection::open(port).await?;
    let mut calls = 0;
    while !done.load(Ordering::SeqCst) {
        let answer = connection.get(host).await;
        let (status, body, closes) = answer.with_context(|| format!("call {calls}"))?;
        ensure!(status == StatusCode::OK, "call {calls}: {status} {}", String::from_utf8_lossy(&body));
        if closes {
            ensure!(closing == Closing::IsAnnounced, "call {calls}: the gateway closes the connection");
            connection = Connection::open(port).await?;
        }
        calls += 1;
        // The machine is also for the gateway and its control plane.
        tokio::task::yield_now().await;
    }
    Ok(calls)
}
