//! Which of several contributions a proxy refuses a resource for: each is left out in turn, until the
//! resource is taken.

use navarch_envoy::{Version, XdsType};
use navarch_model::fact::Rejected;
use navarch_model::{Name, Origin};

/// The namespace of proxies, the type and the name of a resource.
pub type Key = (Name, XdsType, Name);

/// Versions that are remembered as refused: those that are still on their way to other proxies.
const JUDGED_MAX: usize = 32;

/// Contributions that are tried; after these all are left out together.
const CANDIDATES_MAX: usize = 16;

/// Something that a user wrote and that may be left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub origin: Origin,
    /// A hash of what is written there.
    pub content: u128,
}

/// The search for what is to blame for the refusal of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Most suspicious first.
    pub candidates: Vec<Candidate>,
    /// How many were tried before.
    pub attempt: usize,
    /// What a proxy said first.
    pub words: Name,
    /// Contents of the resource that were refused.
    pub judged: Vec<Version>,
}

impl Trial {
    /// The first attempt after a content was refused.
    pub fn new(version: Version, words: Name, mut candidates: Vec<Candidate>) -> Self {
        candidates.truncate(CANDIDATES_MAX);
        Trial { candidates, attempt: 0, words, judged: vec![version] }
    }

    /// The content with what was left out now was refused too.
    pub fn go_on(&mut self, version: Version) {
        self.attempt += 1;
        if self.judged.len() == JUDGED_MAX {
            self.judged.remove(0);
        }
        self.judged.push(version);
    }

    /// Whether these candidates are among those that are tried: nothing that could be to blame is new.
    pub fn covers(&self, candidates: &[Candidate]) -> bool {
        let cut = candidates.get(..CANDIDATES_MAX).unwrap_or(candidates);
        cut.iter().all(|candidate| self.candidates.contains(candidate))
    }

    /// What is left out now: one, or all if no single one was to blame, or nothing if all were not either.
    pub fn left_out(&self) -> &[Candidate] {
        let several = self.candidates.len() > 1;
        match self.candidates.get(self.attempt..=self.attempt) {
            Some(one) => one,
            None if several && self.attempt == self.candidates.len() => &self.candidates,
            None => &[],
        }
    }

    /// What the world is told.
    pub fn rejected<'a>(
        &'a self,
        namespace: &'a Name,
        resource: &'a Name,
    ) -> impl Iterator<Item = Rejected> + 'a {
        self.left_out().iter().map(|candidate| Rejected {
            namespace: namespace.clone(),
            origin: candidate.origin.clone(),
            content: candidate.content,
            resource: resource.clone(),
            words: self.words.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use navarch_model::{Kind, ObjectKey};

    use super::*;

    fn candidates(count: usize) -> Vec<Candidate> {
        let key = ObjectKey::new(Kind::EnvoyFilter, "shop", "patches");
        let origin = |index: usize| Origin::field(key.clone(), &format!("spec.configPatches[{index}]"));
        (0..count).map(|index| Candidate { origin: origin(index), content: index as u128 }).collect()
    }

    #[test]
    fn one_is_left_out_after_the_other_then_all_then_none() {
        let check = |count: usize, expected: &[&[usize]]| {
            let mut trial = Trial::new(Version(0), "no".into(), candidates(count));
            for (version, expected) in (1..).zip(expected) {
                let out: Vec<usize> = trial.left_out().iter().map(|out| out.content as usize).collect();
                assert_eq!(out, *expected, "attempt {version} of {count}");
                trial.go_on(Version(version));
            }
        };
        check(0, &[&[], &[]]);
        check(1, &[&[0], &[], &[]]);
        check(2, &[&[0], &[1], &[0, 1], &[], &[]]);
    }

    #[test]
    fn what_is_new_is_a_new_search_and_memory_is_bounded() {
        let mut trial = Trial::new(Version(0), "no".into(), candidates(2));
        assert!(trial.covers(&candidates(1)) && !trial.covers(&candidates(3)));
        (1..100).for_each(|version| trial.go_on(Version(version)));
        assert_eq!(trial.judged.len(), JUDGED_MAX);
        assert_eq!(Trial::new(Version(0), "no".into(), candidates(99)).candidates.len(), CANDIDATES_MAX);
    }
}
