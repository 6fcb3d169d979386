//! `cargo xtask arch`: which crate may know which.
//!
//! The direction of the data flow is a test, on indirect edges too: a crate that cannot name
//! tokio cannot do IO, and one that cannot name the snapshot is a function of its arguments.

mod circles;
mod imports;
mod packages;
mod tree;

use crate::{hygiene, ratchet};
use anyhow::{Result, bail};
use cargo_metadata::{CargoOpt, DependencyKind, Metadata, MetadataCommand};
use navarch_testkit::workspace;
use std::collections::{BTreeMap, BTreeSet};

/// What one of our crates may know.
struct Rule {
    krate: &'static str,
    /// Our own crates it may reach, directly or through others. Tests may also use those in
    /// [`FOR_TESTS`].
    may_reach: &'static [&'static str],
    /// Crates from elsewhere that it must not reach, directly or through others.
    never: &'static [&'static str],
    why: &'static str,
}

/// Running, talking and watching: what a pure crate has no business with.
const IO: &[&str] = &["tokio", "hyper", "tonic", "notify", "axum", "h2"];

const RULES: &[Rule] = &[
    Rule {
        krate: "navarch-envoy",
        may_reach: &[],
        never: IO,
        why: "Envoy's types know nothing of ours, so any client of them can be tested alone",
    },
    Rule {
        krate: "navarch-re2",
        may_reach: &[],
        never: IO,
        why: "it reads a pattern, and every crate may ask it",
    },
    Rule {
        krate: "navarch-accept",
        may_reach: &["navarch-envoy", "navarch-re2"],
        never: IO,
        why: "what Envoy refuses does not depend on who made it",
    },
    Rule {
        krate: "navarch-model",
        may_reach: &["navarch-re2"],
        never: &["tokio", "hyper", "tonic", "notify", "axum", "h2", "prost"],
        why: "the nouns import no verbs: no Envoy, no runtime",
    },
    Rule {
        krate: "navarch-sources",
        may_reach: &["navarch-model", "navarch-re2"],
        never: &["tonic", "prost"],
        why: "where configuration comes from has nothing to do with whom it is sent to",
    },
    Rule {
        krate: "navarch-kubernetes",
        may_reach: &["navarch-model", "navarch-re2", "navarch-sources"],
        // Not prost: an API server writes its lists in Protobuf too, with messages of its own.
        never: &["tonic"],
        why: "where configuration comes from has nothing to do with whom it is sent to",
    },
    Rule {
        krate: "navarch-snapshot",
        may_reach: &["navarch-model", "navarch-re2"],
        never: &["tokio", "hyper", "tonic", "notify", "axum", "h2", "prost"],
        why: "the world is a plain value with one writer",
    },
    Rule {
        krate: "navarch-translate",
        may_reach: &["navarch-accept", "navarch-envoy", "navarch-model", "navarch-re2"],
        never: IO,
        why: "a translator is a function of its input; with the snapshot in reach its cache key would lie",
    },
    Rule {
        krate: "navarch-plan",
        may_reach: &[
            "navarch-accept",
            "navarch-envoy",
            "navarch-model",
            "navarch-re2",
            "navarch-snapshot",
            "navarch-translate",
        ],
        never: IO,
        why: "planning is computing: the same snapshot gives the same plan",
    },
    Rule {
        krate: "navarch-simulate",
        may_reach: &["navarch-envoy"],
        never: IO,
        why: "it answers for any configuration of Envoy, whoever made it",
    },
    Rule {
        krate: "navarch-convert",
        may_reach: &["navarch-model", "navarch-re2", "navarch-snapshot"],
        never: IO,
        why: "it goes from one API to another; what proxies make of either is for tests to compare",
    },
    Rule {
        krate: "navarch-inject",
        may_reach: &["navarch-model", "navarch-re2"],
        never: IO,
        why: "what becomes of a pod is the same for a webhook and for a file",
    },
    Rule {
        krate: "navarch-install",
        may_reach: &["navarch-inject", "navarch-model", "navarch-re2"],
        never: IO,
        why: "what is installed is the same printed, in a chart, and applied",
    },
    Rule {
        krate: "navarch-xds",
        may_reach: &["navarch-envoy"],
        never: &["notify"],
        why: "the protocol does not know what a VirtualService is",
    },
    Rule {
        krate: "navarch-identity",
        may_reach: &["navarch-model", "navarch-re2"],
        never: IO,
        why: "who somebody is has nothing to do with what they are sent, and keys are not in reach of sockets",
    },
    Rule {
        krate: "navarch-server",
        may_reach: &[
            "navarch-accept",
            "navarch-envoy",
            "navarch-identity",
            "navarch-inject",
            "navarch-install",
            "navarch-kubernetes",
            "navarch-model",
            "navarch-plan",
            "navarch-re2",
            "navarch-snapshot",
            "navarch-sources",
            "navarch-translate",
            "navarch-xds",
        ],
        never: &[],
        why: "it puts the control plane together, without the agent and the command line",
    },
    Rule {
        krate: "navarch-agent",
        // The protocol that it relays, what a certificate and a key are, and nothing of how resources are
        // made.
        may_reach: &["navarch-envoy", "navarch-identity", "navarch-model", "navarch-re2", "navarch-xds"],
        never: &["notify", "tonic", "axum"],
        why: "the side of the proxy knows neither the world nor how it is planned",
    },
    Rule {
        krate: "navarch-agent-cli",
        may_reach: &[
            "navarch-agent",
            "navarch-envoy",
            "navarch-identity",
            "navarch-model",
            "navarch-re2",
            "navarch-xds",
        ],
        never: &["notify", "tonic", "axum"],
        why: "its binary runs beside every application, with nothing of the control plane in it",
    },
    Rule {
        krate: "navarch-bench",
        may_reach: &["navarch-envoy"],
        never: &["tonic", "notify"],
        why: "a client that shares code with the server cannot measure another one",
    },
    Rule {
        krate: "navarch-cli",
        may_reach: &[
            "navarch-accept",
            "navarch-agent",
            "navarch-agent-cli",
            "navarch-bench",
            "navarch-convert",
            "navarch-envoy",
            "navarch-identity",
            "navarch-inject",
            "navarch-install",
            "navarch-kubernetes",
            "navarch-model",
            "navarch-plan",
            "navarch-re2",
            "navarch-server",
            "navarch-snapshot",
            "navarch-sources",
            "navarch-translate",
            "navarch-xds",
        ],
        never: &[],
        why: "the binary that can do everything",
    },
    Rule {
        krate: "navarch-testkit",
        may_reach: &[],
        never: &["tonic"],
        why: "it runs programs and compares files, so every crate may use it in tests",
    },
    Rule {
        krate: "navarch-conformance",
        may_reach: &["navarch-testkit"],
        never: &["tonic"],
        why: "it runs programs, as whoever tests another implementation with the same suite would",
    },
    Rule {
        krate: "xtask",
        may_reach: &["navarch-testkit"],
        never: &[],
        why: "developer commands must build fast, also when the product does not",
    },
];

