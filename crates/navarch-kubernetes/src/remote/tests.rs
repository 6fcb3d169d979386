//! A cluster with Secrets, and two others, each in memory.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use navarch_testkit::cluster::Cluster;
use navarch_testkit::wait;
use serde_json::{Value, json};

use super::*;

const SECRETS: &str = "/api/v1/namespaces/istio-system/secrets";
const PODS: &str = "/api/v1/pods";
const PATIENCE: Duration = Duration::from_secs(2);

fn collection(kind: Kind) -> String {
    let version = kind.versions()[0];
    match kind.group() {
        "" => format!("/api/{version}/{}", kind.plural()),
        group => format!("/apis/{group}/{version}/{}", kind.plural()),
    }
}

async fn other() -> Result<Cluster> {
    Cluster::start(KINDS.map(collection)).await
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop"}})
}

fn secret(name: &str, clusters: &[(&str, String)]) -> Value {
    let data = clusters.iter().map(|(name, text)| ((*name).to_owned(), json!(BASE64.encode(text))));
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name, "namespace": "istio-system", "labels": {"istio/multiCluster": "true"},
        },
        "data": data.collect::<serde_json::Map<_, _>>(),
    })
}

/// What the source has said, as it is now.
struct Rig {
    source: RemoteClusters,
    says: BTreeSet<String>,
    findings: BTreeMap<String, String>,
    complete: bool,
}

impl Rig {
    async fn start(main: &Cluster, directory: &Path, kept: bool) -> Result<Self> {
        let options = Options {
            local: "main".into(),
            secrets: Some((
                Access { kubeconfig: Some(Cluster::kubeconfig(directory, main.address())?), context: None },
                "istio-system".to_owned(),
            )),
            files: BTreeMap::new(),
            namespaces: BTreeSet::new(),
            kept: kept.then(|| directory.join("kept")),
            patience: PATIENCE,
        };
        let source = RemoteClusters::follow(options).await?;
        Ok(Rig { source, says: BTreeSet::new(), findings: BTreeMap::new(), complete: false })
    }

    fn read(&mut self) -> Result<()> {
        let batch = self.source.read()?;
        self.complete |= batch.complete;
        for (place, update) in batch.places {
            let place = place.display().to_string();
            self.findings.remove(&place);
            match update {
                Update::Says(parsed) if parsed.objects.is_empty() => {
                    let findings = parsed.findings.iter().map(ToString::to_string);
                    self.findings.insert(place, findings.collect::<Vec<_>>().join("; "));
                }
                Update::Says(parsed) => {
                    let object = &parsed.objects[0];
                    let cluster = object.key.cluster.remote_name();
                    assert!(place.starts_with(&*cluster.expect("another cluster")), "{place}");
                    self.says.insert(place);
                }
                Update::Unreadable(finding) => panic!("{finding}"),
                Update::Gone => _ = self.says.remove(&place),
            }
        }
        Ok(())
    }

