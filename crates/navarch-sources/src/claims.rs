//! Which version of an object is in use: the last good one if the present one cannot be read, the first one
//! if there are several.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use navarch_model::change::ChangeSet;
use navarch_model::document::Parsed;
use navarch_model::fact::{Fact, FactKey, Refusal};
use navarch_model::finding::{Code, Finding, Severity};
use navarch_model::object::{Object, ObjectKey};

use crate::source::{Batch, PlaceId, SourceId, Update};

/// What all sources say, by place, and what of it is in use.
///
/// An object whose text became unreadable keeps its last good version; it is removed only when it is really
/// gone: its place is gone, or is readable and no longer contains it. The cost of a change follows the size
/// of the places that changed.
#[derive(Debug, Default)]
pub struct Claims {
    places: BTreeMap<Place, Contents>,
    objects: BTreeMap<ObjectKey, Versions>,
    /// Keys that more than one place claims, or that only a last good version claims.
    noteworthy: BTreeSet<ObjectKey>,
    /// Places with findings.
    noted: BTreeSet<Place>,
    /// Places whose version of an object cannot be used.
    rejecting: BTreeMap<ObjectKey, BTreeSet<Place>>,
    facts: BTreeMap<FactKey, BTreeMap<SourceId, Fact>>,
    /// What was told last of objects that cannot be used.
    refused: BTreeMap<ObjectKey, Refusal>,
    /// What was in use when something about it was last told.
    before: Before,
    /// Sources whose objects may be said elsewhere as well.
    repeating: BTreeSet<SourceId>,
}

/// A source, and where in it.
type Place = (SourceId, PlaceId);

/// The state at the last [`Claims::settle`] of what has been touched since.
#[derive(Debug, Default)]
struct Before {
    objects: BTreeMap<ObjectKey, Option<Arc<Object>>>,
    facts: BTreeMap<FactKey, Option<Fact>>,
    /// Some place was told.
    places: bool,
}

/// What one place says.
#[derive(Debug, Default)]
struct Contents {
    objects: Vec<Arc<Object>>,
    /// Last good versions of objects that the place still means but that cannot be read now.
    held: Vec<Arc<Object>>,
    /// Objects that are there and cannot be used.
    rejected: Vec<ObjectKey>,
    findings: Vec<Finding>,
}

/// Versions of one object, the one in use first: what can be read goes before what is held, then the order of
/// sources and their places decides. Nearly always one.
#[derive(Debug, Default)]
struct Versions(Vec<(Claim, Arc<Object>)>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    held: bool,
    place: Place,
    position: usize,
}

impl Versions {
    fn position(&self, claim: &Claim) -> Result<usize, usize> {
        self.0.binary_search_by(|(own, _)| own.cmp(claim))
    }

    fn insert(&mut self, claim: Claim, object: Arc<Object>) {
        if let Err(position) = self.position(&claim) {
            self.0.reserve_exact(1);
            self.0.insert(position, (claim, object));
        }
    }

    fn remove(&mut self, claim: &Claim) {
        if let Ok(position) = self.position(claim) {
            self.0.remove(position);
        }
    }

    /// The version in use.
    fn used(&self) -> Option<&Arc<Object>> {
        self.0.first().map(|(_, object)| object)
    }
}

/// What is different since it was last asked.
#[derive(Debug, Default)]
pub struct Difference {
    /// Empty if nothing is.
    pub changes: ChangeSet,
    /// Everything that is wrong now, in the order of places; `None` if that is as it was.
    pub findings: Option<Vec<Finding>>,
}

impl Claims {
    /// Of these sources ([`crate::Source::repeats`]) nobody is told that another one has the same object.
    pub fn repeating(sources: BTreeSet<SourceId>) -> Self {
        Claims { repeating: sources, ..Claims::default() }
    }

    /// Takes in what changed in a source. It comes into force with the next [`Claims::settle`].
    pub fn take(&mut self, source: SourceId, batch: Batch) {
        for (place, update) in batch.places {
            self.before.places = true;
            self.take_place((source, place), update);
        }
        for key in batch.retracted {
            self.remember_fact(&key);
            if let Some(facts) = self.facts.get_mut(&key) {
                facts.remove(&source);
                if facts.is_empty() {
                    self.facts.remove(&key);
                }
            }
        }
        for fact in batch.facts {
            let key = fact.key();
            self.remember_fact(&key);
            self.facts.entry(key).or_default().insert(source, fact);
        }
    }

