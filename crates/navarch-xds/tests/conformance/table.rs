//! `docs/xds-conformance.md` from the names of the tests, so that it cannot claim what is not tested.
//!
//! Rewritten with `cargo xtask golden --update`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// `ID | what it says | why there is no test`, the last part only where there is none.
const SCENARIOS: &str = include_str!("scenarios.txt");

const HEAD: &str = "# xDS conformance

What a server must get right for Envoy, gRPC and ztunnel, and the tests that show it. Written by a test from the names of
the tests in `crates/navarch-xds`; `cargo xtask golden --update` rewrites it.

`yes`: there is a test. `n.a.`: nothing a server can do, or not its matter. `no`: not done, or not tested.

";

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            rust_files(&entry, files);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            files.push(entry);
        }
    }
}

/// Scenario to tests. A test may show several: `rec_02_and_rec_13_reconnect`.
fn tests() -> BTreeMap<String, Vec<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    rust_files(&root.join("tests"), &mut files);
    let mut tests: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files {
        let source = fs::read_to_string(&file).expect("a source");
        let mut in_scenario = false;
        for line in source.lines().map(str::trim_start) {
            // A long one is broken after the parenthesis.
            let broken = std::mem::replace(&mut in_scenario, line == "scenario!(").then_some(line);
            let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
            let declared =
                function.or_else(|| line.strip_prefix("scenario!(")).filter(|rest| !rest.is_empty());
            let declared = declared.or(broken);
            let Some(name) = declared.and_then(|rest| rest.split(['(', ',']).next()) else { continue };
            for id in ids(name) {
                tests.entry(id).or_default().push(name.to_owned());
            }
        }
    }
    tests.values_mut().for_each(|names| names.sort());
    tests
}

fn ids(name: &str) -> Vec<String> {
    let words: Vec<_> = name.split('_').collect();
    let is_number = |word: &str| word.len() == 2 && word.bytes().all(|byte| byte.is_ascii_digit());
    let pairs = words.windows(2).filter(|pair| is_number(pair[1]) && (3..=4).contains(&pair[0].len()));
    let of_pairs = pairs.map(|pair| format!("{}-{}", pair[0].to_uppercase(), pair[1]));
    // End to end: `e07_...`.
    let of_words = words.iter().filter(|word| word.strip_prefix('e').is_some_and(is_number));
    of_pairs.chain(of_words.map(|word| word.to_uppercase())).collect()
}

fn table() -> String {
    let mut tests = tests();
    let mut rows = String::new();
    let (mut yes, mut not_applicable, mut no) = (0, 0, 0);
    for line in SCENARIOS.lines() {
        let mut parts = line.split(" | ");
        let (id, text) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let note = parts.next().unwrap_or_default();
        let (status, shown) = match tests.remove(id) {
            Some(names) => {
                yes += 1;
                let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
                ("yes", [names.join(", "), note.to_owned()].join(" ").trim().to_owned())
            }
            None if note.starts_with("n.a.") || note.starts_with("see ") => {
                not_applicable += 1;
                ("n.a.", note.trim_start_matches("n.a.: ").to_owned())
            }
            None => {
                no += 1;
                ("no", note.trim_start_matches("no").trim_start_matches(": ").to_owned())
            }
        };
        writeln!(rows, "| {id} | {text} | {status} | {shown} |").expect("written");
    }
    assert!(tests.is_empty(), "tests of scenarios that are not listed: {tests:?}");
    let count = yes + not_applicable + no;
    let sum = format!("{count} scenarios: {yes} yes, {not_applicable} n.a., {no} no.\n\n");
    format!("{HEAD}{sum}| Scenario | What | | Tests |\n|---|---|---|---|\n{rows}")
}

#[test]
fn golden_table_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/xds-conformance.md");
    let table = table();
    if navarch_testkit::golden::updating() {
        fs::write(&path, &table).expect("written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == table, "docs/xds-conformance.md is out of date; see the head of this file");
}
