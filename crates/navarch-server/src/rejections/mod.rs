//! What proxies refuse is learned: who comes later does not get it.
//!
//! The model of what Envoy accepts (`navarch-accept`) leaves out what Envoy would refuse. What it misses, a
//! proxy says when it refuses a resource. The contribution that is to blame is then left out of what proxies
//! of the same namespace get, so that those that start later are not without the resource, and until it is
//! changed. That is a fact ([`Fact::Rejected`]), and goes the way of everything else; it is kept in the state
//! directory if there is one.
//!
//! A proxy's word counts in its own namespace only: else whoever runs one could take filters from others.
//! What decides who may call is never left out on a proxy's word.

mod kept;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use navarch_envoy::{Version, XdsType};
use navarch_model::document::WrittenIn;
use navarch_model::fact::{Fact, Rejected};
use navarch_model::{ClusterId, Kind, Name, Origin};
use navarch_plan::explain::noun;
use navarch_plan::rejected::{content_at, decides_at, patch_at};
use navarch_snapshot::{Snapshot, View};
use navarch_sources::Source;
use navarch_sources::memory::Memory;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use self::kept::Kept;
use self::trial::{Candidate, Key, Trial};
use crate::fleet::Fleet;
use crate::provenance;

/// Rejections that wait to be looked at. One that is lost is heard again when the next proxy refuses the
/// same.
const HEARD_MAX: usize = 1024;

/// Resources of which something is remembered.
const TRIALS_MAX: usize = 1000;

/// How much of a proxy's words is kept.
const WORDS_MAX: usize = 400;

/// How often it is looked whether what was refused is still written, and whether the reason is gone.
const LOOK: Duration = Duration::from_secs(1);

/// Filters that decide which calls are let through, by parts of the names of their types.
const DECIDING: [&str; 13] = [
    "ext_authz",
    "ext_proc",
    "wasm",
    "golang",
    "dynamic_modules",
    "ratelimit",
    "rbac",
    "jwt_authn",
    "oauth2",
    "basic_auth",
    "api_key_auth",
    "client_ssl_auth",
    "transport_socket",
];

/// A resource that a proxy refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Id of the node.
    pub node: String,
    pub ty: XdsType,
    pub name: Arc<str>,
    /// Its content.
    pub version: Version,
    /// What the proxy said.
    pub words: String,
}

/// Where refusals arrive.
pub type Heard = mpsc::Receiver<Refusal>;

/// What has been learned.
pub struct Rejections {
    facts: Memory,
    kept: Option<Kept>,
    trials: Mutex<BTreeMap<Key, Trial>>,
    sender: mpsc::Sender<Refusal>,
}

impl Rejections {
    /// Nothing has been learned yet. With a state directory, what is learned is kept there.
    #[must_use]
    pub fn new(state: Option<PathBuf>) -> (Arc<Self>, Heard) {
        let name = "rejections";
        let facts = Memory::new(name, WrittenIn::Cluster { id: ClusterId::LOCAL, name: name.into() });
        facts.complete();
        let (sender, heard) = mpsc::channel(HEARD_MAX);
        let rejections = Rejections { facts, kept: state.map(Kept::new), trials: Mutex::default(), sender };
        (Arc::new(rejections), heard)
    }

    /// For the pipeline.
    #[must_use]
    pub fn source(&self) -> Box<dyn Source> {
        Box::new(self.facts.clone())
    }

    /// States what was kept from before, as far as it is still written. Says whether there is any: then it
    /// should be in the world before that is served.
    pub fn restore(&self, snapshot: &Snapshot) -> bool {
        let Some(kept) = &self.kept else { return false };
        let mut trials = self.trials.lock();
        *trials = kept.read();
        trials.retain(|_, trial| is_written(&snapshot.view(), trial));
        if !trials.is_empty() {
            self.state(&trials);
        }
        !trials.is_empty()
    }

    /// A proxy has refused something.
    pub fn hear(&self, refusal: Refusal) {
        // If there are too many, others say the same.
        let _ = self.sender.try_send(refusal);
    }

