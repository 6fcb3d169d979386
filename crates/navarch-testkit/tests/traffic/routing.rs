//! VirtualService: where calls go, and what happens to them on the way.

use super::{
    backend::{Backend, Behaviour},
    edge::{Edge, name_of, routes, rule, service, to},
};
use anyhow::{Result, ensure};
use http::Method;
use navarch_testkit::wait;
use std::time::Duration;

const SUBSETS: &str = "subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]";

/// A service with two versions and their subsets.
fn versions(host: &str, v1: &Backend, v2: &Backend) -> String {
    let endpoints = [(v1, ", labels: {version: v1}"), (v2, ", labels: {version: v2}")];
    service(host, &endpoints) + &rule(host, SUBSETS)
}

/// A service with one backend, and the routes to it.
async fn one(edge: &Edge, name: &str, backend: &Backend, http: &str) -> Result<String> {
    let host = format!("{name}.traffic.test");
    let http = http.replace("TO", &to(&host));
    edge.apply(name, &(service(&host, &[(backend, "")]) + &routes(&host, &http))).await?;
    Ok(host)
}

pub async fn weights(edge: &Edge) -> Result<()> {
    let (v1, v2) = (Backend::echo("v1").await?, Backend::echo("v2").await?);
    let host = "weights.traffic.test";
    let split = format!(
        "[{{route: [{{destination: {{host: {host}, subset: v1}}, weight: 80}}, \
         {{destination: {{host: {host}, subset: v2}}, weight: 20}}]}}]"
    );
    edge.apply("weights", &(versions(host, &v1, &v2) + &routes(host, &split))).await?;
    edge.expect(&edge.call(host, "/"), 200).await?;
    let mut second = 0;
    for _ in 0..200 {
        second += usize::from(edge.answered(host).await? == "v2");
    }
    // 40 are expected; the deviation is below 6.
    ensure!((15..=70).contains(&second), "{second} of 200 calls to the version with the weight 20");
    Ok(())
}

pub async fn header_match_and_header_changes(edge: &Edge) -> Result<()> {
    let (v1, v2) = (Backend::echo("v1").await?, Backend::echo("v2").await?);
    let host = "headers.traffic.test";
    let http = format!(
        "
    - match: [{{headers: {{x-version: {{exact: v2}}}}}}]
      route: [{{destination: {{host: {host}, subset: v2}}}}]
      headers:
        request: {{set: {{x-set: new}}, add: {{x-added: 'yes'}}, remove: [x-secret]}}
        response: {{add: {{x-answer: '42'}}, remove: [x-internal]}}
    - route: [{{destination: {{host: {host}, subset: v1}}}}]"
    );
    edge.apply("headers", &(versions(host, &v1, &v2) + &routes(host, &http))).await?;
    let plain = edge.expect(&edge.call(host, "/"), 200).await?;
    ensure!(name_of(&plain)? == "v1" && plain.header("x-internal") == "from the backend", "{plain:?}");

    let call = edge.call(host, "/").header("x-version", "v2").header("x-secret", "s").header("x-set", "old");
    let answer = call.send().await?.ok()?;
    let page = answer.json()?;
    let seen = &page["headers"];
    ensure!(page["name"] == "v2" && seen["x-added"] == "yes" && seen["x-set"] == "new", "{page}");
    ensure!(seen.get("x-secret").is_none(), "{page}");
    ensure!(answer.header("x-answer") == "42" && answer.header("x-internal").is_empty(), "{answer:?}");
    Ok(())
}

pub async fn subsets_choose_by_labels(edge: &Edge) -> Result<()> {
    let (v1, v2) = (Backend::echo("v1").await?, Backend::echo("v2").await?);
    let host = "subsets.traffic.test";
    for version in ["v1", "v2"] {
        let http = format!("[{{route: [{{destination: {{host: {host}, subset: {version}}}}}]}}]");
        edge.apply("subsets", &(versions(host, &v1, &v2) + &routes(host, &http))).await?;
        wait::until("the subset", wait::STEP, || async {
            ensure!(edge.answered(host).await? == version, "the other version");
            Ok(())
        })
        .await?;
        for _ in 0..10 {
            ensure!(edge.answered(host).await? == version, "an answer that is not of {version}");
        }
    }
    Ok(())
}

pub async fn uri_rewrite(edge: &Edge) -> Result<()> {
    let backend = Backend::echo("rewrite").await?;
    let http = "[{match: [{uri: {prefix: /old/}}], rewrite: {uri: /new/, authority: inner.test}, TO}, \
                {match: [{uri: {prefix: /by-regex}}], \
                rewrite: {uriRegexRewrite: {match: '^/by-regex/([^/]+)/(.*)$', rewrite: '/\\2/\\1'}}, TO}]";
    let host = one(edge, "rewrite", &backend, http).await?;
    let page = edge.expect(&edge.call(&host, "/old/thing?q=1"), 200).await?.json()?;
    ensure!(page["path"] == "/new/thing?q=1" && page["host"] == "inner.test", "{page}");
    let page = edge.call(&host, "/by-regex/a/b").send().await?.ok()?.json()?;
    ensure!(page["path"] == "/b/a", "{page}");
    Ok(())
}

pub async fn redirect(edge: &Edge) -> Result<()> {
    let http = "[{redirect: {uri: /here, authority: other.test, redirectCode: 302}}]";
    edge.apply("redirect", &routes("redirect.traffic.test", http)).await?;
    let answer = edge.expect(&edge.call("redirect.traffic.test", "/moved"), 302).await?;
    ensure!(answer.header("location") == "http://other.test/here", "{answer:?}");
    Ok(())
}

