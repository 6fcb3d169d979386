//! The pipeline: from "something may have changed" to a published revision.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use navarch_model::finding::{Finding, Severity};
use navarch_plan::{Fates, TranslationFindings};
use navarch_snapshot::world::Options;
use navarch_snapshot::{Places, Snapshot, World};
use navarch_sources::{Health, Source, SourceError};
use tokio::time::Instant;

use crate::debounce::{Changes, Debounce};
use crate::error::Error;
use crate::fleet::Fleet;
use crate::inputs::Inputs;
use crate::metrics::Metrics;
use crate::object_status;
use crate::refresh::{Refreshed, Requests};

/// Owns the world: the only writer.
pub struct Pipeline {
    inputs: Inputs,
    world: World,
    findings: Arc<ArcSwap<Vec<Finding>>>,
    /// The world as it was examined last. Newer than what is published if only statuses or places changed.
    latest: Arc<ArcSwap<Snapshot>>,
    metrics: Metrics,
    logged: Vec<Finding>,
    translation: TranslationFindings,
    /// Of what derivation has found.
    places: Places,
    /// What was examined last.
    examined: Option<Arc<Snapshot>>,
}

impl Pipeline {
    /// Reads the configuration for the first time, which takes until every source has been read as a whole.
    ///
    /// # Errors
    /// If a source cannot be read: there is nothing to serve.
    pub async fn open(
        sources: Vec<Box<dyn Source>>,
        world: Options,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        let world = World::new(world);
        let mut pipeline = Pipeline {
            inputs: Inputs::new(sources),
            latest: Arc::new(ArcSwap::new(world.snapshot().clone())),
            world,
            findings: Arc::default(),
            metrics,
            logged: Vec::new(),
            translation: TranslationFindings::default(),
            places: Places::default(),
            examined: None,
        };
        loop {
            let (opened, read) = pipeline.work(Pipeline::step).await.ok_or(Error::Panicked)?;
            pipeline = opened;
            if let Some(error) = read.errors.into_iter().next() {
                return Err(error.into());
            }
            let Some(missing) = pipeline.inputs.waits_for() else { break };
            tracing::info!("waiting for {missing}");
            pipeline.inputs.changed().await;
        }
        let (pipeline, ()) =
            pipeline.work(|pipeline| pipeline.examine(&Arc::default())).await.ok_or(Error::Panicked)?;
        Ok(pipeline)
    }

    /// Takes in what sources have said since they were opened.
    ///
    /// # Errors
    /// If that breaks off.
    pub async fn catch_up(mut self) -> Result<Self, Error> {
        self.inputs.changed().await;
        let (pipeline, _) = self.work(Pipeline::step).await.ok_or(Error::Panicked)?;
        let (pipeline, ()) =
            pipeline.work(|pipeline| pipeline.examine(&Arc::default())).await.ok_or(Error::Panicked)?;
        Ok(pipeline)
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.world.snapshot().clone()
    }

    /// Everything that is wrong, kept up to date.
    pub fn findings(&self) -> Arc<ArcSwap<Vec<Finding>>> {
        self.findings.clone()
    }

    /// The newest snapshot that has been examined, kept up to date.
    pub fn latest(&self) -> Arc<ArcSwap<Snapshot>> {
        self.latest.clone()
    }

    /// How well sources are heard that may be out of reach, by name.
    pub fn healths(&self) -> Vec<(String, Health)> {
        self.inputs.healths()
    }

    /// Reads what changed and applies it.
    fn step(&mut self) -> Step {
        let before = self.world.snapshot().revision();
        let (changes, errors) = self.inputs.read();
        let snapshot = if changes.is_empty() { self.snapshot() } else { self.world.apply(changes) };
        Step { changed: (snapshot.revision() != before).then_some(snapshot), errors }
    }

    /// Looks for what is wrong. Proxies do not wait for it: what they get does not depend on it.
    fn examine(&mut self, fates: &Arc<Fates>) {
        let snapshot = self.snapshot();
        let mut findings = self.inputs.findings().to_vec();
        findings.extend(snapshot.placed_findings(&mut self.places));
        self.places.sweep();
        findings.extend(self.translation.about(&snapshot, fates));
        findings.sort();
        self.report(findings);
        if self.inputs.wants_statuses() {
            self.inputs.write(object_status::to_write(&snapshot, self.examined.as_deref()));
        }
        if !self.examined.as_ref().is_some_and(|before| snapshot.shares_services_with(before)) {
            self.metrics.services.set(snapshot.services().count() as i64);
        }
        self.latest.store(snapshot.clone());
        self.examined = Some(snapshot);
    }

