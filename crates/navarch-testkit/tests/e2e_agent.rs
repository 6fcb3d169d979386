//! `navarch agent` with a real Envoy: from two commands to mutual TLS, and what it survives.

mod common;

use std::path::Path;

use anyhow::{Result, ensure};
use common::minute::Mesh;
use navarch_testkit::http::Call;
use navarch_testkit::{envoy, wait, workspace};

#[tokio::test(flavor = "multi_thread")]
async fn two_applications_talk_mutual_tls() -> Result<()> {
    let mesh = Mesh::start("minute").await?;
    let mut greeter = mesh.greeter(&[])?;
    let application = format!("http://127.0.0.1:{}/metrics", mesh.application);
    let more = ["--sotw", "--app-metrics", &application];
    let mut caller = mesh.agent("caller", &more, &[])?;
    mesh.greeted().await?;
    greeter.wait_live().await?;
    caller.wait_live().await?;
    ensure!(caller.stats(".ssl.handshake").await? > 0, "the greeting came in plaintext");
    // Who speaks plaintext is not heard.
    let plain = Call::get(format!("http://{}/", mesh.inbound)).send().await;
    ensure!(plain.is_err(), "{plain:?}");
    for agent in [&greeter, &caller] {
        let refused = ["update_rejected", "listener_create_failure"];
        for statistic in refused {
            ensure!(agent.stats(statistic).await? == 0, "{statistic}");
        }
    }
    // Ready, through Envoy too; metrics of all three, of whom the application has one that is none.
    let through = Call::get(format!("http://{}/healthz/ready", caller.ready())).send().await?.ok()?.text();
    ensure!(through == "ready\n", "{through}");
    ensure!(greeter.get("/healthz/ready").await?.ok()?.text() == "ready\n", "the agent");
    let metrics = caller.get("/stats/prometheus").await?.ok()?.text();
    for line in ["navarch_agent_connected_streams 1\n", "envoy_server_live", "hello, nobody\n", "_failed{"] {
        ensure!(metrics.contains(line), "no {line} in {metrics}");
    }
    // The key stays in the agent's directory, which is nobody else's.
    let kept = std::fs::metadata(greeter.directory().join("workload.pem"))?;
    let mode = std::os::unix::fs::PermissionsExt::mode(&kept.permissions());
    ensure!(mode & 0o077 == 0, "{mode:o}");
    let dump = greeter.envoy("/config_dump").await?.text();
    ensure!(dump.contains("ROOTCA") && !dump.contains("PRIVATE KEY"), "a key is shown");

    // What comes in is let go, the application is told to end, and then Envoy.
    let status = greeter.terminate().await?;
    ensure!(status.code() == Some(128 + 15), "COMMAND ended by SIGTERM, the agent with {status}");
    ensure!(caller.post("/quitquitquit").await?.ok()?.text() == "ok\n", "it ends");
    caller.ended().await
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_control_plane_is_away_proxies_start() -> Result<()> {
    let mut mesh = Mesh::start("away").await?;
    let mut greeter = mesh.greeter(&[])?;
    let mut caller = mesh.agent("caller", &[], &[])?;
    mesh.greeted().await?;
    greeter.wait_live().await?;
    caller.wait_live().await?;

    // Proxies do not notice that it goes, nor that it comes back.
    mesh.server.kill();
    caller.said("no stream to the control plane", 1).await?;
    mesh.greeted().await?;

    // An Envoy that crashes is started again, and has its configuration from the agent.
    let before = caller.envoy_id()?;
    caller.signal_envoy("KILL")?;
    caller.said("Envoy is ready", 2).await?;
    ensure!(caller.envoy_id()? != before, "the same Envoy");
    mesh.greeted().await?;

    // So does a machine that is started again.
    ensure!(caller.terminate().await?.success());
    caller.launch()?;
    caller.said("Envoy is ready", 3).await?;
    mesh.greeted().await?;

    mesh.server.restart().await?;
    let newest = wait::until("both to be in sync again", wait::STEP, || async {
        let fleet = mesh.server.fleet().await?;
        let proxies = fleet["proxies"].as_array().map_or(0, Vec::len);
        ensure!(proxies == 2, "{fleet}");
        mesh.server.revision().await
    });
    let newest = newest.await?;
    let text = std::fs::read_to_string(mesh.server.config().join("mesh.yaml"))?;
    mesh.server.write("mesh.yaml", &text.replace("STRICT", "PERMISSIVE"))?;
    mesh.server.reached_since(newest).await?;
    mesh.greeted().await
}

/// Neither Envoy nor the application notice that their agent has gone, and the next agent goes on with them.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_loses_nothing() -> Result<()> {
    let mesh = Mesh::start("takeover").await?;
    let mut greeter = mesh.greeter(&[])?;
    let caller = mesh.agent("caller", &[], &[])?;
    mesh.greeted().await?;
    greeter.said("Envoy is ready", 1).await?;
    let envoy = greeter.envoy_id()?;

    greeter.kill();
    mesh.greeted().await?;
    greeter.launch()?;
    greeter.said("the Envoy of an agent before is taken over", 1).await?;
    greeter.said("Envoy is ready", 2).await?;
    ensure!(greeter.envoy_id()? == envoy, "another Envoy");
    ensure!(greeter.log().matches("COMMAND is started").count() == 1, "the application was started again");
    mesh.greeted().await?;

    // Changes reach it, and it is as ready as before.
    let revision = wait::until("both to be there", wait::STEP, || async {
        let fleet = mesh.server.fleet().await?;
        ensure!(fleet["proxies"].as_array().is_some_and(|proxies| proxies.len() == 2), "{fleet}");
        mesh.server.revision().await
    });
    let revision = revision.await?;
    let text = std::fs::read_to_string(mesh.server.config().join("mesh.yaml"))?;
    mesh.server.write("mesh.yaml", &text.replace("STRICT", "PERMISSIVE"))?;
    mesh.server.reached_since(revision).await?;
    ensure!(greeter.get("/healthz/ready").await?.ok()?.text() == "ready\n", "the agent");

    // It can end them, too.
    greeter.terminate().await?;
    // Not its number, here too.
    ensure!(greeter.envoy("/server_info").await.is_err(), "Envoy is left behind");
    drop(caller);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_is_that_of_command() -> Result<()> {
    let mesh = Mesh::start("status").await?;
    let mut agent = mesh.agent("caller", &[], &["/bin/sh", "-c", "exit 7"])?;
    agent.ended().await?;
    let log = agent.log();
    ensure!(log.contains("COMMAND has ended code=7"), "{log}");
    let ready = log.find("Envoy is ready").unwrap_or(log.len());
    let started = log.find("COMMAND is started").unwrap_or_default();
    ensure!(ready < started, "COMMAND was started first: {log}");
    // Not its number: nobody may wait for a process whose parent is init.
    ensure!(agent.envoy("/server_info").await.is_err(), "Envoy is left behind");
    Ok(())
}

/// Envoys hand over to others while calls go through both: because somebody asks for it, and because the next
/// agent would start another one.
#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_hands_over_without_a_lost_call() -> Result<()> {
    let mesh = Mesh::start("handover").await?;
    let quick = ["--drain-duration", "1s", "--parent-shutdown-duration", "2s"];
    let mut greeter = mesh.greeter(&quick)?;
    let caller = mesh.agent("caller", &quick, &[])?;
    mesh.greeted().await?;
    greeter.said("Envoy is ready", 1).await?;
    caller.said("Envoy is ready", 1).await?;
    let load = mesh.load();
    for times in 1..=3 {
        for agent in [&greeter, &caller] {
            let before = agent.envoy_id()?;
            ensure!(agent.post("/hot-restart").await?.ok()?.text() == "ok\n", "it hands over");
            ensure!(agent.envoy_id()? != before, "the same Envoy");
            ensure!(agent.get("/healthz/ready").await?.ok()?.text() == "ready\n", "ready");
            agent.said("the Envoy that has handed over has ended", times).await?;
        }
    }
    let epoch = greeter.envoy("/server_info").await?.text();
    ensure!(epoch.contains("\"restart_epoch\": 3"), "{epoch}");

    greeter.kill();
    greeter.add(&["--label", "tier=gold"]);
    greeter.launch()?;
    greeter.said("Envoy is restarted: its program or its bootstrap has changed", 1).await?;
    greeter.said("Envoy is ready", 6).await?;
    let node = greeter.envoy("/server_info").await?.text();
    ensure!(node.contains("gold") && node.contains("\"restart_epoch\": 4"), "{node}");
    load.finish().await.map(drop)
}