    /// Learns, for ever.
    pub async fn run(self: Arc<Self>, fleet: Arc<Fleet>, mut heard: Heard) {
        let mut seen = 0;
        loop {
            let refusal = match tokio::time::timeout(LOOK, heard.recv()).await {
                Ok(None) => return,
                Ok(Some(refusal)) => Some(refusal),
                Err(_) => None,
            };
            let revision = fleet.planned_revision();
            if refusal.is_none() && (revision == seen || self.trials.lock().is_empty()) {
                continue;
            }
            seen = revision;
            let (rejections, fleet) = (self.clone(), fleet.clone());
            // Who explains a resource computes.
            let work = tokio::task::spawn_blocking(move || match refusal {
                Some(refusal) => rejections.learn(&fleet, &refusal),
                None => rejections.forget(&fleet),
            });
            if let Err(error) = work.await {
                tracing::error!(%error, "what is to blame for a rejection cannot be found");
            }
        }
    }

    fn learn(&self, fleet: &Fleet, refusal: &Refusal) {
        let Refusal { node, ty, name, version, words } = refusal;
        let Some(client) = fleet.client_with_id(node) else { return };
        let key = (client.facts.namespace.clone(), *ty, Name::from(&**name));
        let is_judged = |trial: &Trial| trial.judged.contains(version);
        if self.trials.lock().get(&key).is_some_and(is_judged) {
            return;
        }
        let resources = fleet.resources(&client);
        let current = resources.as_ref().and_then(|resources| resources.set(*ty).get(name));
        if current.is_none_or(|resource| resource.version() != *version) {
            // What there is now will be judged by itself.
            return;
        }
        let snapshot = fleet.snapshot();
        let view = snapshot.view();
        let suspects = provenance::suspects(fleet, &client, *ty, name, words);
        let candidate = |origin: Origin| {
            let content = content_at(&view, &origin)?;
            Some(Candidate { origin, content })
        };
        let suspects = suspects.into_iter().filter(|origin| may_be_left_out(&view, origin));
        let candidates: Vec<Candidate> = suspects.filter_map(candidate).collect();
        let mut trials = self.trials.lock();
        let is_full = trials.len() >= TRIALS_MAX;
        match trials.get_mut(&key) {
            Some(trial) if is_written(&view, trial) && trial.covers(&candidates) => trial.go_on(*version),
            None if is_full => return,
            _ => {
                trials.insert(key.clone(), Trial::new(*version, shortened(words), candidates));
            }
        }
        let out = trials.get(&key).map(|trial| trial.left_out().to_vec()).unwrap_or_default();
        for Candidate { origin, .. } in &out {
            tracing::error!(
                object = %origin.key,
                field = %origin.field,
                "{} is left out for proxies of {}: one refuses the {} {name} with it",
                origin.key,
                key.0,
                noun(*ty)
            );
        }
        self.state(&trials);
    }

    /// Forgets what is not written any more, and what was refused for the lack of a cluster that is there
    /// now.
    fn forget(&self, fleet: &Fleet) {
        let snapshot = fleet.snapshot();
        let view = snapshot.view();
        let mut trials = self.trials.lock();
        let before = trials.len();
        trials.retain(|(namespace, ..), trial| {
            let is_there = |name: &str| fleet.has_cluster(namespace, name);
            is_written(&view, trial) && !missing_clusters(&trial.words).any(is_there)
        });
        if trials.len() != before {
            self.state(&trials);
        }
    }

    /// Tells the world, and keeps it for the next start.
    fn state(&self, trials: &BTreeMap<Key, Trial>) {
        let rejected = trials.iter().flat_map(|((namespace, ty, name), trial)| {
            let resource = Name::from(format!("{} {name}", noun(*ty)));
            trial.rejected(namespace, &resource).collect::<Vec<_>>()
        });
        let rejected: BTreeSet<Rejected> = rejected.collect();
        self.facts.state(Fact::Rejected(Arc::new(rejected.into_iter().collect())));
        if let Some(kept) = &self.kept
            && let Err(error) = kept.write(trials)
        {
            tracing::warn!(%error, "what proxies refuse cannot be kept for the next start");
        }
    }
}

