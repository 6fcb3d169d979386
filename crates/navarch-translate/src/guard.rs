//! Patches that would make Envoy refuse a resource are left out of it.
//!
//! Envoy refuses resources as a whole: one bad patch would take a listener or a route table away from every proxy that
//! it selects. Everything here is a function of its arguments, so it may run inside translators.

use std::collections::BTreeSet;

use navarch_accept::violations;
use prost::{Message, Name};

/// What a message becomes, with as many of the patches as Envoy accepts together. `make` applies patches in their order.
///
/// The smallest contribution is left out: one patch if that is enough, the last such one; otherwise each patch that
/// adds a fault to what the ones before it made. Faults that the message has without any patch are not theirs.
pub fn accepted<P, M: Message + Name>(patches: &[P], make: impl Fn(&[&P]) -> Option<M>) -> Option<M> {
    let all: Vec<&P> = patches.iter().collect();
    let whole = make(&all);
    let found = faults(whole.as_ref());
    if found.is_empty() {
        return whole;
    }
    let own = faults(make(&[]).as_ref());
    let is_good = |made: Option<&M>| faults(made).is_subset(&own);
    if found.is_subset(&own) {
        return whole;
    }
    for index in (0..all.len()).rev() {
        let mut others = all.clone();
        others.remove(index);
        let made = make(&others);
        if is_good(made.as_ref()) {
            return made;
        }
    }
    let mut kept: Vec<&P> = Vec::new();
    for patch in all {
        kept.push(patch);
        if !is_good(make(&kept).as_ref()) {
            kept.pop();
        }
    }
    make(&kept)
}

/// Whether Envoy accepts a message that a patch adds as it is.
pub fn is_accepted<M: Message + Name>(message: &M) -> bool {
    faults(Some(message)).is_empty()
}

/// What Envoy would say, without the places: a patch may move what was wrong before.
fn faults<M: Message + Name>(message: Option<&M>) -> BTreeSet<String> {
    let Some(message) = message else { return BTreeSet::new() };
    violations(&M::full_name(), &message.encode_to_vec()).into_iter().map(|found| found.words).collect()
}

#[cfg(test)]
mod tests {
    use navarch_envoy::proto::envoy::config::cluster::v3::Cluster;

    use super::*;

    /// A patch that sets the name or the statistics name.
    enum Patch {
        Name(&'static str),
        Statistics(&'static str),
        Policy(i32),
    }

    #[track_caller]
    fn check(patches: &[Patch], expected: (&str, &str, i32)) {
        let made = accepted(patches, |patches| {
            let mut cluster = Cluster { name: "a".to_owned(), ..Cluster::default() };
            for patch in patches {
                match patch {
                    Patch::Name(name) => cluster.name = (*name).to_owned(),
                    Patch::Statistics(name) => cluster.alt_stat_name = (*name).to_owned(),
                    Patch::Policy(policy) => cluster.lb_policy = *policy,
                }
            }
            Some(cluster)
        });
        let made = made.expect("a cluster");
        assert_eq!((made.name.as_str(), made.alt_stat_name.as_str(), made.lb_policy), expected);
    }

    #[test]
    fn the_fewest_patches_are_left_out() {
        use Patch::{Name, Policy, Statistics};
        check(&[], ("a", "", 0));
        check(&[Name("b"), Statistics("s")], ("b", "s", 0));
        check(&[Name(""), Statistics("s")], ("a", "s", 0));
        // The second makes good what the first does.
        check(&[Name(""), Name("b")], ("b", "", 0));
        check(&[Name("b"), Name(""), Statistics("s")], ("b", "s", 0));
        check(&[Name(""), Policy(99), Statistics("s")], ("a", "s", 0));
    }

    #[test]
    fn what_was_wrong_before_is_nobody_elses_fault() {
        let named = |patches: &[&&str]| {
            Some(Cluster { alt_stat_name: patches.iter().map(|name| **name).collect(), ..Cluster::default() })
        };
        let made = accepted(&["s"], named).expect("a cluster");
        assert_eq!(made.alt_stat_name, "s");
    }
}