    /// Works on a thread that may wait and compute. `None` if the work panicked, and the world is lost with
    /// it.
    async fn work<T: Send + 'static>(
        mut self,
        work: impl FnOnce(&mut Self) -> T + Send + 'static,
    ) -> Option<(Self, T)> {
        let worked = tokio::task::spawn_blocking(move || {
            let result = work(&mut self);
            (self, result)
        });
        match worked.await {
            Ok(worked) => Some(worked),
            Err(error) => {
                // What is being served stays as it is.
                tracing::error!(%error, "reading the configuration broke off; changes are no longer followed");
                None
            }
        }
    }

    /// Logs findings that are new and publishes all.
    fn report(&mut self, findings: Vec<Finding>) {
        if findings == self.logged && !findings.is_empty() {
            return;
        }
        for finding in findings.iter().filter(|finding| self.logged.binary_search(finding).is_err()) {
            match finding.severity {
                Severity::Error => tracing::error!("{finding}"),
                Severity::Warning => tracing::warn!("{finding}"),
                Severity::Info => tracing::debug!("{finding}"),
            }
        }
        for severity in [Severity::Error, Severity::Warning, Severity::Info] {
            let count = findings.iter().filter(|finding| finding.severity == severity).count();
            self.metrics.findings.with_label_values(&[severity.to_string().as_str()]).set(count as i64);
        }
        self.logged = findings.clone();
        self.findings.store(Arc::new(findings));
    }

    /// Follows the sources as long as the server runs, see [`Debounce`]. Requests are answered without
    /// waiting for quiet. What is wrong is looked for after each change, but of a stream of changes once in
    /// `debounce_max`.
    pub async fn run(
        mut self,
        debounce: Duration,
        debounce_max: Duration,
        fleet: Arc<Fleet>,
        mut requests: Requests,
    ) {
        let mut debounce = Debounce::new(debounce, debounce_max);
        let mut fates = fleet.fates();
        let mut examination = None;
        loop {
            let mut asked = Vec::new();
            let first = tokio::select! {
                // Proxies that come and go decide which patches do something.
                Ok(()) = fates.changed() => {
                    examination.get_or_insert_with(Instant::now);
                    continue;
                }
                () = reached(examination) => {
                    let now = fates.borrow_and_update().clone();
                    (self, ()) = match self.work(move |pipeline| pipeline.examine(&now)).await {
                        Some(worked) => worked,
                        None => return,
                    };
                    examination = None;
                    continue;
                }
                first = debounce.gather(&mut self.inputs) => first,
                Some(request) = requests.recv() => {
                    asked.push(request);
                    self.inputs.look_again();
                    Instant::now()
                }
            };
            let began = Instant::now();
            let Some((pipeline, step)) = self.work(Pipeline::step).await else { return };
            let mut ended = Instant::now();
            if let Some(snapshot) = step.changed {
                let revision = snapshot.revision();
                ended = fleet.publish_noticed(snapshot, first.into_std()).await.into();
                let elapsed = ended - first;
                pipeline.metrics.commit.observe(elapsed.as_secs_f64());
                tracing::info!(revision, ms = elapsed.as_millis() as u64, "published");
            }
            for error in &step.errors {
                pipeline.metrics.scan_errors.inc();
                tracing::error!(%error, cause = %error.cause, "the last good configuration stays in use");
            }
            for request in asked {
                let errors = step.errors.iter().map(|error| format!("{error}: {}", error.cause)).collect();
                let revision = pipeline.world.snapshot().revision();
                // Who asked may have gone.
                let _ = request.send(Refreshed { revision, errors });
            }
            debounce.applied(began, ended);
            let pause = if debounce.is_stream() { debounce_max } else { Duration::ZERO };
            examination.get_or_insert_with(|| Instant::now() + pause);
            self = pipeline;
        }
    }
}

/// Waits until then, or forever.
async fn reached(then: Option<Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then).await,
        None => std::future::pending().await,
    }
}

