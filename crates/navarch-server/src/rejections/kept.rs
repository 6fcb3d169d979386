//! What was learned of rejections, in the state directory: a restart does not forget it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use navarch_envoy::{Version, XdsType};
use navarch_identity::store::{StateDirectory, StoreError};
use navarch_model::{Kind, Name, ObjectKey, Origin};
use serde::{Deserialize, Serialize};

use super::trial::{Candidate, Key, Trial};

/// The file below the state directory.
const FILE: &str = "rejections.json";

/// The file.
pub struct Kept {
    state: PathBuf,
}

/// A trial as it is written.
#[derive(Serialize, Deserialize)]
struct Written {
    /// Of the proxies.
    namespace: String,
    #[serde(rename = "type")]
    ty: String,
    resource: String,
    words: String,
    attempt: usize,
    judged: Vec<String>,
    candidates: Vec<WrittenCandidate>,
}

#[derive(Serialize, Deserialize)]
struct WrittenCandidate {
    group: String,
    kind: String,
    namespace: String,
    name: String,
    field: String,
    content: String,
}

impl Kept {
    pub fn new(state: PathBuf) -> Self {
        Kept { state }
    }

    /// What was kept. What cannot be read is as good as nothing: it will be learned again.
    pub fn read(&self) -> BTreeMap<Key, Trial> {
        let read = || {
            let directory = StateDirectory::open_existing(&self.state).ok()?;
            let text = directory.read(FILE).ok()??;
            serde_json::from_slice::<Vec<Written>>(text.expose()).ok()
        };
        read().unwrap_or_default().iter().filter_map(trial).collect()
    }

    pub fn write(&self, trials: &BTreeMap<Key, Trial>) -> Result<(), StoreError> {
        let written: Vec<Written> = trials.iter().map(|(key, trial)| written(key, trial)).collect();
        let directory = StateDirectory::open_existing(&self.state)?;
        directory.replace(FILE, &serde_json::to_vec(&written).unwrap_or_default())
    }
}

fn trial(written: &Written) -> Option<(Key, Trial)> {
    let Written { namespace, ty, resource, words, attempt, judged, candidates } = written;
    let ty = XdsType::ALL.into_iter().find(|known| known.short() == ty)?;
    let candidate = |written: &WrittenCandidate| {
        let WrittenCandidate { group, kind, namespace, name, field, content } = written;
        let key = ObjectKey::new(Kind::find(group, kind)?, namespace, name);
        let content = u128::from_str_radix(content, 16).ok()?;
        Some(Candidate { origin: Origin::field(key, field), content })
    };
    let trial = Trial {
        candidates: candidates.iter().map(candidate).collect::<Option<_>>()?,
        attempt: *attempt,
        words: Name::from(words.as_str()),
        judged: judged.iter().map(|text| Version::parse(text)).collect::<Option<_>>()?,
    };
    Some(((Name::from(namespace.as_str()), ty, Name::from(resource.as_str())), trial))
}

fn written((namespace, ty, resource): &Key, trial: &Trial) -> Written {
    let Trial { candidates, attempt, words, judged } = trial;
    let candidate = |Candidate { origin, content }: &Candidate| WrittenCandidate {
        group: origin.key.kind.group().to_owned(),
        kind: origin.key.kind.as_str().to_owned(),
        namespace: origin.key.namespace.to_string(),
        name: origin.key.name.to_string(),
        field: origin.field.to_string(),
        content: format!("{content:032x}"),
    };
    Written {
        namespace: namespace.to_string(),
        ty: ty.short().to_owned(),
        resource: resource.to_string(),
        words: words.to_string(),
        attempt: *attempt,
        judged: judged.iter().map(ToString::to_string).collect(),
        candidates: candidates.iter().map(candidate).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again_and_what_is_broken_is_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = directory.path().join("state");
        StateDirectory::open(&state).expect("made");
        let kept = Kept::new(state.clone());
        assert!(kept.read().is_empty());
        let key = ObjectKey::new(Kind::EnvoyFilter, "shop", "patches");
        let origin = Origin::field(key, "spec.configPatches[0]");
        let trial = Trial::new(Version(7), "no".into(), vec![Candidate { origin, content: u128::MAX }]);
        let trials = BTreeMap::from([((Name::from("shop"), XdsType::Lds, Name::from("a")), trial)]);
        kept.write(&trials).expect("written");
        assert_eq!(kept.read(), trials);
        StateDirectory::open(&state).and_then(|state| state.replace(FILE, b"[{]")).expect("written");
        assert!(kept.read().is_empty());
    }
}
