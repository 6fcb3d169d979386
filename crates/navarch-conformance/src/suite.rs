//! The suite as a program, and what it has found.

use crate::names::CLASS;
use anyhow::{Context, Result};
use navarch_testkit::workspace;
use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

/// What to run, and what the report says of who was tested.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Test a mesh, with sidecars, instead of gateways
    #[arg(long)]
    pub mesh: bool,
    /// Profiles of the suite, with commas; otherwise all of them
    #[arg(long, value_delimiter = ',')]
    pub profile: Vec<String>,
    /// One test alone, by its name in the suite; no report is written
    #[arg(long)]
    pub run: Option<String>,
    /// Where the project can be found, for the report
    #[arg(long, default_value = "unpublished")]
    pub url: String,
    /// Who answers for it, for the report
    #[arg(long, default_value = "unpublished")]
    pub contact: String,
}

const GATEWAYS: [&str; 5] = ["GATEWAY-HTTP", "GATEWAY-GRPC", "GATEWAY-TLS", "GATEWAY-TCP", "GATEWAY-UDP"];
const MESHES: [&str; 2] = ["MESH-HTTP", "MESH-GRPC"];

impl Options {
    /// Flags of the suite that say what is tried.
    fn subject(&self) -> Vec<String> {
        let all = if self.mesh { MESHES.as_slice() } else { &GATEWAYS };
        let profiles = if self.profile.is_empty() { all.join(",") } else { self.profile.join(",") };
        let exempt = match (self.mesh, &self.run) {
            // docs/conformance/README.md says why.
            (true, None) => "Gateway,MeshClusterIPMatching",
            (true, Some(_)) => "Gateway",
            (false, Some(_)) => "Mesh",
            // The GatewayClass says what is supported.
            (false, None) => "",
        };
        let mut flags = vec![format!("-conformance-profiles={profiles}")];
        if !exempt.is_empty() {
            flags.extend(["-all-features".to_owned(), format!("-exempt-features={exempt}")]);
        }
        if self.mesh {
            flags.push("-namespace-labels=istio-injection=enabled".to_owned());
        }
        flags
    }

    /// The name that a report is kept by.
    pub fn report(&self) -> &'static str {
        if self.mesh { "mesh.yaml" } else { "gateways.yaml" }
    }
}

/// The suite while it runs. It is killed when dropped.
#[derive(Debug)]
pub struct Suite {
    child: Child,
    log: PathBuf,
    report: PathBuf,
    /// How much of its log has been told.
    told: usize,
    results: BTreeMap<String, Outcome>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

impl Suite {
    pub fn start(program: &Path, kubeconfig: &Path, options: &Options) -> Result<Suite> {
        let dir = workspace::scratch("conformance-suite")?;
        let (log, report) = (dir.join("log"), dir.join("report.yaml"));
        let output = File::create(&log)?;
        let mut command = Command::new(program);
        command.args(["-test.v", "-test.run=TestConformance", "-test.timeout=90m"]);
        for (flag, value) in [
            ("gateway-class", CLASS),
            ("run-test", options.run.as_deref().unwrap_or_default()),
            ("report-output", &report.display().to_string()),
            ("organization", "navarch"),
            ("project", "navarch"),
            ("version", env!("CARGO_PKG_VERSION")),
            ("url", &options.url),
            ("contact", &options.contact),
            // A Gateway may name Services that its proxies are behind: one that is there, and one that is
            // not.
            ("usable-address", "infra-backend-v1.gateway-conformance-infra.svc.cluster.local"),
            ("unusable-address", "none.gateway-conformance-infra.svc.cluster.local"),
            // All of it goes with the API server.
            ("cleanup-base-resources", "false"),
        ] {
            command.arg(format!("-{flag}={value}"));
        }
        command.args(options.subject());
        command.env("KUBECONFIG", kubeconfig).stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        println!("the suite runs; its log is {}", log.display());
        Ok(Suite { child, log, report, told: 0, results: BTreeMap::new() })
    }

    /// Prints which tests have begun, and gives its status if it has ended.
    pub fn follow(&mut self) -> Result<Option<ExitStatus>> {
        let ended = self.child.try_wait()?;
        let text = String::from_utf8_lossy(&std::fs::read(&self.log)?).into_owned();
        let (complete, _) = text.rsplit_once('\n').unwrap_or_default();
        for line in complete.lines().skip(self.told) {
            self.told += 1;
            if let Some((test, outcome)) = result(line) {
                self.results.insert(test.to_owned(), outcome);
            } else if let Some(test) = line.strip_prefix("=== RUN   TestConformance/")
                && !test.contains('/')
            {
                // Results come at the end, all at once.
                println!("    {test}");
            }
        }
        Ok(ended)
    }

    /// Prints how many tests of the suite passed, and which did not.
    pub fn summarise(&self) {
        let of = |wanted: Outcome| self.results.iter().filter(move |(_, outcome)| **outcome == wanted);
        println!("\n{} passed, {} failed", of(Outcome::Passed).count(), of(Outcome::Failed).count());
        for (test, _) in of(Outcome::Failed) {
            println!("  failed: {test}");
        }
    }

    /// The report, if there is one.
    pub fn report(&self) -> Option<&Path> {
        self.report.is_file().then_some(&self.report)
    }
}

impl Drop for Suite {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The result of a test of the suite itself, not of one of its parts, in a line of `go test -v`.
fn result(line: &str) -> Option<(&str, Outcome)> {
    let (word, rest) = line.trim().strip_prefix("--- ")?.split_once(": TestConformance/")?;
    let outcome = match word {
        "PASS" => Outcome::Passed,
        "FAIL" => Outcome::Failed,
        "SKIP" => Outcome::Skipped,
        _ => return None,
    };
    let test = rest.split(' ').next().filter(|test| !test.contains('/'))?;
    Some((test, outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_those_of_whole_tests() {
        for (line, expected) in [
            (
                "    --- PASS: TestConformance/GatewayModifyListeners (8.11s)",
                Some(("GatewayModifyListeners", Outcome::Passed)),
            ),
            ("    --- FAIL: TestConformance/A (0.00s)", Some(("A", Outcome::Failed))),
            ("    --- SKIP: TestConformance/MeshBasic (0.00s)", Some(("MeshBasic", Outcome::Skipped))),
            ("        --- PASS: TestConformance/A/part_one (8.11s)", None),
            ("--- FAIL: TestConformance (8.11s)", None),
            ("=== RUN   TestConformance/A", None),
        ] {
            assert_eq!(result(line), expected, "{line}");
        }
    }
}
