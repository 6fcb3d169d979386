//! A real Envoy is the judge of the model.
//!
//! The resources of the goldens are changed at random: fields dropped, emptied, doubled, reordered, given
//! numbers out of range, extensions put where they do not belong. What the model says of each is compared
//! with `envoy --mode validate`. Some hundreds are tried by default; `NAVARCH_JUDGE=5000` tries as many,
//! `NAVARCH_JUDGE_SEED=7` others.

#[path = "judge/known.rs"]
mod known;
#[path = "judge/mutate.rs"]
mod mutate;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use navarch_accept::violations;
use navarch_envoy::dynamic::encode;
use navarch_envoy::json::from_json;
use navarch_testkit::envoy::bootstrap::{Resources, of_resources};
use navarch_testkit::{envoy, golden, workspace};
use serde_json::Value;

use mutate::{Dice, mutate};

/// Types of resources by the stem of their golden files.
const TYPES: [(&str, &str); 4] = [
    ("listeners", "envoy.config.listener.v3.Listener"),
    ("clusters", "envoy.config.cluster.v3.Cluster"),
    ("routes", "envoy.config.route.v3.RouteConfiguration"),
    ("endpoints", "envoy.config.endpoint.v3.ClusterLoadAssignment"),
];

/// A resource with its type.
#[derive(Clone)]
struct Sample {
    stem: &'static str,
    full_name: &'static str,
    json: Value,
}

impl Sample {
    /// What the model says; nothing if the message cannot be built.
    fn model(&self) -> Option<Vec<String>> {
        let message = from_json(self.full_name, &self.json).ok()?;
        Some(violations(self.full_name, &encode(&message)).iter().map(ToString::to_string).collect())
    }
}

/// Every resource of the goldens, each content once.
fn goldens() -> Result<Vec<Sample>> {
    let root = workspace::root().join("crates/navarch-server/tests/golden");
    let mut seen = BTreeSet::new();
    let mut samples = Vec::new();
    for case in golden::cases(&root)? {
        for entry in std::fs::read_dir(&case.dir)? {
            let dir = entry?.path();
            for (stem, full_name) in TYPES {
                for json in read(&dir.join(format!("{stem}.json")))? {
                    if seen.insert(json.to_string()) {
                        samples.push(Sample { stem, full_name, json });
                    }
                }
            }
        }
    }
    samples.sort_by_key(|sample| (sample.stem, sample.json.to_string()));
    Ok(samples)
}

fn read(file: &Path) -> Result<Vec<Value>> {
    if !file.is_file() {
        return Ok(Vec::new());
    }
    let text = std::fs::read(file)?;
    serde_json::from_slice(&text).with_context(|| file.display().to_string())
}

#[test]
fn the_model_has_nothing_against_the_goldens() -> Result<()> {
    let samples = goldens()?;
    ensure!(samples.len() > 100, "only {} resources", samples.len());
    let mut wrong = String::new();
    for sample in &samples {
        let found = sample.model().context("a golden that is not a message")?;
        if !found.is_empty() {
            writeln!(wrong, "{} {}: {found:#?}", sample.stem, sample.json["name"])?;
        }
    }
    ensure!(wrong.is_empty(), "{wrong}");
    Ok(())
}

/// Configurations made by hand, one for each thing that is checked: the model and Envoy agree on every one.
#[test]
fn the_model_and_envoy_agree_on_what_is_made_by_hand() -> Result<()> {
    let cases: Vec<Value> = serde_json::from_str(include_str!("judge/cases.json"))?;
    let (mut tried, mut broken) = (Vec::new(), Vec::new());
    for case in &cases {
        let stem = case["stem"].as_str().unwrap_or_default();
        let (stem, full_name) =
            TYPES.into_iter().find(|(known, _)| *known == stem).context("an unknown stem")?;
        let sample = Sample { stem, full_name, json: case["resource"].clone() };
        match sample.model() {
            Some(model) => tried.push((sample, model)),
            None => broken.push(case["name"].to_string()),
        }
    }
    ensure!(broken.is_empty(), "not messages: {}", broken.join(", "));
    ensure!(compare(&tried)? == 0, "see above");
    Ok(())
}

fn number(variable: &str, default: u64) -> Result<u64> {
    match std::env::var(variable) {
        Ok(text) => text.parse().with_context(|| variable.to_owned()),
        Err(_) => Ok(default),
    }
}

#[test]
fn the_model_and_envoy_agree() -> Result<()> {
    let wanted = usize::try_from(number("NAVARCH_JUDGE", 300)?)?;
    let mut dice = Dice::new(number("NAVARCH_JUDGE_SEED", 1)?);
    let samples = goldens()?;
    let pool: Vec<&Value> = samples.iter().map(|sample| &sample.json).collect();
    let mut tried: Vec<(Sample, Vec<String>)> = Vec::new();
    let mut seen = BTreeSet::new();
    while tried.len() < wanted {
        let Some(base) = dice.pick(&samples) else { break };
        let mut changed = base.clone();
        mutate(&mut changed.json, &pool, &mut dice);
        if let Some(model) = changed.model()
            && seen.insert(changed.json.to_string())
        {
            tried.push((changed, model));
        }
    }
    let differ = compare(&tried)?;
    ensure!(differ * 1000 <= tried.len() * 5, "{differ} of {} differ, see above", tried.len());
    Ok(())
}

/// Asks Envoy about each, prints where it says otherwise than the model, and returns how often it does.
fn compare(tried: &[(Sample, Vec<String>)]) -> Result<usize> {
    let bootstraps: Vec<(String, Value)> = tried
        .iter()
        .enumerate()
        .map(|(index, (sample, _))| {
            let one = Resources::from([(sample.stem.to_owned(), vec![sample.json.clone()])]);
            (index.to_string(), of_resources(&one))
        })
        .collect();
    let refused: std::collections::BTreeMap<String, String> =
        envoy::validate_all(&bootstraps)?.into_iter().map(|one| (one.name, one.reason)).collect();
    let (mut both, mut known, mut passed, mut blamed) = (0, 0, Vec::new(), Vec::new());
    for (index, (sample, model)) in tried.iter().enumerate() {
        let envoy = refused.get(&index.to_string());
        match (model.is_empty(), envoy) {
            (false, Some(_)) => both += 1,
            (true, Some(reason)) if known::is_passed(reason) => known += 1,
            (false, None) if known::is_blamed(model) => known += 1,
            (true, Some(reason)) => {
                passed.push(format!("{} {}\n  Envoy: {reason}", sample.stem, sample.json))
            }
            (false, None) => {
                blamed.push(format!("{} {}\n  model: {}", sample.stem, sample.json, model.join("\n  ")))
            }
            (true, None) => {}
        }
    }
    println!(
        "{} resources: {} refused by Envoy, {both} by both; passed by the model alone: {}; refused by it alone: {}; \
         known differences: {known}",
        tried.len(),
        refused.len(),
        passed.len(),
        blamed.len(),
    );
    let lists = [("refused by Envoy alone", passed), ("refused by the model alone", blamed)];
    for (title, list) in lists.iter().filter(|(_, list)| !list.is_empty()) {
        println!("{title}:\n{}", list.join("\n"));
    }
    Ok(lists.iter().map(|(_, list)| list.len()).sum())
}
