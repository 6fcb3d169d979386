//! Patches that would make Envoy refuse a resource are left out of it.
//!
//! Envoy refuses resources as a whole: one bad patch would take a listener or a route table away from every
//! proxy that it selects. Everything here is a function of its arguments, so it may run inside translators.

use std::collections::BTreeSet;

use navarch_accept::{Violation, violations};
use navarch_model::{Name as Text, Origin};
use prost::{Message, Name};

use crate::patching::{Fates, Refusal, Trace};

/// Something that knows where it is written.
pub trait Contribution {
    /// Where it is written.
    fn origin(&self) -> &Origin;
}

/// What a message becomes, with as many of the patches as Envoy accepts together, and what became of each.
/// `make` applies patches in their order and says what they do; `name` is that of the resource.
///
/// The smallest contribution is left out: one patch if that is enough, the last such one; otherwise each
/// patch that adds a fault to what the ones before it made. Faults that the message has without any patch are
/// not theirs.
pub fn accepted<P: Contribution, M: Message + Name>(
    name: &str,
    patches: &[&P],
    make: impl Fn(&[&P], &Trace) -> Option<M>,
) -> (Option<M>, Fates) {
    let make = |patches: &[&P]| {
        let trace = Trace::default();
        (make(patches, &trace), trace.into_fates())
    };
    let (whole, fates) = make(patches);
    let found = violations_of(whole.as_ref());
    if found.is_empty() {
        return (whole, fates);
    }
    let own = words(&violations_of(make(&[]).0.as_ref()));
    let is_good = |made: Option<&M>| words(&violations_of(made)).is_subset(&own);
    let foreign = found.iter().find(|violation| !own.contains(&violation.words));
    let Some(foreign) = foreign else { return (whole, fates) };
    for index in (0..patches.len()).rev() {
        let mut others = patches.to_vec();
        let left_out = others.remove(index);
        let (made, mut fates) = make(&others);
        if is_good(made.as_ref()) {
            fates.refuse(left_out.origin(), refusal(name, foreign));
            return (made, fates);
        }
    }
    let mut kept: Vec<&P> = Vec::new();
    let mut refused: Vec<(&P, Refusal)> = Vec::new();
    for patch in patches {
        kept.push(patch);
        let found = violations_of(make(&kept).0.as_ref());
        if let Some(foreign) = found.iter().find(|violation| !own.contains(&violation.words)) {
            refused.push((patch, refusal(name, foreign)));
            kept.pop();
        }
    }
    let (made, mut fates) = make(&kept);
    for (patch, refusal) in refused {
        fates.refuse(patch.origin(), refusal);
    }
    (made, fates)
}

/// What Envoy would refuse in a message that a patch adds as it is.
pub fn refused<M: Message + Name>(name: &str, message: &M) -> Option<Refusal> {
    violations_of(Some(message)).first().map(|violation| refusal(name, violation))
}

fn refusal(resource: &str, violation: &Violation) -> Refusal {
    Refusal { resource: Text::from(resource), words: Text::from(violation.to_string()) }
}

fn violations_of<M: Message + Name>(message: Option<&M>) -> Vec<Violation> {
    let Some(message) = message else { return Vec::new() };
    violations(&M::full_name(), &message.encode_to_vec())
}

/// What Envoy would say, without the places: a patch may move what was wrong before.
fn words(found: &[Violation]) -> BTreeSet<String> {
    found.iter().map(|violation| violation.words.clone()).collect()
}

#[cfg(test)]
mod tests {
    use navarch_envoy::proto::envoy::config::cluster::v3::Cluster;
    use navarch_model::{Kind, ObjectKey};

    use super::*;

    /// A patch that sets the name or the statistics name.
    struct Patch(Origin, Change);

    enum Change {
        Name(&'static str),
        Statistics(&'static str),
        Policy(i32),
    }

    impl Contribution for Patch {
        fn origin(&self) -> &Origin {
            &self.0
        }
    }

    fn numbered(changes: Vec<Change>) -> Vec<Patch> {
        let origin = |index: usize| {
            let key = ObjectKey::new(Kind::EnvoyFilter, "default", "patches");
            Origin::field(key, &format!("spec.configPatches[{index}]"))
        };
        changes.into_iter().enumerate().map(|(index, change)| Patch(origin(index), change)).collect()
    }

    #[track_caller]
    fn check(changes: Vec<Change>, expected: (&str, &str, i32), left_out: &[&str]) {
        let patches = numbered(changes);
        let (made, fates) = accepted("a", &patches.iter().collect::<Vec<_>>(), |patches, _| {
            let mut cluster = Cluster { name: "a".to_owned(), ..Cluster::default() };
            for patch in patches {
                match &patch.1 {
                    Change::Name(name) => cluster.name = (*name).to_owned(),
                    Change::Statistics(name) => cluster.alt_stat_name = (*name).to_owned(),
                    Change::Policy(policy) => cluster.lb_policy = *policy,
                }
            }
            Some(cluster)
        });
        let made = made.expect("a cluster");
        assert_eq!((made.name.as_str(), made.alt_stat_name.as_str(), made.lb_policy), expected);
        let refused = fates.iter().filter(|(_, fate)| fate.refused.is_some());
        assert_eq!(refused.map(|(origin, _)| &*origin.field).collect::<Vec<_>>(), left_out);
    }

    #[test]
    fn the_fewest_patches_are_left_out() {
        use Change::{Name, Policy, Statistics};
        const FIRST: &str = "spec.configPatches[0]";
        const SECOND: &str = "spec.configPatches[1]";
        check(vec![], ("a", "", 0), &[]);
        check(vec![Name("b"), Statistics("s")], ("b", "s", 0), &[]);
        check(vec![Name(""), Statistics("s")], ("a", "s", 0), &[FIRST]);
        // The second makes good what the first does.
        check(vec![Name(""), Name("b")], ("b", "", 0), &[]);
        check(vec![Name("b"), Name(""), Statistics("s")], ("b", "s", 0), &[SECOND]);
        check(vec![Name(""), Policy(99), Statistics("s")], ("a", "s", 0), &[FIRST, SECOND]);
    }

    #[test]
    fn what_was_wrong_before_is_nobody_elses_fault() {
        let unnamed = |patches: &[&Patch], _: &Trace| {
            Some(Cluster { alt_stat_name: "s".repeat(patches.len()), ..Cluster::default() })
        };
        let patches = numbered(vec![Change::Policy(0)]);
        let (made, fates) = accepted("a", &patches.iter().collect::<Vec<_>>(), unnamed);
        assert_eq!(made.expect("a cluster").alt_stat_name, "s");
        assert!(fates.is_empty());
    }
}
