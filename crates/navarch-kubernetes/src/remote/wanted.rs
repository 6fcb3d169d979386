//! Which clusters are followed, and how each is reached. No IO.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use navarch_model::finding::Code;

/// Longest name of a cluster (Kubernetes: keys of a Secret).
const NAME_MAX: usize = 253;

/// Where a kubeconfig is from. Files come first: who starts us decides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum GivenBy {
    File(PathBuf),
    Secret { namespace: String, name: String },
}

impl fmt::Display for GivenBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GivenBy::File(path) => write!(f, "{}", path.display()),
            GivenBy::Secret { namespace, name } => write!(f, "Secret {namespace}/{name}"),
        }
    }
}

/// A cluster that is to be followed.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub from: GivenBy,
    /// The kubeconfig, unless it is in a file. It has credentials.
    pub kubeconfig: Option<Arc<[u8]>>,
}

/// Why a kubeconfig cannot be used.
pub(super) type Problem = (Code, String);
/// Kubeconfigs that cannot be used, by the names of clusters and where they are from.
pub(super) type Refused = BTreeMap<(String, GivenBy), Problem>;

/// What Secrets say: kubeconfigs by what clusters are called, by namespace and name of the Secret.
pub(super) type Found = BTreeMap<(String, String), BTreeMap<String, Arc<[u8]>>>;

/// Clusters, each with the ways to it: the first that can be used counts.
pub(super) type Ways = BTreeMap<String, Vec<Wanted>>;

/// The clusters that are to be followed, and what cannot be. Of several kubeconfigs for one cluster that of
/// a file counts, or those of Secrets in the order of their names.
pub(super) fn wanted(local: &str, files: &BTreeMap<String, PathBuf>, secrets: &Found) -> (Ways, Refused) {
    let of_files = files.iter().map(|(cluster, path)| (cluster, GivenBy::File(path.clone()), None));
    let of_secrets = secrets.iter().flat_map(|((namespace, name), entries)| {
        let from = GivenBy::Secret { namespace: namespace.clone(), name: name.clone() };
        entries.iter().map(move |(cluster, text)| (cluster, from.clone(), Some(text.clone())))
    });
    let mut wanted = Ways::new();
    let mut refused = Refused::new();
    for (cluster, from, kubeconfig) in of_files.chain(of_secrets) {
        let known = wanted.get(cluster).and_then(|ways| ways.first());
        let problem = match known.map(|first| &first.from) {
            _ if cluster == local => {
                Some((Code::DuplicateItem, "the cluster whose configuration counts is called so".to_owned()))
            }
            _ if !is_name(cluster) => {
                Some((Code::InvalidName, format!("{cluster:?} is not a name of a cluster")))
            }
            // Who writes Secrets does not decide where a file leads, whether it can be used or not.
            Some(file @ GivenBy::File(_)) => Some(already(file)),
            Some(GivenBy::Secret { .. }) | None => None,
        };
        match problem {
            Some(problem) => _ = refused.insert((cluster.clone(), from), problem),
            None => wanted.entry(cluster.clone()).or_default().push(Wanted { from, kubeconfig }),
        }
    }
    (wanted, refused)
}

/// Another kubeconfig counts.
pub(super) fn already(other: &GivenBy) -> Problem {
    (Code::DuplicateItem, format!("{other} says so already"))
}

/// Whether a cluster may be called that: it is also the name of a directory.
fn is_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=NAME_MAX).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(is_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cluster_is_followed_once() {
        let told = |ways: &[Wanted]| {
            ways.iter().map(|wanted| wanted.from.to_string()).collect::<Vec<_>>().join(", or ")
        };
        let check = |files: &[(&str, &str)], secrets: &[(&str, &[&str])], expected: &str| {
            let files = files.iter().map(|(name, path)| ((*name).to_owned(), PathBuf::from(path))).collect();
            let found = secrets.iter().map(|(secret, clusters)| {
                let entries = clusters.iter().map(|name| ((*name).to_owned(), Arc::from(*b"text")));
                (("istio-system".to_owned(), (*secret).to_owned()), entries.collect())
            });
            let (wanted, refused) = wanted("main", &files, &found.collect());
            let mut said: Vec<String> =
                wanted.iter().map(|(name, ways)| format!("{name}: {}", told(ways))).collect();
            said.extend(
                refused.iter().map(|((name, from), (_, reason))| format!("not {name}: {from}: {reason}")),
            );
            assert_eq!(said.join("\n"), expected);
        };
        check(&[], &[], "");
        check(&[("west", "w")], &[("a", &["east"])], "east: Secret istio-system/a\nwest: w");
        check(
            &[("west", "w")],
            &[("a", &["west", "east"]), ("b", &["east"])],
            "east: Secret istio-system/a, or Secret istio-system/b\nwest: w\n\
             not west: Secret istio-system/a: w says so already",
        );
        check(
            &[("main", "m")],
            &[("a", &["../../etc", "main"])],
            "not ../../etc: Secret istio-system/a: \"../../etc\" is not a name of a cluster\n\
             not main: m: the cluster whose configuration counts is called so\n\
             not main: Secret istio-system/a: the cluster whose configuration counts is called so",
        );
        for (name, expected) in [("a-1.b_C", true), ("", false), (".", false), ("..a", false), ("a/b", false)]
        {
            assert_eq!(is_name(name), expected, "{name}");
        }
    }
}