/// What tests of any crate may use beside what the crate itself may reach. The test equipment,
/// and the way from YAML to a plan and to what becomes of calls, because tests are written in YAML.
const FOR_TESTS: &[&str] = &[
    "navarch-testkit",
    "navarch-model",
    "navarch-sources",
    "navarch-snapshot",
    "navarch-plan",
    "navarch-envoy",
    "navarch-simulate",
];

/// Crates that name protobuf or gRPC libraries themselves; both are in maintenance, so the rest
/// of the code must survive their replacement.
const MAY_NAME: &[(&str, &[&str])] = &[
    // The messages of Istio's certificate service are three, and are not messages of Envoy. The agent reads
    // and writes messages of discovery. An API server's lists are read field by field.
    (
        "prost",
        &[
            "navarch-envoy",
            "navarch-xds",
            "navarch-translate",
            "navarch-identity",
            "navarch-agent",
            "navarch-kubernetes",
            "xtask",
        ],
    ),
    (
        "prost-types",
        &["navarch-accept", "navarch-envoy", "navarch-xds", "navarch-translate", "navarch-identity", "xtask"],
    ),
    ("prost-reflect", &["navarch-accept", "navarch-envoy", "xtask"]),
    ("prost-build", &["xtask"]),
    ("tonic", &["navarch-xds"]),
    ("tonic-prost", &["navarch-xds"]),
    ("notify", &["navarch-sources"]),
    ("granit-parser", &["navarch-model"]),
    // A major version every four months.
    ("kube", &["navarch-kubernetes"]),
    ("k8s-openapi", &["navarch-kubernetes"]),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    /// Ends up in the product, or runs to build it.
    Product,
    /// `[dev-dependencies]`.
    Test,
}

