//! Changes while calls are running: everything that is added is there before it is used, nothing is taken away before it is
//! unused.

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

const HOST: &str = "changing.traffic.test";
const EDITS: usize = 20;
const CALLERS: usize = 3;

/// Each edit sends everything to a subset that did not exist before it, and removes the one that was used until then. Every
/// other one also opens or closes a port.
pub async fn routes_subsets_and_listeners_change_under_load(edge: &Edge) -> Result<()> {
    let (v1, v2) = (Backend::echo("v1").await?, Backend::echo("v2").await?);
    let state = |nth: usize| {
        let endpoints = [(&v1, ", labels: {version: v1}"), (&v2, ", labels: {version: v2}")];
        let version = version(nth);
        service(HOST, &endpoints)
            + &rule(HOST, &format!("subsets: [{{name: s{nth}, labels: {{version: {version}}}}}]"))
            // A retry would hide what is to be seen.
            + &routes(
                HOST,
                &format!("[{{retries: {{attempts: 0}}, route: [{{destination: {{host: {HOST}, subset: s{nth}}}}}]}}]"),
            )
    };
    edge.apply("changing", &state(0)).await?;
    edge.expect(&edge.call(HOST, "/"), 200).await?;

    let done = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..CALLERS).map(|_| tokio::spawn(call(edge.port, Arc::clone(&done)))).collect();
    let extra = ports::free_port()?;
    for nth in 1..=EDITS {
        edge.apply("changing", &state(nth)).await?;
        wait::until("the edit", wait::STEP, || async {
            let found = edge.answered(HOST).await?;
            ensure!(found == version(nth), "edit {nth}: {found} answered");
            Ok(())
        })
        .await?;
        let server = format!("{{port: {{number: {extra}, name: extra, protocol: HTTP}}, hosts: ['*']}}");
        match nth % 4 {
            1 => edge.apply("extra", &gateway("extra", &server)).await?,
            3 => edge.apply("extra", "").await?,
            _ => {}
        }
    }
    done.store(true, Ordering::SeqCst);
    for caller in callers {
        let calls = caller.await??;
        ensure!(calls >= EDITS, "only {calls} calls during {EDITS} edits");
    }
    Ok(())
}

fn version(nth: usize) -> &'static str {
    if nth.is_multiple_of(2) { "v1" } else { "v2" }
}

/// Calls without a pause over one connection until told to stop; gives the number of calls. An answer other than 200 and a
/// lost connection are errors.
async fn call(port: u16, done: Arc<AtomicBool>) -> Result<usize> {
    let mut connection = Connection::open(port).await?;
    let mut calls = 0;
    while !done.load(Ordering::SeqCst) {
        let (status, body) = connection.get(HOST).await.with_context(|| format!("call {calls}"))?;
        ensure!(status == StatusCode::OK, "call {calls}: {status} {}", String::from_utf8_lossy(&body));
        calls += 1;
        // The machine is also for the gateway and its control plane.
        tokio::task::yield_now().await;
    }
    Ok(calls)
}
