//! One follower, and an API server that answers as it is told to.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use kube::Config;
use navarch_model::ClusterId;
use navarch_model::document::WrittenIn;
use navarch_testkit::wait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;
use crate::access::client;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Asked {
    List,
    Rest,
    Watch,
    Ready,
}

/// An answer: a status, more headers, a body.
type Answer = (u16, &'static str, String);

/// An API server. What is asked for more often than there are answers gets the last one again; a
/// watch stays open.
#[derive(Clone)]
struct Scripted {
    address: SocketAddr,
    answers: Arc<Mutex<BTreeMap<Asked, VecDeque<Answer>>>>,
    /// What has been asked, in order.
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Scripted {
    async fn start(answers: impl IntoIterator<Item = (Asked, Vec<Answer>)>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let answers = answers.into_iter().map(|(asked, answers)| (asked, answers.into())).collect();
        let scripted = Scripted {
            address: listener.local_addr()?,
            answers: Arc::new(Mutex::new(answers)),
            asked: Arc::default(),
        };
        let serving = scripted.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serving.clone().answer(connection));
            }
        });
        Ok(scripted)
    }

    async fn answer(self, mut connection: TcpStream) -> Option<()> {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(connection.read_u8().await.ok()?);
        }
        let request = String::from_utf8(request).ok()?;
        let line = request.lines().next()?;
        let asked = match line {
            line if line.contains("/readyz") => Asked::Ready,
            line if line.contains("watch=true") => Asked::Watch,
            line if line.contains("continue=") => Asked::Rest,
            _ => Asked::List,
        };
        self.asked.lock().push(asked);
        let (status, headers, body) = {
            let mut answers = self.answers.lock();
            let answers = answers.get_mut(&asked)?;
            if answers.len() > 1 { answers.pop_front()? } else { answers.front()?.clone() }
        };
        let head = format!("HTTP/1.1 {status} said\r\nconnection: close\r\n{headers}\r\n{body}");
        connection.write_all(head.as_bytes()).await.ok()?;
        if asked == Asked::Watch && status == 200 && !body.contains("ERROR") {
            // Until the other side goes.
            let _ = connection.read_u8().await;
        }
        Some(())
    }

    fn then(&self, asked: Asked, answers: Vec<Answer>) {
        self.answers.lock().insert(asked, answers.into());
    }

    fn count(&self, asked: Asked) -> usize {
        self.asked.lock().iter().filter(|one| **one == asked).count()
    }
}

