//! The pipeline: from "something may have changed" to a published revision.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use navarch_model::finding::{Finding, Severity};
use navarch_plan::TranslationFindings;
use navarch_snapshot::world::Options;
use navarch_snapshot::{Snapshot, World};
use navarch_sources::files::{Hint, Watch};

use crate::error::Error;
use crate::fleet::Fleet;
use crate::load::Reader;
use crate::metrics::Metrics;
use crate::rhythm::Rhythm;

/// How often the directory is looked at even if nothing is reported: some file systems report nothing.
const POLL: Duration = Duration::from_secs(10);

/// Owns the world: the only writer.
pub struct Pipeline {
    reader: Reader,
    world: World,
    findings: Arc<ArcSwap<Vec<Finding>>>,
    /// What is wrong with the files as they were read last.
    written: Vec<Finding>,
    metrics: Metrics,
    logged: Vec<Finding>,
    translation: TranslationFindings,
    /// What was examined last.
    examined: Option<Arc<Snapshot>>,
}

impl Pipeline {
    /// Reads the configuration for the first time.
    ///
    /// # Errors
    /// If the directory or the mesh file cannot be read: there is nothing to serve.
    pub fn open(
        config: &Path,
        mesh_config: Option<&Path>,
        world: Options,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        let mut pipeline = Pipeline {
            reader: Reader::new(config, mesh_config),
            world: World::new(world),
            findings: Arc::default(),
            written: Vec::new(),
            metrics,
            logged: Vec::new(),
            translation: TranslationFindings::default(),
            examined: None,
        };
        pipeline.step(&Hint::Anywhere)?;
        pipeline.examine();
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

    /// Reads what changed and applies it. `None` if nothing changed.
    fn step(&mut self, hint: &Hint) -> Result<Option<Arc<Snapshot>>, Error> {
        let before = self.world.snapshot().revision();
        let (changes, findings) = self.reader.read(hint)?;
        self.written = findings;
        let snapshot = if changes.is_empty() { self.snapshot() } else { self.world.apply(changes) };
        Ok((snapshot.revision() != before).then_some(snapshot))
    }

    /// Looks for what is wrong. Proxies do not wait for it: what they get does not depend on it.
    fn examine(&mut self) {
        let snapshot = self.snapshot();
        let mut findings = self.written.clone();
        findings.extend(snapshot.findings().iter().cloned());
        findings.extend(self.translation.about(&snapshot));
        findings.sort();
        self.report(findings);
        if !self.examined.as_ref().is_some_and(|before| snapshot.shares_services_with(before)) {
            self.metrics.services.set(snapshot.services().count() as i64);
        }
        self.examined = Some(snapshot);
    }

    /// Works on a thread that may wait and compute. `None` if the work panicked, and the world is lost with it.
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

    /// Follows the directory for ever, see [`Rhythm`].
    pub async fn run(mut self, config: &Path, debounce: Duration, debounce_max: Duration, fleet: Arc<Fleet>) {
        let mut watch = Watch::new(config, POLL);
        let mut rhythm = Rhythm::new(debounce, debounce_max);
        loop {
            let first = rhythm.gather(&mut watch).await;
            let began = tokio::time::Instant::now();
            let hint = watch.take_hint();
            let Some((mut pipeline, result)) = self.work(move |pipeline| pipeline.step(&hint)).await else {
                return;
            };
            match result {
                Ok(Some(snapshot)) => {
                    let revision = snapshot.revision();
                    fleet.publish(snapshot).await;
                    let elapsed = first.elapsed();
                    pipeline.metrics.commit.observe(elapsed.as_secs_f64());
                    tracing::info!(revision, ms = elapsed.as_millis() as u64, "published");
                }
                Ok(None) => {}
                Err(error) => {
                    pipeline.metrics.scan_errors.inc();
                    let cause =
                        std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    tracing::error!(%error, cause, "the last good configuration stays in use");
                }
            }
            rhythm.applied(began);
            (pipeline, ()) = match pipeline.work(Pipeline::examine).await {
                Some(worked) => worked,
                None => return,
            };
            self = pipeline;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

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

    /// As Git does it: one file after the other is deleted and created.
    #[tokio::test]
    async fn a_checkout_of_many_files_is_one_revision() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |index: usize| directory.path().join(format!("{index}.yaml"));
        (0..40).for_each(|index| fs::write(path(index), entry(index, 80)).expect("written"));
        let metrics = Metrics::new().expect("metrics");
        let pipeline = Pipeline::open(directory.path(), None, Options::default(), metrics.clone());
        let pipeline = pipeline.expect("a configuration");
        let before = pipeline.snapshot().revision();
        let fleet = Fleet::start(pipeline.snapshot(), metrics).expect("a fleet");
        let root = directory.path().to_owned();
        // Far longer than writing the files takes, even where many tests run at once.
        let (debounce, longest) = (Duration::from_millis(1500), Duration::from_secs(5));
        let follow = {
            let fleet = fleet.clone();
            tokio::spawn(async move { pipeline.run(&root, debounce, longest, fleet).await })
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