/// Package name -> the packages it depends on. Versions are merged: a rule is about a name.
type Graph = BTreeMap<String, BTreeSet<(Edge, String)>>;

pub fn run() -> Result<()> {
    let metadata = MetadataCommand::new()
        .manifest_path(workspace::root().join("Cargo.toml"))
        .features(CargoOpt::AllFeatures)
        .other_options(["--locked".to_owned()])
        .exec()?;
    let built = tree::built(&["all".to_owned()])?.into_iter().map(|(name, _)| name).collect();
    let (ours, graph) = graph(&metadata, &built);
    let mut problems = check(&ours, &graph);
    problems.extend(packages::check(&workspace::root())?);
    let found = hygiene::check(&workspace::root())?;
    problems.extend(found.problems);
    problems.extend(ratchet::WIDE_COMMENTS.check(&found.wide_comments));
    problems.extend(ratchet::CIRCLES.check(&all_circles(&ours)?));
    if problems.is_empty() {
        println!("{} crates keep to their rules; {} packages in the tree", ours.len(), graph.len());
        return Ok(());
    }
    for problem in &problems {
        eprintln!("{problem}");
    }
    bail!("{} problem(s)", problems.len())
}

/// The circles of all our crates, as `crate: file <-> file`.
fn all_circles(ours: &BTreeSet<String>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for name in ours {
        let dir = if name == "xtask" { name.into() } else { std::path::Path::new("crates").join(name) };
        let circles = circles::of_crate(&workspace::root().join(dir).join("src"))?;
        found.extend(circles.iter().map(|files| format!("{name}: {}", files.join(" <-> "))));
    }
    Ok(found)
}

fn graph(metadata: &Metadata, built: &BTreeSet<String>) -> (BTreeSet<String>, Graph) {
    let names: BTreeMap<_, String> = metadata.packages.iter().map(|p| (&p.id, p.name.to_string())).collect();
    let ours = metadata.workspace_members.iter().filter_map(|id| names.get(id).cloned()).collect();
    let mut graph = Graph::new();
    for node in metadata.resolve.iter().flat_map(|resolve| &resolve.nodes) {
        let Some(from) = names.get(&node.id) else { continue };
        let edges = graph.entry(from.clone()).or_default();
        for dep in &node.deps {
            let Some(to) = names.get(&dep.pkg).filter(|name| built.contains(*name)) else { continue };
            for kind in &dep.dep_kinds {
                let edge = if kind.kind == DependencyKind::Development { Edge::Test } else { Edge::Product };
                edges.insert((edge, to.clone()));
            }
        }
    }
    (ours, graph)
}

/// Every violation, as a sentence with the path that breaks the rule and the reason of the rule.
fn check(ours: &BTreeSet<String>, graph: &Graph) -> Vec<String> {
    let mut problems = Vec::new();
    for name in ours {
        match RULES.iter().find(|rule| rule.krate == name) {
            Some(rule) => check_rule(rule, ours, graph, &mut problems),
            None => problems.push(format!("{name} has no rule: give it one in xtask/src/arch/mod.rs")),
        }
    }
    for rule in RULES.iter().filter(|rule| !ours.contains(rule.krate)) {
        problems.push(format!("there is a rule for {}, but no such crate", rule.krate));
    }
    for (library, may) in MAY_NAME {
        for name in ours.iter().filter(|name| !may.contains(&name.as_str())) {
            if graph.get(name).is_some_and(|edges| edges.contains(&(Edge::Product, (*library).to_owned()))) {
                problems.push(format!("{name} names {library}; only {} may", may.join(", ")));
            }
        }
    }
    problems
}