    /// Waits until it says exactly these.
    async fn until(&mut self, expected: &[&str]) -> Result<()> {
        let mut waited = tokio::time::Instant::now();
        let deadline = waited + wait::STEP;
        loop {
            self.read()?;
            let says: Vec<&str> = self.says.iter().map(String::as_str).collect();
            if says == expected {
                return Ok(());
            }
            ensure!(waited < deadline, "{says:?} and not {expected:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
            waited = tokio::time::Instant::now();
        }
    }

    /// Waits until a cluster is in a state, and gives what is said of it.
    async fn until_state(&self, name: &str, state: State) -> Result<Report> {
        let remotes = self.source.remotes();
        wait::until("a state", wait::STEP, || async {
            let report = remotes.reports().into_iter().find(|report| report.name == name);
            let report = report.with_context(|| format!("{name} is not known"))?;
            ensure!(report.state == state, "{report:?}");
            Ok(report)
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_dies_takes_nothing_away_and_hinders_no_other() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let main = Cluster::start([SECRETS]).await?;
    let (mut west, north) = (other().await?, other().await?);
    let kubeconfig = |cluster: &Cluster| -> Result<String> {
        Ok(std::fs::read_to_string(Cluster::kubeconfig(directory.path(), cluster.address())?)?)
    };
    let both = [("west", kubeconfig(&west)?), ("north", kubeconfig(&north)?)];
    main.put(SECRETS, &secret("others", &both));
    west.put(PODS, &pod("a"));
    north.put(PODS, &pod("a"));
    let mut rig = Rig::start(&main, directory.path(), true).await?;
    rig.until(&["north/Pod/shop/a", "west/Pod/shop/a"]).await?;
    wait::until_true("all of it", wait::STEP, || {
        let complete = rig.read().map(|()| rig.complete);
        async move { complete }
    })
    .await?;
    assert_eq!(rig.until_state("west", State::Synced).await?.objects, 1);

    west.stop();
    let silent = rig.until_state("west", State::Silent).await?;
    assert!(silent.silent_ms.is_some() && !silent.reason.is_empty() && silent.objects == 1, "{silent:?}");
    assert_eq!(silent.from, "Secret istio-system/others");
    north.put(PODS, &pod("b"));
    rig.until(&["north/Pod/shop/a", "north/Pod/shop/b", "west/Pod/shop/a"]).await?;
    assert_ne!(rig.source.settled(), Settled::Listing, "the others do not wait for it");

    // What cannot be used changes nothing, and is told.
    let exec = kubeconfig(&west)?.replace("\"user\":{}", "\"user\":{\"exec\":{\"command\":\"/bin/false\"}}");
    assert!(exec.contains("/bin/false"), "{exec}");
    main.put(SECRETS, &secret("others", &[("west", exec), ("north", kubeconfig(&north)?)]));
    let remotes = rig.source.remotes();
    wait::until("what is wrong", wait::STEP, || {
        let read = rig.read();
        let said = rig.findings.values().next().cloned();
        async move {
            read?;
            let said = said.context("nothing is said")?;
            ensure!(said.contains("main/Secret/istio-system/others") && said.contains("has exec"), "{said}");
            Ok(())
        }
    })
    .await?;
    ensure!(rig.says.len() == 3, "{:?}", rig.says);
    ensure!(remotes.reports().iter().any(|report| report.name == "west" && report.objects == 1));

    // It is back at another address, without what it had and with something else.
    west = other().await?;
    west.put(PODS, &pod("c"));
    main.put(SECRETS, &secret("others", &[("west", kubeconfig(&west)?), ("north", kubeconfig(&north)?)]));
    rig.until(&["north/Pod/shop/a", "north/Pod/shop/b", "west/Pod/shop/c"]).await?;
    rig.until_state("west", State::Synced).await?;
    ensure!(rig.findings.is_empty(), "{:?}", rig.findings);

    // A start while it is away, with what it said last; and one that is not to be followed any more.
    drop(rig);
    west.stop();
    let mut rig = Rig::start(&main, directory.path(), true).await?;
    rig.until(&["north/Pod/shop/a", "north/Pod/shop/b", "west/Pod/shop/c"]).await?;
    rig.until_state("west", State::Silent).await?;
    main.remove(SECRETS, "istio-system", "others");
    rig.until(&[]).await?;
    ensure!(remotes_of(&rig).is_empty(), "{:?}", remotes_of(&rig));
    wait::until("what is kept of it to go", wait::STEP, || async {
        ensure!(!directory.path().join("kept/west").exists(), "it stays");
        Ok(())
    })
    .await
}

fn remotes_of(rig: &Rig) -> Vec<Report> {
    rig.source.remotes().reports()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_waits_for_a_cluster_that_is_away_for_a_while_only() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let main = Cluster::start([SECRETS]).await?;
    let (mut west, north) = (other().await?, other().await?);
    north.put(PODS, &pod("a"));
    let kubeconfig = |cluster: &Cluster| -> Result<String> {
        Ok(std::fs::read_to_string(Cluster::kubeconfig(directory.path(), cluster.address())?)?)
    };
    let both = [("west", kubeconfig(&west)?), ("north", kubeconfig(&north)?)];
    main.put(SECRETS, &secret("others", &both));
    west.stop();
    let begun = tokio::time::Instant::now();
    let mut rig = Rig::start(&main, directory.path(), false).await?;
    rig.until(&["north/Pod/shop/a"]).await?;
    let is_early = begun.elapsed() < PATIENCE;
    ensure!(!(is_early && rig.complete), "nobody has waited for it");
    wait::until_true("the end of patience", wait::STEP, || {
        let complete = rig.read().map(|()| rig.complete);
        async move { complete }
    })
    .await?;
    west.start_again().await?;
    west.put(PODS, &pod("b"));
    rig.until(&["north/Pod/shop/a", "west/Pod/shop/b"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_cannot_be_used_stands_in_nobodys_way() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let main = Cluster::start([SECRETS]).await?;
    let west = other().await?;
    west.put(PODS, &pod("a"));
    let good = std::fs::read_to_string(Cluster::kubeconfig(directory.path(), west.address())?)?;
    let bad = good.replace("\"user\":{}", "\"user\":{\"tokenFile\":\"/etc/shadow\"}");
    ensure!(bad != good, "{good}");
    main.put(SECRETS, &secret("a", &[("west", bad.clone())]));
    main.put(SECRETS, &secret("b", &[("west", good.clone())]));
    main.put(SECRETS, &secret("c", &[("west", good.clone())]));
    let mut rig = Rig::start(&main, directory.path(), true).await?;
    rig.until(&["west/Pod/shop/a"]).await?;
    assert_eq!(rig.until_state("west", State::Synced).await?.from, "Secret istio-system/b");
    wait::until_true("both to be told", wait::STEP, || {
        let read = rig.read();
        let said = rig.findings.values().cloned().collect::<Vec<_>>().join("; ");
        let told = said.contains("tokenFile") && said.contains("Secret istio-system/b says so already");
        async move { read.map(|()| told) }
    })
    .await?;

    // None can be used any more, and later none while nobody was there to see one that could.
    let broken = |rig: &mut Rig| {
        main.put(SECRETS, &secret("b", &[("west", bad.clone())]));
        main.put(SECRETS, &secret("c", &[("west", bad.clone())]));
        rig.read()
    };
    broken(&mut rig)?;
    rig.until(&["west/Pod/shop/a"]).await?;
    drop(rig);
    std::fs::create_dir_all(directory.path().join("kept/gone"))?;
    let mut rig = Rig::start(&main, directory.path(), true).await?;
    rig.until(&["west/Pod/shop/a"]).await?;
    let report = rig.until_state("west", State::Silent).await?;
    ensure!(report.reason.contains("tokenFile"), "{report:?}");
    wait::until("what is kept of a cluster that nobody names to go", wait::STEP, || async {
        ensure!(!directory.path().join("kept/gone").exists(), "it stays");
        Ok(())
    })
    .await?;
    ensure!(directory.path().join("kept/west").exists(), "what is told is kept");
    west.put(PODS, &pod("b"));
    main.put(SECRETS, &secret("c", &[("west", good)]));
    rig.until(&["west/Pod/shop/a", "west/Pod/shop/b"]).await?;
    rig.until_state("west", State::Synced).await.map(|_| ())
}
