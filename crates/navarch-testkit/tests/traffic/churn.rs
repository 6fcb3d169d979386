//! Routes that change, and services that come and go, while calls are running.

use super::{
    backend::Backend,
    edge::{Edge, routes, service, to},
    restarts::Load,
};
use anyhow::{Context, Result, ensure};
use http::StatusCode;
use navarch_testkit::wait;

const HOST: &str = "churning.traffic.test";

/// How long it goes on.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How often the route under load changes.
    pub edits: usize,
    /// How many calls there are at least.
    pub calls: u64,
}

impl Plan {
    /// Short, unless `NAVARCH_EDITS` says how many edits and `NAVARCH_EDIT_CALLS` how many calls.
    pub fn from_environment() -> Result<Plan> {
        let number = |name: &str, otherwise: u64| match std::env::var(name) {
            Ok(text) => text.parse().with_context(|| format!("{name}={text}")),
            Err(_) => Ok(otherwise),
        };
        Ok(Plan {
            edits: usize::try_from(number("NAVARCH_EDITS", 40)?)?,
            calls: number("NAVARCH_EDIT_CALLS", 0)?,
        })
    }
}

/// No call is lost while the route changes, and with every tenth edit a service comes and another goes.
pub async fn nothing_is_lost_while_routes_and_services_change(edge: &Edge, plan: Plan) -> Result<()> {
    let backend = Backend::echo("one").await?;
    let edit = |nth: usize| {
        let headers = format!("headers: {{response: {{set: {{x-edit: '{nth}'}}}}}}");
        routes(HOST, &format!("[{{retries: {{attempts: 0}}, {headers}, {}}}]", to(HOST)))
    };
    edge.apply("churning-service", &service(HOST, &[(&backend, "")])).await?;
    edge.apply("churning", &edit(0)).await?;
    wait_for(edge, 0).await?;
    let sent = sent(edge).await?;

    let load = Load::start(edge.port, HOST);
    let mut passing = 0;
    let mut nth = 0;
    while nth < plan.edits || load.calls() < plan.calls {
        nth += 1;
        edge.server.write("churning.yaml", &edit(nth))?;
        if nth % 10 == 0 {
            passing += 1;
            let host = format!("passing-{passing}.traffic.test");
            let come = service(&host, &[(&backend, "")]) + &routes(&host, &format!("[{{{}}}]", to(&host)));
            edge.server.write(&format!("passing-{}.yaml", passing % 2), &come)?;
            edge.expect(&edge.call(&host, "/"), 200).await?;
        }
        wait_for(edge, nth).await?;
    }
    // The one before the last has gone.
    let gone = format!("passing-{}.traffic.test", passing - 2);
    let status = edge.call(&gone, "/").send().await?.status;
    ensure!(status == StatusCode::NOT_FOUND, "{status} from {gone}");
    let lost = load.finish().await?;
    println!("{} calls, {nth} edits, {passing} services, {} lost", lost.calls, lost.answers.len());
    ensure!(lost.answers.is_empty(), "{plan:?}: lost {:?}", lost.answers.iter().take(5).collect::<Vec<_>>());
    // Routes are sent as virtual hosts, and nothing else of them is.
    let after = self::sent(edge).await?;
    ensure!(after.0 == sent.0, "the route configuration was sent {} times", after.0 - sent.0);
    ensure!(after.1 > sent.1, "no virtual host was sent");
    Ok(())
}

/// A gateway that runs with whole route configurations keeps them so when the server would split them: to
/// change the form while it serves loses calls.
pub async fn nothing_is_lost_when_routes_are_to_be_split(edge: &mut Edge) -> Result<()> {
    let backend = Backend::echo("one").await?;
    let edit = |nth: usize| {
        let headers = format!("headers: {{response: {{set: {{x-edit: '{nth}'}}}}}}");
        routes(HOST, &format!("[{{retries: {{attempts: 0}}, {headers}, {}}}]", to(HOST)))
    };
    edge.apply("churning-service", &service(HOST, &[(&backend, "")])).await?;
    edge.apply("churning", &edit(0)).await?;
    wait_for(edge, 0).await?;
    ensure!(sent(edge).await?.1 == 0, "virtual hosts are resources already");
    let load = Load::start(edge.port, HOST);
    for (nth, form) in ["split", "split", "whole", "split"].into_iter().enumerate() {
        edge.server.restart_with(&["--routes", form]).await?;
        edge.server.write("churning.yaml", &edit(nth + 1))?;
        wait_for(edge, nth + 1).await?;
    }
    let lost = load.finish().await?;
    ensure!(lost.answers.is_empty(), "lost {:?}", lost.answers.iter().take(5).collect::<Vec<_>>());
    ensure!(sent(edge).await?.1 == 0, "virtual hosts became resources");
    Ok(())
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

/// How often Envoy was sent route configurations, and virtual hosts.
async fn sent(edge: &Edge) -> Result<(u64, u64)> {
    let sum = async |filter: &str| anyhow::Ok(edge.envoy.stats(filter).await?.values().sum::<u64>());
    Ok((sum(r"\.rds\.http\..*update_success$").await?, sum(r"\.rds\.vhds\..*update_success$").await?))
}