/// Whether everything that is tried says what it said when it was refused.
fn is_written(view: &View<'_>, trial: &Trial) -> bool {
    let says = |candidate: &Candidate| content_at(view, &candidate.origin) == Some(candidate.content);
    trial.candidates.iter().all(says)
}

/// Whether something may be missing without letting anybody in.
fn may_be_left_out(view: &View<'_>, origin: &Origin) -> bool {
    if origin.key.kind != Kind::EnvoyFilter {
        return !decides_at(view, origin);
    }
    let value = patch_at(view, origin).and_then(|patch| patch.patch.as_ref()?.value.as_ref());
    // What takes something away may be what keeps somebody out.
    let Some(text) = value.map(|value| value.to_serde().to_string()) else { return false };
    !DECIDING.iter().any(|deciding| text.contains(deciding))
}

/// The clusters that a proxy misses, by its words: `unknown cluster 'a'`.
fn missing_clusters(words: &str) -> impl Iterator<Item = &str> {
    let lower = words.to_lowercase();
    let says = lower.contains("unknown") && lower.contains("cluster");
    provenance::quoted(words).filter(move |_| says)
}

/// One line of a proxy's words.
fn shortened(words: &str) -> Name {
    let line: String = words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS_MAX).collect();
    Name::from(line.trim())
}

#[cfg(test)]
mod tests {
    use navarch_model::ObjectKey;
    use navarch_model::change::ChangeSet;
    use navarch_model::document::parse_text;
    use navarch_snapshot::World;

    use super::*;

    #[test]
    fn what_decides_who_gets_in_is_never_left_out() {
        let check = |api: &str, kind: Kind, spec: &str, field: &str, expected: bool| {
            let text = format!(
                "{{apiVersion: {api}, kind: {}, metadata: {{name: a, namespace: shop}}, spec: {spec}}}",
                kind.as_str()
            );
            let parsed = parse_text("a.yaml", &text);
            assert!(parsed.rejected.is_empty() && parsed.objects.len() == 1, "{:?}", parsed.findings);
            let snapshot = World::new(Default::default()).apply(ChangeSet::upserting(parsed.objects));
            let origin = Origin::field(ObjectKey::new(kind, "shop", "a"), field);
            assert_eq!(may_be_left_out(&snapshot.view(), &origin), expected, "{spec}");
        };
        let wasm = |spec: &str, expected| {
            check("extensions.istio.io/v1alpha1", Kind::WasmPlugin, spec, "", expected);
        };
        wasm("{url: a.wasm}", false);
        wasm("{url: a.wasm, failStrategy: FAIL_OPEN}", true);
        wasm("{url: a.wasm, failStrategy: FAIL_OPEN, phase: AUTHZ}", false);
        let patch = |ty: &str, expected| {
            let value = format!(
                "{{name: a, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.{ty}}}}}"
            );
            let spec = format!(
                "{{configPatches: [{{applyTo: HTTP_FILTER, patch: {{operation: INSERT_FIRST, value: {value}}}}}]}}"
            );
            check(
                "networking.istio.io/v1alpha3",
                Kind::EnvoyFilter,
                &spec,
                "spec.configPatches[0]",
                expected,
            );
        };
        patch("buffer.v3.Buffer", true);
        patch("ext_authz.v3.ExtAuthz", false);
        patch("ext_proc.v3.ExternalProcessor", false);
    }

    #[test]
    fn a_cluster_that_is_missed_is_named_by_the_words() {
        let check = |words: &str, expected: &[&str]| {
            assert_eq!(missing_clusters(words).collect::<Vec<_>>(), expected, "{words}");
        };
        check("listener a: Unknown gRPC client cluster 'nope'", &["nope"]);
        check("route: unknown cluster 'a|b'", &["a|b"]);
        check("no such filter 'x'", &[]);
    }
}