/// A follower of namespaces, and what it has told so far.
struct Rig {
    feed: Feed,
    said: BTreeMap<String, String>,
    complete: bool,
    following: JoinHandle<()>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl Rig {
    fn start(server: &Scripted) -> Result<Self> {
        Rig::keeping(server, None)
    }

    /// One that keeps what it hears in a directory.
    fn keeping(server: &Scripted, directory: Option<&Path>) -> Result<Self> {
        let config = Config::new(format!("http://{}", server.address).parse()?);
        let feed = Feed::new(["all".to_owned()]);
        let origin = WrittenIn::Cluster { id: ClusterId::LOCAL, name: "c".into() };
        let follower = Follower {
            client: client(config)?,
            reader: Reader { kind: Kind::Namespace, origin, revision: Arc::default() },
            namespace: None,
            labels: "",
            recall_after: RECALL_AFTER,
            feed: feed.clone(),
            part: "all".to_owned(),
            known: BTreeSet::new(),
            statuses: None,
            version: "v1",
            kept: directory.map(|directory| Kept::new(directory, "c", "all")),
            began: false,
            failures: 0,
            pace: Pace {
                wait: Duration::from_millis(1),
                wait_max: Duration::from_millis(20),
                absent: Duration::from_millis(20),
            },
        };
        let following = tokio::spawn(follower.run());
        Ok(Rig { feed, said: BTreeMap::new(), complete: false, following })
    }

    /// What it says now: `name=label`.
    fn now(&mut self) -> String {
        let batch = self.feed.take();
        self.complete = batch.complete;
        for (place, update) in batch.places {
            let place = place.display().to_string().replace("Namespace/", "");
            match update {
                Update::Says(parsed) => {
                    let labels = parsed.objects.iter().filter_map(|object| object.metadata.labels.get("v"));
                    self.said.insert(place, labels.map(|label| label.to_string()).collect());
                }
                Update::Unreadable(finding) => {
                    self.said.insert(place, finding.to_string());
                }
                Update::Gone => {
                    self.said.remove(&place);
                }
            }
        }
        let shown = self.said.iter().map(|(place, label)| format!("{place}={label}"));
        shown.collect::<Vec<_>>().join(" ")
    }

    async fn says(&mut self, expected: &str) -> Result<()> {
        let deadline = Instant::now() + wait::STEP;
        loop {
            let now = self.now();
            if now == expected && self.complete {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "it says {now:?}, complete: {}", self.complete);
            sleep(Duration::from_millis(5)).await;
        }
    }
}

fn namespace(name: &str, label: &str, version: u32) -> Value {
    json!({"metadata": {"name": name, "labels": {"v": label}, "resourceVersion": version.to_string()}})
}

/// A page of a list, of version `version`.
fn page(version: u32, rest: &str, names: &[&str]) -> Answer {
    let items: Vec<_> = names.iter().map(|name| namespace(name, "1", version)).collect();
    let metadata = json!({"resourceVersion": version.to_string(), "continue": rest});
    (200, "", json!({"metadata": metadata, "items": items}).to_string())
}

fn events(events: &[(&str, Value)]) -> Answer {
    let lines = events.iter().map(|(ty, object)| json!({"type": ty, "object": object}).to_string() + "\n");
    (200, "", lines.collect())
}

fn error(code: u16) -> Answer {
    (code, "", json!({"kind": "Status", "code": code, "message": "not today"}).to_string())
}

/// Waits until something has been asked for more often than `count` times.
async fn asked_again(server: &Scripted, asked: Asked, count: usize) -> Result<()> {
    wait::until("to be asked again", wait::STEP, || async {
        ensure!(server.count(asked) > count, "{:?}", server.asked.lock());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn pages_make_a_list_and_events_change_it() -> Result<()> {
    let server = Scripted::start([
        (Asked::List, vec![page(5, "more", &["a", "b"])]),
        (Asked::Rest, vec![page(5, "", &["c"])]),
        (
            Asked::Watch,
            vec![events(&[
                ("MODIFIED", namespace("a", "2", 6)),
                ("DELETED", namespace("b", "1", 7)),
                ("ADDED", namespace("d", "1", 8)),
                ("BOOKMARK", json!({"metadata": {"resourceVersion": "9"}})),
            ])],
        ),
    ])
    .await?;
    let mut rig = Rig::start(&server)?;
    rig.says("a=2 c=1 d=1").await?;
    ensure!(rig.feed.health().report().unheard.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_version_that_is_not_kept_leads_to_a_list_and_only_that_says_what_is_gone() -> Result<()> {
    let expired = events(&[("ERROR", json!({"code": 410, "message": "too old"}))]);
    let server = Scripted::start([
        (
            Asked::List,
            vec![
                page(5, "", &["a", "b"]),
                error(500),
                (200, "", "{\"metadata\": {\"res".to_owned()),
                page(9, "", &["b"]),
            ],
        ),
        (Asked::Watch, vec![expired, events(&[])]),
    ])
    .await?;
    let mut rig = Rig::start(&server)?;
    rig.says("b=1").await?;
    ensure!(server.count(Asked::List) == 4, "{:?}", server.asked.lock());
    let report = rig.feed.health().report();
    ensure!((report.relists, report.failures, report.unheard.len()) == (1, 2, 0), "{report:?}");
    Ok(())
}

#[tokio::test]
async fn a_list_that_breaks_off_between_pages_tells_nothing() -> Result<()> {
    let server = Scripted::start([
        (Asked::List, vec![page(5, "more", &["a", "b"])]),
        (Asked::Rest, vec![error(410)]),
        (Asked::Watch, vec![events(&[])]),
    ])
    .await?;
    let mut rig = Rig::start(&server)?;
    asked_again(&server, Asked::Rest, 3).await?;
    ensure!(rig.now().is_empty() && !rig.complete, "{:?}", rig.said);
    server.then(Asked::Rest, vec![page(5, "", &["c"])]);
    rig.says("a=1 b=1 c=1").await
}

#[tokio::test]
async fn a_server_that_is_busy_is_waited_for() -> Result<()> {
    let busy = (429, "retry-after: 1\r\n", json!({"code": 429, "message": "busy"}).to_string());
    let server =
        Scripted::start([(Asked::List, vec![busy, page(5, "", &["a"])]), (Asked::Watch, vec![events(&[])])])
            .await?;
    let mut rig = Rig::start(&server)?;
    rig.says("a=1").await
}

#[test]
fn each_failure_is_waited_for_longer_and_what_the_server_asks_for_counts() {
    let check = |failures: u32, spread: f64, asked: Option<u64>, milliseconds: u64| {
        let time = waiting_time(&Pace::default(), failures, spread, asked.map(Duration::from_secs));
        let expected = Duration::from_millis(milliseconds);
        assert_eq!(time, expected, "{failures} failures, spread {spread}, asked for {asked:?}");
    };
    check(1, 0.0, None, 50);
    check(1, 1.0, None, 100);
    check(2, 0.0, None, 100);
    check(3, 0.5, None, 300);
    check(8, 0.0, None, 5_000);
    check(u32::MAX, 1.0, None, 10_000);
    check(1, 0.0, Some(0), 50);
    check(1, 0.0, Some(1), 1_000);
    check(8, 0.0, Some(1), 5_000);
    check(1, 0.0, Some(3_600), 30_000);
}

#[tokio::test]
async fn a_kind_that_is_not_there_is_nothing_to_wait_for_and_may_come() -> Result<()> {
    let server = Scripted::start([
        (Asked::List, vec![error(404)]),
        (Asked::Watch, vec![events(&[])]),
        (Asked::Ready, vec![error(500)]),
    ])
    .await?;
    // The API server may not know it yet: only one that is ready tells.
    let mut rig = Rig::start(&server)?;
    asked_again(&server, Asked::Ready, 2).await?;
    ensure!(rig.now().is_empty() && !rig.complete, "it is believed before it is ready");
    server.then(Asked::Ready, vec![(200, "", "ok".to_owned())]);
    rig.says("").await?;
    server.then(Asked::List, vec![page(5, "", &["a"])]);
    rig.says("a=1").await?;
    drop(rig);

    // It is gone, or not known again.
    server.then(Asked::Ready, vec![error(500)]);
    server.then(Asked::Watch, vec![events(&[("ERROR", json!({"code": 410}))])]);
    server.then(Asked::List, vec![page(5, "", &["a"]), error(404)]);
    let mut rig = Rig::start(&server)?;
    rig.says("a=1").await?;
    asked_again(&server, Asked::Ready, server.count(Asked::Ready) + 2).await?;
    ensure!(rig.now() == "a=1", "{:?}", rig.said);
    ensure!(rig.feed.health().report().unheard == ["all"], "{:?}", rig.feed.health().report());
    server.then(Asked::Ready, vec![(200, "", "ok".to_owned())]);
    rig.says("").await
}

#[tokio::test]
async fn a_kind_that_stays_absent_wakes_nobody_and_is_not_written_again() -> Result<()> {
    let server = Scripted::start([
        (Asked::List, vec![page(5, "", &["a"])]),
        (Asked::Watch, vec![events(&[])]),
        (Asked::Ready, vec![error(500)]),
    ])
    .await?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("all");
    let mut rig = Rig::keeping(&server, Some(directory.path()))?;
    rig.says("a=1").await?;
    wait::until("the list to be kept", wait::STEP, || async { Ok(std::fs::metadata(&file)?) }).await?;
    drop(rig);

    // While the API server starts, what it said before is not written over.
    let before = std::fs::read_to_string(&file)?;
    ensure!(before.contains("Namespace/a"), "{before}");
    server.then(Asked::List, vec![error(404)]);
    let mut rig = Rig::keeping(&server, Some(directory.path()))?;
    asked_again(&server, Asked::Ready, 2).await?;
    ensure!(std::fs::read_to_string(&file)? == before, "it is not kept any more");
    server.then(Asked::Ready, vec![(200, "", "ok".to_owned())]);
    rig.says("").await?;
    ensure!(!std::fs::read_to_string(&file)?.contains("Namespace/a"), "what is gone is kept");

    // That it is complete was told.
    rig.feed.told().await;
    std::fs::remove_file(&file)?;
    let ready = server.count(Asked::Ready);
    asked_again(&server, Asked::List, server.count(Asked::List) + 3).await?;
    let woken = tokio::time::timeout(Duration::from_millis(1), rig.feed.told()).await;
    ensure!(woken.is_err(), "nothing has changed");
    ensure!(!file.exists() && server.count(Asked::Ready) == ready, "{:?}", server.asked.lock());
    Ok(())
}

#[tokio::test]
async fn what_was_heard_is_served_when_the_server_is_away_from_the_start() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = Scripted::start([
        (Asked::List, vec![page(5, "", &["a", "b", "c"])]),
        (
            Asked::Watch,
            vec![events(&[("DELETED", namespace("c", "1", 6)), ("ADDED", namespace("d", "2", 7))])],
        ),
    ])
    .await?;
    let mut rig = Rig::keeping(&server, Some(directory.path()))?;
    rig.says("a=1 b=1 d=2").await?;
    // What was told is kept a moment later.
    wait::until("the change to be kept", wait::STEP, || async {
        let text = std::fs::read_to_string(directory.path().join("all"))?;
        ensure!(text.contains("Namespace/d"), "{text}");
        Ok(())
    })
    .await?;
    drop(rig);

    for status in [500, 503, 429] {
        server.then(Asked::List, vec![error(status)]);
        let mut rig = Rig::keeping(&server, Some(directory.path()))?;
        rig.says("a=1 b=1 d=2").await?;
        ensure!(rig.feed.health().report().unheard == ["all"], "it is said that nobody was heard");
    }
    // Who may not read it is not served what others could.
    server.then(Asked::List, vec![error(403)]);
    let mut refused = Rig::keeping(&server, Some(directory.path()))?;
    asked_again(&server, Asked::List, server.count(Asked::List) + 10).await?;
    ensure!(refused.now().is_empty() && !refused.complete, "{:?}", refused.said);
    drop(refused);

    server.then(Asked::List, vec![error(500)]);
    let mut rig = Rig::keeping(&server, Some(directory.path()))?;
    rig.says("a=1 b=1 d=2").await?;
    server.then(Asked::Watch, vec![events(&[])]);
    server.then(Asked::List, vec![page(9, "", &["b"])]);
    rig.says("b=1").await
}