/// What one step did.
struct Step {
    /// The new snapshot, if the revision grew.
    changed: Option<Arc<Snapshot>>,
    /// Sources that could not be read, and keep what they said.
    errors: Vec<SourceError>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use navarch_model::ClusterId;
    use navarch_model::document::WrittenIn;
    use navarch_model::finding::Code;
    use navarch_model::status::ConditionType;
    use navarch_sources::memory::Memory;
    use parking_lot::Mutex;

    use super::*;
    use crate::client::RouteForm;
    use crate::inputs::of_watched_files;
    use crate::refresh;

    fn entry(index: usize, port: u16) -> String {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: e{index}, namespace: default}}\nspec:\n  hosts: \
             [e{index}.example.com]\n  location: MESH_EXTERNAL\n  resolution: DNS\n  ports: [{{number: {port}, name: http, protocol: HTTP}}]\n"
        )
    }

    async fn until(what: &str, done: impl Fn() -> bool) {
        for _ in 0..500 {
            if done() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what}");
    }

    /// A pipeline of a directory and memory, and the fleet that it publishes to.
    async fn beside_files(root: &Path) -> (Memory, Pipeline, Arc<Fleet>) {
        let origin = WrittenIn::Cluster { id: ClusterId::LOCAL, name: "memory".into() };
        let memory = Memory::new("memory", origin);
        memory.complete();
        let mut sources = of_watched_files(Some(root), None);
        sources.push(Box::new(memory.clone()));
        let metrics = Metrics::new().expect("metrics");
        let pipeline = Pipeline::open(sources, Options::default(), metrics.clone()).await.expect("readable");
        let fleet = Fleet::start(pipeline.snapshot(), metrics, RouteForm::default()).expect("a fleet");
        (memory, pipeline, fleet)
    }

    /// The ports of all services, in order.
    fn ports(fleet: &Fleet) -> Vec<u16> {
        let snapshot = fleet.snapshot();
        let ports = snapshot.services().flat_map(|service| &service.ports).map(|port| port.port);
        ports.collect::<BTreeSet<u16>>().into_iter().collect()
    }

    #[tokio::test]
    async fn two_sources_feed_one_world_and_see_what_the_other_claims() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |text: &str| fs::write(directory.path().join("0.yaml"), text).expect("written");
        write(&entry(0, 80));
        let (memory, pipeline, fleet) = beside_files(directory.path()).await;
        let findings = pipeline.findings();
        let codes = || findings.load().iter().map(|finding| finding.code).collect::<Vec<_>>();
        let (debounce, longest) = (Duration::from_millis(10), Duration::from_secs(1));
        let follow = {
            let fleet = fleet.clone();
            tokio::spawn(async move { pipeline.run(debounce, longest, fleet, refresh::channel().1).await })
        };
        memory.write("1", &entry(1, 81));
        until("an object of the second source", || ports(&fleet) == [80, 81]).await;
        memory.write("0", &entry(0, 90));
        until("a second definition", || codes() == [Code::DuplicateObject]).await;
        assert_eq!(ports(&fleet), [80, 81], "the directory comes first");
        write("{{{");
        until("the version that can be read", || ports(&fleet) == [81, 90]).await;
        memory.write("0", "{{{");
        until("the last good version of the directory", || ports(&fleet) == [80, 81]).await;
        until("both are said", || codes().contains(&Code::LastGood)).await;
        write(&entry(0, 82));
        until("the mended one", || ports(&fleet) == [81, 82]).await;
        // A source that cannot be read keeps what it said, and the other one is followed.
        memory.fail("not today");
        write(&entry(0, 83));
        until("the other source", || ports(&fleet) == [81, 83]).await;
        follow.abort();
    }

    #[tokio::test]
    async fn what_is_wrong_is_said_while_changes_do_not_stop() {
        let directory = tempfile::tempdir().expect("a directory");
        let (memory, pipeline, fleet) = beside_files(directory.path()).await;
        let findings = pipeline.findings();
        let (debounce, longest) = (Duration::from_millis(10), Duration::from_millis(100));
        let follow = tokio::spawn(async move {
            pipeline.run(debounce, longest, fleet, refresh::channel().1).await;
        });
        let begun = Instant::now();
        for index in 0..2000 {
            memory.write("0", &entry(index, 80));
            if begun.elapsed() > 3 * longest {
                memory.write("1", "{{{");
            }
            if !findings.load().is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert!(!findings.load().is_empty());
        follow.abort();
    }

    #[tokio::test]
    async fn nothing_is_served_before_every_source_has_been_read_as_a_whole() {
        let origin = WrittenIn::Cluster { id: ClusterId::LOCAL, name: "memory".into() };
        let memory = Memory::new("memory", origin);
        let metrics = Metrics::new().expect("metrics");
        let opening = Pipeline::open(vec![Box::new(memory.clone())], Options::default(), metrics);
        let opening = tokio::spawn(opening);
        for index in 0..3 {
            memory.write(index.to_string(), &entry(index, 80));
            tokio::task::yield_now().await;
            assert!(!opening.is_finished());
        }
        memory.complete();
        let pipeline = opening.await.expect("no panic").expect("readable");
        assert_eq!(pipeline.snapshot().services().count(), 3);
        assert_eq!(pipeline.snapshot().revision(), 1, "as one state");
    }

    #[tokio::test]
    async fn a_source_is_told_what_became_of_its_objects() {
        let directory = tempfile::tempdir().expect("a directory");
        let (memory, pipeline, fleet) = beside_files(directory.path()).await;
        let latest = pipeline.latest();
        let follow = tokio::spawn(async move {
            let requests = refresh::channel().1;
            pipeline.run(Duration::from_millis(10), Duration::from_secs(1), fleet, requests).await;
        });
        let told = Mutex::new(Vec::new());
        let said = |expected: &str| {
            let mut told = told.lock();
            told.extend(memory.take_statuses().into_iter().map(|written| {
                let condition = written.status.condition(ConditionType::Accepted).expect("a condition");
                format!("{} {}={} {}", written.object.name, condition.ty, condition.status, condition.reason)
            }));
            told.last().is_some_and(|last: &String| last == expected)
        };
        memory.write("0", &entry(0, 80));
        until("it is accepted", || said("e0 Accepted=True Accepted")).await;
        let broken = |index| entry(index, 80).replace("number: 80", "number: none");
        memory.write("0", &broken(0));
        until("the last good version is in use", || said("e0 Accepted=False LastGoodInUse")).await;
        memory.write("1", &broken(1));
        until("it never was good", || said("e1 Accepted=False Invalid")).await;
        memory.write("0", &entry(0, 80));
        until("it is mended", || said("e0 Accepted=True Accepted")).await;
        assert_eq!(told.lock().len(), 4, "{told:?}");
        // For files the same is on a page, and files are told nothing.
        fs::write(directory.path().join("2.yaml"), entry(2, 80)).expect("written");
        let shown = || object_status::of_all(&latest.load());
        until("a status of a file", || shown().iter().any(|shown| shown.place.ends_with("2.yaml:1:1"))).await;
        assert_eq!(memory.take_statuses(), []);
        follow.abort();
    }

    /// As Git does it: one file after the other is deleted and created.
    #[tokio::test]
    async fn a_checkout_of_many_files_is_one_revision() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |index: usize| directory.path().join(format!("{index}.yaml"));
        (0..40).for_each(|index| fs::write(path(index), entry(index, 80)).expect("written"));
        let metrics = Metrics::new().expect("metrics");
        let sources = of_watched_files(Some(directory.path()), None);
        let pipeline = Pipeline::open(sources, Options::default(), metrics.clone()).await;
        let pipeline = pipeline.expect("a configuration");
        let before = pipeline.snapshot().revision();
        let fleet = Fleet::start(pipeline.snapshot(), metrics, RouteForm::default()).expect("a fleet");
        // Far longer than writing the files takes, even where many tests run at once.
        let (debounce, longest) = (Duration::from_millis(1500), Duration::from_secs(5));
        let follow = {
            let fleet = fleet.clone();
            tokio::spawn(async move { pipeline.run(debounce, longest, fleet, refresh::channel().1).await })
        };
        tokio::time::sleep(Duration::from_millis(100)).await;
        for index in 0..40 {
            fs::remove_file(path(index)).expect("removed");
            fs::write(path(index), entry(index, 81)).expect("written");
        }
        until("nothing was published", || fleet.planned_revision() > before).await;
        tokio::time::sleep(debounce + Duration::from_millis(500)).await;
        assert_eq!(fleet.planned_revision(), before + 1);
        follow.abort();
    }
}