fn check_rule(rule: &Rule, ours: &BTreeSet<String>, graph: &Graph, problems: &mut Vec<String>) {
    let mut complain = |path: &[String]| {
        problems.push(format!("{} must not be: {}", path.join(" -> "), rule.why));
    };
    for (reached, path) in reach(graph, rule.krate) {
        let foreign = ours.contains(&reached) && !rule.may_reach.contains(&reached.as_str());
        if foreign || rule.never.contains(&reached.as_str()) {
            complain(&path);
        }
    }
    let edges = graph.get(rule.krate).into_iter().flatten();
    for (_, to) in edges.filter(|(edge, to)| *edge == Edge::Test && ours.contains(to)) {
        if !rule.may_reach.contains(&to.as_str()) && !FOR_TESTS.contains(&to.as_str()) {
            complain(&[rule.krate.to_owned(), format!("{to} (in tests)")]);
        }
    }
}

/// Everything that ends up in `from`, each with one shortest path that leads there.
fn reach(graph: &Graph, from: &str) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    let mut queue = std::collections::VecDeque::from([vec![from.to_owned()]]);
    while let Some(path) = queue.pop_front() {
        let Some(edges) = path.last().and_then(|last| graph.get(last)) else { continue };
        for (edge, to) in edges {
            if *edge == Edge::Product && to != from && !found.contains_key(to) {
                let longer: Vec<String> = path.iter().chain([to]).cloned().collect();
                found.insert(to.clone(), longer.clone());
                queue.push_back(longer);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A graph in which all of our crates exist; `extra` are `from -> to`, or `from ~> to` in tests.
    fn problems(extra: &[&str]) -> Vec<String> {
        let ours: BTreeSet<String> = RULES.iter().map(|rule| rule.krate.to_owned()).collect();
        let mut graph: Graph = ours.iter().map(|name| (name.clone(), BTreeSet::new())).collect();
        for line in extra {
            let (edge, (from, to)) = match line.split_once(" ~> ") {
                Some(pair) => (Edge::Test, pair),
                None => (Edge::Product, line.split_once(" -> ").unwrap()),
            };
            graph.entry(from.to_owned()).or_default().insert((edge, to.to_owned()));
        }
        check(&ours, &graph)
    }

    #[track_caller]
    fn check_case(extra: &[&str], expected: Option<&str>) {
        let found = problems(extra);
        match expected {
            None => assert_eq!(found, Vec::<String>::new()),
            Some(text) => assert!(found.iter().any(|p| p.contains(text)), "{text:?} not in {found:#?}"),
        }
    }

    #[test]
    fn allowed_edges_pass() {
        check_case(&[], None);
        check_case(&["navarch-plan -> navarch-translate", "navarch-translate -> navarch-model"], None);
        check_case(&["navarch-plan ~> navarch-sources", "navarch-sources -> tokio"], None);
        check_case(&["navarch-translate -> prost"], None);
    }

    #[test]
    fn forbidden_edges_are_found() {
        let direct = "navarch-translate -> navarch-snapshot must not be: a translator";
        check_case(&["navarch-translate -> navarch-snapshot"], Some(direct));
        let indirect = "navarch-model -> some-library -> tokio must not be";
        check_case(&["navarch-model -> some-library", "some-library -> tokio"], Some(indirect));
        let through_ours = "navarch-xds -> navarch-envoy -> navarch-model must not be";
        check_case(&["navarch-xds -> navarch-envoy", "navarch-envoy -> navarch-model"], Some(through_ours));
        let in_tests = "navarch-envoy -> navarch-server (in tests) must not be";
        check_case(&["navarch-envoy ~> navarch-server"], Some(in_tests));
    }

    #[test]
    fn forbidden_libraries_are_found() {
        check_case(&["navarch-server -> tonic"], Some("navarch-server names tonic; only navarch-xds may"));
        check_case(&["navarch-plan -> notify"], Some("navarch-plan -> notify must not be"));
    }

    #[test]
    fn every_crate_has_a_rule() {
        let ours = BTreeSet::from(["navarch-new".to_owned()]);
        let found = check(&ours, &Graph::new());
        assert!(found.iter().any(|p| p.contains("navarch-new has no rule")), "{found:?}");
        assert!(found.iter().any(|p| p.contains("rule for navarch-model, but no such crate")), "{found:?}");
    }
}