pub async fn direct_response(edge: &Edge) -> Result<()> {
    let http = "[{directResponse: {status: 418, body: {string: tea}}}]";
    edge.apply("direct", &routes("direct.traffic.test", http)).await?;
    let answer = edge.expect(&edge.call("direct.traffic.test", "/"), 418).await?;
    ensure!(answer.text() == "tea", "{answer:?}");
    Ok(())
}

pub async fn timeout(edge: &Edge) -> Result<()> {
    // Long after the call is given up, so that a 504 is an answer in time.
    let slow = Backend::start("slow", Behaviour::Slow(Duration::from_secs(3600))).await?;
    let host = one(edge, "timeout", &slow, "[{timeout: 200ms, TO}]").await?;
    edge.expect(&edge.call(&host, "/"), 504).await?;
    Ok(())
}

pub async fn retries(edge: &Edge) -> Result<()> {
    let flaky = Backend::start("flaky", Behaviour::FailsOnce).await?;
    let http = "[{match: [{uri: {exact: /ready}}], directResponse: {status: 204}}, \
                {retries: {attempts: 2, retryOn: 5xx}, TO}]";
    let host = one(edge, "retries", &flaky, http).await?;
    edge.expect(&edge.call(&host, "/ready"), 204).await?;
    let answer = edge.call(&host, "/").send().await?;
    ensure!(answer.status == 200 && flaky.requests() == 2, "{answer:?} after {} tries", flaky.requests());

    // Without retries, the same failure is the caller's.
    let flaky = Backend::start("flaky", Behaviour::FailsOnce).await?;
    let host =
        one(edge, "unretried", &flaky, &http.replace("attempts: 2, retryOn: 5xx", "attempts: 0")).await?;
    edge.expect(&edge.call(&host, "/ready"), 204).await?;
    let answer = edge.call(&host, "/").send().await?;
    ensure!(answer.status == 503 && flaky.requests() == 1, "{answer:?} after {} tries", flaky.requests());
    Ok(())
}

pub async fn fault_abort(edge: &Edge) -> Result<()> {
    let backend = Backend::echo("abort").await?;
    let http = "[{match: [{headers: {x-fault: {exact: abort}}}], \
                fault: {abort: {httpStatus: 418, percentage: {value: 100}}}, TO}, {TO}]";
    let host = one(edge, "abort", &backend, http).await?;
    edge.expect(&edge.call(&host, "/").header("x-fault", "abort"), 418).await?;
    ensure!(backend.requests() == 0, "the call that was to be aborted has arrived");
    ensure!(edge.answered(&host).await? == "abort", "another backend");
    Ok(())
}

pub async fn fault_delay(edge: &Edge) -> Result<()> {
    let backend = Backend::echo("delay").await?;
    let http = "[{match: [{headers: {x-fault: {exact: delay}}}], \
                fault: {delay: {fixedDelay: 700ms, percentage: {value: 100}}}, TO}, {TO}]";
    let host = one(edge, "delay", &backend, http).await?;
    edge.expect(&edge.call(&host, "/"), 200).await?;
    let delays =
        async || edge.envoy.stats(r"\.fault\.delays_injected$").await.map(|found| found.values().sum());
    let before: u64 = delays().await?;
    edge.call(&host, "/").header("x-fault", "delay").send().await?.ok()?;
    let after: u64 = delays().await?;
    ensure!(after == before + 1, "{before} delays, and then {after}");
    Ok(())
}

pub async fn mirroring(edge: &Edge) -> Result<()> {
    let (main, mirror) = (Backend::echo("main").await?, Backend::echo("mirror").await?);
    let (host, shadow) = ("mirrored.traffic.test", "mirror.traffic.test");
    let http = format!(
        "[{{match: [{{uri: {{exact: /ready}}}}], directResponse: {{status: 204}}}}, \
         {{{}, mirror: {{host: {shadow}}}, mirrorPercentage: {{value: 100}}}}]",
        to(host)
    );
    let services = service(host, &[(&main, "")]) + &service(shadow, &[(&mirror, "")]);
    edge.apply("mirror", &(services + &routes(host, &http))).await?;
    edge.expect(&edge.call(host, "/ready"), 204).await?;
    for _ in 0..5 {
        ensure!(edge.answered(host).await? == "main", "the mirror answered");
    }
    wait::until("the copies", wait::STEP, || async {
        ensure!(mirror.requests() == 5, "{} copies", mirror.requests());
        Ok(())
    })
    .await?;
    ensure!(main.requests() == 5, "{} requests", main.requests());
    Ok(())
}

pub async fn cors_preflight(edge: &Edge) -> Result<()> {
    let backend = Backend::echo("cors").await?;
    let http = "[{corsPolicy: {allowOrigins: [{exact: 'https://app.test'}], allowMethods: [GET, PUT], \
                allowHeaders: [x-token], maxAge: 24h}, TO}]";
    let host = one(edge, "cors", &backend, http).await?;
    let preflight = edge
        .call(&host, "/")
        .method(Method::OPTIONS)
        .header("origin", "https://app.test")
        .header("access-control-request-method", "PUT");
    let answer = edge.expect(&preflight, 200).await?;
    ensure!(backend.requests() == 0, "the preflight has arrived at the backend");
    ensure!(answer.header("access-control-allow-origin") == "https://app.test", "{answer:?}");
    ensure!(answer.header("access-control-allow-methods").contains("PUT"), "{answer:?}");
    ensure!(answer.header("access-control-max-age") == "86400", "{answer:?}");
    let answer = edge.call(&host, "/").header("origin", "https://app.test").send().await?.ok()?;
    ensure!(answer.header("access-control-allow-origin") == "https://app.test", "{answer:?}");
    Ok(())
}