    /// What is different since the last call, over all sources.
    pub fn settle(&mut self) -> Difference {
        let before = std::mem::take(&mut self.before);
        let mut changes = ChangeSet::default();
        for (key, was) in before.facts {
            match (was, self.facts.get(&key).and_then(|facts| facts.values().next())) {
                (Some(was), Some(is)) if was == *is => {}
                (_, Some(is)) => changes.facts.push(is.clone()),
                (Some(_), None) => changes.retracted.push(key),
                (None, None) => {}
            }
        }
        for (key, was) in before.objects {
            self.settle_object(key, was, &mut changes);
        }
        Difference { changes, findings: before.places.then(|| self.findings()) }
    }

    /// The source that the version in use of an object is from.
    pub fn source_of(&self, key: &ObjectKey) -> Option<SourceId> {
        let used = self.objects.get(key).and_then(|versions| versions.0.first());
        let of_used = used.map(|(claim, _)| claim.place.0);
        // Of an object without a version that can be used, who wrote the present one wants to know.
        of_used.or_else(|| self.rejecting.get(key)?.first().map(|(source, _)| *source))
    }

    fn take_place(&mut self, place: Place, update: Update) {
        let contents = match update {
            Update::Unreadable(finding) => {
                self.noted.insert(place.clone());
                self.places.entry(place).or_default().findings = vec![finding];
                return;
            }
            Update::Gone => {
                let known = self.places.remove(&place);
                self.withdraw(&place, known.as_ref());
                return;
            }
            Update::Says(parsed) => parsed,
        };
        let known = self.places.remove(&place);
        self.withdraw(&place, known.as_ref());
        let contents = Contents::new(contents, known.unwrap_or_default());
        for (claim, object) in contents.claims(&place) {
            self.remember(&object.key);
            self.objects.entry(object.key.clone()).or_default().insert(claim, object.clone());
        }
        for key in &contents.rejected {
            self.remember(key);
            self.rejecting.entry(key.clone()).or_default().insert(place.clone());
        }
        if !contents.findings.is_empty() {
            self.noted.insert(place.clone());
        }
        self.places.insert(place, contents);
    }

    /// Removes what a place said.
    fn withdraw(&mut self, place: &Place, contents: Option<&Contents>) {
        self.noted.remove(place);
        let Some(contents) = contents else { return };
        for (claim, object) in contents.claims(place) {
            self.remember(&object.key);
            if let Some(versions) = self.objects.get_mut(&object.key) {
                versions.remove(&claim);
            }
        }
        for key in &contents.rejected {
            self.remember(key);
            if let Some(places) = self.rejecting.get_mut(key) {
                places.remove(place);
                if places.is_empty() {
                    self.rejecting.remove(key);
                }
            }
        }
    }

    fn remember(&mut self, key: &ObjectKey) {
        if !self.before.objects.contains_key(key) {
            let used = self.objects.get(key).and_then(Versions::used).cloned();
            self.before.objects.insert(key.clone(), used);
        }
    }

    fn remember_fact(&mut self, key: &FactKey) {
        if !self.before.facts.contains_key(key) {
            let stated = self.facts.get(key).and_then(|facts| facts.values().next()).cloned();
            self.before.facts.insert(key.clone(), stated);
        }
    }

    fn settle_object(&mut self, key: ObjectKey, was: Option<Arc<Object>>, changes: &mut ChangeSet) {
        let versions = self.objects.get(&key).map_or(&[][..], |versions| &versions.0);
        let only_one_to_read = matches!(versions, [(claim, _)] if !claim.held);
        match !versions.is_empty() && !only_one_to_read {
            true => self.noteworthy.insert(key.clone()),
            false => self.noteworthy.remove(&key),
        };
        let refusal = self.refusal(&key);
        match (was, versions.first().map(|(_, object)| object)) {
            (Some(was), Some(is)) if Arc::ptr_eq(&was, is) || was == *is => {}
            (_, Some(is)) => changes.upserts.push(is.clone()),
            (was, None) => {
                self.objects.remove(&key);
                changes.removals.extend(was.map(|_| key.clone()));
            }
        }
        match refusal {
            Some(refusal) if self.refused.get(&key) == Some(&refusal) => {}
            Some(refusal) => {
                self.refused.insert(key.clone(), refusal.clone());
                changes.facts.push(Fact::Refused { object: key, refusal });
            }
            None => {
                if self.refused.remove(&key).is_some() {
                    changes.retracted.push(FactKey::Refused(key));
                }
            }
        }
    }

