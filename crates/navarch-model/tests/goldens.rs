//! Wrong configuration, one file per subject in `malformed/` and `invalid/`, with the expected findings
//! beside it as text.
//!
//! `cargo xtask golden --update` writes the expectations; look at the difference before you keep it.

#![expect(
    clippy::disallowed_methods,
    reason = "goldens are files, and a variable says whether to rewrite them"
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use navarch_model::{Code, ConfigKind, Parsed, kubernetes, networking, parse_bytes, security, telemetry};

fn cases() -> Vec<PathBuf> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut cases: Vec<PathBuf> = ["malformed", "invalid"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(tests.join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    cases.sort();
    cases
}

fn parse(case: &Path) -> Parsed {
    let name = case.file_name().unwrap().to_str().unwrap();
    parse_bytes(name, &std::fs::read(case).unwrap())
}

fn render(parsed: &Parsed) -> String {
    let mut text = String::new();
    for finding in &parsed.findings {
        writeln!(text, "{finding}").unwrap();
    }
    for object in &parsed.objects {
        writeln!(text, "used: {}", object.key).unwrap();
    }
    for key in &parsed.rejected {
        writeln!(text, "rejected: {key}").unwrap();
    }
    if parsed.incomplete {
        writeln!(text, "incomplete").unwrap();
    }
    text
}

/// Whether goldens are rewritten, and not compared: the one switch of the whole workspace.
fn updating() -> bool {
    std::env::var_os("NAVARCH_UPDATE").is_some_and(|value| value == "1")
}

/// The lines that only one of the two has.
fn difference(expected: &str, found: &str) -> String {
    let only = |sign: char, these: &str, others: &str| -> String {
        let others: BTreeSet<&str> = others.lines().collect();
        these.lines().filter(|line| !others.contains(line)).map(|line| format!("{sign} {line}\n")).collect()
    };
    only('-', expected, found) + &only('+', found, expected)
}

#[test]
fn golden_findings_are_as_written_beside_each_case() {
    let update = updating();
    let mut wrong = Vec::new();
    for case in cases() {
        let found = render(&parse(&case));
        let expectation = case.with_extension("txt");
        if update {
            std::fs::write(&expectation, &found).unwrap();
            continue;
        }
        let expected = std::fs::read_to_string(&expectation).unwrap_or_default();
        if found != expected {
            wrong.push(format!("--- {}\n{}", case.display(), difference(&expected, &found)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_expectation_is_left_without_its_case() {
    let cases: BTreeSet<PathBuf> = cases().iter().map(|case| case.with_extension("txt")).collect();
    for folder in ["malformed", "invalid"] {
        for entry in
            std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder)).unwrap()
        {
            let path = entry.unwrap().path();
            assert!(path.extension().unwrap() != "txt" || cases.contains(&path), "{}", path.display());
        }
    }
}

/// The place that a finding names is the place of its field, also when it is looked up later.
#[test]
fn places_of_findings_can_be_found_again() {
    for case in cases() {
        let parsed = parse(&case);
        for object in &parsed.objects {
            for finding in
                parsed.findings.iter().filter(|finding| finding.object.as_ref() == Some(&object.key))
            {
                let position = finding.position.clone().unwrap();
                if finding.code == Code::UnknownField || finding.path.is_empty() {
                    continue;
                }
                assert_eq!(object.locate(&finding.path), Some(position), "{finding}");
            }
        }
    }
}

#[test]
fn every_code_that_this_crate_uses_has_a_case() {
    // Found when several files or versions are put together, in files that are not text, when patches are
    // translated, and when objects are converted.
    let elsewhere =
        [Code::DuplicateObject, Code::LastGood, Code::NotText, Code::RefusedByEnvoy, Code::NotConverted];
    let found: BTreeSet<Code> =
        cases().iter().flat_map(|case| parse(case).findings).map(|finding| finding.code).collect();
    for code in Code::ALL {
        assert!(found.contains(code) || elsewhere.contains(code), "no case for {code} {}", code.title());
    }
}

#[test]
fn a_file_that_is_no_text_is_one_finding() {
    let parsed = parse_bytes("binary.yaml", b"a: b\n\xff\xfe");
    assert_eq!(
        render(&parsed),
        "error[NAV0002] binary.yaml:2:1: the file is not UTF-8 text; help: save it as UTF-8, or move it out of the \
         configuration directory\nincomplete\n"
    );
}

/// Every finding is listed in the documentation, with the same words.
#[test]
fn golden_documentation_lists_every_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/findings.md");
    let mut expected = String::from(
        "# Findings\n\nWhat navarch says about configuration, wherever it says it: logs, `navarch analyze`, status. Each finding has a\n\
         severity, a stable code, a place (`file:line:column`), the object and field it is about, what is wrong and what to do.\n\n\
         An *error* means that the object is not used, and its last good version stays in use, or that the part of it that the \
         finding names is left out or cannot work. A *warning* means that the object is\n\
         used, though probably not as it was meant. An *info* needs no action.\n\n| Code | Meaning |\n|---|---|\n",
    );
    for code in Code::ALL {
        writeln!(expected, "| {code} | {} |", code.title()).unwrap();
    }
    if updating() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &expected).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), expected);
}