/// Certificates of some seconds, under calls: every one is answered.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_without_a_lost_call() -> Result<()> {
    let mesh = Mesh::start("rotation").await?;
    let greeter = mesh.greeter(&["--certificate-life", "16s"])?;
    let caller = mesh.agent("caller", &["--certificate-life", "16s"], &[])?;
    mesh.greeted().await?;
    let load = mesh.load();
    greeter.said("the workload has a certificate", 3).await?;
    caller.said("the workload has a certificate", 3).await?;
    load.finish().await.map(drop)
}

/// The next Envoy is one that ends: the one before goes on as if nobody had asked, and hands over when there
/// is one that does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_handover_that_fails_loses_nothing() -> Result<()> {
    let mesh = Mesh::start("failed-handover").await?;
    let quick = ["--drain-duration", "1s", "--parent-shutdown-duration", "2s"];
    let mut greeter = mesh.greeter(&quick)?;
    let _caller = mesh.agent("caller", &quick, &[])?;
    mesh.greeted().await?;
    // From now on the Envoy is what a link leads to.
    let directory = workspace::scratch("failed-handover-envoy")?;
    let (link, next) = (directory.join("envoy"), directory.join("next"));
    let replace = |with: &Path| -> Result<()> {
        let _ = std::fs::remove_file(&next);
        std::os::unix::fs::symlink(with, &next)?;
        Ok(std::fs::rename(&next, &link)?)
    };
    let usual = envoy::binary()?;
    replace(&usual)?;
    greeter.terminate().await?;
    greeter.use_envoy(&link);
    greeter.launch()?;
    mesh.greeted().await?;
    greeter.said("Envoy is ready", 2).await?;

    let load = mesh.load();
    let broken = directory.join("broken");
    std::fs::write(&broken, "#!/bin/sh\ncase \"$*\" in *validate*) exit 0;; esac\nexit 3\n")?;
    std::fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    replace(&broken)?;
    let before = greeter.envoy_id()?;
    for _ in 0..3 {
        let answer = greeter.post("/hot-restart").await?;
        let said = answer.text();
        ensure!(!answer.status.is_success() && said.contains("the one before goes on"), "{said}");
        ensure!(greeter.envoy_id()? == before, "another Envoy");
        ensure!(greeter.get("/healthz/ready").await?.ok()?.text() == "ready\n", "ready");
    }
    replace(&usual)?;
    ensure!(greeter.post("/hot-restart").await?.ok()?.text() == "ok\n", "it hands over");
    ensure!(greeter.envoy_id()? != before, "the same Envoy");
    load.finish().await.map(drop)
}