    /// Why the present version of an object is not in use, if it is not.
    fn refusal(&self, key: &ObjectKey) -> Option<Refusal> {
        let used = self.objects.get(key).and_then(|versions| versions.0.first());
        let (last_good, place) = match used {
            Some((claim, _)) if !claim.held => return None,
            Some((claim, _)) => (true, &claim.place),
            None => (false, self.rejecting.get(key)?.first()?),
        };
        let findings = self.places.get(place).map_or(&[][..], |contents| &contents.findings);
        let errors = || findings.iter().filter(|finding| finding.severity == Severity::Error);
        let own = errors().find(|finding| finding.object.as_ref() == Some(key));
        let message = own.or_else(|| errors().next()).map(|finding| match finding.path.as_str() {
            "" => finding.message.clone(),
            path => format!("{path}: {}", finding.message),
        });
        Some(Refusal { message: message.unwrap_or_default(), last_good })
    }

    fn findings(&self) -> Vec<Finding> {
        let noted = self.noted.iter().filter_map(|place| self.places.get(place));
        let mut findings: Vec<Finding> =
            noted.flat_map(|contents| contents.findings.iter().cloned()).collect();
        for versions in self.noteworthy.iter().filter_map(|key| self.objects.get(key)) {
            let mut versions = versions.0.iter();
            let Some((first, used)) = versions.next() else { continue };
            if first.held {
                findings.push(held(used));
            }
            let repeats = |claim: &Claim| self.repeating.contains(&claim.place.0);
            let others = versions.filter(|(claim, _)| !claim.held && !repeats(claim) && !repeats(first));
            findings.extend(others.map(|(_, object)| duplicate(used, object)));
        }
        findings.sort();
        findings
    }
}

impl Contents {
    fn new(parsed: Parsed, before: Contents) -> Self {
        let Parsed { objects, findings, rejected, incomplete } = parsed;
        let mut objects: Vec<_> = objects.into_iter().map(Arc::new).collect();
        // Collecting in place keeps the room of whole objects.
        objects.shrink_to_fit();
        let present: BTreeSet<&ObjectKey> = objects.iter().map(|object| &object.key).collect();
        let refused: BTreeSet<&ObjectKey> = rejected.iter().collect();
        // What could not be read at all may have been any of the place's objects.
        let meant = |key: &ObjectKey| !present.contains(key) && (incomplete || refused.contains(key));
        let held =
            before.objects.into_iter().chain(before.held).filter(|object| meant(&object.key)).collect();
        Contents { objects, held, rejected, findings }
    }

    /// What the place says of each object.
    fn claims<'a>(&'a self, place: &'a Place) -> impl Iterator<Item = (Claim, &'a Arc<Object>)> {
        let readable = self.objects.iter().map(|object| (false, object));
        let held = self.held.iter().map(|object| (true, object));
        readable
            .chain(held)
            .enumerate()
            .map(|(position, (held, object))| (Claim { held, place: place.clone(), position }, object))
    }
}

fn duplicate(first: &Object, second: &Object) -> Finding {
    let place = first.position().map(|position| position.to_string());
    let message =
        format!("already defined at {}, which is used", place.as_deref().unwrap_or("another place"));
    Finding::error(Code::DuplicateObject, message)
        .at(second.position())
        .of(second.key.clone())
        .hint("remove one of the two, or give it another name")
}