fn valid(name: &str) -> Parsed {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/valid").join(name);
    let parsed = parse_bytes(name, &std::fs::read(path).unwrap());
    let findings: Vec<String> = parsed.findings.iter().map(ToString::to_string).collect();
    assert_eq!(findings, Vec::<String>::new());
    parsed
}

fn spec<T: ConfigKind + Clone>(parsed: &Parsed) -> T {
    let found = parsed.objects.iter().find_map(|object| object.spec::<T>()).unwrap();
    T::clone(found)
}

/// What is right has no findings, and means what it says.
#[test]
fn valid_configuration_is_read() {
    let parsed = valid("networking.yaml");
    assert_eq!(parsed.objects[0].metadata.creation_timestamp, 1_769_860_800);

    let vs: networking::VirtualService = spec(&parsed);
    assert_eq!(vs.export_to, ["."]);
    let (canary, main) = (&vs.http[0], &vs.http[1]);
    assert_eq!(canary.match_[0].headers["x-any"], networking::StringMatch::Any);
    assert_eq!(canary.fault.as_ref().unwrap().delay.as_ref().unwrap().percentage.unwrap().millionths, 1_000);
    assert_eq!(canary.mirrors[0].destination, canary.route[0].destination);
    assert_eq!(main.route[1].destination, canary.route[0].destination);
    assert_eq!(main.timeout, Some(Duration::from_secs(90)));
    assert_eq!(main.cors_policy.as_ref().unwrap().unmatched_preflights.as_str(), "IGNORE");

    let rule: networking::DestinationRule = spec(&parsed);
    let balancer = rule.traffic_policy.unwrap().load_balancer.unwrap();
    assert_eq!(balancer.lb_policy, Some(networking::LbPolicy::Simple(networking::SimpleLb::LeastRequest)));
    assert_eq!(balancer.warmup.unwrap().aggression.unwrap().billionths, 1_500_000_000);

    let entry: networking::ServiceEntry = spec(&parsed);
    assert_eq!(entry.status_addresses[0].value, "240.240.0.1");

    let filter: networking::EnvoyFilter = spec(&parsed);
    let value = filter.config_patches[0].patch.clone().unwrap().value.unwrap();
    assert_eq!(
        value.get("typed_config").unwrap().to_serde(),
        serde_json::json!({"@type": "type.googleapis.com/a.B", "numbers": [1, 1.5, 10], "yes": false})
    );

    let parsed = valid("policies.yaml");
    let peer: security::PeerAuthentication = spec(&parsed);
    assert_eq!(peer.port_level_mtls.keys().copied().collect::<Vec<_>>(), [8080, 9090]);
    let service: kubernetes::Service = spec(&parsed);
    assert_eq!(service.spec.cluster_ips[1], "2001:db8::1");
    assert_eq!(service.spec.ports[0].target_port, Some(kubernetes::IntOrString::String("web".to_owned())));
    let telemetry: telemetry::Telemetry = spec(&parsed);
    assert_eq!(telemetry.tracing[0].random_sampling_percentage.unwrap().millionths, 100);
}
