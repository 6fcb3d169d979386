//! DestinationRule: which backend takes a call, and what happens when backends fail.

use super::{
    backend::{Backend, Behaviour},
    edge::{Edge, routes, rule, service, to},
};
use anyhow::{Result, ensure};
use http::StatusCode;
use navarch_testkit::wait;
use std::{collections::BTreeSet, time::Duration};

/// A service with a traffic policy, and everything routed to it.
async fn balanced(edge: &Edge, name: &str, endpoints: &[(&Backend, &str)], policy: &str) -> Result<String> {
    let host = format!("{name}.traffic.test");
    let policy = rule(&host, &format!("trafficPolicy: {{{policy}}}"));
    // A failure is to be seen, not to be repaired.
    let http = format!(
        "[{{match: [{{uri: {{exact: /ready}}}}], directResponse: {{status: 204}}}}, \
         {{retries: {{attempts: 0}}, {}}}]",
        to(&host)
    );
    edge.apply(name, &(service(&host, endpoints) + &policy + &routes(&host, &http))).await?;
    edge.expect(&edge.call(&host, "/ready"), 204).await?;
    Ok(host)
}

pub async fn consistent_hashing(edge: &Edge) -> Result<()> {
    let backends = [Backend::echo("a").await?, Backend::echo("b").await?, Backend::echo("c").await?];
    let endpoints = backends.each_ref().map(|backend| (backend, ""));
    let policy = "loadBalancer: {consistentHash: {httpHeaderName: x-user}}";
    let host = balanced(edge, "hash", &endpoints, policy).await?;
    let mut chosen = BTreeSet::new();
    for user in 0..16 {
        let mut of_user = BTreeSet::new();
        for _ in 0..4 {
            let call = edge.call(&host, "/").header("x-user", &format!("user-{user}"));
            of_user.insert(super::edge::name_of(&call.send().await?.ok()?)?);
        }
        ensure!(of_user.len() == 1, "user-{user} got {of_user:?}");
        chosen.extend(of_user);
    }
    ensure!(chosen.len() > 1, "all users got {chosen:?}");
    Ok(())
}

pub async fn circuit_breaking(edge: &Edge) -> Result<()> {
    let slow = Backend::start("slow", Behaviour::Slow(Duration::from_secs(2))).await?;
    let policy = "connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}";
    let host = balanced(edge, "breaker", &[(&slow, "")], policy).await?;
    let mut calls = vec![tokio::spawn(edge.call(&host, "/").send())];
    // A call is waiting until there is a connection for it.
    wait::until("the first call to arrive", wait::STEP, || async {
        ensure!(slow.requests() == 1, "not yet");
        Ok(())
    })
    .await?;
    calls.extend((0..5).map(|_| tokio::spawn(edge.call(&host, "/").send())));
    let (mut served, mut refused) = (0, 0);
    for call in calls {
        let answer = call.await??;
        match answer.status {
            StatusCode::OK => served += 1,
            StatusCode::SERVICE_UNAVAILABLE if answer.header("x-envoy-overloaded") == "true" => refused += 1,
            _ => anyhow::bail!("{answer:?}"),
        }
    }
    // One on the connection, one waiting for it; the rest at once refused.
    ensure!((served, refused) == (2, 4), "{served} served, {refused} refused");
    Ok(())
}

pub async fn outlier_ejection(edge: &Edge) -> Result<()> {
    let good = Backend::echo("good").await?;
    let bad = Backend::start("bad", Behaviour::Broken(StatusCode::INTERNAL_SERVER_ERROR)).await?;
    let policy = "loadBalancer: {simple: ROUND_ROBIN}, outlierDetection: {consecutive5xxErrors: 3, interval: 1s, \
                  baseEjectionTime: 60s, maxEjectionPercent: 100}";
    let host = balanced(edge, "outlier", &[(&good, ""), (&bad, "")], policy).await?;
    wait::until("the ejection", wait::STEP, || async {
        for nth in 0..20 {
            let status = edge.call(&host, "/").send().await?.status;
            ensure!(status == 200, "call {nth} got {status}");
        }
        Ok(())
    })
    .await?;
    // It was really asked, and no more often than it takes to eject it.
    ensure!(bad.requests() == 3, "{} calls to the bad one", bad.requests());
    Ok(())
}

pub async fn locality_failover(edge: &Edge) -> Result<()> {
    let (near, far) = (Backend::echo("near").await?, Backend::echo("far").await?);
    let endpoints = [(&near, ", locality: near/a/1"), (&far, ", locality: far/b/2")];
    let policy = "outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 60s, \
                  maxEjectionPercent: 100}";
    let host = balanced(edge, "locality", &endpoints, policy).await?;
    for _ in 0..20 {
        ensure!(edge.answered(&host).await? == "near", "a call left the locality");
    }
    near.kill().await;
    wait::until("the other locality", wait::STEP, || async {
        for _ in 0..10 {
            ensure!(edge.answered(&host).await? == "far", "the dead one answered");
        }
        Ok(())
    })
    .await
}