fn held(object: &Object) -> Finding {
    let what = match object.place {
        navarch_model::Place::File(_) => "the file",
        navarch_model::Place::Cluster { .. } | navarch_model::Place::None => "it",
    };
    Finding::warning(Code::LastGood, format!("its last good version stays in use until {what} is mended"))
        .at(object.position())
        .of(object.key.clone())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use navarch_model::document::WrittenIn;
    use navarch_model::{ClusterId, Kind};

    use super::*;
    use crate::files::FileSource;
    use crate::memory::Memory;
    use crate::source::Source;

    fn namespace(name: &str, label: &str) -> String {
        format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{v: '{label}'}}}}\n")
    }

    /// A directory, another source that comes after it, and what is in use of both.
    struct Rig {
        dir: tempfile::TempDir,
        files: FileSource,
        memory: Memory,
        claims: Claims,
    }

    impl Rig {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("tempdir");
            let files = FileSource::new(dir.path());
            let memory = Memory::new("memory", WrittenIn::Cluster { id: ClusterId::LOCAL, name: "m".into() });
            Rig { dir, files, memory, claims: Claims::default() }
        }

        fn write(&self, file: &str, text: &str) -> &Self {
            fs::write(self.dir.path().join(file), text).expect("written");
            self
        }

        fn remove(&self, file: &str) -> &Self {
            fs::remove_file(self.dir.path().join(file)).expect("removed");
            self
        }

        /// `+name=label` for each upsert, `-name` for each removal, `!name` for an object that is refused;
        /// then the codes of the findings, if they were read again.
        fn scan(&mut self) -> String {
            self.claims.take(SourceId(0), self.files.read().expect("a readable directory"));
            self.claims.take(SourceId(1), self.memory.read().expect("readable"));
            let scan = self.claims.settle();
            let label = |object: &Object| {
                object.metadata.labels.get("v").map(ToString::to_string).unwrap_or_default()
            };
            let mut words: Vec<String> = Vec::new();
            let upserts = scan.changes.upserts.iter();
            words.extend(upserts.map(|object| format!("+{}={}", object.key.name, label(object))));
            words.extend(scan.changes.removals.iter().map(|key| format!("-{}", key.name)));
            words.extend(scan.changes.facts.iter().map(|fact| match fact {
                Fact::Refused { object, refusal: Refusal { last_good: true, .. } } => {
                    format!("!{}", object.name)
                }
                Fact::Refused { object, .. } => format!("!!{}", object.name),
                fact => format!("{fact:?}"),
            }));
            words.extend(scan.changes.retracted.iter().map(|key| match key {
                FactKey::Refused(object) => format!("~{}", object.name),
                key => format!("{key:?}"),
            }));
            words.extend(scan.findings.into_iter().flatten().map(|finding| finding.code.to_string()));
            words.join(" ")
        }
    }

    #[test]
    fn a_state_of_the_directory_is_one_change_set() {
        let mut rig = Rig::new();
        rig.write("a.yaml", &namespace("a", "1")).write("b.yaml", &namespace("b", "1"));
        assert_eq!(rig.scan(), "+a=1 +b=1");
        assert_eq!(rig.scan(), "");
        rig.write("a.yaml", &namespace("a", "2")).remove("b.yaml").write("c.yaml", &namespace("c", "1"));
        assert_eq!(rig.scan(), "+a=2 +c=1 -b");
    }

    #[test]
    fn an_object_that_moves_to_another_file_stays() {
        let mut rig = Rig::new();
        rig.write("a.yaml", &namespace("a", "1"));
        rig.scan();
        rig.remove("a.yaml").write("b.yaml", &namespace("a", "1"));
        // Told again, because its position has changed; nothing that is read from it has.
        assert_eq!(rig.scan(), "+a=1");
    }

    #[test]
    fn broken_text_keeps_what_it_held_until_it_is_mended_or_deleted() {
        let mut rig = Rig::new();
        rig.write("a.yaml", &format!("{}---\n{}", namespace("a", "1"), namespace("b", "1")));
        rig.scan();
        rig.write("a.yaml", &format!("{}---\nkind: [", namespace("a", "2")));
        assert_eq!(rig.scan(), "+a=2 !b NAV0206 NAV0001", "b stays, a follows");
        rig.write("a.yaml", "{{{");
        assert_eq!(rig.scan().matches("NAV0206").count(), 2, "a and b stay");
        rig.write("a.yaml", &namespace("a", "3"));
        assert_eq!(rig.scan(), "+a=3 -b ~a ~b");
        rig.write("a.yaml", "{{{");
        rig.scan();
        rig.remove("a.yaml");
        assert_eq!(rig.scan(), "-a ~a");
    }

    #[test]
    fn an_object_that_is_wrong_keeps_its_last_good_version() {
        let rule = |weight: &str| {
            format!(
                "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: r, labels: {{v: '{weight}'}}}}\n\
                 spec: {{hosts: [r], http: [{{route: [{{destination: {{host: r}}, weight: {weight}}}]}}]}}\n"
            )
        };
        let mut rig = Rig::new();
        rig.write("r.yaml", &rule("100"));
        assert_eq!(rig.scan(), "+r=100");
        rig.write("r.yaml", &rule("lots"));
        assert_eq!(rig.scan(), "!r NAV0206 NAV0102");
        rig.write("r.yaml", &rule("50"));
        assert_eq!(rig.scan(), "+r=50 ~r");
        rig.write("s.yaml", &rule("lots").replace("name: r", "name: s"));
        assert_eq!(rig.scan(), "!!s NAV0102", "it never was good");
    }

    #[test]
    fn of_two_definitions_the_first_file_counts_and_the_second_takes_over() {
        let mut rig = Rig::new();
        rig.write("a.yaml", &namespace("n", "a")).write("b.yaml", &namespace("n", "b"));
        assert_eq!(rig.scan(), "+n=a NAV0205");
        rig.write("b.yaml", &namespace("n", "b2"));
        assert_eq!(rig.scan(), "NAV0205");
        rig.remove("a.yaml");
        assert_eq!(rig.scan(), "+n=b2");
    }

    #[test]
    fn a_file_that_is_not_text_keeps_what_it_held() {
        let mut rig = Rig::new();
        rig.write("a.yaml", &namespace("a", "1"));
        rig.scan();
        fs::write(rig.dir.path().join("a.yaml"), [0xff, 0xfe]).expect("written");
        assert_eq!(rig.scan(), "NAV0002");
        rig.write("a.yaml", &namespace("a", "1"));
        assert_eq!(rig.scan(), "", "no finding any more, and nothing to tell");
        rig.write("a.yaml", &namespace("a", "2"));
        assert_eq!(rig.scan(), "+a=2");
    }

    #[test]
    fn of_two_sources_the_first_counts_and_each_sees_the_claims_of_the_other() {
        let mut rig = Rig::new();
        rig.memory.write("n", &namespace("n", "memory"));
        assert_eq!(rig.scan(), "+n=memory");
        rig.write("n.yaml", &namespace("n", "file"));
        assert_eq!(rig.scan(), "+n=file NAV0205", "the directory comes first");
        assert_eq!(rig.claims.source_of(&ObjectKey::new(Kind::Namespace, "", "n")), Some(SourceId(0)));
        rig.write("n.yaml", "{{{");
        assert_eq!(rig.scan(), "+n=memory NAV0001", "what can be read goes before a last good version");
        rig.memory.write("n", "{{{");
        assert_eq!(rig.scan(), "+n=file !n NAV0001 NAV0206 NAV0001");
        rig.remove("n.yaml");
        assert_eq!(rig.scan(), "+n=memory NAV0001 NAV0206", "refused as before");
        rig.memory.remove("n");
        assert_eq!(rig.scan(), "-n ~n");
    }

    #[test]
    fn a_fact_is_that_of_the_first_source_that_states_it() {
        let fact = |keys: &str| Fact::Jwks { source: "u".into(), keys: keys.into() };
        let mut claims = Claims::default();
        let mut told = |source, facts: &[&str]| {
            let mut batch = Batch::default();
            batch.facts.extend(facts.iter().map(|keys| fact(keys)));
            batch.retracted.extend(facts.is_empty().then(|| FactKey::Jwks("u".into())));
            claims.take(SourceId(source), batch);
            claims.settle().changes
        };
        assert_eq!(told(1, &["b"]), ChangeSet::stating([fact("b")]));
        assert_eq!(told(0, &["a"]), ChangeSet::stating([fact("a")]));
        assert!(told(1, &["c"]).is_empty() && told(0, &["a"]).is_empty());
        assert_eq!(told(0, &[]), ChangeSet::stating([fact("c")]));
        assert_eq!(told(1, &[]).retracted, [FactKey::Jwks("u".into())]);
    }
}
