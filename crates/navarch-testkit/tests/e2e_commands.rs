//! What commands say of a server and its replicas: revisions that mean the same everywhere, objects and whom
//! they reach.

mod common;

use anyhow::{Context, Result, ensure};
use common::{Fixture, routes};
use navarch_testkit::http::Call;
use navarch_testkit::navarch::{self, Server};

/// The revision that a command speaks of: its number, and what is configured in it.
fn revision_of(said: &str) -> Result<(String, String)> {
    let name = said.split_whitespace().nth(1).context("no revision")?;
    let (number, content) = name.split_once('-').context("no content")?;
    ensure!(content.len() == 12, "{said}");
    Ok((number.to_owned(), content.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_is_known_by_what_is_configured_on_every_replica_and_after_a_restart() -> Result<()> {
    let fixture = Fixture::new("commands-revisions").await?;
    let mut first = fixture.serve("commands-first").await?;
    let _envoy = fixture.sidecar("commands-envoy", first.xds()).await?;
    let before = revision_of(&first.command(&["wait"])?)?;
    fixture.write("routes.yaml", &routes("v2"))?;
    let after = revision_of(&first.command(&["wait"])?)?;
    assert_ne!(before, after);

    // Another replica starts with what is there now.
    let second = Server::start("commands-second", &fixture.config).await?;
    let name = format!("{}-{}", after.0, after.1);
    let wait = ["wait", "--revision", &name, "--proxies", "0", "--timeout", "5s"];
    assert_eq!(revision_of(&second.command(&wait)?)?, ("1".to_owned(), after.1.clone()));
    let unknown = format!("{}-{}", before.0, before.1);
    let admin = second.admin().to_string();
    let output = navarch::run(["wait", "--revision", &unknown, "--timeout", "0s", "--admin-addr", &admin])?;
    assert_eq!(output.status.code(), Some(1));

    // Who goes back to what was there before has it again, under a number of its own.
    fixture.write("routes.yaml", &routes("v1"))?;
    assert_eq!(revision_of(&first.command(&["wait"])?)?.1, before.1);
    fixture.write("routes.yaml", &routes("v2"))?;
    first.restart().await?;
    assert_eq!(revision_of(&first.command(&["wait", "--revision", &name])?)?.1, after.1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_waited_for_where_it_matters_and_says_whom_it_reaches() -> Result<()> {
    let fixture = Fixture::new("commands-objects").await?;
    let server = fixture.serve("commands-objects-server").await?;
    let _envoy = fixture.sidecar("commands-objects-envoy", server.xds()).await?;
    let file = fixture.config.join("routes.yaml").display().to_string();
    server.command(&["wait", "--for", &file])?;
    let other = fixture.config.join("../other.yaml");
    std::fs::write(&other, routes("v2"))?;
    let other = other.display().to_string();
    let admin = server.admin().to_string();
    let output = navarch::run(["wait", "--for", &other, "--timeout", "0s", "--admin-addr", &admin])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("VirtualService default/echo is in force with other contents"), "{said}");
    fixture.write("routes.yaml", &routes("v2"))?;
    server.command(&["wait", "--for", &other, "--for", "ServiceEntry/default/echo"])?;
    assert_eq!(fixture.version().await?, "v2");

    let reached = server.command(&["explain", "-f", &file])?;
    let host = format!("virtual host echo.test:{}: spec.http[0] says where requests go", fixture.port);
    for part in ["VirtualService default/echo", "routes.yaml:1:1", "client.default", &host] {
        assert!(reached.contains(part), "no {part} in {reached}");
    }
    let nobody = server.command(&["explain", "--object", "VirtualService/default/nobody"])?;
    assert!(nobody.contains("it is not in force") && nobody.contains("none of 1 connected"), "{nobody}");
    // A part of the name is enough.
    let cluster = format!("outbound|{}|v2|echo.test", fixture.port);
    let explained = server.command(&["explain", "client", "CDS", &cluster])?;
    assert!(explained.contains("DestinationRule default/echo spec.subsets[1]"), "{explained}");

    assert!(server.metric("navarch_xds_push_bytes_total").await? > 1000.0);
    assert!(server.metric("pilot_proxy_convergence_time_count").await? > 0.0);
    assert_eq!(server.metric("pilot_total_xds_rejects").await?, 0.0);
    Ok(())
}

/// What the board of `navarch install --monitor` asks Prometheus for is on the page of a server.
#[tokio::test(flavor = "multi_thread")]
async fn the_board_shows_what_there_is() -> Result<()> {
    let printed = navarch::stdout(["install", "--image", "navarch", "--monitor", "-o", "json"])?;
    let printed: serde_json::Value = serde_json::from_str(&printed)?;
    let objects = printed["items"].as_array().context("a list")?;
    let board = objects.iter().find_map(|object| object["data"]["navarch.json"].as_str());
    let board: serde_json::Value = serde_json::from_str(board.context("no board")?)?;
    let fixture = Fixture::new("commands-board").await?;
    let server = fixture.serve("commands-board-serve").await?;
    let page = Call::get(format!("http://{}/metrics", server.admin())).send().await?.ok()?.text();
    // Those with labels that no server has before something of the kind is there.
    let later = [
        "navarch_remote_clusters",
        "navarch_webhook_answers_total",
        "navarch_source_unheard_seconds",
        "navarch_status_writes_total",
        "pilot_xds",
    ];
    let mut seen = 0;
    let panels = board["panels"].as_array().context("panels")?;
    let queries = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    for query in queries.filter_map(|target| target["expr"].as_str()) {
        let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let is_metric =
            |word: &&str| ["navarch_", "pilot_", "process_"].iter().any(|of| word.starts_with(of));
        for name in words.filter(is_metric).filter(|name| !later.contains(name)) {
            seen += 1;
            ensure!(page.contains(&format!("\n{name}")), "{name} is not on the page");
        }
    }
    ensure!(seen > 10, "only {seen} metrics are asked for");
    Ok(())
}
